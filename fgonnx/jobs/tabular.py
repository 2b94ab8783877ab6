"""Tables as samples: a row each of a model that takes features, or recordings with a column for each channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError
from fgonnx.jobs import numbering
from fgonnx.jobs.numbering import IDS, INDICES
from fgonnx.jobs.reading import Reading
from fgonnx.pictures.read import columns
from fgonnx.pictures.read.columns import Columns
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

SERIES, TABLE = "series", "table"
TIMES = ("time", "t", "timestamp", "seconds", "sec", "s", "time_s", "time (s)", "time [s]")
"""Headers, in lower case, of a column that holds times instead of values."""
_LISTED = 12
_ROUNDED = 1e-4  # by how much of it a rate may miss a whole number, as times are written with few digits
_EVEN = 0.01  # by how much of their mean intervals between samples may differ


@dataclass(frozen=True)
class Named:
    """What the axes of a sample are called.

    Attributes
    ----------
    kind : {"series", "table"}
        A recording with channels over time, or a row of features.
    names : tuple of str
        Of its channels or features.
    units : str
        Of its values.
    label : str
        What a recording is called in a file of several.
    padded : int
        How many of its last steps are padding.
    rate : float, optional
        Steps per second.
    axes : tuple of str
        Of a spectrogram: what the axes of its map are.
    index : pandas Index, optional
        Of a row of a DataFrame: what it is called, one entry.
    """

    kind: str
    names: tuple[str, ...]
    units: str = ""
    label: str = ""
    padded: int = 0
    rate: float | None = None
    axes: tuple[str, ...] = ()
    index: Any = None


@dataclass(frozen=True)
class Whole:
    """A recording of any length.

    Attributes
    ----------
    values : numpy array, (channels, T)
        Its values.
    rate : float or None
        Steps per second.
    start : int
        The first of them in the file.
    named : Named or None
        What its channels are called.
    notes : tuple of str
        Assumptions that were made.
    """

    values: Array
    rate: float | None = None
    start: int = 0
    named: Named | None = None
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> str:
        """Units of its values."""
        return self.named.units if self.named is not None else ""


@dataclass
class Tabular:
    """Reads tables as samples of one input of a model.

    Attributes
    ----------
    name : str
        The input.
    dims : sequence
        Its sizes, the batch first; anything but an int is free.
    reading : Reading
        Which columns are what.
    layout : callable
        Takes the sizes of one sample; returns the layout of the input, samples first, where sizes do not tell.
    """

    name: str
    dims: Sequence[Any]
    reading: Reading
    layout: Callable[[tuple[int, ...]], str] | None = None
    _files: dict[Path, Columns] = field(default_factory=dict)

    def open(self, table: Path | Columns) -> Columns:
        """Return the content of a table; the last file that was read is kept."""
        if isinstance(table, Columns):
            return table
        if table not in self._files:
            self._files = {table: columns.read(table)}
        return self._files[table]

    def count(self, table: Path | Columns) -> int:
        """Return how many samples a table holds."""
        found = self.open(table)
        return len(found.rows) if self.is_table(found) else len(self._recordings(found))

    def groups(self, table: Columns) -> list[tuple[str, list[int]]]:
        """Return the rows of every sample of a table, each with the name of a recording; "" for rows of features."""
        if self.is_table(table):
            return [("", [i]) for i in range(len(table.rows))]
        return list(self._recordings(table).items())

    def is_table(self, table: Columns) -> bool:
        """Tell whether every row is a sample."""
        if len(self._sizes) != 1:
            return False
        features, chosen = self._sizes[0], self._values(table)
        if isinstance(features, int) and len(chosen) not in (1, features):
            plural = "s" * (features != 1)
            raise InputError(
                f"'{table.path}' has {len(chosen)} columns{_listed(chosen)}; one sample of the input '{self.name}' is "
                f"{_shape(self._sizes)}: {features} column{plural} of features in the model's order, or one channel "
                f"over time; choose them by name ({parameter('channels', 'a,b')})"
            )
        return len(chosen) > 1 if not isinstance(features, int) else len(chosen) == features

    @property
    def _sizes(self) -> list[Any]:
        """Sizes of one sample."""
        return list(self.dims[1:])

    def sample(self, table: Path | Columns, number: int) -> tuple[Array, Named, tuple[str, ...]]:
        """Return one sample, without the batch axis, what it is called, and notes.

        Raises
        ------
        InputError
            Columns, cells or lengths do not fit the input.
        """
        found = self.open(table)
        names = self._values(found)
        shown = (self.reading.channels or ()) if self._renamed(found) else names
        units = self.reading.units or ""
        if self.is_table(found):
            row = found.numbers(names, [number])[0]
            index = None if found.index is None else found.index[number : number + 1]
            return row, Named(TABLE, shown, units, index=index), self._assumed(found, names)
        whole = self.recording(found, number)
        steps, named = whole.values.shape[1], whole.named
        x, filled = self.fitted(whole.values, self._where(found, number))
        notes = [f"the last {filled} of {steps + filled} steps are padding"] if filled else []
        label = named.label if named is not None else ""
        return x, Named(SERIES, shown, units, label, filled, whole.rate), (*whole.notes, *notes)

    def _assumed(self, table: Columns, names: Sequence[str]) -> tuple[str, ...]:
        """Return notes on how a table of features was read."""
        kept = set(names)
        left = [n for n in table.names if n not in kept] if not self.reading.channels else []
        said = [f"the column '{left[0]}' numbers the rows: it is not among the features"] if left else []
        if not table.headed and not self._renamed(table):
            said.append("no header found: the first row is numbers, and is explained as a sample")
        return tuple(said)

    def recording(self, table: Path | Columns, number: int) -> Whole:
        """Return one recording of a table, of whatever length.

        Raises
        ------
        InputError
            Columns or cells do not fit the input.
        """
        found = self.open(table)
        names = self._values(found)
        rows = list(self._recordings(found).values())[number]
        values = found.numbers(names, rows).T
        rate, why = self._rate(found, rows)
        start = 0
        if self.reading.span is not None:
            start, end = self.reading.span
            if end > values.shape[1]:
                raise InputError(f"{self._where(found, number)} has {values.shape[1]} rows; {start}:{end} is not in it")
            values = values[:, start:end]
        shown = (self.reading.channels or ()) if self._renamed(found) else names
        named = Named(SERIES, shown, self.reading.units or "", self._label(found, rows), 0, rate)
        return Whole(values, rate, start, named, (why,) if why else ())

    def fitted(self, values: Array, where: str) -> tuple[Array, int]:
        """Bring (channels, T) to one sample of the input; return how many steps were padded, too.

        Raises
        ------
        InputError
            Channels or length do not fit.
        """
        sizes, (count, steps) = self._sizes, values.shape
        if len(sizes) not in (1, 2):
            raise InputError(
                f"{where}: a table holds channels over time, or features, and the input '{self.name}' "
                f"{_shape(sizes)} takes neither; give .npy"
            )
        if len(sizes) == 1:
            if count != 1:
                raise InputError(
                    f"{where} has {count} columns of numbers; one sample of the input '{self.name}' is "
                    f"{_shape(sizes)}: {sizes[0]} columns of features, or one channel over time "
                    f"({parameter('channels')})"
                )
            values, padded = self._lengthened(values, sizes[0], where)
            return values[0], padded
        if self._last(count, steps):
            self._check_channels(count, sizes[1], where)
            values, padded = self._lengthened(values, sizes[0], where)
            return np.ascontiguousarray(values.T), padded
        self._check_channels(count, sizes[0], where)
        return self._lengthened(values, sizes[1], where)

    def _last(self, channels: int, steps: int) -> bool:
        """Tell whether channels are the last axis of one sample."""
        first, last = self._sizes
        if (first == channels) != (last == channels):
            free = last if first == channels else first
            if not isinstance(free, int) or self.reading.pad is not None or free == steps or self.layout is None:
                return bool(last == channels)
        if self.layout is None:
            return not isinstance(first, int) and isinstance(last, int)
        wanted = tuple(size if isinstance(size, int) else None for size in (first, last))
        for shape in ((channels, steps), (steps, channels)):
            if all(w is None or w == s for w, s in zip(wanted, shape, strict=True)):
                layout = self.layout(shape)
                return layout.index("C") == len(layout) - 1 if "C" in layout else False
        layout = self.layout(tuple(w or s for w, s in zip(wanted, (channels, steps), strict=True)))
        return layout.index("C") == len(layout) - 1 if "C" in layout else False

    def _check_channels(self, count: int, wanted: Any, where: str) -> None:
        if isinstance(wanted, int) and wanted != count:
            raise InputError(
                f"{where} has {count} columns of numbers; the input '{self.name}' takes {wanted} channels: choose them "
                f"by name, in order ({parameter('channels', 'a,b')})"
            )

    def _lengthened(self, values: Array, wanted: Any, where: str) -> tuple[Array, int]:
        steps = values.shape[1]
        if not isinstance(wanted, int) or steps == wanted:
            return values, 0
        if steps > wanted:
            raise InputError(
                f"{where} has {steps} steps, the model takes {wanted}; choose which "
                f"({parameter('span', f'0:{wanted}')}), or slide over all of them ({parameter('slide', wanted)})"
            )
        if self.reading.pad is None:
            raise InputError(
                f"{where} has {steps} steps, the model takes {wanted}; say what the rest is filled with "
                f"({parameter('pad', 'zero')}, edge or a number), as the model was trained"
            )
        return padded(values, wanted, self.reading.pad), wanted - steps

    def _values(self, table: Columns) -> tuple[str, ...]:
        """Return the columns of values, in order: those that are named, or all but times and ids."""
        if self.reading.channels and not self._renamed(table):
            return self.reading.channels
        names = [n for n in table.names if n != self.reading.by]
        wanted = {d for d in self._sizes if isinstance(d, int)}
        self._check_gap(table, names, wanted)
        if len(names) in wanted and len(self._sizes) == 1:
            return tuple(names)
        kept = [n for n in names if n.lower() not in (*TIMES, *INDICES)]
        if self._id(table, kept) is not None:
            kept = [n for n in kept if n != self._id(table, kept)]
        if len(self._sizes) == 1 and (len(kept) != 1 or 1 in wanted):
            return tuple(n for n in names if n != self._numbering(names))
        return tuple(kept)

    def _numbering(self, names: Sequence[str]) -> str | None:
        """Return the first column of features where it alone is named as one that numbers rows, and is one too many."""
        found = [n for n in names if n.lower() in (*INDICES, *IDS)]
        (size,) = self._sizes
        over = not isinstance(size, int) or len(names) == size + 1
        return found[0] if over and found == list(names[:1]) else None

    def _check_gap(self, table: Columns, names: Sequence[str], wanted: set[int]) -> None:
        """Refuse a table that has as many columns as the model takes only with the one that numbers its rows.

        Raises
        ------
        InputError
            A column is missing.
        """
        sizes = self._sizes
        values = names if len(sizes) == 1 else [n for n in names if n.lower() not in (*TIMES, *INDICES)]
        if len(values) not in wanted or (len(sizes) > 1 and len(values) - 1 in wanted):
            return
        if (at := numbering.known(table, values)) is None:
            return
        others = [n for n in values if n != at]
        what = "feature" if len(sizes) == 1 else "channel"
        raise InputError(
            f"'{table.path}' has {len(others)} column{'s' * (len(others) != 1)} of {what}s"
            f"{_listed(others)}, and '{at}', which numbers the rows; one sample of the input '{self.name}' is "
            f"{_shape(sizes)}: one {what} is missing; where '{at}' is a {what} of the model, name all of them in order "
            f"({parameter('channels', ','.join(values[:_LISTED]) + (',...' if len(values) > _LISTED else ''))})"
        )

    def _renamed(self, table: Columns) -> bool:
        """Tell whether the names are those of columns without a header."""
        given = self.reading.channels
        return given is not None and not table.headed and len(given) == len(table.names)

    def _id(self, table: Columns, names: Sequence[str]) -> str | None:
        """Return the column that tells recordings apart, where one is named so and is none of the channels."""
        found = [n for n in names if n.lower() in IDS]
        wanted = {d for d in self._sizes if isinstance(d, int)}
        if len(found) != 1 or (len(names) in wanted and len(names) - 1 not in wanted):
            return None
        return found[0]

    def _recordings(self, table: Columns) -> dict[str, list[int]]:
        """Return the rows of every recording, by its name."""
        by = self.reading.by
        if by is None and not self.reading.channels:
            by = self._id(table, [n for n in table.names if n.lower() not in TIMES])
        elif by is None:
            by = next((n for n in table.names if n.lower() in IDS and n not in (self.reading.channels or ())), None)
        if by is None:
            return {"": list(range(len(table.rows)))}
        found: dict[str, list[int]] = {}
        for i, name in enumerate(table.texts(by)):
            found.setdefault(name, []).append(i)
        return found

    def _label(self, table: Columns, rows: Sequence[int]) -> str:
        found = self._recordings(table)
        return next((name for name, inside in found.items() if rows[0] in inside), "") if len(found) > 1 else ""

    def _where(self, table: Columns, number: int) -> str:
        named = [*self._recordings(table)]
        return f"'{table.path}'" + (f", recording '{named[number]}'," if len(named) > 1 else "")

    def _rate(self, table: Columns, rows: Sequence[int]) -> tuple[float | None, str]:
        """Return how many steps a second has, by the option or a column of times, and a note.

        Raises
        ------
        InputError
            They contradict each other, or times do not rise evenly.
        """
        name = next((n for n in table.names if n.lower() in TIMES and n not in (self.reading.channels or ())), None)
        given = float(self.reading.rate) if self.reading.rate is not None else None
        if name is None or name in self._values(table) or len(rows) < 3:
            return given, ""
        try:
            times = table.numbers([name], rows)[:, 0]
        except InputError:
            return given, f"the column '{name}' holds no numbers: times are counted in steps"
        gaps = np.diff(times)
        if gaps.min() <= 0 or np.abs(gaps - gaps.mean()).max() > _EVEN * gaps.mean():
            at = int(np.argmax(np.abs(gaps - np.median(gaps)))) + 1
            raise InputError(
                f"'{table.path}', {table.where(rows[at])}: the times of column '{name}' do not rise evenly "
                f"({times[at - 1]:g}, then {times[at]:g}); resample the recording, or leave the column out"
            )
        own = float(1 / gaps.mean())
        own = float(round(own)) if round(own) and abs(own - round(own)) < _ROUNDED * own else own
        if given is not None and abs(own - given) > _EVEN * given:
            raise InputError(
                f"'{table.path}' has {own:.6g} rows per second by its column '{name}', the model takes {given:g}; "
                f"resample it, or correct {parameter('rate', given)}"
            )
        return given or own, "" if given else f"{own:.6g} rows per second by the column '{name}'"


def padded(values: Array, length: int, pad: str) -> Array:
    """Lengthen (channels, T) at its end: with zeros, its last values, or a number."""
    missing = length - values.shape[1]
    if pad == "edge":
        return np.pad(values, ((0, 0), (0, missing)), mode="edge")
    return np.pad(values, ((0, 0), (0, missing)), constant_values=0.0 if pad == "zero" else float(pad))


def _listed(names: Sequence[str]) -> str:
    """Return names for a message, in brackets."""
    more = ", ..." if len(names) > _LISTED else ""
    return " (" + ", ".join(f"'{n}'" for n in names[:_LISTED]) + more + ")" if names else ""


def _shape(sizes: Sequence[Any]) -> str:
    return "(" + ", ".join(str(d) if isinstance(d, int) else "?" for d in sizes) + ")"
