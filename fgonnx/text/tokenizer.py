"""What cuts texts into tokens: a tokenizer.json, or the bytes of UTF-8."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fgonnx import bounds
from fgonnx.errors import InputError, OptionError
from fgonnx.text.tokens import Given, Token, Tokens, parts, refuse_long, said
from fgonnx.wording import first_line, parameter

BYTES = "bytes"
TOKENIZER = "tokenizer.json"
_LARGEST = 1 << 20  # tokens; larger limits in tokenizer_config.json mean none


class Tokenizer(Protocol):
    """What cuts texts into tokens."""

    name: str
    size: int | None
    pad: int | None
    limit: int | None
    left: bool

    def cut(self, text: Given | bytes, most: int | None, long: str) -> list[Tokens]:
        """Return a text as the model takes it: one part, or several where it is too long."""


class OfBytes:
    """Cuts texts into the bytes of their UTF-8 form, and files into theirs.

    Parameters
    ----------
    size : int, optional
        Rows of the model's table: the entry behind the bytes is padding where there is one.
    """

    def __init__(self, size: int | None) -> None:
        self.name = BYTES
        self.size: int | None = 256
        self.limit: int | None = None
        self.left = False
        self.pad: int | None = 256 if size is not None and size > 256 else 0

    def cut(self, text: Given | bytes, most: int | None, long: str) -> list[Tokens]:
        """Return the bytes of a text."""
        if isinstance(text, tuple):
            raise InputError("two texts that belong together are not read as bytes; give one")
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        spans = [(i, i + 1) if isinstance(text, bytes) else None for i in range(len(content))]
        tokens = [Token(b, _byte(b), span) for b, span in zip(content, spans, strict=True)]
        shown = text if isinstance(text, str) else "".join(map(_byte_of_text, content))
        return parts(shown, tokens, most, long)


_SHOWN = {0x20: "·", 0x0A: "⏎", 0x0D: "⏎", 0x09: "⇥"}


def _byte(value: int) -> str:
    if value in _SHOWN:
        return _SHOWN[value]
    return chr(value) if 0x20 < value < 0x7F else f"{value:02x}"


def _byte_of_text(value: int) -> str:
    """Return the one character that a byte is shown as in the text of a file."""
    shown = _byte(value)
    return shown if len(shown) == 1 else "."


def _said_of_two(whole: Any, found: Any) -> str:
    """Return what was cut off of two texts."""
    before, after = ([list(e.sequence_ids).count(part) for part in (0, 1)] for e in (whole, found))
    return (
        f"of the {before[0]:,} tokens of the first text the model sees {after[0]:,}, of the {before[1]:,} of the "
        f"second {after[1]:,}; the rest was cut off"
    )


class OfFile:
    """Cuts texts as a `tokenizer.json` says, with Hugging Face's `tokenizers`.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OptionError
        The package is not installed, or the file is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise OptionError(
                f"'{path}' is read with the package tokenizers, which is not installed: pip install 'fgonnx[text]'"
            ) from error
        content = path.read_bytes() if path.is_file() else None
        if content is None:
            raise OptionError(f"there is no tokenizer '{path}'; give the tokenizer.json of the model")
        bounds.check("data_bytes", len(content), f"'{path}' has", OptionError)
        try:
            self._own: Any = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the package raises Exception itself
            raise OptionError(
                f"'{path}' is no tokenizer.json that the package tokenizers reads: {first_line(error)}"
            ) from error
        self.name = str(path)
        self.size: int | None = self._own.get_vocab_size(with_added_tokens=True)
        padding, truncation = self._own.padding or {}, self._own.truncation or {}
        beside = _configured(path.parent)
        self.limit: int | None = truncation.get("max_length") or beside.get("limit")
        self.left = str(padding.get("direction", beside.get("side", "right"))).lower() == "left"
        self._end, self._strategy = truncation.get("direction", "right"), truncation.get("strategy", "longest_first")
        self.pad: int | None = padding.get("pad_id")
        for piece in ("[PAD]", "<pad>", "<|endoftext|>", "</s>"):
            self.pad = self._own.token_to_id(piece) if self.pad is None else self.pad
        self._own.no_padding()
        self._own.no_truncation()

    def cut(self, text: Given | bytes, most: int | None, long: str) -> list[Tokens]:
        """Return a text as the model takes it: one part, or several where it is too long."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        given = text if isinstance(text, tuple) else (text,)
        whole = self._encoded(given)
        count = len(whole.ids)
        if most is None or count <= most:
            return [self._tokens(text, whole)]
        refuse_long(count, most, long)
        own = self._own.num_special_tokens_to_add(len(given) > 1)
        if most <= own:
            raise InputError(f"the model takes {most} tokens, of which {own} are special: none is left for the text")
        cut, pair = long == "cut", len(given) > 1
        strategy = self._strategy if cut or self._strategy != "longest_first" else _longer(whole)
        self._own.enable_truncation(
            most,
            stride=0 if cut else self._overlap(whole, most - own, strategy),
            strategy=strategy if pair else "longest_first",
            direction=self._end if cut else "right",
        )
        try:
            found = self._encoded(given)
        finally:
            self._own.no_truncation()
        if cut:
            end = "last" if self._end == "left" else "first"
            return [self._tokens(text, found, _said_of_two(whole, found) if pair else said(count, most, end))]
        parts = [found, *found.overflowing]
        return [
            self._tokens(text, part, f"part {i + 1} of {len(parts)} of a text of {count:,} tokens")
            for i, part in enumerate(parts)
        ]

    def _overlap(self, whole: Any, most: int, strategy: str) -> int:
        """Return the tokens that windows share: half of the room that the text in windows has."""
        other = {"only_second": 0, "only_first": 1}.get(strategy)
        fixed = list(whole.sequence_ids).count(other) if other is not None and 1 in whole.sequence_ids else 0
        return max(0, (most - fixed) // 2)

    def _encoded(self, given: Sequence[str]) -> Any:
        try:
            return self._own.encode(*given)
        except Exception as error:
            raise InputError(f"the tokenizer does not take it: {first_line(error)}") from error

    def _tokens(self, text: Given, encoding: Any, note: str = "") -> Tokens:
        rows = zip(
            encoding.ids,
            encoding.tokens,
            encoding.offsets,
            encoding.sequence_ids,
            encoding.special_tokens_mask,
            encoding.word_ids,
            encoding.type_ids,
            strict=True,
        )
        tokens = tuple(
            Token(i, piece, None if special else (span[0], span[1]), part or 0, bool(special), group, kind)
            for i, piece, span, part, special, group, kind in rows
        )
        return Tokens(text, tokens, note)


def _longer(whole: Any) -> str:
    """Return which of two texts is the longer one, as a strategy of truncation."""
    first, second = (list(whole.sequence_ids).count(part) for part in (0, 1))
    return "only_first" if first > second else "only_second"


def _configured(folder: Path) -> dict[str, Any]:
    """Return the most tokens that files beside a tokenizer name, and the side of padding."""
    known: dict[str, Any] = {}
    for name, key in (("tokenizer_config.json", "model_max_length"), ("config.json", "max_position_embeddings")):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(found, dict):
            continue
        if isinstance(limit := found.get(key), int) and 0 < limit < _LARGEST:
            known.setdefault("limit", limit)
        if found.get("padding_side") in ("left", "right"):
            known["side"] = found["padding_side"]
    return known


def opened(given: str | Path | None, model: Path | None, rows: int | None) -> Tokenizer | None:
    """Return the tokenizer that is given, or the one beside the model; None where there is none.

    Parameters
    ----------
    given : str, path or None
        A tokenizer.json or a folder with one; "bytes".
    model : Path or None
        The model's file.
    rows : int or None
        Rows of the model's table.

    Raises
    ------
    OptionError
        It cannot be read, or is of another vocabulary than the model.
    """
    if given is not None and str(given) == BYTES:
        return OfBytes(rows)
    path = None if given is None else Path(given)
    if path is not None and path.is_dir():
        path = path / TOKENIZER
    if path is None and model is not None and (beside := model.parent / TOKENIZER).is_file():
        path = beside
    if path is None:
        return None
    found = OfFile(path)
    if rows is not None and found.size is not None and found.size > rows:
        raise OptionError(
            f"'{path}' has {found.size:,} entries, and the model's table has {rows:,} rows: it is the tokenizer of "
            f"another model; give the one that the model was trained with ({parameter('tokenizer')})"
        )
    return found
