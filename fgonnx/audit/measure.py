"""Measured slopes of a score, with error bars: central differences at a sample, and differences over segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fgonnx.explain import batches

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Verdict = Literal["passed", "failed", "undecided"]
Forwards = Callable[[int, Floats, bool], tuple[Floats, bool]]

# Steps at the sample, in units of the input's root mean square. Kinks want them small, rounding large.
STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
FEW = (3e-3, 1e-3, 3e-4, 1e-4)
# Half the lengths of segments: as the first measurement needs them, and far above a step of quantisation.
SHORT, LONG = (3e-3, 1e-3, 3e-4, 3e-2), (0.3, 0.1, 3e-2, 1e-2, 3e-3)
_PLACES = np.array([-1, -0.75, -0.25, 0.25, 0.75, 1])  # ends of a segment, and the middles of its quarters
_VISIBLE = 8  # units in the last place that a score has to move by, to be seen to
_FAR = (0.1, 0.3, 1.0)  # steps that have to leave a score unmoved of which the gradient is zero
_BARS = 3.0  # error bars beyond what is allowed at which a difference is an error
_CLEAR = 0.1  # largest error bar of a measurement that can call a gradient wrong
KINK = 0.1  # share of an error by which slopes of both sides differ at least, if kinks are its cause


@dataclass(frozen=True)
class Function:
    """A score as a function of the explained input alone, other inputs and targets fixed.

    Attributes
    ----------
    score : callable
        From inputs (N, ...) to scores (N,).
    gradient : callable
        From inputs (N, ...) to scores (N,) and gradients (N, ...).
    last_place : numpy array, (N,)
        One unit in the last place of the score at the sample.
    stepped : bool
        Whether the graph rounds: its slope exists only over steps far above those of its values.
    forward : callable, optional
        From the number of a sample, directions (K, 1, ...) and whether to choose the other one of equal values, to
        slopes (K,) of the source, taken forwards through it, and to whether there were ties. It raises `Unmeasured`.
    """

    score: Callable[[Array], Floats]
    gradient: Callable[[Array], tuple[Floats, Floats]]
    last_place: Floats
    stepped: bool
    forward: Forwards | None = None


@dataclass(frozen=True)
class Measured:
    """Relative errors and their bars by sample, (N,), and the steps they were measured with.

    gap : how far the slopes of both sides differ, or jumps of the score on a segment.
    outside : how far the promise is from what lies between both sides.
    still : the share of steps on which the score stays exactly the same, of those promised to be seen.
    """

    error: Floats
    bar: Floats
    step: Floats
    gap: Floats
    outside: Floats
    still: Floats | float = 0.0

    def verdicts(self, tolerance: float, gross: float) -> list[Verdict]:
        """Return the verdict of every sample.

        It passes where the difference and the error bar are within the tolerance, and fails where the difference is
        beyond what is gross by some bars.
        """
        passed = (self.error <= tolerance) & (self.bar <= tolerance)
        failed = (self.error > gross + _BARS * self.bar) & (self.bar <= _CLEAR)
        return ["passed" if p else "failed" if f else "undecided" for p, f in zip(passed, failed, strict=True)]


def at_sample(
    f: Function, x: Array, gradient: Floats, directions: Sequence[Floats], sizes: Sequence[float] = STEPS
) -> tuple[Measured, Floats]:
    """Measure central differences of steps; return what the best step of each sample gives, and the noise, (N,)."""
    scale = size_of(x)
    shape = (len(sizes), len(directions), len(x))
    promised, central, gap, beyond = (np.zeros(shape) for _ in range(4))
    moved = np.zeros((len(sizes), len(x)))
    still, seen = np.zeros(len(x)), np.zeros(len(x))
    here = f.score(x)
    for k, direction in enumerate(directions):
        v = unit(direction)
        for j, step in enumerate(sizes):
            ahead, behind = (batches.typed(x + sign * step * scale * v, x.dtype) for sign in (1, -1))
            up, down = f.score(ahead) - here, here - f.score(behind)
            # The actual steps, after rounding to the input's type.
            promised[j, k] = _dot(ahead, behind, gradient) / (2 * step)
            central[j, k] = (up + down) / (2 * step)
            gap[j, k] = (up - down) / step
            beyond[j, k] = np.maximum(np.abs(central[j, k] - promised[j, k]) - np.abs(gap[j, k]) / 2, 0)
            visible = np.abs(promised[j, k]) * step > _VISIBLE * f.last_place
            seen += visible
            still += visible & (up == 0) & (down == 0)
            moved[j] += _share(ahead != behind, v != 0) / len(directions)
    steps = np.array(sizes)[:, None]
    noise = _noise(gap * steps[:, None], moved, f.last_place)
    size = np.maximum(rms(promised), rms(central))
    silent = ~promised.any((0, 1))
    if silent.any():  # a zero gradient promises no size: how much the score moves elsewhere is one
        size[:, silent] = np.maximum(size, _far(f, x, here, scale, directions) / 10)[:, silent]
    rounding = noise / (np.sqrt(2) * steps)
    bar = np.full((len(sizes), len(x)), np.inf)
    # Steps shrink to a third: so does an error linear in them, to half of what the slope changes by.
    bar[1:] = np.hypot(rounding[1:], rms(central[1:] - central[:-1]) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        bar = np.where(size > 0, bar / size, np.where(silent, 0.0, np.inf))
        error = np.where(size > 0, rms(central - promised) / size, 0.0)
        both, outside = (np.where(size > 0, rms(values) / size, 0.0) for values in (gap, beyond))
    bar[moved < 0.5] = np.inf
    best = bar.argmin(0)
    rows = np.arange(len(x))
    found = (error[best, rows], bar[best, rows], np.array(sizes)[best], both[best, rows], outside[best, rows])
    return Measured(*found, still / np.maximum(seen, 1)), noise


def _noise(second: Floats, moved: Floats, last_place: Floats) -> Floats:
    """Return the standard deviation of a score's rounding, (N,), from its second differences (steps, directions, N).

    At the smallest steps curvature and kinks are negligible, and `s(x + h v) - 2 s(x) + s(x - h v)` is rounding: six
    times its variance. It is no less than that of rounding to the last place.
    """
    spread = rms(second) / np.sqrt(6)
    spread[moved < 0.5] = np.inf
    least = 0.3 * last_place
    return np.maximum(np.where(np.isfinite(spread), spread, 0).min(0, where=np.isfinite(spread), initial=np.inf), least)


def _far(f: Function, x: Array, here: Floats, scale: Floats, directions: Sequence[Floats]) -> Floats:
    """Return the slope of a score over large steps, (N,)."""
    slopes = [
        np.abs(f.score(batches.typed(x + step * scale * unit(v), x.dtype)) - here) / step
        for v in directions
        for step in _FAR
    ]
    return np.asarray(np.max(slopes, axis=0))


def long_enough(f: Function, x: Array, directions: Sequence[Floats]) -> Floats:
    """Return half the length of segments, (N,), on which the score is least rough for what it moves by."""
    scale, rough = size_of(x), []
    for half in LONG:
        moved, rest = np.zeros(len(x)), np.zeros(len(x))
        for direction in directions[: (len(directions) + 1) // 2]:
            v = half * scale * unit(direction)
            scores = np.stack([f.score(batches.typed(x + t * v, x.dtype)) for t in _PLACES])
            moved += (scores[-1] - scores[0]) ** 2
            rest += _roughness(scores, _PLACES) ** 2
        rough.append(np.where(moved > 0, rest / np.where(moved > 0, moved, 1), np.inf))
    return np.array(LONG)[np.argmin(rough, axis=0)]


def on_segments(
    f: Function,
    x: Array,
    directions: Sequence[Floats],
    lengths: Sequence[float],
    noise: Floats,
    tolerance: float,
) -> Measured:
    """Measure differences over segments against the mean slope on them; return the best length for each sample."""
    found: list[Measured] = []
    for half in lengths:
        found.append(segments(f, x, directions, np.full(len(x), half), noise))
        if (np.min([m.bar for m in found], axis=0) <= tolerance).all():
            break
    best = np.argmin([m.bar for m in found], axis=0)
    rows = np.arange(len(x))
    return Measured(*(np.stack([getattr(m, name) for m in found])[best, rows] for name in _NAMES))


_NAMES = ("error", "bar", "step", "gap", "outside")


def segments(f: Function, x: Array, directions: Sequence[Floats], half: Floats, noise: Floats | None) -> Measured:
    """Measure differences over segments against the mean slope on them.

    Parameters
    ----------
    half : numpy array, (N,)
        Half their lengths, in units of the input's root mean square.
    noise : numpy array, (N,), or None
        Standard deviation of the score's rounding; None: as rough as the score is along the segments.
    """
    scale = size_of(x)
    shape = (len(directions), len(x))
    measured, promised, spread, rough = (np.zeros(shape) for _ in range(4))
    for k, direction in enumerate(directions):
        v = half.reshape(-1, *[1] * (x.ndim - 1)) * scale * unit(direction)
        ends = [batches.typed(x + sign * v, x.dtype) for sign in (-1, 1)]
        inner = [f.gradient(batches.typed(x + t * v, x.dtype)) for t in _PLACES[1:-1]]
        slopes = np.stack([_dot(ends[1], ends[0], gradient) / (2 * half) for _, gradient in inner])
        scores = np.stack([f.score(ends[0]), *(score for score, _ in inner), f.score(ends[1])])
        measured[k] = (scores[-1] - scores[0]) / (2 * half)
        promised[k] = slopes.mean(0)
        spread[k] = np.abs(slopes[::2].mean(0) - slopes[1::2].mean(0)) / 2
        rough[k] = _roughness(scores, _PLACES)
    deviation = noise if noise is not None else np.sqrt((rough**2).mean(0))
    deviation = np.maximum(deviation, 0.3 * f.last_place)
    size = np.sqrt(np.maximum((measured**2).mean(0), (promised**2).mean(0)))
    bar = np.hypot(deviation / (np.sqrt(2) * half), np.sqrt((spread**2).mean(0)))
    error = np.sqrt(((measured - promised) ** 2).mean(0))
    still = np.where(size > 0, size, 1)
    error = np.where(size > 0, error / still, 0)
    jumps = np.sqrt((rough**2).mean(0)) / half / still
    return Measured(error, np.where(size > 0, bar / still, np.inf), half, jumps, error)


def _roughness(scores: Floats, places: Floats) -> Floats:
    """Return how far scores (points, N) scatter about the nearest parabola, (N,): their rounding, or more."""
    basis = np.vander(places, 3)
    rest = scores - basis @ np.linalg.lstsq(basis, scores, rcond=None)[0]
    return np.asarray(np.sqrt((rest**2).sum(0) / (len(places) - 3)))


def tied_directions(x: Array, channels: int | None, count: int, rng: np.random.Generator) -> list[Floats]:
    """Return random directions in which equal pixels of a sample move alike, and zeros do not move.

    Parameters
    ----------
    x : numpy array, (N, ...)
        The samples.
    channels : int or None
        Which axis holds the channels of a pixel, if one does.
    count : int
        How many directions.
    rng : numpy.random.Generator
        The generator.
    """
    found = [np.zeros(x.shape) for _ in range(count)]
    for n, sample in enumerate(x):
        axis = sample.ndim if channels is None else channels - 1
        pixels = np.moveaxis(sample if channels is not None else sample[..., None], axis, -1)
        values, which = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0, return_inverse=True)
        for direction in found:
            drawn = rng.standard_normal(values.shape) * (values != 0)
            moved = np.moveaxis(drawn[which.reshape(-1)].reshape(pixels.shape), -1, axis)
            direction[n] = moved.reshape(sample.shape)
    return found


def size_of(x: Array) -> Floats:
    """Return the root mean square of every sample, keeping axes; 1 where it is 0."""
    scale = np.sqrt(mean(x.astype(np.float64) ** 2))
    return np.where(scale > 0, scale, 1.0)


def mean(values: Floats) -> Floats:
    """Return the mean of every sample, keeping axes."""
    found: Floats = values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
    return found


def unit(direction: Floats) -> Floats:
    """Scale a direction to a root mean square of 1 for every sample."""
    return direction / (np.sqrt(mean(direction**2)) + 1e-300)


def rms(values: Floats) -> Floats:
    """Return root mean squares over directions, the second axis."""
    return np.asarray(np.sqrt((values**2).mean(1)))


def _share(where: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Floats:
    """Return which share of the entries `among` all is also `where`, by sample."""
    axes = tuple(range(1, where.ndim))
    return np.asarray((where & among).sum(axes) / np.maximum(among.sum(axes), 1))


def _dot(after: Array, before: Array, gradient: Floats) -> Floats:
    """Return `<gradient, after - before>` of every sample."""
    products = (after.astype(np.float64) - before.astype(np.float64)) * gradient
    return np.asarray(products.reshape(len(products), -1).sum(axis=1))
