"""Match the layers of two models, and find where their values diverge.

Layers with weights (convolutions, dense layers) are matched by name and weight shape, in the order in which the head
depends on them. Input and output of such a layer, before its activation, are the points at which the models are
compared, in real numbers: for a quantised model, its floating-point twins. Between the two points of a layer are its
weights; between two layers are activations, sums, and rounding. So it does not matter that a quantiser has folded a
Relu into its range or a normalisation into weights.

A propagated difference grows or shrinks, which hides where it arose. Therefore the second model is also run with every
point set to the value of the *first* model: what a segment between points then adds is its own error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.audit.comparison.measures import relative
from fgonnx.engine.graph.probe import batch_factor
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dims_of, inputs_of, required
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.cut import fetch, force
from fgonnx.engine.normal.normalise import Normal, normalise
from fgonnx.engine.normal.tie import DOMAIN
from fgonnx.engine.rewrite.head import find_head
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.walk import backward

Array = npt.NDArray[Any]

HEAD, READS, GIVES = "head", "reads", "gives"

# Suffixes that quantisers append to names of nodes: onnxruntime's, and tf2onnx's for TFLite.
_APPENDED = re.compile(r"(_MatMul)?(_quant|_quantized|_prequant|_QuantizeLinear|_DequantizeLinear)$")
_WITHOUT_EFFECT = ("StraightThrough", "Identity", "Cast")


@dataclass(frozen=True)
class Point:
    """A pair of values at which two models are compared.

    Attributes
    ----------
    name : str
        The node of the first model that computes it.
    other : str
        The node of the second model.
    op_type : str
        Operator of the first model's node.
    where : {"reads", "gives", "head"}
        Whether the value is the input of a layer with weights, its output (before the activation), or the head.
    layer : str
        The layer with weights, in the first model; the name of the head for the last point.
    """

    name: str
    other: str
    op_type: str
    where: str
    layer: str


@dataclass(frozen=True)
class _Layer:
    """A layer with weights: its input, its output with and without bias, and the key it is matched by.

    Where a fused operator adds the bias later, to the skip connection, `gives` is the same as `bare`.
    """

    node: ir.Node
    source: str
    reads: ir.Value
    gives: ir.Value
    bare: ir.Value
    key: tuple[Any, ...]
    stem: str


class Side:
    """One of the two models in normal form, restricted to the path from input to head.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    options : Options
        Which input, output and head to use.
    """

    def __init__(self, loaded: LoadedModel, options: Options) -> None:
        self.folder = loaded.folder
        self.normal: Normal = normalise(
            loaded,
            input_name=options.input,
            input_shape=options.explained_shape,
            layout=options.layout,
            output=options.output,
        )
        graph = self.normal.model.graph
        nodes = list(graph)
        self.head, _ = find_head(self.normal, options, loaded)
        self.active = backward.active_values(nodes, [self.normal.x])
        self.path = backward.path(nodes, self.active, self.head)
        self._uses: dict[ir.Value, list[ir.Node]] = {}
        for node in self.path:
            for v in node.inputs:
                if v is not None:
                    self._uses.setdefault(v, []).append(node)
        self.layers = [self._layer(n) for n in self._ordered() if self._has_weights(n)]

    def source(self, v: ir.Value) -> str:
        """Return the node of the model as it was given that a value comes from, or "" where a twin has none."""
        node = v.producer()
        if node is None:
            return self.normal.input_name
        return self.normal.origin.get(v, str(node.name))

    def _ordered(self) -> list[ir.Node]:
        """Return the path in the order in which the head depends on it.

        Unlike the order of nodes in a file, it depends on the graph alone, not on the exporter.
        """
        on_path = set(self.path)
        order: list[ir.Node] = []
        seen: set[ir.Node] = set()
        last = self.head.producer()
        stack = [(last, False)] if last is not None and last in on_path else []
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
                continue
            if node in seen:
                continue
            seen.add(node)
            stack.append((node, True))
            for v in reversed(inputs_of(node)):
                producer = v.producer()
                if producer is not None and producer in on_path and producer not in seen:
                    stack.append((producer, False))
        return order

    def _has_weights(self, node: ir.Node) -> bool:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain:
            return False
        data, weight = node.inputs[:2]
        known = weight is not None and weight.shape is not None and weight.shape.is_static()
        return known and data in self.active and weight not in self.active

    def _layer(self, node: ir.Node) -> _Layer:
        data, dims = required(node, 0), [int(d) for d in dims_of(required(node, 1)) if isinstance(d, int)]
        dense = node.op_type in ("Gemm", "MatMul")
        source = self.source(node.outputs[0]) or str(node.name)
        # Integer products read q - z; its twin is s (q - z), and s differs from sample to sample.
        data = self.normal.unscaled.get(data, data)
        key = ("dense", *sorted(dims)) if dense else (node.op_type, *dims)
        return _Layer(node, source, data, *self._linear_end(node), key, _stem(source))

    def _linear_end(self, node: ir.Node) -> tuple[ir.Value, ir.Value]:
        """Return the value after a layer's bias and normalisation, which may be separate nodes; and the one before."""
        end = bare = value = node.outputs[0]
        scaled = node.inputs[0] in self.normal.unscaled
        channels = {int(d) for d in value.shape.dims if isinstance(d, int)} if value.shape is not None else set()
        while len(users := self._uses.get(value, [])) == 1:
            user = users[0]
            others = [v for v in user.inputs if v is not None and v is not value]
            if user.op_type == "BatchNormalization" or (
                user.op_type in ("Add", "Sub", "Mul", "Div")
                and len(others) == 1
                # A constant per channel is a bias or a normalisation, a single number is part of an activation.
                and (_size(others[0]) in channels - {1} or (scaled and user.op_type == "Mul"))
                and others[0] not in self.active
            ):
                bare = user.outputs[0] if bare is end and scaled and user.op_type == "Mul" else bare
                end = value = user.outputs[0]
            elif user.op_type in _WITHOUT_EFFECT:
                value = user.outputs[0]
            else:
                break
        return end, bare


