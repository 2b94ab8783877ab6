"""Compare two models on texts: what both decide, which words decided, and the layers where they part."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files
from fgonnx.audit.comparison.texts import TEXT_MEASURES, ComparedText, TextComparer
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import FgonnxError, NumericError
from fgonnx.fields import arguments, refuse_idle
from fgonnx.jobs.compare import OWN, CompareJob
from fgonnx.jobs.compared import called, decided, rest, scores_said
from fgonnx.jobs.reading import SOUND, Reading
from fgonnx.jobs.text import numbered, of_records, split_blank
from fgonnx.pictures.read.images import write_png
from fgonnx.pictures.show import words as drawing
from fgonnx.pictures.show.words import Shaded
from fgonnx.text.options import Texts
from fgonnx.text.read import Text, texts
from fgonnx.text.tokenizer import BYTES
from fgonnx.text.tokens import Tokens
from fgonnx.wording import visible

PAGE = "index.html"
_SHOWN = 200  # texts on the page


class TextSide:
    """One of two models of texts.

    Parameters
    ----------
    path : Path
        The model.
    options : Options
        What is explained in it.
    reading : Reading
        How labels are read.
    """

    preprocessing = None

    def __init__(self, path: Path, options: Options, reading: Reading) -> None:
        refuse_idle(reading, ["preprocess", *SOUND], "the models take texts")
        self.path, self.given, self.reading = path, options, reading
        self.loaded = load(path)

    def arguments(self, suffix: str) -> list[str]:
        """Return what is the model's own on the command line, with a suffix behind every flag."""
        return arguments(self.given, only=OWN, suffix=suffix)


