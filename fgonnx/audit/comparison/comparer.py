"""Two models ready to be compared: decisions, scores, maps, and the layers where they part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.audit.comparison import measures
from fgonnx.audit.comparison.alignment import Alignment, Measured, Point, Side
from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.rewrite.options import Options, require_contributions
from fgonnx.errors import InputError, ModelError, NumericError
from fgonnx.explain import batches
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.source import allowed_difference
from fgonnx.fields import refuse_idle

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Given = Array | Mapping[str, Array]

MEASURES = {
    "top1": "1 where both models choose the same entry, else 0",
    "score_difference": "|score B - score A| of the entry explained, as a share of A's largest absolute score",
    "rank_correlation": "Spearman's rank correlation of the maps, -1..1",
    "correlation": "Pearson's correlation of the maps, -1..1",
    "ssim": "structural similarity of the maps, rescaled to 0..1",
    "overlap": "share of the strongest 5 % of the maps that they have in common",
    "pointing": "1 where the peaks of the maps lie within 15/224 of the longer side, else 0",
    "peak_distance": "how far the peaks lie apart, as a share of the longer side",
    "quantisation_a": "share of rounding and saturation in A's absolute contributions",
    "quantisation_b": "the same in B",
    "layer_error": "the largest error that one segment of B adds",
}
"""What is measured for every sample, and what the number means."""

SMALLER_IS_BETTER = ("score_difference", "peak_distance", "quantisation_a", "quantisation_b", "layer_error")

NOTICEABLE, ABOVE_OTHERS = 0.05, 4.0
"""Models diverge at a point whose added error is above 5 %, and above four times the median over all points."""

_MAPS: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "rank_correlation": measures.rank_correlation,
    "correlation": measures.correlation,
    "ssim": measures.ssim,
    "overlap": measures.overlap,
    "peak_distance": measures.peak_distance,
}

# Indices of the scales among an operator's inputs.
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QLinearGlobalAveragePool": (1, 3),
    "QLinearAveragePool": (1, 3),
    "QLinearLeakyRelu": (1, 3),
    "QLinearSigmoid": (1, 3),
    "QLinearSoftmax": (1, 3),
}


@dataclass(frozen=True)
class Comparison:
    """Two models on a batch of N samples.

    Attributes
    ----------
    a, b : Explanation
        Both, of the same target.
    choice_a, choice_b : numpy array of int64, (N,)
        The largest entry of either head.
    probability_a, probability_b : numpy array, (N,), or None
        Probabilities by the activation after the head; None where there is none.
    measures : dict of str to numpy array, (N,)
        See `MEASURES`.
    points : tuple of Point
        Where the layers are compared, in the order of B; the head last.
    error : numpy array, (N, points)
        `||a - b|| / ||a||` at every point: the accumulated error; 1 where a is all zeros and b is not.
    added : numpy array, (N, points)
        Error that each segment adds: the same, with B given A's values at all other points.
    parts_a, parts_b : numpy array, (N, points + 1)
        Contributions to the score by the segment that ends at a point, without rounding; the last column holds the
        input and the contributions outside of all segments.
    rounding_a, rounding_b : numpy array, (N, points + 1)
        Contributions of kind "quantisation", by segment too.
    unmatched : pair of int
        Layers with weights of A and of B without a counterpart in the other model.
    """

    a: Explanation
    b: Explanation
    choice_a: npt.NDArray[np.int64]
    choice_b: npt.NDArray[np.int64]
    probability_a: Float | None
    probability_b: Float | None
    measures: dict[str, Float]
    points: tuple[Point, ...]
    error: Float
    added: Float
    parts_a: Float
    parts_b: Float
    rounding_a: Float
    rounding_b: Float
    unmatched: tuple[int, int]

    def __len__(self) -> int:
        return len(self.a)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed in either model to explain it, and which of its choices are held fixed."""
        both = [note for note in self.a.notes if note in self.b.notes]
        alone = [
            f"model {letter}: {note}" for letter, e in zip("AB", (self.a, self.b), strict=True) for note in e.notes
        ]
        return (*both, *(note for note in alone if note.partition(": ")[2] not in both))

    def residual(self) -> Float:
        """Return score B - score A - (sum of B's contributions - sum of A's), (N,): zero up to rounding."""
        difference = self.b.score.astype(np.float64) - self.a.score.astype(np.float64)
        return difference - sum(
            sign * (parts.sum(axis=1) + rounding.sum(axis=1))
            for sign, parts, rounding in (
                (1, self.parts_b, self.rounding_b),
                (-1, self.parts_a, self.rounding_a),
            )
        )

    def parted(self) -> list[tuple[Point, float]]:
        """Return the points at which B diverges from A, with the mean error added there, the largest first."""
        return parted(self.points, self.added.mean(axis=0))


