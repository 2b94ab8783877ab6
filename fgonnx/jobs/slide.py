"""Long recordings window by window, with the state of a recurrent model carried on, as one map on one time axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import turned
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.closing import DISTRUST, closes
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.parts import METHODS, Lanes, lanes
from fgonnx.jobs import provenance, record, tabled, written
from fgonnx.jobs.explain import ExplainJob
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import Sample, Source
from fgonnx.jobs.schema import FIELDS
from fgonnx.jobs.tabular import Whole, padded
from fgonnx.pictures.show import lanes as plotted
from fgonnx.pictures.show.sheet import RGB, Certificate
from fgonnx.wording import amount, near, parameter

Array = npt.NDArray[Any]


@dataclass
class _Track:
    """What windows say of a recording, added up step by step.

    Attributes
    ----------
    channels : numpy array, (C, T)
        Sum over windows of the lanes of the channels.
    inside, rest, scores : numpy array, (T,)
        Sums of the lane of the network, of what has no place within its window, spread over it, and of the scores.
    count : numpy array, (T,)
        How many windows cover a step.
    """

    channels: Array
    inside: Array
    rest: Array
    scores: Array
    count: Array

    @classmethod
    def of(cls, channels: int, steps: int) -> _Track:
        """Return a track without windows."""
        return cls(np.zeros((channels, steps)), *(np.zeros(steps) for _ in range(4)))

    def add(self, start: int, window: int, found: Lanes, rest: float, score: float) -> None:
        """Add a window."""
        at = slice(start, min(start + window, self.count.size))
        size = at.stop - at.start
        self.channels[:, at] += found.channels[:, :size]
        if found.inside is not None:
            self.inside[at] += found.inside[:size]
        self.rest[at] += rest / window
        self.scores[at] += score
        self.count[at] += 1

    def lanes(self) -> tuple[Lanes, Array]:
        """Return the lanes of the recording and the score over time: means over the windows that cover a step."""
        times = np.maximum(self.count, 1)
        return Lanes(self.channels / times, (self.inside + self.rest) / times), self.scores / times


@dataclass(frozen=True)
class _Window:
    """One explained window: where it starts, and its row in an explanation."""

    start: int
    x: Array
    e: Explanation
    row: int

    @property
    def score(self) -> float:
        """The model's score, also where a method explains a mean over noisy copies."""
        return float((self.e.score if self.e.model_score is None else self.e.model_score)[self.row])


