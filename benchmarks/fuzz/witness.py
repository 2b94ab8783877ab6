"""Slopes of the model itself: differences in float64 wherever the model can be computed in it.

`onnx.reference`, which shares no code with onnxruntime or fgonnx, computes the graph with float64 in place of every
floating-point type. It is believed where it gives what onnxruntime gives. Where it does not, onnxruntime's own float32
is differenced, with the wider error bars that this needs.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzz.builder import FLOATS, MICROSOFT, Array, open_session
from benchmarks.fuzz.numbers import KINKED, LEAN, LEANINGS, Tape, operators

Floats = npt.NDArray[np.float64]
Feeds = Mapping[str, Array]

#: How far the reference may be from onnxruntime, relative to the largest entry, by the model's type.
_CLOSE = {"float64": 1e-6, "float32": 2e-4, "float16": 2e-2}
_FINE, _COARSE = (1e-4, 1e-5, 1e-6), (3e-2, 1e-2, 3e-3)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with float64 in place of every floating-point type."""
    found = onnx.inliner.inline_local_functions(model)
    _widen_graph(found.graph)
    if not any(o.domain == MICROSOFT for o in found.opset_import):
        found.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return found


def _widen_graph(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for v in (*graph.input, *graph.output):
        if v.type.tensor_type.elem_type in FLOATS:
            v.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in list(graph.node):
        _widen_node(node)
    nodes = [part for node in graph.node for whole in _leaning(node) for part in _scanned_first(whole)]
    del graph.node[:]
    graph.node.extend(nodes)


def _leaning(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return a node with a kink behind one that can move what it takes."""
    if node.op_type not in KINKED:
        return [node]
    moved = f"{node.output[0]}:leant"
    before = helper.make_node(LEAN, [node.input[0]], [moved], domain=MICROSOFT, size=KINKED[node.op_type])
    node.input[0] = moved
    return [before, node]


def _scanned_first(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return a Scan along the first axis of what it scans, as `onnx.reference` has it, between Transposes."""
    fields = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type != "Scan" or fields.get("scan_input_axes") != [1]:
        return [node]
    scan = onnx.NodeProto()
    scan.CopyFrom(node)
    del scan.attribute[:]
    scan.attribute.extend(a for a in node.attribute if a.name in ("body", "num_scan_inputs"))
    given, seen = f"{node.output[0]}_in", f"{node.output[0]}_out"
    backwards = int(fields.get("scan_input_directions", [0])[0])
    before = helper.make_node("Swap", [node.input[1]], [given], domain=MICROSOFT, backwards=backwards)
    scan.input[1], scan.output[1] = given, seen
    return [before, scan, helper.make_node("Swap", [seen], [node.output[1]], domain=MICROSOFT)]


def _widen_node(node: onnx.NodeProto) -> None:
    if node.op_type == "SimplifiedLayerNormalization":  # no operator of the standard's, though onnxruntime has it there
        node.domain = MICROSOFT
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            _widen_graph(a.g)
        elif a.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(a.t)
        elif a.name in ("to", "stash_type") and a.i in FLOATS:
            a.i = TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in FLOATS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


@dataclass(frozen=True)
class Slope:
    """One measured slope of every sample.

    Attributes
    ----------
    low, high : numpy array, (samples,)
        Between which it lies: at a kink the slopes of both sides.
    error : numpy array, (samples,)
        Its uncertainty.
    """

    low: Floats
    high: Floats
    error: Floats

    def misses(self, claimed: Floats, allowed: Floats) -> Floats:
        """Return by how much a claimed slope is outside, beyond the uncertainty and what is allowed."""
        return np.maximum(np.maximum(self.low - claimed, claimed - self.high) - 2 * self.error - allowed, 0)


class Witness:
    """The score of every sample as a function of the explained input.

    Parameters
    ----------
    model : onnx.ModelProto
        The source.
    feeds : mapping of str to numpy array
        The point.
    name : str
        Of the explained input.
    head : str
        The tensor explained.
    chosen : sequence of int
        The entry of it, for every sample.
    alone : bool
        Whether samples are run one by one.
    axes : tuple of int
        Where the samples lie in the input and in the head.
    rests : set of str
        Quantisers that are constant between their steps.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feeds: Feeds,
        name: str,
        head: str,
        chosen: Sequence[int],
        *,
        alone: bool,
        axes: tuple[int, int] = (0, 0),
        rests: frozenset[str] = frozenset(),
    ) -> None:
        self.axes, self._rests = axes, rests
        self.feeds, self.name, self.head, self.chosen = dict(feeds), name, head, list(chosen)
        self.alone = alone and len(self.chosen) > 1
        self.point = np.asarray(feeds[name], np.float64)
        self.model = model
        self.tape = [Tape() for _ in self.chosen] if self.alone else [Tape()]
        self.kind = self._choose()

    def _choose(self) -> str:
        """Return which of the two is believed; "" where neither is."""
        self.session = open_session(_exposing(self.model, self.head))
        self.truth = self._scores(self._single, self.point)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                self._prepare()
                found = self.at(self.point, recording=True)
                again = self.at(self.point)
        except Exception:  # the reference has exceptions of every kind
            found = again = np.full(len(self.chosen), np.nan)
        kind = str(next((v.dtype for v in self.feeds.values() if v.dtype.kind == "f"), "float32"))
        scale = np.maximum(np.abs(self.truth), self.size)
        if np.all(np.abs(found - self.truth) <= _CLOSE.get(kind, 2e-4) * scale) and np.allclose(found, again):
            return "float64"
        quantised = any("Quantize" in n.op_type or "QLinear" in n.op_type for n in self.model.graph.node)
        return "" if quantised or kind == "float16" or self.feeds[self.name].dtype.kind != "f" else "float32"

    def _prepare(self) -> None:
        from onnx.reference import ReferenceEvaluator

        wide = widened(self.model)
        self.evaluators = [ReferenceEvaluator(wide, new_ops=operators(tape, self._rests)) for tape in self.tape]

    def _single(self, feeds: Feeds, i: int) -> Array:
        kinds = {k: v.dtype for k, v in self.feeds.items()}
        return self.session.run([self.head], {k: v.astype(kinds[k]) for k, v in feeds.items()})[0]

    def _double(self, feeds: Feeds, i: int) -> Array:
        return np.asarray(self.evaluators[i].run([self.head], dict(feeds))[0])

    def _scores(self, run: Callable[[Feeds, int], Array], x: Floats) -> Floats:
        count = len(self.chosen)
        if self.alone:
            parts = [
                run({k: v[i : i + 1] if v.ndim and len(v) == count else v for k, v in self._at(x).items()}, i)
                for i in range(count)
            ]
            rows = np.concatenate([np.reshape(p, (1, -1)) for p in parts]).astype(np.float64)
        else:
            found = np.asarray(run(self._at(x), 0), np.float64)
            rows = (np.moveaxis(found, self.axes[1], 0) if found.ndim else found).reshape(count, -1)
        self.size = float(np.abs(rows).max(initial=0))
        return rows[np.arange(count), self.chosen]

    def _at(self, x: Floats) -> dict[str, Array]:
        wide = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in self.feeds.items()}
        return {**wide, self.name: x}

    def at(self, x: Floats, *, recording: bool = False) -> Floats:
        """Return the score of every sample."""
        if getattr(self, "kind", "float64") == "float32":
            return self._scores(self._single, x)
        for tape in self.tape:
            tape.start(recording=recording)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return self._scores(self._double, x)

    def slope(self, v: Floats, x: Floats | None = None) -> Slope:
        """Measure the slope along a direction: both sides, at several steps; the error is how far two steps differ."""
        x = self.point if x is None else x
        here = self.at(x)
        found = []
        for step in _FINE if self.kind == "float64" else _COARSE:
            above, under = self.at(x + step * v), self.at(x - step * v)
            sides = np.stack([(above - here) / step, (here - under) / step])
            found.append((sides, (above - under) / (2 * step)))
        apart = [np.abs(a - b) for (_, a), (_, b) in itertools.pairwise(found)]
        best = np.argmin(np.stack(apart), axis=0)
        pick = np.arange(len(here))
        centres = np.stack([c for _, c in found])[best + 1, pick]
        sides = np.stack([s for s, _ in found])[best + 1, :, pick].T
        error = np.stack(apart)[best, pick]
        # Where both sides part by more than the curve explains (its difference halves with the step), there is a kink.
        bend = np.abs(sides[0] - sides[1])
        kink = bend > 1e-2 * (np.abs(centres) + 1e-12) if self.kind == "float64" else np.zeros(len(here), bool)
        low = np.where(kink, sides.min(0), centres)
        high = np.where(kink, sides.max(0), centres)
        return Slope(low, high, error)

    def leaning(self, v: Floats) -> Slope | None:
        """Measure the slopes of the model with the operands of kinks moved off them; None where there is no tape.

        A rule takes one side of every kink. Where several are met at once, as by quantised zeros, the slope of the
        sides it takes need not lie between those of the whole, since the input moves them all together.
        """
        if self.kind != "float64":
            return None
        found = []
        try:
            for way in LEANINGS:
                for tape in self.tape:
                    tape.lean = way
                found.append(self.slope(v))
        finally:
            for tape in self.tape:
                tape.lean = None
        low, high = np.min([s.low for s in found], 0), np.max([s.high for s in found], 0)
        return Slope(low, high, np.max([s.error for s in found], 0))


def _exposing(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a model with one more output."""
    if any(o.name == name for o in model.graph.output):
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    found.graph.output.append(helper.make_empty_tensor_value_info(name))
    return found
