"""How texts become ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgonnx.fields import MODEL, check_choices, check_fields, documented, option

LONG = ("cut", "windows", "refuse")
"""What becomes of texts that are longer than the model takes."""


@documented
@dataclass(frozen=True, kw_only=True)
class Texts:
    """How texts become ids of tokens."""

    tokenizer: str | Path | None = option(
        None,
        "The model's tokenizer.json, or a folder with one; bytes for models of bytes. Default: the one beside it.",
        panel=MODEL,
        metavar="FILE",
        parse=str,
    )
    context: str | None = option(
        None,
        "A second text that goes with each, such as the passage that a question is about.",
        panel=MODEL,
        metavar="TEXT",
    )
    column: str | None = option(
        None,
        "Column of a .csv, or key of a .jsonl, that holds the texts. Default: text, or the only one.",
        panel=MODEL,
        metavar="NAME",
    )
    long: str = option(
        "cut",
        "Texts longer than the model takes: cut (said of each), windows (explained in parts that overlap by half) or "
        "refuse.",
        panel=MODEL,
    )
    tokens: int | None = option(
        None, "Largest number of tokens of a text. Default: what the model or the tokenizer says.", panel=MODEL, least=1
    )

    pad_id: int | None = option(
        None, "Id of padding, which a mask hides. Default: what the tokenizer says.", panel=MODEL, least=0
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, long=LONG)
