"""Tables for terminals of any width: names break at their separators, and narrow terminals get lists."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

# Behind a separator; behind a point or a dash only in front of a letter, so that numbers stay whole.
_BEHIND = re.compile(r"(?<=[/\\_\s])|(?<=[.:-])(?=[^\d\s.:/-])")
_SUFFIX = re.compile(r"(\.\w{1,5})+$")
_SHORT = 24  # characters of a piece that is never broken
_BETWEEN, _EDGES = 3, 2  # characters between columns, and at both sides
_WIDE = 10_000


class Cell(Text):
    """Text that breaks behind separators of names and paths, such as / and _, before it breaks anywhere else."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max((cell_len(line) for line in self.plain.splitlines()), default=0)
        least = max((cell_len(piece.rstrip()) for piece in _pieces(self.plain)), default=0)
        return Measurement(min(least, _SHORT), longest)

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """Return the text in lines of a width."""
        lines = Lines()
        for line in self.split(allow_blank=True):
            for part in line.divide(_breaks(line.plain, width)):
                part.rstrip()
                shown = part if cell_len(part.plain) > width else Text.copy(part)
                lines.extend(Text.wrap(shown, console, width, justify=justify, overflow=overflow, no_wrap=no_wrap))
        return lines


def _pieces(text: str) -> list[str]:
    """Split a text behind its separators; the suffix of a file stays with its name."""
    suffix = _SUFFIX.search(text)
    stem = text[: suffix.start()] if suffix else text
    found = [piece for piece in _BEHIND.split(stem) if piece]
    if suffix:
        found[-1:] = [(found[-1] if found else "") + suffix[0]]
    return found


def _breaks(text: str, width: int) -> list[int]:
    """Return where to break a text, as late as its pieces allow."""
    found, at, used = [], 0, 0
    for piece in _pieces(text):
        size = cell_len(piece.rstrip())
        if used and used + size > width:
            found.append(at)
            used = 0
        at += len(piece)
        used += cell_len(piece)
    return found


def show(console: Console, table: Table) -> None:
    """Print a table; where its columns do not fit beside each other, one line for each cell."""
    if not table.columns:
        return
    ranges = [_range(console, column) for column in table.columns]
    room = console.width - _BETWEEN * (len(ranges) - 1) - _EDGES
    widths = _shared(ranges, room) if sum(r.minimum for r in ranges) <= room else None
    if widths is not None and not any(map(_shredded, table.columns, widths)):
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        console.print(table)
        return
    if table.title:
        console.print(Text(str(table.title), style="bold"))
    headings = [str(column.header) for column in table.columns]
    label = max(map(cell_len, headings), default=0)
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=min(label, console.width // 3), style="dim")
        grid.add_column(overflow="fold")
        for heading, cell in zip(headings, cells, strict=True):
            if str(cell):
                grid.add_row(Cell(heading), cell)
        console.print(grid)
        console.print()


def _shredded(column: Column, width: int) -> bool:
    """Tell whether a short text would take three lines or more, which nobody reads as one."""
    texts = [str(cell) for cell in column.cells]
    return any(len(_breaks(text, width)) >= 2 for text in texts if cell_len(text) <= _SHORT and "\n" not in text)


def _range(console: Console, column: Column) -> Measurement:
    """Return the least and the largest width that a column needs."""
    options = console.options.update(width=_WIDE)
    found = [Measurement.get(console, options, cell) for cell in (Cell(str(column.header)), *column.cells)]
    most = max(m.maximum for m in found)
    return Measurement(most if column.no_wrap else max(m.minimum for m in found), most)


def _shared(ranges: Sequence[Measurement], room: int) -> list[int]:
    """Return widths of columns that fill what they need of the room, at least their least."""
    widths = [r.minimum for r in ranges]
    left = room - sum(widths)
    wanting = {i: r.maximum - r.minimum for i, r in enumerate(ranges) if r.maximum > r.minimum}
    while left > 0 and wanting:
        share = max(left // len(wanting), 1)
        for i in sorted(wanting, key=lambda i: wanting[i]):
            given = min(share, wanting[i], left)
            widths[i] += given
            left -= given
            wanting[i] -= given
        wanting = {i: size for i, size in wanting.items() if size}
    return widths
