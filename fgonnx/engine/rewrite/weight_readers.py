"""What a written file's products read as weights, found by following the entries of every initializer.

This judges what `own_weights` and `unpacked` write without asking how: two products may share weights where they make
the same matrix of them, entry by entry, or matrices of different sizes.
"""

from __future__ import annotations

import math
import string
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fgonnx.engine.graph.emit import PREFIX

Entries = npt.NDArray[np.int64]

_VIEWS = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_PACKED = ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
_WIDER = ("INT16", "UINT16", "INT32")
_INTEGERS = {getattr(onnx.TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (4, 8, 16, 32, 64)}


class _Readers:
    """The nodes of a graph, which values are computed of weights alone, and the shapes that are known."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = graph.node
        self.producers = {name: node for node in graph.node for name in node.output}
        inputs = {v.name for v in graph.input}
        self.varying = set(inputs)
        for node in graph.node:
            captured = (n for a in node.attribute if a.HasField("g") for inner in a.g.node for n in inner.input)
            if any(name in self.varying for name in (*node.input, *captured)):
                self.varying.update(node.output)
        self.types = {t.name: t.data_type for t in graph.initializer if t.name not in inputs}
        self.shapes = {t.name: tuple(t.dims) for t in graph.initializer}
        for v in (*graph.value_info, *graph.output):
            kind = v.type.tensor_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                self.shapes.setdefault(v.name, tuple(d.dim_value for d in kind.shape.dim))
            if kind.elem_type:
                self.types.setdefault(v.name, kind.elem_type)

    def factors(self) -> Iterator[tuple[onnx.NodeProto, int, str]]:
        """Yield every product with each of its factors that is computed of weights alone."""
        for node in self.nodes:
            if node.domain or node.op_type not in ("Einsum", "Gemm", "MatMul"):
                continue
            for i, name in enumerate(node.input if node.op_type == "Einsum" else node.input[:2]):
                if name and name not in self.varying:
                    yield node, i, name


def shared_weights(graph: onnx.GraphProto) -> list[str]:
    """Return the products that make another matrix of the same size of weights than the first one that reads them.

    Parameters
    ----------
    graph : onnx.GraphProto
        A graph with the shapes that onnx infers.
    """
    readers = _Readers(graph)
    by_source = defaultdict(list)
    for node, i, name in readers.factors():
        chain = []
        while name in readers.producers and readers.producers[name].op_type in _VIEWS:
            chain.append(readers.producers[name])
            name = chain[-1].input[0]
        by_source[name].append((node, i, chain[::-1]))
    found = []
    for source, uses in by_source.items():
        if len(uses) < 2:
            continue
        known: dict[object, Entries] = {}
        alike = len({(n.op_type, i, *map(str, n.attribute), *map(_step, chain)) for n, i, chain in uses}) == 1
        for node, i, chain in uses if not alike else ():
            matrix = _matrix(node, i, _viewed(readers, source, chain))
            if matrix is None or not np.array_equal(known.setdefault((min(i, 1), matrix.shape), matrix), matrix):
                found.append(f"{node.op_type} '{node.name}' shares weights with another product")
    return found


def _step(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {list(node.input[1:])} {list(map(str, node.attribute))}"


def _viewed(readers: _Readers, source: str, chain: list[onnx.NodeProto]) -> Entries | None:
    """Return which entry of the weights stands where behind views, None where a shape is not known."""
    if source not in readers.shapes:
        return None
    shape = readers.shapes[source]
    entries = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    for node in chain:
        if node.op_type == "Transpose":
            entries = entries.transpose(_attributes(node).get("perm"))
        elif node.output[0] in readers.shapes:
            entries = entries.reshape(readers.shapes[node.output[0]])
        elif node.op_type not in ("Cast", "Identity"):
            return None
    return entries


def _matrix(node: onnx.NodeProto, i: int, entries: Entries | None) -> Entries | None:
    """Return the entries as (matrices, summed over, kept)."""
    if entries is None:
        return None
    given = _attributes(node)
    if node.op_type == "Einsum":
        terms, given_result, result = given["equation"].decode().replace(" ", "").partition("->")
        letters = terms.split(",")
        if not given_result:
            result = "".join(c for c in terms if terms.count(c) == 1 or c == ".")
        if "..." in letters[i]:
            batch = string.ascii_uppercase[: entries.ndim - len(letters[i]) + 3]
            letters, result = [t.replace("...", batch) for t in letters], result.replace("...", batch)
        if len(letters[i]) != entries.ndim:
            return None
        others = set("".join(t for j, t in enumerate(letters) if j != i))
        groups: list[list[int]] = [[], [], []]
        for axis, letter in enumerate(letters[i]):
            groups[1 if letter not in result else 0 if letter in others else 2].append(axis)
        sizes = [math.prod(entries.shape[a] for a in axes) for axes in groups]
        return entries.transpose([a for axes in groups for a in axes]).reshape(sizes)
    if entries.ndim < 2:
        entries = entries.reshape(-1, 1)
    crossed = bool(given.get(("transA", "transB")[i])) != (i == 0)
    if crossed:
        entries = entries.swapaxes(-1, -2)
    return entries.reshape(-1, *entries.shape[-2:])


def packed_weights(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes that read integers as real numbers in one step, but for layers that compute in integers.

    Parameters
    ----------
    graph : onnx.GraphProto
        A graph with the types that onnx infers.
    """
    readers = _Readers(graph)
    numbers = dict(onnx.TensorProto.DataType.items())
    packed = {numbers[name] for name in _PACKED if name in numbers}
    kinds = {"Cast": packed, "DequantizeLinear": packed.union(numbers[name] for name in _WIDER)}
    real = {
        node.output[0]: node
        for node in graph.node
        if node.op_type in ("Cast", "DequantizeLinear")
        and node.domain in ("", "com.microsoft")
        and readers.types.get(node.input[0]) in kinds[node.op_type]
        and node.output[0] not in readers.varying
        and (node.op_type == "DequantizeLinear" or _attributes(node)["to"] not in _INTEGERS)
    }
    found = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in real and not _in_integers(readers, node, i, real[name]):
                found.append(f"{node.op_type} '{node.name}' reads packed weights")
    return found


def _in_integers(readers: _Readers, node: onnx.NodeProto, i: int, weights: onnx.NodeProto) -> bool:
    """Tell whether a node of the source multiplies dequantised values by weights whose scales go into its results."""
    before = readers.producers.get(node.input[0])
    if node.name.startswith(PREFIX) or i not in (1, 2) or before is None or before.op_type != "DequantizeLinear":
        return False
    if node.input[0] not in readers.varying:
        return False
    scales, shape = readers.shapes.get(weights.input[1]), readers.shapes.get(weights.input[0])
    if scales is None or shape is None:
        return False
    if node.op_type in ("Conv", "ConvTranspose") or math.prod(scales) == 1 or (node.op_type == "Gemm" and i == 2):
        return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    kept = 0 if _attributes(node).get("transB") else len(shape) - 1
    axis = _attributes(weights).get("axis", 1) % len(shape)
    return node.op_type in ("Gemm", "MatMul") and len(scales) == 1 and axis == kept


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
