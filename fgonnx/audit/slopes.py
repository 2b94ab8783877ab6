"""The gradient held against slopes of the score that are measured with error bars for rounding, curvature and kinks.

A measured slope is evidence only where its own error is below what is allowed. None of the measurements looks at the
gradient to choose its step:

- At the sample, over small steps: central differences, `(s(x + h v) - s(x - h v)) / 2h`, against `<g(x), v>`.
- Forwards through the source, operator by operator, from the values that it computes for the sample. The slope of each
  operator is taken in real numbers, so that it is seen through what the model rounds inside.
- Along a segment through the sample: a difference over a larger step against the mean of `<g, v>` over the segment. The
  two are equal by the fundamental theorem of calculus, however many kinks lie between, so that ties of poolings and
  steps of quantisation do not look like errors, and an error does not look like a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fgonnx.audit import measure
from fgonnx.audit.forward import Unmeasured
from fgonnx.audit.measure import Array, Floats, Function, Measured, Verdict, at_sample, size_of, unit
from fgonnx.explain import batches

_COARSE = (
    0.3  # difference of a quantised slope that is an error; up to there it may be bias of the straight-through one
)
_STEPPED = 0.1  # difference of a quantised slope that is allowed at least
_GROSS = 3.0  # times what is allowed, beyond which another slope taken forwards is an error
_STILL = 0.5  # share of steps without any effect at which a score is seen to move in steps
_SURE = 3.0  # times what ties and rounding of the gradient account for, beyond which that is an error
_ZERO = 32  # last places of a score up to which it, or its slope, is zero
_NOTHING = 1e-6  # of that, up to which a slope in real numbers is zero, and not only lost in the score's rounding
_NUDGES = (1e-6, 1e-5)
_LENGTH = 1.37
_SAMPLES = "samples of the kind the model was made for"


@dataclass(frozen=True)
class Slope:
    """What came of one group of directions.

    Attributes
    ----------
    verdict : {"passed", "failed", "undecided"}
        For all samples together, the worst of them.
    value : float
        Relative difference of the worst sample, a root mean square over directions.
    tolerance : float
        What is allowed of it, and of its error bar.
    detail : str
        How it was measured, and how well.
    decides : str
        Where nothing was decided, what would decide it.
    """

    verdict: Verdict
    value: float
    tolerance: float
    detail: str
    decides: str = ""


@dataclass(frozen=True)
class _Forward:
    """What slopes taken forwards say: they agree, are grossly others, a little apart, unsure, or could not be taken."""

    said: Literal["agree", "differ", "apart", "unclear", "none"]
    value: float = 0.0
    why: str = ""


def slope(
    f: Function, x: Array, gradient: Floats, directions: Sequence[Floats], tolerance: float, tied: Sequence[Floats]
) -> Slope:
    """Compare the slopes of a score along some directions with those that its gradient promises.

    Parameters
    ----------
    f : Function
        The score.
    x : numpy array, (N, ...)
        The samples.
    gradient : numpy array, (N, ...)
        The gradients explained, at the samples.
    directions : sequence of numpy array, (N, ...)
        Along which to move.
    tolerance : float
        The relative difference that is allowed.
    tied : sequence of numpy array, (N, ...)
        Directions that keep equal parts of a sample equal, on which kinks at the sample itself do not show.
    """
    if f.stepped:
        return _of_steps(f, x, gradient, directions, tolerance)
    first, _ = at_sample(f, x, gradient, directions, measure.FEW)
    here = first.verdicts(tolerance, tolerance)
    if set(here) == {"passed"}:
        return _said(first, here, tolerance, _at(directions, first, here))
    rows = [i for i, v in enumerate(here) if v != "passed"]
    forward = _forwards(f, x, gradient, directions, rows, (tolerance, _GROSS * tolerance))
    if forward.said == "agree":
        taken = _taken_forwards(forward, tolerance, len(_fewer(directions)), "differences of the score do not show it")
        return taken if not _sure(first, here) else _unless_differences_are_sure(taken, f, x, gradient, directions)
    if forward.said == "differ" and "failed" in here:
        return _together(_said(first, here, tolerance, _at(directions, first, here)), forward)
    found = _by_differences(f, x, gradient, directions, tolerance, tied)
    if forward.said == "none" and found.verdict == "failed":
        found = _unless_rough(found, f, x, gradient, directions)
    return _together(found, forward)


def _sure(m: Measured, verdicts: Sequence[Verdict]) -> list[int]:
    """Return the samples that differ from what is promised, neither on a kink nor on a step."""
    still = np.broadcast_to(m.still, len(m.error))
    return [
        i
        for i, v in enumerate(verdicts)
        if v == "failed" and m.gap[i] < measure.KINK * m.error[i] and still[i] <= _STILL
    ]


def _unless_differences_are_sure(
    taken: Slope, f: Function, x: Array, gradient: Floats, directions: Sequence[Floats]
) -> Slope:
    """Leave undecided what agrees with slopes taken forwards and yet not with differences at any step."""
    tolerance = taken.tolerance
    found, _ = at_sample(f, x, gradient, directions)
    here = found.verdicts(tolerance, tolerance)
    if not _sure(found, here):
        return taken
    made = _said(
        found, here, tolerance, f"{_at(directions, found, here)}; taken forwards through the source, it agrees"
    )
    return replace(made, verdict="undecided", decides="the model in float64, or other samples")


def _unless_rough(failed: Slope, f: Function, x: Array, gradient: Floats, directions: Sequence[Floats]) -> Slope:
    """Leave undecided what fails at small steps and not over segments, roughness of the score counted as noise.

    Where a score is rounded inside (to bfloat16, say), it stands still at most small steps and jumps at others.
    """
    found = measure.segments(f, x, directions, measure.long_enough(f, x, directions), None)
    if "failed" in found.verdicts(failed.tolerance, failed.tolerance):
        return failed
    return replace(
        failed,
        verdict="undecided",
        detail=f"{failed.detail}; but not over segments: the score may be rounded inside",
        decides=f"the model in float64, or without what it rounds (casts); {_SAMPLES}",
    )


def _by_differences(
    f: Function, x: Array, gradient: Floats, directions: Sequence[Floats], tolerance: float, tied: Sequence[Floats]
) -> Slope:
    first, noise = at_sample(f, x, gradient, directions)
    here = first.verdicts(tolerance, tolerance)
    at = _at(directions, first, here)
    if set(here) == {"passed"}:
        return _said(first, here, tolerance, at)
    failed = [i for i, v in enumerate(here) if v == "failed"]
    still = np.broadcast_to(first.still, len(x))
    if failed and all(still[i] > _STILL for i in failed):
        made = _said(first, here, tolerance, f"{at}; but at most steps it does not move at all: it moves in steps")
        decides = f"the model in float64, or without what it rounds (casts, large numbers that cancel); {_SAMPLES}"
        return replace(made, verdict="undecided", decides=decides)
    if any(first.gap[i] < measure.KINK * first.error[i] for i in failed):
        return _said(first, here, tolerance, f"{at}; both sides agree: it is no kink")
    fewer = _fewer(directions)
    along = measure.on_segments(f, x, fewer, measure.SHORT, noise, tolerance)
    near = along.verdicts(tolerance, tolerance)
    detail = f"{len(fewer)} directions, segments of {_step(along, near)} of the input's size about the sample"
    rough = along.gap > measure.KINK * along.error  # a jump of the score is no slope
    near = ["undecided" if n == "failed" and r else n for n, r in zip(near, rough, strict=True)]
    verdicts: list[Verdict] = [n if h != "passed" else h for h, n in zip(here, near, strict=True)]
    if failed and all(verdicts[i] == "passed" for i in failed):
        # The samples lie on kinks. Moved so that ties persist, they have one slope.
        kept, _ = at_sample(f, x, gradient, tied)
        smooth = kept.verdicts(tolerance, tolerance)
        # What still lies on a kink has to promise a slope between those of both sides.
        between = (kept.outside <= tolerance) & (kept.bar <= tolerance)
        if not all(smooth[i] == "passed" or between[i] for i in failed):
            wrong = [i for i in failed if smooth[i] == "failed" and kept.gap[i] < measure.KINK * kept.error[i]]
            verdicts = ["failed" if i in wrong else "undecided" if i in failed else v for i, v in enumerate(verdicts)]
            return _said(
                kept, verdicts, tolerance, f"{len(tied)} directions in which equal pixels move alike, at the sample"
            )
        detail += ", which lies on kinks (ties of a maximum, zeros of a Relu)"
    return _said(along, verdicts, tolerance, detail)


def _of_steps(f: Function, x: Array, gradient: Floats, directions: Sequence[Floats], tolerance: float) -> Slope:
    forward = _forwards(f, x, gradient, directions, range(len(x)), (tolerance, _GROSS * tolerance))
    tolerance = max(tolerance, _STEPPED)
    if forward.said == "agree":
        return _taken_forwards(
            forward, tolerance, len(_fewer(directions)), "steps of quantisation hide it from differences"
        )
    found = measure.segments(f, x, directions, measure.long_enough(f, x, directions), None)
    verdicts = found.verdicts(tolerance, _COARSE)
    detail = (
        f"{len(directions)} directions, segments of {_step(found, verdicts)} of the input's size about the sample, far "
        "above the steps of quantisation"
    )
    made = _said(found, verdicts, tolerance, detail)
    if made.verdict == "failed" and forward.said == "none":  # steps have no slope of their own to be sure of
        made = replace(made, verdict="undecided")
    if made.verdict == "undecided":
        made = replace(
            made,
            detail=f"slopes of this quantised model cannot be tested at this size: {made.detail}",
            decides="the model before it was quantised, checked and compared with this one (fgonnx compare), or real "
            "samples",
        )
    return _together(made, forward, stepped=True)


def _forwards(
    f: Function,
    x: Array,
    gradient: Floats,
    directions: Sequence[Floats],
    rows: Sequence[int],
    allowed: tuple[float, float],
) -> _Forward:
    """Compare what the gradient promises with slopes taken forwards: equal, beyond what is gross, or in between."""
    if f.forward is None:
        return _Forward("none")
    scale = size_of(x)
    moves = np.stack([scale * unit(d) for d in _fewer(directions)])
    worst, unclear, here = 0.0, "", f.score(x)
    differs = apart = False
    for i in rows:
        v = moves[:, i : i + 1]
        promised = _promised(gradient[i], v)
        try:
            found, ties = f.forward(i, v, False)
        except Unmeasured as reason:
            return _Forward("none", why=str(reason))
        least = _ZERO * f.last_place[i]
        lost = abs(here[i]) <= least and _size(found) <= _NOTHING * least
        if (lost or not found.any()) and _size(promised) <= least:
            continue  # zero, up to rounding: a step of the input's whole size is below that of the score
        size = max(_size(promised), _size(found))
        error = _size(promised - found) / size if size > 0 else 0.0
        if error <= allowed[0]:
            worst = max(worst, error)
            continue
        kinks = _size(f.forward(i, v, True)[0] - found) if ties else 0.0
        rounding = _scatter(f, x, gradient, moves, i)
        # Tangents of another length: linear, up to what is rounded on the way.
        own = _size(f.forward(i, v * _LENGTH, False)[0] / _LENGTH - found)
        if _size(promised) <= _SURE * (rounding + own) and _size(found) <= _SURE * (rounding + own):
            continue  # both are zero up to rounding
        worst = max(worst, error)
        if error * size <= _SURE * max(kinks, rounding, own):
            unclear = "kinks" if kinks > rounding else "rounding"
        elif error > allowed[1]:
            differs = True
        else:
            apart = True
    said: Literal["agree", "differ", "apart", "unclear"]
    said = "differ" if differs else "apart" if apart else "unclear" if unclear else "agree"
    return _Forward(said, worst, unclear)


def _fewer(directions: Sequence[Floats]) -> Sequence[Floats]:
    """Return half of the directions, for measurements that take longer or are more exact."""
    return directions[: (len(directions) + 1) // 2]


def _scatter(f: Function, x: Array, gradient: Floats, moves: Floats, i: int) -> float:
    """Return what rounding does to the promised slopes: how far they differ hardly visible steps aside."""
    signs = np.random.default_rng(0).choice((-1.0, 1.0), x.shape)
    found = []
    for nudge in _NUDGES:
        _, beside = f.gradient(batches.typed(x * (1 + nudge * signs), x.dtype))
        found.append(_size(_promised(beside[i] - gradient[i], moves[:, i : i + 1])))
    return max(found)


def _promised(gradient: Floats, moves: Floats) -> Floats:
    return np.asarray((moves * gradient[None, None]).reshape(len(moves), -1).sum(axis=1))


def _size(values: Floats) -> float:
    return float(np.sqrt((values**2).mean()))


def _taken_forwards(forward: _Forward, tolerance: float, count: int, why: str) -> Slope:
    detail = f"{count} directions, taken forwards through the source from the values it computes, roundings held; {why}"
    return Slope("passed", forward.value, tolerance, detail)


def _together(found: Slope, forward: _Forward, *, stepped: bool = False) -> Slope:
    """Return what differences say, with what slopes taken forwards say: where both are sure, they have to agree.

    Differences of a score that moves in steps are too coarse to pass what is a little apart.
    """
    if forward.said == "none":
        why = f"; slopes cannot be taken forwards through the source: {forward.why}" if forward.why else ""
        return replace(found, detail=found.detail + why) if found.verdict != "passed" else found
    apart = f"taken forwards through the source, operator by operator, slopes differ by {forward.value:.1e}"
    detail = f"{found.detail}; {apart}"
    if forward.said == "differ" and found.verdict != "passed":
        return replace(found, verdict="failed", value=forward.value, detail=detail, decides="")
    if forward.said == "differ" or (forward.said == "apart" and stepped):
        return replace(found, verdict="undecided", detail=detail, decides="the model in float64, or other samples")
    if found.verdict != "passed" and forward.why == "rounding" and forward.said == "unclear":
        decides = f"the model in float64: in its own precision the gradient is lost in rounding; {_SAMPLES}"
        return replace(found, verdict="undecided", detail=detail, decides=decides)
    return replace(found, detail=detail) if found.verdict == "undecided" else found


def _at(directions: Sequence[Floats], m: Measured, verdicts: Sequence[Verdict]) -> str:
    return f"{len(directions)} directions, step {_step(m, verdicts)} of the input's size"


def _said(m: Measured, verdicts: Sequence[Verdict], tolerance: float, detail: str) -> Slope:
    worst = _worst(m, verdicts)
    verdict = verdicts[worst]
    error, bar = float(m.error[worst]), float(m.bar[worst])
    good = f"good to {bar:.1e}" if np.isfinite(bar) else "below the rounding of the score at every step"
    decides = ""
    if verdict == "undecided":
        decides = _SAMPLES + (
            ", or a score that moves more: the values before a Softmax or Sigmoid (head 'logits'), other targets"
            if bar > tolerance
            else ""
        )
    return Slope(verdict, error, tolerance, f"{detail}; the measurement itself is {good}", decides)


def _worst(m: Measured, verdicts: Sequence[Verdict]) -> int:
    order = ("passed", "undecided", "failed")
    return max(range(len(verdicts)), key=lambda i: (order.index(verdicts[i]), m.error[i]))


def _step(m: Measured, verdicts: Sequence[Verdict]) -> str:
    return f"{m.step[_worst(m, verdicts)]:.0e}"