@dataclass
class SlideJob(ExplainJob):
    """Explains recordings that are longer than a model's windows: for each a picture, a map and a JSON record.

    The windows of a recording are explained one after the other, each for its own decision, or for the target. A state
    that is carried is what the window before has left; it is a constant of the window's explanation. On the common time
    axis, every step has the mean over the windows that cover it; what has no place within a window, such as a layer of
    a single step, is spread over the window.
    """

    _window: int = field(default=0, init=False)
    _first: dict[str, Array] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        carried = dict(self.reading.carry or {})
        given = load(self.model)
        free = {str(v.name): v for v in free_inputs(given.ir.graph)}
        names = [name for name in free if name in carried or name not in (self.options.bind or {})]
        outputs = [str(v.name) for v in given.ir.graph.outputs]
        for name, output in carried.items():
            if name not in names or output not in outputs:
                kind, wrong, known = ("input", name, names) if name not in names else ("output", output, outputs)
                raise OptionError(
                    f"{parameter('carry', f'{name}={output}')}: the model has no {kind} '{wrong}' to carry"
                    f"{near(wrong, known)}; it has {', '.join(known)}"
                )
        rest = [name for name in names if name not in carried]
        if self.options.input is None and carried and len(rest) == 1:
            self.options = replace(self.options, input=rest[0])
        self.options = tabled.signed(self.options)
        shapes = self.options.input_shape if isinstance(self.options.input_shape, Mapping) else {}
        for name, value in (self.options.bind or {}).items():
            if name in carried:
                self._first[name] = binding.fixed(given.name, free[name], value, shapes.get(name))
        super().__post_init__()
        self._window = self._length()
        if self.reading.slide is None or self.reading.slide > self._window:
            raise OptionError(
                f"{parameter('slide', self.reading.slide)} leaves gaps between windows of {self._window} steps; give "
                "at most as many"
            )

    def _length(self) -> int:
        """Return how many steps a window has."""
        dims = list(dims_of(self.loaded.input(self.options.input)))[1:]
        shape = self._options.explained_shape
        sizes = list(shape[1:]) if shape is not None else dims
        if len(sizes) not in (1, 2):
            raise OptionError(
                f"{parameter('slide', self.reading.slide)}: windows are of recordings, and the input has "
                f"{len(sizes)} axes besides the batch; give spectrograms of one window each, as .npy"
            )
        known = [d for d in sizes if isinstance(d, int)]
        if len(known) < len(sizes):
            example = ",".join(str(d) if isinstance(d, int) else "512" for d in (1, *sizes))
            raise OptionError(
                f"{parameter('slide', self.reading.slide)}: the length of a window is free in the model; give it "
                f"({parameter('input_shape', example)})"
            )
        if len(known) == 1:
            return known[0]
        return known[0 if self._layout_of((known[0], known[1])) == "NWC" else 1]

    @property
    def _fixed(self) -> Mapping[str, Any]:
        return {k: v for k, v in (self.options.bind or {}).items() if k not in self._first}

    @property
    def _bound(self) -> Mapping[str, str]:
        return {**self.loaded.bound, **{name: binding.described(array) for name, array in self._first.items()}}

    @property
    def _asks_gradient(self) -> bool:
        return self.options.method in METHODS

    def run(self) -> Iterator[dict[str, Any]]:
        """Explain recording after recording and yield their records, once their files are written."""
        for source in self.sources:
            yield self._slid(source)

    def _slid(self, source: Source) -> dict[str, Any]:
        whole = self.reader.whole(source)
        values, notes = self._filled(whole, source)
        steps = whole.values.shape[1]
        track = _Track.of(len(values), steps)
        best: _Window | None = None
        rows, sites, unclosed = [], np.zeros(0), 0
        for window in self._windows(values):
            e, row = window.e, window.row
            layout = self._explainer.engine((1, *window.x.shape)).rewritten.normal.layout
            found = lanes(e, row, window.x, layout)
            found = found or Lanes(e.saliency[row][None].repeat(len(values), axis=0) / len(values), None)
            rest = 0.0
            if e.contributions is not None:
                parts = e.contributions[row].astype(np.float64)
                rest = float(parts[[not s.in_map for s in e.sites]].sum())
                sites = parts + (sites if sites.size else 0)
            track.add(window.start, self._window, found, rest, window.score)
            rows.append(_told(window))
            unclosed += not closes(e.settings.get("remarks", [])[row : row + 1])
            best = window if best is None or window.score > best.score else best
        assert best is not None
        if unclosed:
            notes.append(f"in {unclosed} of {len(rows)} windows {DISTRUST}")
        return self._told(source, whole, notes, track, best, rows, sites)

    def _filled(self, whole: Whole, source: Source) -> tuple[Array, list[str]]:
        """Return a recording that windows cover to its end, as far as padding is declared, and notes."""
        hop, steps = cast("int", self.reading.slide), whole.values.shape[1]
        notes = list(whole.notes)
        missing = (self._window - steps) if steps < self._window else -(steps - self._window) % hop
        if not missing:
            return whole.values, notes
        if self.reading.pad is not None:
            notes.append(f"the last window is padded by {missing} steps")
            return padded(whole.values, steps + missing, self.reading.pad), notes
        if steps < self._window:
            raise InputError(
                f"'{source.path}' has {steps} steps, and a window {self._window}; say what the rest is filled with "
                f"({parameter('pad', 'zero')}, edge or a number)"
            )
        left = (steps - self._window) % hop
        notes.append(f"the last {left} steps fill no window and are left out; --pad zero fills one with them")
        return whole.values, notes

    def _windows(self, values: Array) -> Iterator[_Window]:
        """Explain all windows in order."""
        hop = cast("int", self.reading.slide)
        starts = range(0, values.shape[1] - self._window + 1, hop)
        dtype = dtype_of(self.loaded.input(self.options.input)).numpy()
        xs = (
            self.reader.tables.fitted(values[:, s : s + self._window], "the recording")[0].astype(dtype) for s in starts
        )
        if self.reading.carry:
            yield from self._carried(starts, xs)
            return
        pairs = list(zip(starts, xs, strict=True))
        for i in range(0, len(pairs), self.together):
            group = pairs[i : i + self.together]
            e = self._explainer(np.stack([x for _, x in group]), self.target)
            yield from (_Window(start, x, e, row) for row, (start, x) in enumerate(group))

    def _carried(self, starts: Sequence[int], xs: Iterator[Array]) -> Iterator[_Window]:
        carried = dict(self.reading.carry or {})
        inputs = {str(v.name): v for v in self.loaded.ir.graph.inputs}
        state = {}
        for name in carried:
            sizes = [d if isinstance(d, int) else 1 for d in dims_of(inputs[name])]
            state[name] = np.zeros(sizes, dtype_of(inputs[name]).numpy())
        state.update(turned(self.loaded, self._first))
        explained = str(self.loaded.input(self.options.input).name)
        for start, x in zip(starts, xs, strict=True):
            e = self._explainer({explained: x[None], **state}, self.target)
            yield _Window(start, x, e, 0)
            state = {name: e.outputs[output].reshape(state[name].shape) for name, output in carried.items()}

    def _told(
        self,
        source: Source,
        whole: Whole,
        notes: list[str],
        track: _Track,
        best: _Window,
        rows: list[dict[str, Any]],
        sites: Array,
    ) -> dict[str, Any]:
        """Write the picture, the map and the record of a recording."""
        found, scores = track.lanes()
        rewritten = self._explainer.engine((1, *best.x.shape)).rewritten
        decision = Decision.of(best.e, rewritten, self._labels(rewritten), self._explainer.labels)
        start = whole.start + best.start
        sample = Sample(
            source, best.x, self.reader.shown(best.x), None, tuple(notes), whole.rate, start, named=whole.named
        )
        asked = {**self._request(source), **provenance.about(self.running)}
        made = record.describe(asked, best.e, decision, sample, best.row, self._files(source), self._command(source))
        made = tabled.described(made, replace(sample, start=whole.start), found)
        map_ = (found.channels.sum(axis=0) + (0 if found.inside is None else found.inside)).astype(np.float32)
        made["map"] = {
            **provenance.array_of(map_),
            "min": float(map_.min()),
            "max": float(map_.max()),
            "picture": None,
            "frame": None,
        }
        made["slide"] = {
            "window": self._window,
            "hop": self.reading.slide,
            "carried": dict(self.reading.carry or {}),
            "strongest": start,
            "windows": [{**row, "start": row["start"] + whole.start} for row in rows],
        }
        made = {f.name: made[f.name] for f in FIELDS if f.name in made}
        names = tabled.names_of(sample, len(whole.values))
        series = plotted.Series(
            whole.values, found.channels, found.inside, names, whole.units, whole.rate, whole.start, 0, scores
        )
        picture = self._drawn(series, made, sample, sites)
        written.write(self.folder, source.name, made, picture, map_)
        return made

    def _drawn(self, series: plotted.Series, made: dict[str, Any], sample: Sample, sites: Array) -> RGB:
        slid = made["slide"]
        windows, rate = slid["windows"], series.rate

        def at(step: float) -> str:
            return f"{step / rate:.4g} s" if rate else f"step {step:.0f}"

        strongest = f"score {amount(record.score_of(made))}"
        if made["target"] is not None and made["target"]["probability"] is not None:
            strongest += f", probability {made['target']['probability']:.1%}"
        size = f"{slid['window'] / rate:.4g} s" if rate else f"{slid['window']} steps"
        lines = [f"{len(windows)} windows of {size}, one every {at(slid['hop'])}"]
        lines += [f"state carried on: {', '.join(slid['carried'])}"] if slid["carried"] else []
        lines += [f"the strongest window begins at {at(slid['strongest'])}: {strongest}"]
        residuals = [w["rounding"] for w in windows if w["rounding"] is not None]
        if residuals:
            lines.append(f"sums of contributions are off by at most {max(residuals):.0e} of them")
        lines += [] if closes(made["notes"]) else [DISTRUST]
        shares = [w["localised"] for w in windows if w["localised"] is not None]
        if shares:
            lines.append(f"{np.mean(shares):.1%} have a place within their window; the others belong to all of it")
        lines.append(f"{made['settings']['method']}, psi {made['settings']['psi']}; the bars are sums over all windows")
        bars = list(zip(record.short_names(made["sites"]), map(float, sites), strict=True)) if sites.size else []
        title = f"{record.target_of(made)}   ({sample.source.path.name})"
        signed = made["settings"]["psi"] == "signed"
        return plotted.draw(series, Certificate(title, lines, bars), signed=signed)


def _told(window: _Window) -> dict[str, Any]:
    """Return what the record says of one window."""
    e, row = window.e, window.row
    certified = e.contributions is not None and e.completeness is not None
    return {
        "start": window.start,
        "score": float(e.score[row]),
        **({"model_score": window.score} if e.model_score is not None else {}),
        "index": int(e.target[row]) if e.target is not None else None,
        "residual": float(e.completeness[row]) if e.completeness is not None else None,
        "rounding": float(e.rounding_residual()[row]) if certified else None,
        "localised": float(e.localised_share()[row]) if certified else None,
    }
