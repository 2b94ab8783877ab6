"""Run `fgonnx explain` on texts: for each a picture, a page, the numbers of its tokens and a record."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files as storage
from fgonnx.engine import methods
from fgonnx.engine.graph.lookups import holds_ids
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import FgonnxError, InputError, OptionError
from fgonnx.explain.closing import closes
from fgonnx.explain.written import is_written
from fgonnx.fields import arguments, refuse_idle
from fgonnx.jobs import provenance, record
from fgonnx.jobs.reading import SOUND, Reading, aligned_labels
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import SOUND_SUFFIX, Sample, Source
from fgonnx.jobs.written import Asked
from fgonnx.pictures.read.images import SUFFIXES, expand, write_png
from fgonnx.pictures.show import words as drawing
from fgonnx.pictures.show.words import Shaded
from fgonnx.text import answers
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found
from fgonnx.text.options import DEFAULTS, Texts
from fgonnx.text.read import Text, texts
from fgonnx.text.tokenizer import BYTES
from fgonnx.text.tokens import Tokens
from fgonnx.wording import amount

Array = npt.NDArray[Any]

_NOTHING = np.zeros((1, 1, 3), np.uint8)
NO_TEXT = "there is no text"
"""Why a row is left out."""
_NAMED = 5  # rows without a text that are named


def takes_texts(model: Path, options: Options) -> bool:
    """Tell whether the explained input of a model holds ids, which texts become."""
    loaded = bound_to(load(model), options.bind, options.input_shape)
    try:
        return holds_ids(loaded.ir, loaded.input(options.input))
    except FgonnxError:  # said where it is explained
        return False


@dataclass
class TextJob:
    """Explains texts and writes a page, a picture, the numbers of its tokens and a JSON record for each.

    Attributes
    ----------
    model : Path
        The model.
    inputs : sequence of Path
        Files of texts.
    typed : sequence of str
        Texts.
    folder : Path or None
        Where files go; nothing is written without one.
    options, running, reading, texts
        What is explained and how.
    target : str, optional
        As `fgonnx.targets.parse` takes it, or "similar=TEXT", "token=PLACE:CLASS", "answer=TEXT", "start=TEXT",
        "end=TEXT".
    given : collection of str
        Fields of the options that were asked for, and stay as they are.
    notes : dict of str to None
        What was done to the model, in order of discovery.
    """

    model: Path
    inputs: Sequence[Path]
    typed: Sequence[str]
    folder: Path | None
    options: Options = field(default_factory=Options)
    running: Running = field(default_factory=Running)
    reading: Reading = field(default_factory=Reading)
    texts: Texts = field(default_factory=Texts)
    target: str | None = None
    given: Collection[str] = ()
    notes: dict[str, None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        refuse_idle(self.reading, ["preprocess", *SOUND], "the model takes texts")
        if self.folder is not None:
            storage.check_folder(self.folder)
        self.loaded = load(self.model)
        scores = methods.find(self.options.method).drive is None and not is_written(self.loaded)
        self._labels = self.reading.names()
        self.explainer = TextExplainer(
            self.loaded,
            replace(self.options, scores=scores),
            replace(self.running, spin=False),
            self.texts,
            self._labels,
            given=self.given,
        )
        best = answers.ANSWER if self.target is None and answers.asked(self.options.contrast) else self.target
        self.explainer = self.explainer.answering(best, self.texts.context is not None)
        self.shown = self.explainer.explainer.options
        as_bytes = str(self.texts.tokenizer) == BYTES
        read = texts(self.inputs, self.typed, self.texts.column, as_bytes=as_bytes)
        self.read, left = split_blank(read)
        self.notes.update({note_of(left): None} if left else {})

    def run(self) -> Iterator[dict[str, Any]]:
        """Explain text after text and yield their records, once their files are written."""
        size = self.running.batch_size
        for group in _batched(self.read, size):
            cut = [(text, part) for text in group for part in self.explainer.cut(text.content, text.where)]
            found = self.explainer.explain([part for _, part in cut], self.target, self.options.contrast)
            names = numbered([text.name for text, _ in cut])
            for (text, part), one, name in zip(cut, found, names, strict=True):
                yield self._write(replace(text, name=name), part, one)

    def _write(self, text: Text, part: Tokens, found: Found) -> dict[str, Any]:
        decision = self._decision(part, found)
        self.notes.update(dict.fromkeys(found.arrays.settings["notes"]))
        made = self._record(text, part, found, decision)
        if self.folder is not None:
            words, title, lines = shaded(found), title_of(made), said(made)
            storage.make_folder(self.folder)
            storage.write_array(self.folder / f"{text.name}.npy", found.values.astype("float32", copy=False))
            storage.write_text(
                self.folder / f"{text.name}.html", drawing.page([drawing.as_html(words, title, lines)], title)
            )
            write_png(self.folder / f"{text.name}.png", drawing.drawn(words, title, lines))
            storage.write_json(self.folder / f"{text.name}.json", made)
        return made

    def _decision(self, part: Tokens, found: Found) -> Decision:
        fed = self.explainer.arrays([part])
        explainer = self.explainer.explainer
        rewritten = explainer.engine(fed[self.explainer.name].shape, others=explainer.other_shapes(fed)).rewritten
        names = None
        if sum(size > 1 for size in rewritten.head_shape) <= 1:
            names, note = aligned_labels(self._labels, self.loaded.labels(), math.prod(rewritten.head_shape))
            self.notes.update({f"labels: {note}": None} if note else {})
        return Decision.of(found.arrays, rewritten, names, explainer.labels)

    def _record(self, text: Text, part: Tokens, found: Found, decision: Decision) -> dict[str, Any]:
        asked = Asked(str(self.model), self.options, self.running, self.reading, self.target)
        content = text.content if isinstance(text.content, bytes) else repr(text.content).encode("utf-8", "replace")
        source = {
            "path": "" if text.path is None else str(text.path),
            "row": text.row,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        settings = {k: v for k, v in vars(self.texts).items() if v is not None}
        target = {"target": self.target, "texts": {k: str(v) for k, v in settings.items()}}
        request = asked.request(self._identified, self.loaded.bound, source, None, target, "text")
        request["settings"] |= {"psi": self.shown.psi, "backward": self.shown.backward}
        ids = np.array([t.id for t in part.tokens], np.int64)
        sample = Sample(Source(Path(text.name), text.row, text.name), ids, _NOTHING, None, found.notes)
        files = {k: f"{text.name}.{k}" for k in ("html", "png", "npy")} if self.folder is not None else {}
        named = {"picture": files.get("png"), "map": files.get("npy"), **({"page": files["html"]} if files else {})}
        made = record.describe(
            {**request, **provenance.about(self.running)}, found.arrays, decision, sample, 0, named, self._command(text)
        )
        made["text"] = described(found)
        return made

    def _command(self, text: Text) -> list[str]:
        given = ["--text", str(text.content)] if text.path is None else [str(text.path)]
        own: dict[str, Any] = (
            {} if is_written(self.loaded) else {"psi": self.shown.psi, "backward": self.shown.backward}
        )
        return [
            *("fgonnx", "explain", str(self.model), *given),
            *(("-o", str(self.folder)) if self.folder is not None else ()),
            *(("--target", self.target) if self.target is not None else ()),
            *arguments(replace(self.options, **own), without=FILE, defaults=DEFAULTS),
            *arguments(self.running, defaults={"cache": True}),
            *arguments(self.reading, without=SOUND),
            *arguments(self.texts),
        ]

    @cached_property
    def _identified(self) -> dict[str, Any]:
        return provenance.model_of(self.loaded, self.model)


def split_blank(read: Sequence[Text]) -> tuple[Sequence[Text], dict[str, str]]:
    """Return texts without the rows that are blank, and why each of these is left out, by where it is.

    Raises
    ------
    InputError
        All are.
    """
    left = {t.where: NO_TEXT for t in read if t.row is not None and _blank(t.content)}
    kept = [t for t in read if t.row is None or not _blank(t.content)]
    if left and not kept:
        raise InputError(f"{next(iter(left))}: {NO_TEXT}, nor in any other row; there is nothing to explain")
    return kept, left


def note_of(left: Collection[str]) -> str:
    """Return a note that names rows which are left out, "" for none."""
    few = "; ".join(list(left)[:_NAMED]) + (f" and {len(left) - _NAMED} more" if len(left) > _NAMED else "")
    return f"left out, as {NO_TEXT}: {few}" if left else ""


def _blank(content: Any) -> bool:
    return isinstance(content, str) and not content.strip()


def _batched(items: Sequence[Text], size: int) -> Iterator[Sequence[Text]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def numbered(names: Sequence[str]) -> list[str]:
    """Give the parts of one text names of their own."""
    return [
        f"{name}-part-{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)
    ]


def shaded(found: Found) -> list[Shaded]:
    """Return the words of an explained text for pictures."""
    return of_records(found.tokens, found.values)


def of_records(part: Tokens, values: Array) -> list[Shaded]:
    """Return the words of a text for pictures, given what each of its tokens adds."""
    words: list[Shaded] = []
    end: int | None = None
    for word in part.words:
        value = float(values[list(word.tokens)].sum())
        space = end is None or word.span is None or word.span[0] > end
        words.append(Shaded(word.text, value, space, word.special, word.part))
        end = word.span[1] if word.span is not None else None
    return words


def described(found: Found) -> dict[str, Any]:
    """Return what a record says of a text: its tokens and words with what each adds."""
    tokens: list[dict[str, Any]] = [
        {
            "id": t.id,
            "piece": t.piece,
            "span": list(t.span) if t.span is not None else None,
            "part": t.part,
            "special": t.special,
            "value": float(v),
        }
        for t, v in zip(found.tokens.tokens, found.values, strict=True)
    ]
    words = [
        {
            "text": w.text,
            "tokens": list(w.tokens),
            "span": list(w.span) if w.span is not None else None,
            "part": w.part,
            "special": w.special,
            "value": value,
        }
        for w, value in found.words
    ]
    given = found.tokens.text
    return {
        "text": list(given) if isinstance(given, tuple) else given,
        "tokens": tokens,
        "words": words,
        "special": float(sum(t["value"] for t in tokens if t["special"])),
        "padding": found.padding,
        "shares": found.shares,
    }


def shares_said(shares: Mapping[str, float]) -> str:
    """Return where the map of a text lies: on its words, on special tokens, on padding."""
    names = {"words": "words", "special": "special tokens", "padding": "padding"}
    return f"of the map: {', '.join(f'{name} {shares[key]:.0%}' for key, name in names.items())}"


def title_of(made: dict[str, Any]) -> str:
    """Return what is explained of a text, in one line."""
    return f"{record.target_of(made)}  {amount(record.score_of(made))}"


def said(made: dict[str, Any]) -> list[str]:
    """Return what is said below a text: how words are shaded, the certificate, notes."""
    lines = [
        "red: adds to the score, blue: takes from it; numbers on hover" if made["settings"]["psi"] == "signed" else ""
    ]
    if (c := made["completeness"]) is not None:
        lines.append(
            f"{record.summed_of(made)} {amount(made['score'])} = sum of contributions, residual {c['residual']:.1e}"
        )
    if (where := made["localised"]) is not None:
        lines.append(
            f"on tokens: {where['share']:.0%} of the absolute contributions, "
            f"{amount(where['amount'], signed=True)} of the score"
        )
    lines.append(shares_said(made["text"]["shares"]))
    return [*filter(None, lines), *(n for n in made["notes"] if "token" in n or not closes([n]))]


def require_inputs(inputs: Sequence[Path] | None, folder: Path | None) -> tuple[Sequence[Path], Path]:
    """Return the inputs and the folder of a command on pictures, which both are needed.

    Raises
    ------
    OptionError
        One is missing.
    InputError
        An input does not exist.
    """
    if not inputs:
        raise OptionError("there is nothing to explain: give pictures, recordings, tables or .npy arrays")
    if folder is None:
        expand(inputs, SUFFIXES | {SOUND_SUFFIX})  # what is missing there is said first
        raise OptionError("there is no folder for the results; give one (-o out)")
    return inputs, folder
