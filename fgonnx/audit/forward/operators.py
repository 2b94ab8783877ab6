"""Operators of the standard in real numbers: `onnx.reference` in float64, onnxruntime where that would take minutes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fgonnx.engine.graph.session import Session

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# Linear in their first input, and slow in the reference.
_LARGE = ("AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "MaxPool", "Resize", "Upsample")


class Unmeasured(Exception):  # noqa: N818  - no error: the witness does not reach so far
    """What is in the way of a slope taken forwards."""


class Operators:
    """Computes single nodes of a model.

    Parameters
    ----------
    opsets : mapping of str to int
        The operator sets of the model.
    """

    def __init__(self, opsets: Mapping[str, int]) -> None:
        sets = {"com.microsoft": 1, "com.microsoft.nchwc": 1, **opsets}
        self._opsets = [helper.make_opsetid(domain, version) for domain, version in sets.items()]
        self._known: dict[tuple[bytes, tuple[str, ...]], Any] = {}
        self._in_single: set[bytes] = set()

    def single(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node is computed by onnxruntime, in single precision."""
        return node.op_type in _LARGE or bool(node.domain) or node.SerializeToString() in self._in_single

    def prefer_single(self, node: onnx.NodeProto) -> None:
        """Compute a node by onnxruntime from now on."""
        self._in_single.add(node.SerializeToString())

    def __call__(self, node: onnx.NodeProto, inputs: Sequence[Array | None], outputs: int = 1) -> list[Array]:
        """Return the first outputs of a node, computed in real numbers.

        Raises
        ------
        Unmeasured
            Neither of the two computes it.
        """
        while True:
            single = self.single(node)
            try:
                return self._run(node, inputs, outputs, single=single)
            except Exception as error:  # the reference has exceptions of every kind
                if single:
                    name = node.name or node.output[0]
                    raise Unmeasured(f"nothing computes '{name}' ({node.op_type}) in real numbers") from error
                self.prefer_single(node)

    def _run(self, node: onnx.NodeProto, inputs: Sequence[Array | None], outputs: int, *, single: bool) -> list[Array]:
        given = [None if a is None else _widened(a, np.float32 if single else np.float64) for a in inputs]
        types = tuple("" if a is None else str(a.dtype) for a in given)
        key = (node.SerializeToString(), (*types, str(outputs), str(single)))
        feeds = {f"i{i}": a for i, a in enumerate(given) if a is not None}
        if key not in self._known:
            model = self._alone(node, given, outputs, TensorProto.FLOAT if single else TensorProto.DOUBLE)
            self._known[key] = Session(model, providers=["cpu"], threads=1) if single else _reference(model)
        run = self._known[key]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = list(run.run(feeds).values()) if single else run.run(None, feeds)
        return [np.asarray(a) for a in found]

    def _alone(self, node: onnx.NodeProto, inputs: Sequence[Array | None], outputs: int, real: int) -> onnx.ModelProto:
        one = onnx.NodeProto()
        one.CopyFrom(node)
        del one.input[:], one.output[:]
        one.input.extend("" if a is None else f"i{i}" for i, a in enumerate(inputs))
        one.output.extend(f"o{i}" for i in range(outputs))
        for a in one.attribute:
            if a.name in ("to", "stash_type") and a.i in _FLOATS:
                a.i = real
            elif a.type == onnx.AttributeProto.TENSOR and a.t.data_type in _FLOATS:
                a.t.CopyFrom(
                    numpy_helper.from_array(
                        numpy_helper.to_array(a.t).astype(helper.tensor_dtype_to_np_dtype(real)), a.t.name
                    )
                )
        values = [
            helper.make_tensor_value_info(f"i{i}", helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for i, a in enumerate(inputs)
            if a is not None
        ]
        made = [helper.make_empty_tensor_value_info(f"o{i}") for i in range(outputs)]
        graph = helper.make_graph([one], "one", values, made)
        return helper.make_model(graph, opset_imports=self._opsets, ir_version=8)


def _reference(model: onnx.ModelProto) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model)


def _widened(array: Array, to: Any) -> Array:
    return array.astype(to) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


@lru_cache(maxsize=256)
def plain(op_type: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node of the standard, without inputs."""
    return helper.make_node(op_type, [], [op_type], **attributes)
