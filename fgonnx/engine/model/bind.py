"""Bind inputs of a model to values before it is explained: sampling rates, states, masks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.engine.model.inputs import described as inputs_described
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import OptionError
from fgonnx.fields import pairs
from fgonnx.files import read_named
from fgonnx.wording import near, parameter, whole

Array = npt.NDArray[Any]


def bind(
    loaded: LoadedModel,
    values: Mapping[str, Any] | None,
    shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
) -> LoadedModel:
    """Bind inputs of a model to values: sampling rates, states of recurrent layers, masks.

    They become the inputs' default values, so that values that depend on them alone are known when the model is
    rewritten: the branch of an If, the number of iterations of a Loop. As they stay inputs, onnxruntime does not fold
    them in the model itself; its folding of an If by a constant condition fails or crashes on nested branches.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    values : mapping of str to number or array
        Keys are names of inputs. A number fills the input's shape, in which one size may be free and becomes 1: that
        of the batch.
    shapes : mapping of str to sequence of int, or sequence of int, optional
        Shapes by the name of their input, which a number fills; a shape without a name is of the explained input.

    Returns
    -------
    LoadedModel
        The model, in which those inputs need no value.

    Raises
    ------
    OptionError
        There is no such input, or the value does not match its shape or type.
    """
    if not values:
        return loaded
    model = loaded.ir.clone()
    graph = model.graph
    bound = dict(loaded.bound)
    named = shapes if isinstance(shapes, Mapping) else {}
    for name, value in values.items():
        graph_input = next((v for v in graph.inputs if v.name == name and name not in loaded.bound), None)
        if graph_input is None or graph_input.dtype is None or graph_input.shape is None:
            names = [str(v.name) for v in free_inputs(graph)]
            raise OptionError(
                f"{loaded.name}: has no input '{name}' that could be bound; it has: "
                f"{', '.join(names)}{near(name, names)}"
            )
        others = [v for v in free_inputs(graph) if v is not graph_input and v.shape is not None]
        lengths = {d.value for v in others for d in dims_of(v)[1:] if not isinstance(d, int)}
        lengths -= {d.value for v in graph.inputs for d in dims_of(v)[:1] if not isinstance(d, int)}
        array = fixed(loaded.name, graph_input, value, named.get(name), lengths)
        graph_input.const_value = ir.tensor(array, name=name)
        graph_input.shape = ir.Shape(array.shape)
        graph.register_initializer(graph_input)
        bound[name] = described(array)
    if not free_inputs(graph):
        raise OptionError(f"{loaded.name}: all of its inputs are bound; one must be left to explain")
    return replace(loaded, ir=model, bound=bound)


def with_sizes(loaded: LoadedModel, shapes: Mapping[str, Sequence[int]]) -> LoadedModel:
    """Fix the free sizes of inputs, behind their first axis, to those of arrays.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    shapes : mapping of str to sequence of int
        Shapes of arrays, by the name of their input.
    """
    if not shapes:
        return loaded
    model = loaded.ir.clone()
    for v in model.graph.inputs:
        if (name := str(v.name)) in shapes:
            v.shape = ir.Shape([*dims_of(v)[:1], *shapes[name][1:]])
    return replace(loaded, ir=model)


def with_given_sizes(loaded: LoadedModel, explained: ir.Value, shapes: Mapping[str, Sequence[int]]) -> LoadedModel:
    """Fix the free sizes of inputs beside the explained one to those that are given.

    A 1 in the place of the batch, or of an axis that the explained input has too, leaves that axis as it is. Bound
    inputs have the shapes of their values.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    explained : ir.Value
        The explained input.
    shapes : mapping of str to sequence of int
        Shapes in the inputs' own order of axes.

    Raises
    ------
    OptionError
        There is no such input, or it has other sizes.
    """
    if not shapes:
        return loaded
    model = loaded.ir.clone()
    inputs = {str(v.name): v for v in free_inputs(model.graph)}
    shared = {d.value for d in dims_of(explained) if not isinstance(d, int) and d.value is not None}
    for name, sizes in shapes.items():
        if name in loaded.bound:  # `bind` has seen to its shape
            continue
        if name not in inputs:
            raise OptionError(
                f"{loaded.name}: has no input '{name}' that could be given a shape; it has: "
                f"{', '.join(inputs)}{near(name, list(inputs))}"
            )
        v = inputs[name]
        dims = v.shape.dims if v.shape is not None else ()
        if len(sizes) != len(dims) or any(
            isinstance(d, int) and d != s and i > 0 for i, (d, s) in enumerate(zip(dims, sizes, strict=True))
        ):
            raise OptionError(f"{loaded.name}: the shape {tuple(sizes)} does not fit its input {inputs_described([v])}")
        v.shape = ir.Shape(
            [
                d if isinstance(d, int) or (s == 1 and (i == 0 or d.value in shared)) else int(s)
                for i, (d, s) in enumerate(zip(dims, sizes, strict=True))
            ]
        )
    return replace(loaded, ir=model)


def _fits(dims: Sequence[Any], sizes: Sequence[int]) -> bool:
    return len(sizes) == len(dims) and all(not isinstance(d, int) or d == s for d, s in zip(dims, sizes, strict=True))


def parse(texts: Sequence[str]) -> dict[str, Any]:
    """Parse bindings NAME=VALUE, where VALUE is a number, ``zeros``, or a ``.npy`` file.

    Raises
    ------
    OptionError
        A text does not have that form, or its file cannot be read.
    """
    found: dict[str, Any] = {}
    for name, value in pairs(texts, "sr=16000, state=zeros or mask=mask.npy").items():
        if value.lower().endswith(".npy"):
            found[name] = read_named(value)
            continue
        try:
            exact = 0 if value == "zeros" else whole(value)
            found[name] = float(value) if exact is None else exact
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


def fixed(
    where: str,
    graph_input: ir.Value,
    value: Any,
    given: Sequence[int] | None = None,
    lengths: Collection[str | None] = (),
) -> Array:
    """Return the array of a bound value.

    Parameters
    ----------
    where : str
        The model, for messages.
    graph_input : ir.Value
        The input.
    value : number or array
        What it is bound to.
    given : sequence of int, optional
        The shape that the input is to have.
    lengths : collection of str or None
        Free sizes of other inputs, behind their batch.

    Raises
    ------
    OptionError
        Shapes or types do not match, or a number does not tell the sizes.
    """
    dims, wanted = dims_of(graph_input), dtype_of(graph_input).numpy()
    array = np.asarray(value)
    free = [d for d in dims if not isinstance(d, int)]
    if given is not None and not _fits(dims, given):
        raise OptionError(f"{where}: the shape {tuple(given)} does not fit its input {inputs_described([graph_input])}")
    if array.ndim == 0 and given is not None:
        array = np.full(given, array)
    if given is not None and array.shape != tuple(given):
        raise OptionError(
            f"{where}: the input '{graph_input.name}' is given the shape {tuple(given)}, its bound value {array.shape}"
        )
    if array.ndim == 0 and (len(free) > 1 or any(d.value is not None and d.value in lengths for d in free)):
        shape = ", ".join(str(d if isinstance(d, int) else d.value or "?") for d in dims)
        example = {str(graph_input.name): tuple(d if isinstance(d, int) else 1 for d in dims)}
        raise OptionError(
            f"{where}: the input '{graph_input.name}' has the free sizes ({shape}), which a single number does not "
            f"tell; give them ({parameter('input_shape', example)}), or bind it to an array of the sizes "
            f"that it is to have, as {graph_input.name}=values.npy"
        )
    if array.ndim == 0:
        array = np.full([d if isinstance(d, int) else 1 for d in dims], array)
    shape = ", ".join(str(d if isinstance(d, int) else "?") for d in dims)
    if len(dims) != array.ndim or any(isinstance(d, int) and d != s for d, s in zip(dims, array.shape, strict=True)):
        raise OptionError(
            f"{where}: the input '{graph_input.name}' has the shape ({shape}), its bound value {array.shape}"
        )
    if array.dtype.kind in "biuf":
        with np.errstate(invalid="ignore", over="ignore"):  # what does not fit is said below
            cast = array.astype(wanted)
        if (array.dtype.kind == "f" and cast.dtype.kind == "f") or (cast == array).all():
            return cast
    raise OptionError(f"{where}: the input '{graph_input.name}' is {wanted}; its bound value does not fit that type")
