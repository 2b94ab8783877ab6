"""Inputs of a model fixed to a value before it is explained: sampling rates, states, masks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import OptionError
from fgonnx.fields import pairs
from fgonnx.files import read_array

Array = npt.NDArray[Any]


def bind(loaded: LoadedModel, values: Mapping[str, Any] | None) -> LoadedModel:
    """Fix inputs of a model: sampling rates, states of recurrent layers, masks.

    They become weights of the graph, so that what depends on them alone is known when the model is rewritten: the
    branch of an If, the number of steps of a Loop.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    values : mapping of str to number or array
        By the name of the input. A number fills the input's shape, whose free sizes become 1.

    Returns
    -------
    LoadedModel
        Without those inputs.

    Raises
    ------
    OptionError
        There is no such input, or the value does not fit it.
    """
    if not values:
        return loaded
    model = loaded.ir.clone()
    graph = model.graph
    bound = dict(loaded.bound)
    for name, value in values.items():
        face = next((v for v in graph.inputs if v.name == name), None)
        if face is None or face.dtype is None or face.shape is None:
            names = ", ".join(str(v.name) for v in graph.inputs)
            raise OptionError(f"{loaded.name}: has no input '{name}' that could be bound; it has: {names}")
        array = _fixed(loaded.name, face, value)
        graph.inputs.remove(face)
        face.const_value = ir.tensor(array, name=name)
        face.shape = ir.Shape(array.shape)
        graph.register_initializer(face)
        bound[name] = described(array)
    if not any(v.name not in graph.initializers for v in graph.inputs):
        raise OptionError(f"{loaded.name}: all of its inputs are bound; one must be left to explain")
    return replace(loaded, ir=model, bound=bound)


def parse(texts: Sequence[str]) -> dict[str, Any]:
    """Read what is typed: NAME=VALUE with a number, ``zeros``, or a ``.npy`` file.

    Raises
    ------
    OptionError
        A text is not of that form, or its file cannot be read.
    """
    found: dict[str, Any] = {}
    for name, value in pairs(texts, "sr=16000, state=zeros or mask=mask.npy").items():
        if value.lower().endswith(".npy"):
            found[name] = read_array(value)
            continue
        try:
            found[name] = 0 if value == "zeros" else int(value) if re.fullmatch(r"[+-]?\d+", value) else float(value)
        except ValueError:
            raise OptionError(f"'{name}={value}': the value is neither a number, nor zeros, nor a .npy file") from None
    return found


def described(array: Array) -> str:
    """Say what an array is: type, shape, and its only number or the hash of its content."""
    if array.size and (array == array.flat[0]).all():
        content = f"all {array.flat[0]}" if array.ndim else str(array[()])
    else:
        content = f"sha256 {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    return f"{array.dtype} {list(array.shape)}, {content}" if array.ndim else f"{array.dtype} {content}"


def _fixed(where: str, face: ir.Value, value: Any) -> Array:
    dims, wanted = dims_of(face), dtype_of(face).numpy()
    array = np.asarray(value)
    if array.ndim == 0:
        array = np.full([d if isinstance(d, int) else 1 for d in dims], array)
    shape = ", ".join(str(d if isinstance(d, int) else "?") for d in dims)
    if len(dims) != array.ndim or any(isinstance(d, int) and d != s for d, s in zip(dims, array.shape, strict=True)):
        raise OptionError(f"{where}: the input '{face.name}' has the shape ({shape}), its bound value {array.shape}")
    if array.dtype.kind in "biuf":
        cast = array.astype(wanted)
        if (array.dtype.kind == "f" and cast.dtype.kind == "f") or (cast == array).all():
            return cast
    raise OptionError(f"{where}: the input '{face.name}' is {wanted}; its bound value does not fit that type")
