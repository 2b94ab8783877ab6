"""How texts become ids, and what is explained of them by default."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgonnx.engine import methods
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import OptionError
from fgonnx.fields import MODEL, check_choices, check_fields, documented, option

LONG = ("cut", "windows", "refuse")
"""What becomes of texts that are longer than the model takes."""

DEFAULTS = {"psi": "signed", "backward": "libra"}
"""What is explained of texts by default: what speaks for and against, with the weights of attention held fixed."""


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


def usual(options: Options, given: Collection[str] = ()) -> Options:
    """Return options with what is usual for texts, without the fields that were given."""
    method = methods.find(options.method)
    changes: dict[str, Any] = {}
    if "psi" not in given and options.psi == Options.psi and DEFAULTS["psi"] in method.psis:
        changes["psi"] = DEFAULTS["psi"]
    plain = method.gradient and method.modify is None and not method.true_gradient
    if "backward" not in given and options.backward == Options.backward and plain:
        changes["backward"] = DEFAULTS["backward"]
    try:
        return replace(options, **changes)
    except OptionError:  # another engine takes no other backward pass
        return replace(options, psi=changes.get("psi", options.psi))