def parted(points: Sequence[Point], added: Float) -> list[tuple[Point, float]]:
    """Return the points at which models diverge; see `NOTICEABLE`.

    Parameters
    ----------
    points : sequence of Point
        Points of a comparison.
    added : numpy array, (points,)
        Error added by the segment before each, a mean over samples.
    """
    least = max(NOTICEABLE, ABOVE_OTHERS * float(np.median(added)))
    order = np.argsort(-added, kind="stable")
    return [(points[i], float(added[i])) for i in order if added[i] > least]


class Comparer:
    """Two models, ready to be compared on one batch after the other.

    Parameters
    ----------
    a, b : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model that was approved, and the one that is deployed.
    options : Options, optional
        What is explained and how; of B only where `b_options` are not given.
    b_options : Options, optional
        The same for B: where its input or output is called otherwise.
    running : Running, optional
        How both run.
    labels : sequence of str, optional
        Class names; those of A's metadata, else of B's, by default.
    **changes
        Fields of `Options` or `Running` that differ from these, for both models.
    """

    def __init__(
        self,
        a: ModelLike | LoadedModel,
        b: ModelLike | LoadedModel,
        options: Options | None = None,
        *,
        b_options: Options | None = None,
        running: Running | None = None,
        labels: Sequence[str] | None = None,
        **changes: Any,
    ) -> None:
        loaded = load(a), load(b)
        for model in loaded:
            check_scales(model)
        given = zip(loaded, (options, options if b_options is None else b_options), strict=True)
        sides = [Explainer(model, o, running, labels=labels, **changes) for model, o in given]
        self._turned = [side.samples_first for side in sides]
        # Layers are compared sample by sample.
        self.a, self.b = (side.for_samples_first() for side in sides)
        for side in sides:
            require_contributions(side.options, "compare")
            refuse_idle(side.options, ("contrast",), "two models are compared by the score of one class")
        if labels is None:
            self.a.labels = self.b.labels = self.a.labels or self.b.labels
        self._aligned: tuple[tuple[Any, ...], Alignment] | None = None

    def entries(self, shape_a: Sequence[int] | None = None, shape_b: Sequence[int] | None = None) -> int:
        """Return the number of entries of the heads.

        Raises
        ------
        ModelError
            If the two differ.
        """
        shapes = [side.engine(shape).rewritten.head_shape for side, shape in ((self.a, shape_a), (self.b, shape_b))]
        first, second = (math.prod(s) for s in shapes)
        if first != second:
            raise ModelError(
                f"the models answer different questions: {self.a.loaded.name} has {first} entries, "
                f"{self.b.loaded.name} has {second}; compare models of the same classes, or name the outputs"
            )
        return first

    def __call__(self, x: Given, x_b: Given | None = None, target: Any = None) -> Comparison:
        """Compare on one batch; see `fgonnx.compare`."""
        x_b = x if x_b is None else x_b
        return self.of_samples_first(self._turned[0](x), self._turned[1](x_b), target)

    def of_samples_first(self, x: Given, x_b: Given, target: Any = None) -> Comparison:
        """Compare on one batch of arrays with samples first."""
        sides = (self.a, x), (self.b, x_b)
        shapes = [side.explained_shape(given) for side, given in sides]
        self.entries(*shapes)
        fed = [
            (r := side.engine(shape).rewritten, batches.feeds(side.loaded, r, given))
            for (side, given), shape in zip(sides, shapes, strict=True)
        ]
        counts = [len(inputs[r.normal.input_name]) for r, inputs in fed]
        if counts[0] != counts[1]:
            raise InputError(f"there are {counts[0]} samples for the one model and {counts[1]} for the other")
        a = self.a(x, target)
        b = self.b(x_b, target if a.target is None else a.target.tolist())
        alignment = self._alignment(*shapes)
        samples = (batches.cut(r, inputs, 1) for r, inputs in fed)
        found = [alignment.measure(*rows) for rows in zip(*samples, strict=True)]
        heads = np.stack([m.head_a for m in found]), np.stack([m.head_b for m in found])
        for side, e, head in zip((self.a, self.b), (a, b), heads, strict=True):
            if side.running.verify:
                _hold(side, e, head)
        added = np.stack([m.added for m in found])
        parts = [
            _by_segment(e, segments, len(alignment.points))
            for e, segments in zip((a, b), alignment.segments, strict=True)
        ]
        return Comparison(
            a,
            b,
            heads[0].argmax(axis=1),
            heads[1].argmax(axis=1),
            _probability(a, heads[0]),
            _probability(b, heads[1]),
            _measured(a, b, found),
            alignment.points,
            np.stack([m.error for m in found]),
            added,
            parts[0][0],
            parts[1][0],
            parts[0][1],
            parts[1][1],
            alignment.unmatched,
        )

    def _alignment(self, *key: tuple[int, ...] | None) -> Alignment:
        if self._aligned is None or self._aligned[0] != key:
            sides = [Side(e.loaded, _with_shape(e, shape)) for e, shape in zip((self.a, self.b), key, strict=True)]
            self._aligned = key, Alignment(*sides, running=self.a.running)
        return self._aligned[1]