@dataclass(frozen=True)
class _Pair:
    point: Point
    a: ir.Value
    b: ir.Value


@dataclass(frozen=True)
class Measured:
    """Differences of two models at every point, for one sample.

    Attributes
    ----------
    error : numpy array, (points,)
        `||a - b|| / ||a||`: the accumulated error.
    added : numpy array, (points,)
        The same with all other points of the second model set to the first one's values: the error of this segment.
    head_a, head_b : numpy array, (entries,)
        The heads of the models, before a final Softmax or Sigmoid if the options say so.
    """

    error: npt.NDArray[np.float64]
    added: npt.NDArray[np.float64]
    head_a: Array
    head_b: Array


class Alignment:
    """The points that two models have in common, with sessions to compare them.

    Parameters
    ----------
    a, b : Side
        The models. Their graphs are modified.
    running : Running
        How both run.

    Attributes
    ----------
    points : tuple of Point
        In the order of the second model, the head last.
    segments : pair of dict of str to int
        For either model, the first point that each node leads to, by the node's name.
    unmatched : pair of int
        Number of layers with weights without a counterpart in the other model.
    """

    def __init__(self, a: Side, b: Side, *, running: Running) -> None:
        matched = _matched(a.layers, b.layers)
        self.unmatched = len(a.layers) - len(matched), len(b.layers) - len(matched)
        pairs = list(_pairs(a, b, matched))
        position = {v: i for i, node in enumerate(b.path) for v in node.outputs}
        pairs.sort(key=lambda p: (p.point.where == HEAD, position.get(p.b, -1)))
        self.points = tuple(p.point for p in pairs)
        values = [p.a for p in pairs], [p.b for p in pairs]
        self.segments = _segments(values[0]), _segments(values[1])

        def session(side: Side, model: ir.Model) -> Session:
            return running.session(model, side.folder)

        copy = b.normal.model.clone()
        named = {str(v.name): v for v in [*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs)]}
        self._fed, of_forced = force(copy, [named[str(v.name)] for v in values[1]])
        self._forced = session(b, copy)
        of_a, of_b = (fetch(side.normal.model, mine) for side, mine in zip((a, b), values, strict=True))
        self._names = list(zip(of_a, of_b, of_forced, strict=True))
        self._a, self._b = session(a, a.normal.model), session(b, b.normal.model)

    def measure(self, x_a: Mapping[str, Array], x_b: Mapping[str, Array]) -> Measured:
        """Compare the two models at every point for one sample.

        Parameters
        ----------
        x_a, x_b : mapping of str to numpy array
            The sample as each of the models takes it, by name of the input, with a batch axis of 1.
        """
        a = self._a.run(dict(x_a))
        b = self._b.run(dict(x_b))
        fed = {given: a[of_a] for given, (of_a, _, _) in zip(self._fed, self._names, strict=True)}
        forced = self._forced.run({k: v for k, v in {**x_b, **fed}.items() if k in self._forced.inputs})
        return Measured(
            np.array([_distance(a[of_a], b[of_b]) for of_a, of_b, _ in self._names]),
            np.array([_distance(a[of_a], forced[of_forced]) for of_a, _, of_forced in self._names]),
            a[self._names[-1][0]].ravel(),
            b[self._names[-1][1]].ravel(),
        )


