"""Exact shapes of all values, found by running the model once or twice.

Shape inference fails for data-dependent shapes (Reshape by a computed shape, exporters' Shape-Gather-Concat chains);
running does not. Two batch sizes reveal which dimensions scale with the batch, and whether the model takes batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.lookups import ids_like, lookups
from fgonnx.engine.graph.session import Session, slim
from fgonnx.errors import ModelError

Array = npt.NDArray[Any]
Dims = tuple[int, ...]

BATCH = "N"
_SHAPE_SUFFIX = "::fg_shape"
_MOST = 1 << 31  # numbers of an input
_CONSTANT_SIZE = 4096  # elements up to which a constant is kept
_SHORT_NAMES = {
    "float": "f32",
    "float16": "f16",
    "double": "f64",
    "bfloat16": "bf16",
    "int8": "i8",
    "uint8": "u8",
    "int16": "i16",
    "uint16": "u16",
    "int32": "i32",
    "uint32": "u32",
    "int64": "i64",
    "uint64": "u64",
    "bool": "b8",
}


@dataclass(frozen=True)
class Probe:
    """Results of one run.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shape of every value.
    constants : dict of str to numpy array
        Content of small values that depend on shapes and constants alone.
    outputs : dict of str to numpy array
        The model's outputs.
    """

    shapes: dict[str, Dims]
    constants: dict[str, Array]
    outputs: dict[str, Array]


class Prober:
    """A session that reports the shape of every value.

    Parameters
    ----------
    model : ir.Model
        The model; it is not changed.
    folder : Path, optional
        Folder of external weights.
    """

    def __init__(self, model: ir.Model, folder: Path | None = None) -> None:
        values = [v for node in model.graph for v in node.outputs if v.name and _has_shape(v)]
        try:
            self._prepare(model, folder, values)
        except ModelError:
            # Which values have a shape is onnxruntime's to say where inference has it wrong; or the model itself fails.
            types = _types(model, folder)
            arrays = [v for v in values if types[str(v.name)].startswith("tensor(")]
            if len(arrays) == len(values):
                raise
            self._prepare(model, folder, arrays)

    def _prepare(self, model: ir.Model, folder: Path | None, values: list[ir.Value]) -> None:
        graph = model.graph
        untyped = [v for v in values if v.type is None]
        self.outputs = [str(v.name) for v in graph.outputs]
        self.constants = [str(v.name) for v in _shape_only(graph) if v.name]
        self._shapes = [f"{v.name}{_SHAPE_SUFFIX}" for v in reversed(values)]
        known = {str(v.name): v.type for v in values}
        written = slim(model)
        proto = written.proto.graph
        del proto.value_info[:]
        for declared in proto.output:
            if declared.type.HasField("tensor_type"):
                declared.type.tensor_type.ClearField("shape")
        # onnxruntime runs the last nodes first: a value is freed as soon as its shape is taken.
        for name, v in zip(self._shapes, reversed(values), strict=True):
            proto.node.add(op_type="Shape", input=[str(v.name)], output=[name])
            proto.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
        for name in dict.fromkeys([*self.constants, *(str(v.name) for v in untyped)]):
            if name not in self.outputs:
                proto.output.append(ir.to_proto(ir.Value(name=name, type=known[name])))
        self._session = Session(written, folder=folder, providers=["cpu"], optimise=False)
        #: Element types that only onnxruntime's own inference knows (operators outside the standard).
        self.types = {str(v.name): _data_type(self._session.types[str(v.name)]) for v in untyped}

    def run(self, feeds: dict[str, Array]) -> Probe:
        """Run with these inputs."""
        results = self._session.run(feeds, list(dict.fromkeys([*self._shapes, *self.constants, *self.outputs])))
        shapes = {n.removesuffix(_SHAPE_SUFFIX): tuple(int(d) for d in results[n]) for n in self._shapes}
        shapes.update({name: array.shape for name, array in feeds.items()})
        return Probe(
            shapes,
            {n: results[n] for n in self.constants if results[n].size <= _CONSTANT_SIZE},
            {n: results[n] for n in self.outputs},
        )


def _types(model: ir.Model, folder: Path | None) -> dict[str, str]:
    """Return the types of all values, as onnxruntime writes them."""
    written = slim(model)
    outputs = written.proto.graph.output
    for name in (str(v.name) for node in model.graph for v in node.outputs if v.name and not v.is_graph_output()):
        outputs.add(name=name)
    return Session(written, folder=folder, providers=["cpu"], optimise=False).types


def _has_shape(v: ir.Value) -> bool:
    """Tell whether onnxruntime's Shape supports the type of a value: not float8, nothing below 8 bits."""
    if not isinstance(v.type, ir.TensorType):
        return v.type is None
    if v.type.dtype == ir.DataType.STRING:
        return True
    return v.type.dtype.bitwidth >= (16 if v.type.dtype.is_floating_point() else 8)


