"""Texts as tokens: what a token and a word are, tokens joined to words, and texts too long for a model in parts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fgonnx.errors import InputError
from fgonnx.wording import parameter

Given = str | tuple[str, str]
"""A text, or two that belong together, as a question and what it is asked of."""


@dataclass(frozen=True)
class Token:
    """One token of a text.

    Attributes
    ----------
    id : int
        Its id.
    piece : str
        How the vocabulary writes it.
    span : tuple of int or None
        First character of the text that it stands for, and the one behind the last; None of none.
    part : int
        Which of two texts it is of: 0 or 1.
    special : bool
        Whether the tokenizer added it.
    group : int or None
        Which word it is a piece of, as the tokenizer cuts words.
    type : int or None
        The type that the tokenizer gives it, beside a model's ids; None for that of its part.
    padding : bool
        Whether it is padding that was given among the ids.
    """

    id: int
    piece: str
    span: tuple[int, int] | None = None
    part: int = 0
    special: bool = False
    group: int | None = None
    type: int | None = None
    padding: bool = False


@dataclass(frozen=True)
class Word:
    """A word of a text, or a special token.

    Attributes
    ----------
    text : str
        Its characters; the piece of a token that stands for none.
    tokens : tuple of int
        The places of its tokens.
    span : tuple of int or None
        First character of the text, and the one behind the last.
    part : int
        Which of two texts it is of.
    special : bool
        Whether the tokenizer added it.
    """

    text: str
    tokens: tuple[int, ...]
    span: tuple[int, int] | None
    part: int
    special: bool


@dataclass(frozen=True)
class Tokens:
    """A text as the model takes it.

    Attributes
    ----------
    text : str or tuple of str
        The text.
    tokens : tuple of Token
        Its tokens, special ones included, without padding.
    note : str
        What was cut off; "" for nothing.
    """

    text: Given
    tokens: tuple[Token, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of the text in order, and the special tokens between them."""
        found: list[list[int]] = []
        for i, token in enumerate(self.tokens):
            if found and self._continues(self.tokens[i - 1], token):
                found[-1].append(i)
            else:
                found.append([i])
        return tuple(self._word(places) for places in found)

    def _continues(self, before: Token, token: Token) -> bool:
        """Tell whether a token is of the same word as the one before."""
        if before.special or token.special or before.part != token.part or token.group is None:
            return False
        if before.group != token.group or before.span is None or token.span is None:
            return False
        between = self._texts[token.part][before.span[1] : token.span[0] + 1]
        return not any(c.isspace() for c in between) and not _stands_alone(between[-1:])

    @property
    def _texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text

    def _word(self, places: Sequence[int]) -> Word:
        first, last = self.tokens[places[0]], self.tokens[places[-1]]
        if first.special or first.span is None or last.span is None or first.span[0] == last.span[1]:
            return Word(first.piece, tuple(places), None, first.part, first.special)
        start, stop = first.span[0], last.span[1]
        text = self._texts[first.part]
        while start < stop and text[start].isspace():
            start += 1
        return Word(text[start:stop] or first.piece, tuple(places), (start, stop), first.part, False)


def _stands_alone(char: str) -> bool:
    """Tell whether a character is a word by itself, as in Chinese and Japanese."""
    return bool(char) and unicodedata.category(char) == "Lo" and unicodedata.east_asian_width(char) in "WF"


def checked(text: Any, where: str, *, as_bytes: bool) -> Given | bytes:
    """Return a text that can be cut: a str, two, or bytes.

    Raises
    ------
    InputError
        It is empty, holds half characters, or is no text.
    """
    if isinstance(text, list) and len(text) == 2 and all(isinstance(t, str) for t in text):
        text = tuple(text)
    several = isinstance(text, tuple) and len(text) == 2
    if not all(isinstance(t, str if several else (str, bytes)) for t in (text if several else (text,))):
        raise InputError(
            f"{where} is of the type {type(text).__name__}; give a text, a tuple of two, bytes, or ids as whole numbers"
        )
    if isinstance(text, bytes):
        found: Given | bytes = text if as_bytes else text.decode("utf-8", "replace")
    else:
        found = text
    for one in found if isinstance(found, tuple) else (found,):
        if not one.strip() and not (as_bytes and one):
            raise InputError(f"{where} is empty; give at least one word")
        half = next((i for i, c in enumerate(one) if isinstance(c, str) and "\ud800" <= c <= "\udfff"), None)
        if half is not None and not isinstance(one, bytes):
            raise InputError(
                f"{where} holds half a character, U+{ord(one[half]):04X} at {half}, which no encoding has; give it in "
                "UTF-8, or as bytes"
            )
    return found


def parts(text: Given, tokens: Sequence[Token], most: int | None, long: str, where: str = "") -> list[Tokens]:
    """Return tokens that were not cut yet, in parts of at most so many; `where` names the text in messages."""
    if most is None or len(tokens) <= most:
        return [Tokens(text, tuple(tokens))]
    try:
        refuse_long(len(tokens), most, long)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None
    if long == "cut":
        return [Tokens(text, tuple(tokens[:most]), said(len(tokens), most))]
    step = max(1, most // 2)
    starts = range(0, max(1, len(tokens) - most + step), step)
    return [
        Tokens(text, tuple(tokens[i : i + most]), f"part {k + 1} of {len(starts)} of a text of {len(tokens)} tokens")
        for k, i in enumerate(starts)
    ]


def refuse_long(count: int, most: int, long: str) -> None:
    """Refuse a text of too many tokens where it is neither to be cut nor to be explained in parts."""
    if long == "refuse":
        raise InputError(
            f"it has {count:,} tokens, and the model takes {most:,}; shorten it, or have it cut "
            f"({parameter('long', 'cut')}) or explained in parts ({parameter('long', 'windows')})"
        )


def said(count: int, most: int, end: str = "first") -> str:
    """Return the note on a text that was cut."""
    return f"of its {count:,} tokens the model sees the {end} {most:,}; the rest was cut off"