def _matched(a: Sequence[_Layer], b: Sequence[_Layer]) -> list[tuple[_Layer, _Layer]]:
    """Return the longest common subsequence of two lists of layers; equal names count double."""

    def weight(one: _Layer, other: _Layer) -> int:
        return 0 if one.key != other.key else 2 if one.stem == other.stem else 1

    best = np.zeros((len(a) + 1, len(b) + 1), int)
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            w = weight(a[i], b[j])
            both = best[i + 1, j + 1] + w if w else 0
            best[i, j] = max(both, best[i + 1, j], best[i, j + 1])
    found = []
    i = j = 0
    while i < len(a) and j < len(b):
        w = weight(a[i], b[j])
        if w and best[i, j] == best[i + 1, j + 1] + w:
            found.append((a[i], b[j]))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return found


def _pairs(a: Side, b: Side, matched: Sequence[tuple[_Layer, _Layer]]) -> Iterator[_Pair]:
    taken: set[ir.Value] = set()

    def pair(first: ir.Value, second: ir.Value, where: str, layer: str, reader: str = "") -> Iterator[_Pair]:
        if second in taken or (where != HEAD and _per_sample(first) != _per_sample(second)):
            return
        taken.add(second)
        node = first.producer()
        yield _Pair(
            Point(
                a.source(first) or layer,
                # A twin without a source of its own converts scales: the reader takes them to be others.
                b.source(second) or reader,
                node.op_type if node is not None and node.domain != DOMAIN else "",
                where,
                layer,
            ),
            first,
            second,
        )

    yield from pair(a.head, b.head, HEAD, str(a.head.name), str(b.head.name))
    for one, other in matched:
        yield from pair(one.reads, other.reads, READS, one.source, other.source)
        yield from pair(*_ends(one, other), GIVES, one.source, other.source)


def _ends(one: _Layer, other: _Layer) -> tuple[ir.Value, ir.Value]:
    """Return what two layers give: with the bias, or without it where one of them gets it later."""
    later = [layer.gives is layer.bare and not _has_bias(layer.node) for layer in (one, other)]
    if later[0] != later[1] and not _has_bias(one.node) and not _has_bias(other.node):
        return one.bare, other.bare
    return one.gives, other.gives


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None


def _segments(values: Sequence[ir.Value]) -> dict[str, int]:
    """Return, for every node, the first of these values that it leads to."""
    places = {v: i for i, v in reversed(list(enumerate(values)))}
    found: dict[str, int] = {}
    for i, value in enumerate(values):
        stack = [value]
        while stack:
            node = stack.pop().producer()
            if node is None or str(node.name) in found:
                continue
            found[str(node.name)] = i
            stack += [v for v in inputs_of(node) if v not in places]
    return found


def _distance(a: Array, b: Array) -> float:
    first, second = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    # Sums of squares, not numpy.linalg.norm: for one long vector BLAS starts threads that cost more than they save.
    apart, length = (float(np.sqrt(np.square(v).sum())) for v in (first - second, first))
    return relative(apart, length)


def _per_sample(v: ir.Value) -> tuple[Any, ...]:
    """Return a shape in which a free batch and a batch of one are the same."""
    return tuple(d if isinstance(d, int) else batch_factor(d) for d in dims_of(v))


def _size(v: ir.Value) -> int:
    return int(np.prod(v.shape.numpy())) if v.shape is not None and v.shape.is_static() else 0


def _stem(name: str) -> str:
    while (shorter := _APPENDED.sub("", name)) != name:
        name = shorter
    return name
