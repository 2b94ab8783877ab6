"""What cells and headings of tables on the terminal say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fgonnx.jobs.samples import is_picture, is_table


def number(value: float, form: str) -> str:
    """Format a number; one that is zero as far as it is shown has no sign."""
    text = f"{value:{form}}"
    return text if float(text.rstrip("%")) else text.lstrip("+-")


def called(paths: Iterable[str], *, rows: bool = False) -> str:
    """Return what samples of these files are: picture, recording or row; sample where they are several things."""
    kinds = {_kind(Path(path), rows=rows) for path in paths}
    return kinds.pop() if len(kinds) == 1 else "sample"


def _kind(path: Path, *, rows: bool) -> str:
    if path.suffix.lower() == ".npy":
        return "sample"
    if is_picture(path):
        return "picture"
    return "row" if rows and is_table(path) else "recording"
