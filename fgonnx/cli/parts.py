"""What channels and features add, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from fgonnx.cli import terminal
from fgonnx.jobs.record import summed_of, target_of
from fgonnx.pictures.show import lanes, waterfall
from fgonnx.wording import amount

_BAR = 24  # characters of the longest bar
_MOST = 8  # features or channels of a sample


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Print the parts of samples that have any: bars to the left and right of zero, or shares of the map."""
    for made in records:
        if "features" in made:
            _features(made)
        elif "series" in made:
            _series(made)


def _name(made: Mapping[str, Any]) -> str:
    given, recording = made["input"], made.get("series", {}).get("recording")
    which = f", {recording}" if recording else f", row {given['row']}" if given["row"] is not None else ""
    return f"{Path(given['path']).name}{which}: {target_of(made)}"


def _features(made: Mapping[str, Any]) -> None:
    found = made["features"]
    values = [amount(v) for v in found["values"]]
    bars = waterfall.rows(found["names"], values, found["contributions"], found["biases"], _MOST)
    table = terminal.table("what adds", "value", "adds", "", title=_name(made), numbers=("value", "adds"))
    most = max(abs(b.amount) for b in bars) or 1.0
    for bar in bars:
        length = round(_BAR * abs(bar.amount) / most)
        drawn = Text(("+" if bar.amount > 0 else "-") * length, style="red" if bar.amount > 0 else "blue")
        terminal.row(table, bar.name, bar.value, amount(bar.amount, signed=True), drawn)
    terminal.row(table, summed_of(made), "", amount(made["score"]), "")
    terminal.show(table)


def _series(made: Mapping[str, Any]) -> None:
    found = made["series"]
    table = terminal.table(
        "channel", "share of the map", "strongest at", "", title=_name(made), numbers=("share of the map",)
    )
    order = sorted(range(len(found["shares"])), key=lambda i: -found["shares"][i])[:_MOST]
    for i in sorted(order):
        step = found["start"] + found["peaks"][i]
        at = f"step {step}" if found["rate"] is None else f"{step / found['rate']:.3f} s"
        _share(table, found["channels"][i], found["shares"][i], at)
    if len(order) < len(found["shares"]):
        rest = sum(v for i, v in enumerate(found["shares"]) if i not in order)
        _share(table, f"{len(found['shares']) - len(order)} other channels", rest, "")
    if found["inside"] is not None:
        _share(table, lanes.INSIDE, found["inside"], "")
    terminal.show(table)


def _share(table: Any, name: str, share: float, at: str) -> None:
    terminal.row(table, name, f"{share:.1%}", at, Text("#" * round(_BAR * share), style="red"))