@dataclass
class TextCompareJob(CompareJob):
    """Compares two models on text after text, and keeps a row of each.

    Attributes
    ----------
    typed : sequence of str
        Texts, beside those in files.
    texts : Texts
        How texts become ids.
    given : collection of str
        Fields of the options that were asked for, and stay as they are.
    """

    models: tuple[TextSide, TextSide]  # type: ignore[assignment]
    typed: Sequence[str] = ()
    texts: Texts = field(default_factory=Texts)
    given: Collection[str] = ()

    def __post_init__(self) -> None:
        files.check_folder(self.folder)
        refuse_idle(self.limits, ["min_ssim"], "it compares pictures; words are compared by their order and amounts")
        a, b = self.models
        self._stored = a.loaded.labels() or b.loaded.labels()
        self.of_texts = TextComparer(
            a.loaded,
            b.loaded,
            a.given,
            b.given,
            running=self.running,
            texts=self.texts,
            labels=self.labels,
            given=self.given,
        )
        self.comparer = self.of_texts.comparer
        shown = self.of_texts.a.explainer.options
        self.signed = shown.psi == "signed"
        self.settings = {k: v for k, v in shown.to_dict().items() if k not in OWN} | {"target": self.target}
        self.settings["texts"] = {k: str(v) for k, v in vars(self.texts).items() if v is not None}
        as_bytes = str(self.texts.tokenizer) == BYTES
        read, self.skipped = split_blank(texts(self.inputs, self.typed, self.texts.column, as_bytes=as_bytes))
        cut = [(text, part) for text in read for part in self.of_texts.cut(text.content, text.where)]
        names = numbered([text.name for text, _ in cut])
        self.sources: list[tuple[Text, Tokens]] = [  # type: ignore[assignment]
            (replace(text, name=name), part) for (text, part), name in zip(cut, names, strict=True)
        ]
        self._rows: list[dict[str, Any]] = []
        self._points = ()
        self._sums = {}
        self._shapes = {}
        self._bodies: list[str] = []

    @property
    def meanings(self) -> Mapping[str, str]:
        """What is measured, and what it means."""
        return TEXT_MEASURES

    def rows(self) -> Iterator[dict[str, Any]]:
        """Compare text after text and yield their rows, once their pictures are written.

        Raises
        ------
        FgonnxError
            A text cannot be compared; of those before it, pictures and a summary are written.
        """
        step = self.running.batch_size
        try:
            for first in range(0, len(self.sources), step):
                yield from self._done(self.sources[first : first + step])
        except FgonnxError:
            if self._rows:
                self.write(self.summary(complete=False))
            raise
        self.write(self.summary(complete=True))

    def _done(self, batch: Sequence[tuple[Text, Tokens]]) -> Iterator[dict[str, Any]]:
        try:
            found = self.of_texts([part for _, part in batch], self.target)
        except NumericError as error:
            if len(batch) == 1:
                raise NumericError(f"{batch[0][0].where}: {error}") from error
            for alone in batch:
                yield from self._done([alone])
            return
        for whole in {id(one.whole): one.whole for one in found}.values():
            self._collect(whole)
            self.notes.update(dict.fromkeys(whole.notes))
        for (text, part), one in zip(batch, found, strict=True):
            if part.note:
                self.notes[f"{text.where}: {part.note}"] = None
            row = self._written(text, one)
            self._rows.append(row)
            yield row

    def _written(self, text: Text, one: ComparedText) -> dict[str, Any]:
        sides = (self.of_texts.a, one.a), (self.of_texts.b, one.b)
        self._shapes = {k: s.arrays([f.tokens])[s.name].shape for k, (s, f) in zip("AB", sides, strict=True)}
        names = self._names(one)
        shapes = [s.entries.head_shape(s.arrays([f.tokens])) for s, f in sides]
        content = text.content if isinstance(text.content, bytes) else repr(text.content).encode("utf-8", "replace")
        row = {
            "image": text.name if text.path is None else str(text.path),
            "row": text.row,
            "sha256": hashlib.sha256(content).hexdigest(),
            **decided(one.whole, one.row, (one.choice_a, one.choice_b), names, shapes),
            **one.measures,
            **rest(one.whole, one.row),
            "picture": f"{text.name}.png",
            "words": [
                {"text": w.text, "special": w.special, "a": va, "b": vb}
                for (w, va), (_, vb) in zip(one.a.words, one.b.words, strict=True)
            ],
        }
        shown = self._shown(row, one)
        files.make_folder(self.folder)
        scale = drawing.largest_of(shown[0][1])
        drawn = [drawing.drawn(words, title, lines, largest=scale) for title, words, lines in shown]
        write_png(self.folder / row["picture"], np.concatenate(drawn))
        if len(self._bodies) < _SHOWN:
            bodies = (drawing.as_html(words, title, lines, largest=scale) for title, words, lines in shown)
            self._bodies.append(f"<h2>{html.escape(visible(text.name))}</h2>{''.join(bodies)}")
        return row

    def _shown(self, row: Mapping[str, Any], one: ComparedText) -> list[tuple[str, list[Shaded], list[str]]]:
        """Return what is drawn of a text, from above: the words of A, those of B, and the difference."""
        a, b = self.models
        lines = [
            *scores_said(row),
            f"words: rank correlation {row['rank_correlation']:.3f}, correlation {row['correlation']:.3f}; the same "
            f"word on top: {'yes' if row['pointing'] else 'NO'}",
            f"rounding: {row['quantisation_a']:.1%} of A's contributions, {row['quantisation_b']:.1%} of B's; largest "
            f"error of a layer: {row['layer_error']:.1%}",
        ]
        same = "same decision" if row["choice_a"] == row["choice_b"] else "OTHER DECISION"
        return [
            (f"A, {a.path.name}: {called(row, 'a')}", of_records(one.a.tokens, one.a.values), []),
            (f"B, {b.path.name}: {called(row, 'b')} ({same})", of_records(one.b.tokens, one.b.values), []),
            ("B - A, in the shades of A", of_records(one.a.tokens, one.b.values - one.a.values), lines),
        ]

    def _names(self, one: ComparedText) -> tuple[str, ...] | None:
        """Return names of the head's entries, where these are classes."""
        side = self.of_texts.a
        shape = side.entries.head_shape(side.arrays([one.a.tokens]))
        if sum(size > 1 for size in shape) > 1:
            return None
        return self._labels(int(np.prod(shape)))

    def _command(self) -> list[str]:
        """Return the command that does the run again."""
        a, b = self.models
        return [
            *("fgonnx", "compare", str(a.path), str(b.path), *map(str, self.inputs), "-o", str(self.folder)),
            *(word for text in self.typed for word in ("--text", text)),
            *(("--target", self.target) if self.target is not None else ()),
            *arguments(a.given, without=("method", "settings", "engine", *OWN, *FILE)),
            *(text for side, suffix in ((a, "-a"), (b, "-b")) for text in side.arguments(suffix)),
            *arguments(a.reading, without=("preprocess", *SOUND)),
            *arguments(self.texts),
            *arguments(self.limits),
            *arguments(self.running, defaults={"cache": True}),
        ]

    def write(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, summary.csv and the page of the words."""
        super().write(summary)
        more = len(self._rows) - len(self._bodies)
        rest = f"<p>{more} more texts: see summary.json and their pictures</p>" if more else ""
        title = f"{self.models[0].path.name} (A) and {self.models[1].path.name} (B)"
        files.write_text(self.folder / PAGE, drawing.page([*self._bodies, *([rest] if rest else [])], title))
