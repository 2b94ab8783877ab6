"""Question answering by position: the start and the end of an answer as one head, and answers as targets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import TargetError
from fgonnx.explain.head import Head
from fgonnx.explain.single import Single
from fgonnx.text.tokens import Tokens
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

ANSWER, START, END = "answer", "start", "end"
_KINDS = (ANSWER, START, END)
_LONGEST = 30  # tokens of the best answer
_PLACES = re.compile(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?")


@dataclass(frozen=True, eq=False)
class Answer(Single):
    """The start, the end, or both of an answer: entries of a head (T, 2), whose sum is explained.

    Attributes
    ----------
    entries : tuple of (int, int)
        Places of the head.
    said : str
        What is explained, in words.
    note : str
        What is to be said of it.
    minus : tuple of (int, int)
        Places of an answer that it is compared with, whose sum is subtracted.
    """

    entries: tuple[tuple[int, int], ...]
    said: str
    note: str = ""
    minus: tuple[tuple[int, int], ...] = ()

    @property
    def seed_needed(self) -> bool:  # type: ignore[override]
        """Whether more than one entry is explained."""
        return len(self.entries) + len(self.minus) > 1

    def resolve(self, head: Head, sample: int) -> tuple[Any, str]:
        """Return the flat index or a cotangent, and a description."""
        if not self.seed_needed:
            return int(np.ravel_multi_index(self.entries[0], head.shape)), self.said
        seed = np.zeros(head.shape)
        for entry in self.entries:
            seed[entry] += 1
        for entry in self.minus:
            seed[entry] -= 1
        return seed, self.said

    def rather_than(self, other: Answer) -> Answer:
        """Return the difference of this answer and another.

        Raises
        ------
        TargetError
            They are the same.
        """
        if sorted(self.entries) == sorted(other.entries):
            raise TargetError(f"target and contrast are the same: {self.said}; give another answer as the contrast")
        note = "; ".join(filter(None, (self.note, other.note)))
        return replace(self, said=f"{self.said} rather than {other.said}", note=note, minus=other.entries)

    def remark(self, head: Head, sample: int) -> str:
        """Return what is to be said of it."""
        return self.note


def asked(target: Any) -> bool:
    """Tell whether a target is an answer: "answer", or "answer=", "start=" or "end=" with its text or places."""
    if not isinstance(target, str):
        return False
    kind, given, _ = target.partition("=")
    return kind.strip() in _KINDS if given else kind.strip() == ANSWER


def compared(target: Any, contrast: Any, find: Callable[[str], Answer]) -> Any:
    """Return a target as it is, or the difference of two answers.

    Parameters
    ----------
    target : any
        What is explained.
    contrast : any
        What it is compared with; None for nothing.
    find : callable
        Returns an answer that is named.

    Raises
    ------
    TargetError
        One of them is an answer, and the other none.
    """
    if contrast is None or not (asked(contrast) or isinstance(target, Answer)):
        return target
    if not asked(contrast):
        raise TargetError(
            f"contrast '{contrast}' is no answer, and the target is one: give the other answer "
            f"({parameter('contrast', 'answer=TEXT')})"
        )
    if not isinstance(target, Answer):
        raise TargetError(
            f"contrast '{contrast}' is an answer, and the target is none: give an answer as well "
            f"({parameter('target', 'answer=TEXT')})"
        )
    return target.rather_than(find(contrast))


def with_answers(loaded: LoadedModel, x: ir.Value) -> tuple[LoadedModel, str] | None:
    """Return a model with an output (N, T, 2) of its starts and ends, and that output's name; None where it has none.

    Parameters
    ----------
    loaded : LoadedModel
        The model, samples first; it is not changed.
    x : ir.Value
        Its input of ids.
    """
    found = _heads(loaded.ir.graph, x)
    if found is None:
        return None
    model = loaded.ir.clone()
    own = {str(v.name): v for v in model.graph.outputs}
    logits = [_before_softmax(own[str(v.name)]) for v in found]
    name = ", ".join(str(v.name) for v in found)
    op = Emitter(model.graph, prefix=f"{name}/")
    both = op.Concat(*(op.Reshape(v, [0, 0, 1]) for v in logits), axis=2)
    both.name, both.type = name, found[0].type
    both.shape = ir.Shape([*dims_of(found[0]), 2])
    model.graph.outputs.append(both)
    return replace(loaded, ir=model), name


def _heads(graph: ir.Graph, x: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Return the outputs of starts and ends: by their names, or of two by the numbers that their names end with."""
    shaped = [v for v in graph.outputs if v.shape is not None and v.dtype is not None]
    flat = [v for v in shaped if v.dtype is not None and v.dtype.is_floating_point() and len(dims_of(v)) == 2]
    named = [[v for v in flat if word in str(v.name).lower()] for word in (START, END)]
    if all(len(some) == 1 for some in named) and named[0] != named[1]:
        return named[0][0], named[1][0]
    length = dims_of(x)[1] if len(dims_of(x)) == 2 else None
    alike = [v for v in flat if length is not None and dims_of(v)[1] == length]
    numbers = [re.search(r"(\d+)\D*$", str(v.name)) for v in alike]
    if len(flat) != 2 or len(alike) != 2 or not all(numbers):
        return None
    ordered = sorted(zip([int(n.group(1)) for n in numbers if n], (0, 1), strict=True))
    return (alike[ordered[0][1]], alike[ordered[1][1]]) if ordered[0][0] != ordered[1][0] else None


