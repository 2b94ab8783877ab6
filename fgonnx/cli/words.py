"""Texts on the terminal: words shaded by what they add, and numbers at those that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.style import Style
from rich.text import Text

from fgonnx.cli import terminal
from fgonnx.explain.closing import closes
from fgonnx.jobs.record import score_of, target_of
from fgonnx.jobs.text import shares_said
from fgonnx.pictures.show import words as drawing
from fgonnx.pictures.show.words import Gap, Shaded
from fgonnx.wording import amount

_MATTERS = 0.3  # of the largest, from which a word has its number beside it


def show(records: Sequence[Mapping[str, Any]], left_out: int) -> None:
    """Print texts with their words shaded, what is explained of each, and its certificate."""
    for made in records:
        terminal.out().print(_title(made), soft_wrap=True)
        terminal.out().print(_text(made))
        if (c := made["completeness"]) is not None:
            where = made["localised"]
            share = f"; on tokens: {where['share']:.0%} of the absolute contributions" if where else ""
            terminal.out().print(Text(f"  residual {c['residual']:.1e}{share}", style="dim"), soft_wrap=True)
        terminal.out().print(Text(f"  {shares_said(made['text']['shares'])}", style="dim"), soft_wrap=True)
        for note in (n for n in made["notes"] if "token" in n or not closes([n])):
            terminal.out().print(Text(f"  {note}", style="dim"), soft_wrap=True)
        terminal.out().print()
    if left_out:
        terminal.out().print(f"... and {left_out} more", soft_wrap=True)


def _title(made: Mapping[str, Any]) -> Text:
    given = made["input"]
    name = Path(given["path"]).name if given["path"] else "text"
    row = f" [{given['row']}]" if given["row"] is not None else ""
    return Text.assemble((f"{name}{row}: ", "bold"), (target_of(made), "bold"), f"  {amount(score_of(made))}")


def _text(made: Mapping[str, Any]) -> Text:
    words: list[Shaded] = []
    end: int | None = None
    for w in made["text"]["words"]:
        space = end is None or w["span"] is None or w["span"][0] > end
        words.append(Shaded(w["text"], w["value"], space, w["special"], w["part"]))
        end = w["span"][1] if w["span"] is not None else None
    largest = drawing.largest_of(words)
    found = Text("  ")
    for part in sorted({w.part for w in words}):
        found.append("\n  " if part else "")
        for item in drawing.folded([w for w in words if w.part == part]):
            _append(found, item, largest)
    return found


def _append(found: Text, item: Shaded | Gap, largest: float) -> None:
    if isinstance(item, Gap):
        found.append(f" [... {item.count} words ...]", style="dim")
        return
    found.append(" " if item.space and not found.plain.endswith((" ", "\n")) else "")
    alpha = drawing.shade(item.value, largest)
    style = Style(dim=True) if item.special else Style()
    if abs(alpha) > 0.05:
        red, green, blue = drawing.mixed(alpha)
        style = Style(color="black", bgcolor=f"rgb({red},{green},{blue})")
    found.append(drawing.in_sight(item.text), style=style)
    if largest and abs(item.value) >= _MATTERS * largest:
        found.append(f"({amount(item.value, signed=True)})", style="dim")