def _data_type(text: str) -> ir.DataType | None:
    """Return the element type that onnxruntime writes as tensor(float), tensor(uint8), ...; None for other kinds."""
    kind = text.removeprefix("tensor(").removesuffix(")")
    return ir.DataType.from_short_name(_SHORT_NAMES[kind]) if kind in _SHORT_NAMES else None


def _shape_only(graph: ir.Graph) -> list[ir.Value]:
    """Return the values that depend on shapes and constants alone, and may be needed as numbers.

    Floating-point results of rank 2 or more (weights computed in the graph) are left out.
    """
    known: set[ir.Value] = set(graph.initializers.values())
    found: list[ir.Value] = []
    for node in graph:
        inputs = [v for v in node.inputs if v is not None]
        if node.op_type in ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"):
            continue
        if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        if node.op_type in ("Shape", "Size") or all(v in known for v in inputs):
            known.update(node.outputs)
            for v in node.outputs:
                floating = v.dtype is None or v.dtype.is_floating_point()
                small = v.shape is not None and v.shape.rank() <= 1
                if (not floating or small) and isinstance(v.type, ir.TensorType | None):
                    found.append(v)
    return found


def random_feeds(graph: ir.Graph, x: ir.Value, shape: Dims, batch: int, seed: int = 0) -> dict[str, Array]:
    """Return seeded inputs for a probe: uniform in 0..1 for floats, zeros for others.

    Parameters
    ----------
    graph : ir.Graph
        The graph.
    x : ir.Value
        The explained input.
    shape : tuple of int
        Its shape for one sample, batch axis included.
    batch : int
        Batch size; samples of a larger batch begin with those of a smaller one.

    Raises
    ------
    ModelError
        If the input holds no numbers, or one is too large to be made.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        if value is x:
            dims = shape if batch == 1 else (batch, *shape[1:])
        else:
            declared = value.shape.dims if value.shape is not None else ()
            dims = tuple(d if isinstance(d, int) else (batch if i == 0 else 1) for i, d in enumerate(declared))
        if math.prod(dims) > _MOST or (value is x and 0 in dims):
            raise ModelError(
                f"its input '{value.name}' of the shape ({', '.join(map(str, dims))}) "
                + ("holds no numbers" if 0 in dims else f"holds more than {_MOST:,} numbers")
                + "; export the model with other sizes"
            )
        dtype = value.dtype or ir.DataType.FLOAT
        if dtype.is_floating_point():
            array = floats(rng, graph, value, dims)
        else:
            array = whole_numbers(rng, graph, value, dims, x)
        feeds[str(value.name)] = array
    return feeds


def floats(rng: np.random.Generator, graph: ir.Graph, value: ir.Value, dims: Sequence[int]) -> Array:
    """Return numbers for a floating-point input: uniform in 0..1, or ids where it holds them."""
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    if lookups(graph, value):
        ids = ids_like(graph, value)
        return rng.integers(ids.start, ids.stop, tuple(dims)).astype(dtype)
    return rng.uniform(0.0, 1.0, tuple(dims)).astype(dtype)


def whole_numbers(
    rng: np.random.Generator, graph: ir.Graph, value: ir.Value, dims: Sequence[int], x: ir.Value
) -> Array:
    """Return whole numbers for an input: of the explained one ids that it may hold, or grey levels; else zeros.

    A mask beside ids hides nothing: it is ones.
    """
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    if value is x:
        ids = ids_like(graph, x)
        return rng.integers(ids.start, ids.stop, tuple(dims)).astype(dtype)
    beside = x.dtype is not None and x.dtype.is_integer() and "mask" in str(value.name).lower()
    return np.ones(dims, dtype) if beside else np.zeros(dims, dtype)


def merge(one: Probe, two: Probe) -> dict[str, tuple[int | ir.SymbolicDim, ...]] | None:
    """Combine runs at batch 1 and 2 into dimensions: integers, or symbols where they scale with the batch.

    Returns None where a shape depends on the batch in any other way.
    """
    # Windows folded into the batch, with 64 per sample: (64, 49, C) at batch 1 and (128, 49, C) at batch 2 merge to
    # (64*N, 49, C). A dimension is constant where a = b, k N with k = a where b = 2 a; anything else, such as 2 and 3,
    # is not proportional to the batch.
    merged: dict[str, tuple[int | ir.SymbolicDim, ...]] = {}
    for name, first in one.shapes.items():
        second = two.shapes[name]
        if len(first) != len(second):
            return None
        dims: list[int | ir.SymbolicDim] = []
        for a, b in zip(first, second, strict=True):
            if a == b:
                dims.append(a)
            elif b == 2 * a:
                dims.append(ir.SymbolicDim(BATCH if a == 1 else f"{a}*{BATCH}"))
            else:
                return None
        merged[name] = tuple(dims)
    return merged


def batch_factor(dim: int | ir.SymbolicDim) -> int:
    """Return k for a dimension k N, 0 for one that does not depend on the batch."""
    if isinstance(dim, int):
        return 0
    text = str(dim.value)
    return 1 if text == BATCH else int(text.split("*")[0])
