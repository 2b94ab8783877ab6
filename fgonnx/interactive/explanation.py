"""An explanation that shows itself: pictures, tables and files of it."""

from __future__ import annotations

import copy
import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from fgonnx import files as storage
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.explanation import Explanation as Arrays
from fgonnx.interactive import cell, choosing, table
from fgonnx.interactive.origin import Origin, input_of
from fgonnx.jobs import panel, provenance, record, tabled, written
from fgonnx.jobs.samples import Sample, unique_names
from fgonnx.jobs.tabular import TABLE
from fgonnx.pictures.read.images import png, write_png
from fgonnx.pictures.show import visual
from fgonnx.wording import amount

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

_OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg", ".pdf")
_SHOWN = 12  # samples in a notebook's cell
_PER_SAMPLE = (
    *("saliency", "target", "contrast", "score", "scores", "contributions", "completeness", "attribution", "delta"),
    *("input_gradient", "model_score"),
)


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Arrays):
    """The explanation of N samples, one where the input has no batch axis; notebooks show it as pictures.

    `e[i]` is the explanation of one sample, `e[2:]`, `e[[0, 2]]` and `e[mask]` of several; a loop runs over samples.

    Attributes
    ----------
    saliency : numpy array, (N, H, W)
        The map; at least 0 for psi "abs" and "positive", of either sign for "signed". (N, T) for sequences,
        (N, D, H, W) for volumes.
    target : numpy array of int64, (N,), or None
        Flat index of the entry explained, within one sample of the head; None where it is not one entry.
    score : numpy array, (N,)
        The value explained: that entry, before the final Softmax or Sigmoid if `head` is "logits".
    outputs : dict of str to numpy array
        The model's own outputs.
    sites : tuple of Site
        The columns of `contributions`, the input first.
    contributions : numpy array, (N, sites), or None
        `<g_y, c>` per site: what each layer's biases and non-linearities contribute to the score.
    completeness : numpy array, (N,), or None
        Residual: score minus the sum of all contributions; zero up to rounding.
    attribution : numpy array or None
        Signed attribution of every entry of the input, of the input's shape, for methods that compute one.
    delta : numpy array, (N,), or None
        Integrated gradients: the sum of the attribution minus the difference of the scores at the ends of the path.
    input_gradient : numpy array or None
        Gradient of the score with respect to the input, of the input's shape.
    bias_gradients : dict of str to numpy array
        Per-neuron bias-gradients by site, if requested.
    exposed : dict of str to numpy array
        Other values of the graph, if requested.
    scores : numpy array, (N, *head), or None
        All entries of the tensor explained, if requested.
    head : str
        Name of the value explained.
    head_stripped : str
        Operator after it that is not explained, or "".
    settings : dict
        Method, profile, psi, head and the source's hash, for the record.
    described : tuple of str
        Description of what is explained, one per sample.
    contrast : numpy array of int64, (N,), or None
        Flat index of the entry that the target is compared with; `score` is then the difference of the two.
    blocks : dict of str to numpy array, (N,)
        fullgrad+: for each value at which a block begins, by name and in order, what it and the contributions behind it
        sum to; the score, each of them, up to rounding.
    model_score : numpy array, (N,), or None
        The model's score of the samples themselves, where `score` is a mean over noisy copies (smooth-fullgrad).
    origin : Origin
        Where the samples come from, for pictures and records.

    Examples
    --------
    >>> import fgonnx
    >>> e = fgonnx.explain("examples/shapes.onnx", "examples/images/star.png")
    >>> e
    Explanation of 1 sample by fullgrad: 'star' 3.876
    >>> e.overlay().size
    (256, 256)
    >>> e.to_dict()["target"]["label"]
    'star'

    The contributions sum to the score, here `relu(x0 + 2 x1 + 3)` at (2, 1): 4 from the input, 3 from the bias.

    >>> import numpy as np
    >>> import fgonnx
    >>> from onnx import parser
    >>> model = parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 18]>
    ...     f (float[N,2] x) => (float[N,1] y) <float[2,1] w = {1, 2}, float[1] b = {3}> {
    ...         z = Gemm(x, w, b)
    ...         y = Relu(z)
    ...     }''')
    >>> explanation = fgonnx.Explainer(model, input_gradient=True)(np.array([[2, 1]], np.float32))
    >>> explanation.score, explanation.contributions, explanation.completeness
    (array([7.], dtype=float32), array([[4., 3.]], dtype=float32), array([0.], dtype=float32))
    >>> [site.name for site in explanation.sites]
    ['input', 'z']
    >>> explanation.input_gradient
    array([[1., 2.]], dtype=float32)
    """

    origin: Origin = field(kw_only=True, compare=False)

    def __repr__(self) -> str:
        parts = [self._summary(i) for i in range(min(len(self), 3))]
        more = f", and {len(self) - 3} more" if len(self) > 3 else ""
        plural = "" if len(self) == 1 else "s"
        return f"Explanation of {len(self)} sample{plural} by {self.settings['method']}: {'; '.join(parts)}{more}"

    def _summary(self, sample: int) -> str:
        made = self._records[sample]
        return f"{record.target_of(made)!r} {amount(record.score_of(made))}"

    def _number(self, index: int) -> int:
        """Return the number of a sample, from 0; refuse one that there is not."""
        return choosing.number(index, len(self))

    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool] | Array) -> Explanation:
        """Return the explanation of one sample or of several, N stays the first axis.

        Parameters
        ----------
        index : int, slice, list of int, or mask of bool
            Which; as for a numpy array.

        Raises
        ------
        IndexError, TypeError
            There is no such sample, none is chosen, or it is something else.
        """
        count = len(self)
        if choosing.one(index):
            number = self._number(cast("int", index))
            index = slice(number, number + 1)
        index = choosing.several(index, count)
        chosen = range(count)[index] if isinstance(index, slice) else index.tolist()
        settings = dict(self.settings)
        if "remarks" in settings:
            settings["remarks"] = _of(settings["remarks"], chosen)
        taken = {name: _rows(getattr(self, name), index) for name in _PER_SAMPLE}
        axes = self.origin.batches
        decision = self.origin.decision
        return replace(
            self,
            **taken,
            outputs={n: _rows(a, index, axes.get(n, 0)) for n, a in self.outputs.items()},
            blocks={n: _rows(a, index) for n, a in self.blocks.items()},
            bias_gradients={n: _rows(a, index) for n, a in self.bias_gradients.items()},
            exposed={n: _rows(a, index) if len(a) == count else a for n, a in self.exposed.items()},
            described=tuple(_of(self.described, chosen)),
            settings=settings,
            origin=replace(
                self.origin,
                samples=tuple(_of(self.origin.samples, chosen)),
                digests=tuple(_of(self.origin.digests, chosen)),
                decision=replace(
                    decision,
                    scores=_rows(decision.scores, index),
                    probabilities=_rows(decision.probabilities, index),
                ),
            ),
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def picture(self, sample: int = 0, *, kind: str = "panel") -> RGB:
        """Draw one sample as `fgonnx explain` does.

        Parameters
        ----------
        sample : int
            Which of the samples.
        kind : {"panel", "overlay", "heat"}
            Photo, explanation and certificate; the map over the whole photo; or the map alone.

        Returns
        -------
        ndarray of uint8, (height, width, 3)
            RGB pixels.

        Raises
        ------
        OptionError
            The kind does not exist.
        """
        _check_kind(kind)
        o, sample = self.origin, self._number(sample)
        pre = o.reader.preprocessing
        parts = tabled.parts_of(self, sample, o.samples[sample], o.layout)
        drawn = self._drawn[sample]
        return written.drawn(self._records[sample], drawn, self.saliency[sample], kind, o.layout, pre, parts)

    def overlay(self, sample: int = 0, *, alpha: float = 0.85, colormap: str = "inferno") -> Image:
        """Return the map over the picture, as an image of PIL of the picture's size.

        Parameters
        ----------
        sample : int
            Which of the samples.
        alpha : float
            Opacity where the map is strongest, 0 to 1.
        colormap : str
            A key of `fgonnx.pictures.show.visual.COLORMAPS`, for maps without sign.

        Raises
        ------
        OptionError
            The sample is a recording or a row of a table, which has no picture.
        """
        from PIL import Image

        sample = self._number(sample)
        if self._is_line(sample):
            raise OptionError(
                "recordings and rows of tables have no picture to lay a map over: use plot(), picture() or save()"
            )
        drawn, o, signed = self._drawn[sample], self.origin, self.settings["psi"] == "signed"
        over = written.placed(drawn, self.saliency[sample], o.layout, o.reader.preprocessing)
        map_, photo = self._map(sample), drawn.shown
        if over is not None and drawn.photo is not None:
            map_, photo = panel.smoothed(over, signed=signed), drawn.photo
        return Image.fromarray(visual.overlay(photo, map_, alpha, signed=signed, colormap=colormap))

    def plot(self, sample: int | None = None, *, bars: int = 10) -> Figure:
        """Draw picture, map and contributions on axes of matplotlib, a row for each sample.

        Of a recording, its wave and the map over time; of a row of a table, values and map by feature.

        Parameters
        ----------
        sample : int, optional
            One sample; all (12 at most) by default.
        bars : int
            Layers whose contributions are drawn, the largest.

        Returns
        -------
        matplotlib Figure
            Which a notebook shows by itself; `figure.savefig("cat.pdf")` writes it.

        Raises
        ------
        OptionError
            Matplotlib is not installed.
        """
        from fgonnx.interactive.figure import Row, figure

        chosen = range(min(len(self), _SHOWN)) if sample is None else [self._number(sample)]
        rows = [Row(self._records[i], self._drawn[i].shown, **{"map_": self._map(i), **self._along(i)}) for i in chosen]
        return figure(rows, signed=self.settings["psi"] == "signed", bars=bars)

    def save(self, path: str | Path, *, kind: str = "panel") -> list[Path]:
        """Write files exactly as `fgonnx explain` does.

        Parameters
        ----------
        path : path-like
            A folder, which is made: a picture, the map and a record for every sample. Or, of a single sample, a file:
            .png for the picture, .npy for the map, .json for the record.
        kind : {"panel", "overlay", "heat"}
            What the picture shows.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        InputError
            A file cannot be written, or several samples would go into one.
        """
        path = Path(path)
        _check_kind(kind)
        if path.suffix.lower() in (".png", ".npy", ".json") and not path.is_dir():
            return [self._save_one(path, kind)]
        if path.suffix.lower() in _OTHER_PICTURES and not path.is_dir():
            raise InputError(f"'{path}': pictures are written as .png; e.overlay() is one of PIL, which saves others")
        storage.make_folder(path)
        found = []
        sources = [(s.source.path, s.source.row) for s in self.origin.samples]
        for i, name in enumerate(unique_names(sources)):
            made = {**self._record(i, kind), "files": written.names(name), "command": self._command(i, path, kind)}
            found += written.write(path, name, made, self.picture(i, kind=kind), self.saliency[i])
        return found

    def _command(self, sample: int, folder: Path, kind: str) -> list[str]:
        o = self.origin
        known = o.told and any(o.digests[sample : sample + 1])
        return o.asked.command(o.samples[sample].source, folder, kind) if known else []

    def _save_one(self, path: Path, kind: str) -> Path:
        if len(self) != 1:
            raise InputError(f"{len(self)} samples do not go into one file '{path}': give a folder, or save e[0]")
        if path.suffix.lower() == ".json":
            storage.write_json(path, self._records[0])
        elif path.suffix.lower() == ".npy":
            storage.write_array(path, self.saliency[0].astype("float32", copy=False))
        else:
            write_png(path, self.picture(0, kind=kind))
        return path

    def to_dict(self, sample: int = 0) -> dict[str, Any]:
        """Return the record of one sample, as `fgonnx explain` writes it (docs/cli.md describes its keys)."""
        return copy.deepcopy(self._records[self._number(sample)])

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with a row for each sample: what was explained, scores, certificate, contributions.

        Rows of a DataFrame keep its index. A layer or feature named as another column, such as "score", is called
        "adds: score".

        Raises
        ------
        OptionError
            pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise OptionError("a DataFrame needs pandas: pip install pandas, or use to_dict()") from error
        index: list[Any] = [s.named.index if s.named is not None else None for s in self.origin.samples]
        kept = index[0].append(index[1:]) if all(i is not None for i in index) else None
        rows = [table.row(made, s.source.name) for made, s in zip(self._records, self.origin.samples, strict=True)]
        return pd.DataFrame(rows, index=kept)

    def _repr_png_(self) -> bytes:
        return png(cell.grid([self.picture(i) for i in range(min(len(self), _SHOWN))]))

    def _repr_html_(self) -> str:
        count = min(len(self), _SHOWN)
        if count == 1:
            parts = [cell.image(self._alt(0), self.picture(0), "max-width:100%;height:auto")]
        else:
            parts = [cell.captioned(self._summary(i), self._alt(i), self._small(i)) for i in range(count)]
        rest = f"<p>{len(self) - count} more samples: e[{count}] to e[{len(self) - 1}]</p>" if len(self) > count else ""
        notes = "".join(f"<li>{html.escape(str(note))}</li>" for note in self._notes)
        noted = f"<details><summary>{len(self._notes)} notes</summary><ul>{notes}</ul></details>" if notes else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(parts)}</div>{rest}{noted}'

    def _small(self, sample: int) -> RGB:
        """Return picture and overlay of one sample side by side; of what is plotted, its plot."""
        drawn = self._drawn[sample]
        if drawn.photo is None and sum(size > 1 for size in self.saliency.shape[1:]) != 2:
            return cell.plotted(self.picture(sample))
        return cell.pair(drawn.shown if drawn.photo is None else drawn.photo, np.asarray(self.overlay(sample)))

    def _alt(self, sample: int) -> str:
        made = self._records[sample]
        name = made["input"]["path"] or self.origin.samples[sample].source.name
        return f"{name}: explanation of {record.target_of(made)}, score {amount(record.score_of(made))}"

    @property
    def _notes(self) -> list[str]:
        return list(dict.fromkeys(note for made in self._records for note in made["notes"]))

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        """The record of every sample."""
        return [self._record(i, record.PICTURES[0]) for i in range(len(self))]

    def _record(self, row: int, kind: str) -> dict[str, Any]:
        o = self.origin
        sample, pre, target = o.samples[row], o.reader.preprocessing, {"target": o.asked.target}
        asked = o.asked.request(
            o.model.content, self.settings["bound"], input_of(sample, *o.digests[row : row + 1]), pre, target, kind
        )
        about = provenance.about(o.asked.running)
        made = record.describe({**asked, **about}, self, o.decision, sample, row, {}, [])
        return tabled.described(made, sample, tabled.parts_of(self, row, sample, o.layout))

    @cached_property
    def _drawn(self) -> list[Sample]:
        """The samples with the pictures that are drawn of arrays."""
        o = self.origin
        return [s if s.photo is not None else replace(s, shown=o.reader.shown(s.x, o.layout)) for s in o.samples]

    def _along(self, sample: int) -> dict[str, Any]:
        """Return what is drawn of a recording or of a row of a table, for its plot; nothing of a picture."""
        drawn = self._drawn[sample]
        if not self._is_line(sample):
            return {}
        map_ = self.saliency[sample].reshape(-1)
        values = record.arranged(drawn.x, self.origin.layout)
        values = values.reshape(len(values), -1)
        is_table = drawn.named is not None and drawn.named.kind == TABLE
        count = len(map_) if is_table else len(values)
        if values.shape[1] != len(map_):
            return {}
        names = tabled.names_of(drawn, count)
        return {
            "map_": map_,
            "values": values,
            "names": names,
            "is_table": is_table,
            "rate": drawn.rate,
            "start": drawn.start,
        }

    def _is_line(self, sample: int) -> bool:
        """Tell whether a sample is a recording or a row of a table: its map has one axis, and there is no photo."""
        return self._drawn[sample].photo is None and sum(size > 1 for size in self.saliency.shape[1:]) < 2

    def _map(self, sample: int) -> Array:
        return panel.smoothed(record.flat(self.saliency[sample]), signed=self.settings["psi"] == "signed")


def _check_kind(kind: str) -> None:
    if kind not in record.PICTURES:
        raise OptionError(f"kind is {kind!r}: choose one of {', '.join(record.PICTURES)}")


def shown(arrays: Arrays, origin: Origin) -> Explanation:
    """Return arrays of an explanation as one that shows itself."""
    return Explanation(**{f.name: getattr(arrays, f.name) for f in fields(Arrays)}, origin=origin)


def _rows(array: Array | None, index: choosing.Rows, axis: int | None = 0) -> Any:
    if array is None or axis is None:
        return array
    return array[(slice(None),) * axis + (index,)]


def _of(values: Sequence[Any], chosen: Iterable[int]) -> list[Any]:
    """Return what some samples have; nothing where none has any."""
    return [values[i] for i in chosen] if values else []