def _before_softmax(v: ir.Value) -> ir.Value:
    """Return the logits that probabilities are made of; other values as they are."""
    node = v.producer()
    if node is None or node.domain or node.op_type not in ("Softmax", "LogSoftmax") or node.inputs[0] is None:
        return v
    return node.inputs[0]


@dataclass(frozen=True)
class Scores:
    """The starts and ends of one text.

    Attributes
    ----------
    values : numpy array, (T, 2)
        Of every place of the model's input.
    shift : int
        The place of the text's first token.
    turned : bool
        Whether the head is (2, T).
    """

    values: Array
    shift: int
    turned: bool = False

    def of(self, first: int, last: int) -> float:
        """Return start and end of an answer together."""
        return float(self.values[self.shift + first, 0]) + float(self.values[self.shift + last, 1])

    def answer(self, kind: str, span: tuple[int, int], words: str, note: str = "") -> Answer:
        """Return the target of an answer from one token to another, or of its start or end alone."""
        both = [(self.shift + span[0], 0), (self.shift + span[1], 1)]
        entries = {START: both[:1], END: both[1:]}.get(kind, both)
        said = {START: f"start of {words}", END: f"end of {words}"}.get(kind, f"answer {words}")
        return Answer(tuple((b, a) if self.turned else (a, b) for a, b in entries), said, note)


def find(target: str | None, part: Tokens, scores: Callable[[], Scores]) -> Answer:
    """Return an answer as a target: the one named, or the best one.

    Parameters
    ----------
    target : str or None
        "answer=TEXT", "start=TEXT" or "end=TEXT"; places of tokens instead of a text; None or "answer" for the best.
    part : Tokens
        The text.
    scores : callable
        Returns its starts and ends.

    Raises
    ------
    TargetError
        The text does not hold it.
    """
    kind, _, given = (target or ANSWER).partition("=")
    kind, given = kind.strip(), given.strip()
    own = scores()
    if not given:
        if kind != ANSWER:
            raise TargetError(f"target '{kind}=': what {kind}s is missing; give its text, or the place of a token")
        return _best(part, own)
    spans = list(_occurrences(part, given))
    if not spans and (places := _PLACES.fullmatch(given)):
        first, last = int(places[1]), int(places[2] or places[1])
        if not first <= last < len(part):
            raise TargetError(f"target '{target}': the text has the tokens 0 to {len(part) - 1}, the first one first")
        spans = [(first, last)]
    if not spans:
        raise TargetError(
            f"target '{target}': the text that the model sees does not hold '{given}'; give a part of it as it is "
            f"written, or the places of its first and last token, such as {kind}=12{':14' if kind == ANSWER else ''}"
        )
    value = {START: lambda s: own.values[own.shift + s[0], 0], END: lambda s: own.values[own.shift + s[1], 1]}
    best = max(spans, key=value.get(kind, lambda s: own.of(*s)))
    note = f"'{given}' is there {len(spans)} times; the one from token {best[0]} to {best[1]} is explained"
    return own.answer(kind, best, _words(part, best), note if len(spans) > 1 else "")


def _occurrences(part: Tokens, text: str) -> Iterator[tuple[int, int]]:
    """Yield the first and last token of every place where a text stands: in the second of two, else in the first."""
    texts = (part.text,) if isinstance(part.text, str) else part.text
    for number in reversed(range(len(texts))):
        for pattern in (rf"(?<!\w){re.escape(text)}(?!\w)", re.escape(text)):
            found = []
            for match in re.finditer(pattern, texts[number], re.IGNORECASE):
                inside = [
                    i
                    for i, t in enumerate(part.tokens)
                    if t.span is not None and t.part == number and t.span[0] < match.end() and t.span[1] > match.start()
                ]
                found += [(inside[0], inside[-1])] if inside else []
            if found:
                yield from found
                return


def _best(part: Tokens, own: Scores) -> Answer:
    """Return the best answer: in the second of two texts, of at most 30 tokens."""
    last = max(t.part for t in part.tokens)
    places = [i for i, t in enumerate(part.tokens) if not t.special and not t.padding and t.part == last]
    spans = [(i, j) for k, i in enumerate(places) for j in places[k : k + _LONGEST] if j - i < _LONGEST]
    best = max(spans, key=lambda s: own.of(*s))
    note, none = "", own.of(0, 0)
    if part.tokens[0].special and none > own.of(*best):
        note = (
            f"the first token, by which models say that there is no answer, has {none:.4g}, and the best answer "
            f"{own.of(*best):.4g}"
        )
    return own.answer(ANSWER, best, f"{_words(part, best)}, the best", note)


def _words(part: Tokens, span: tuple[int, int]) -> str:
    """Return the text from one token to another, in quotes."""
    first, last = part.tokens[span[0]], part.tokens[span[1]]
    texts: Sequence[str] = (part.text,) if isinstance(part.text, str) else part.text
    if first.span is None or last.span is None or first.part != last.part:
        return f"'{' '.join(t.piece for t in part.tokens[span[0] : span[1] + 1])}'"
    return f"'{texts[first.part][first.span[0] : last.span[1]].strip()}'"