def check_scales(loaded: LoadedModel) -> None:
    """Check the scales of a quantised model.

    Raises
    ------
    NumericError
        If one is zero, negative, NaN or infinite.
    """
    for node in loaded.ir.graph:
        for i in _SCALES.get(
            node.op_type, (0, *range(2, len(node.inputs), 3)) if node.op_type == "QLinearConcat" else ()
        ):
            scale = node.inputs[i] if i < len(node.inputs) else None
            tensor = ir.convenience.get_const_tensor(scale) if scale is not None else None
            if tensor is None:
                continue
            values = np.asarray(tensor.numpy(), np.float64).ravel()
            wrong = values[~(np.isfinite(values) & (values > 0))]
            if wrong.size:
                what = "zero: its calibration saw one value only" if wrong[0] == 0 else f"{wrong[0]:g}"
                raise NumericError(
                    f"{loaded.name}: the scale '{scale.name if scale else ''}' of node '{node.name or node.op_type}' "
                    f"({node.op_type}) is {what}; calibrate the model again, on pictures that use this layer"
                )


def _hold(side: Explainer, e: Explanation, heads: Array) -> None:
    """Hold the heads of the graph in which layers are compared against the scores, which are those of the source.

    Raises
    ------
    NumericError
        They differ beyond rounding or some steps of quantisation.
    """
    if e.target is None or methods.find(side.options.method).drive is not None:
        return
    rows = heads.reshape(len(e), -1).astype(np.float64)
    found = rows[np.arange(len(e)), e.target]
    scale = max(float(np.abs(rows).max(initial=0)), 1e-3)
    apart = np.abs(found - e.score)
    if (worst := int(apart.argmax())) >= 0 and apart[worst] > allowed_difference(side.loaded.ir.graph) * scale:
        raise NumericError(
            f"{side.loaded.name}: the layers that are compared lead to {found[worst]:.6g} for '{e.head}', where "
            f"the model gives {e.score[worst]:.6g}. No comparison is given; report the model, or "
            "compare without this test (verify=False, --no-verify)"
        )


def _measured(a: Explanation, b: Explanation, found: Sequence[Measured]) -> dict[str, Float]:
    heads = [(m.head_a.astype(np.float64), m.head_b.astype(np.float64)) for m in found]
    largest = [float(np.abs(h).max()) for h, _ in heads]
    apart = np.abs(b.score.astype(np.float64) - a.score)
    maps = [measures.same_size(m, n) for m, n in zip(a.saliency, b.saliency, strict=True)]
    by_map = {name: np.array([f(m, n) for m, n in maps]) for name, f in _MAPS.items()}
    values = {
        "top1": np.array([float(h.argmax() == g.argmax()) for h, g in heads]),
        "score_difference": np.array([measures.relative(float(d), of) for d, of in zip(apart, largest, strict=True)]),
        **by_map,
        "pointing": (by_map["peak_distance"] <= measures.TOLERANCE).astype(np.float64),
        "quantisation_a": _quantisation(a),
        "quantisation_b": _quantisation(b),
        "layer_error": np.array([float(m.added.max()) for m in found]),
    }
    return {name: values[name] for name in MEASURES}


def _quantisation(e: Explanation) -> Float:
    """Return the share of rounding and saturation in the absolute contributions, (N,)."""
    assert e.contributions is not None
    weights = np.abs(e.contributions.astype(np.float64))
    of_kind = np.array([s.kind == "quantisation" for s in e.sites])
    return np.asarray(weights[:, of_kind].sum(axis=1) / np.maximum(weights.sum(axis=1), np.finfo(np.float64).tiny))


def _by_segment(e: Explanation, segments: Mapping[str, int], points: int) -> tuple[Float, Float]:
    """Sum contributions by segment, and those of rounding separately: two arrays (N, points + 1)."""
    assert e.contributions is not None
    sums = np.zeros((2, len(e), points + 1))
    for column, site in enumerate(e.sites):
        where = segments.get(site.node, points)
        sums[int(site.kind == "quantisation"), :, where] += e.contributions[:, column]
    return sums[0], sums[1]


def _probability(e: Explanation, heads: Array) -> Float | None:
    """Return the probability by the activation after the head."""
    if e.target is None or e.head_stripped not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return None
    scores = heads.astype(np.float64)
    rows = np.arange(len(scores))
    if e.head_stripped == "Sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-scores[rows, e.target])))
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised[rows, e.target] / raised.sum(axis=1))


def _with_shape(e: Explainer, shape: tuple[int, ...] | None) -> Options:
    return replace(e.options, input_shape=None if shape is None else (1, *shape[1:]))
