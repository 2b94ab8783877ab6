"""Tables of models that take every column as an input of its own: read as rows of one input of all features."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fgonnx.engine.model import joined as joining
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import InputError, OptionError
from fgonnx.jobs.reading import Reading
from fgonnx.pictures.read import columns
from fgonnx.pictures.read.columns import Columns
from fgonnx.wording import near, parameter

_LISTED = 8  # inputs that a message names
_EXACT = 1 << 24  # up to which float32 holds whole numbers
_BEHIND = (
    "export the model behind its preprocessing, with one input of numbers (docs/tables.md, An input for each column)"
)


def by_columns(
    loaded: LoadedModel,
    reading: Reading,
    paths: Sequence[Path],
    input: str | None = None,
    read: Callable[[Path], Columns] = columns.read,
) -> tuple[LoadedModel, Reading]:
    """Return a model that takes the rows of tables, where their columns are inputs of its own, and how these are read.

    A model of one input, and one whose inputs no table names, is returned as it is.

    Parameters
    ----------
    loaded : LoadedModel
        The model, with the values that are bound.
    reading : Reading
        How files become samples.
    paths : sequence of Path
        The data.
    input : str, optional
        The input that is to be explained.
    read : callable
        Reads a table.

    Raises
    ------
    InputError
        A table lacks an input, or its cells do not fit one.
    OptionError
        One input is asked for.
    """
    found = joining.single(loaded.ir.graph)
    if len(found) < 2:
        return loaded, reading
    chosen: tuple[str, ...] = ()
    for path in (p for p in paths if p.suffix.lower() in (*columns.SUFFIXES, ".parquet", ".jsonl") and p.is_file()):
        table = read(path)
        own = _columns(table.names, found)
        if len(own) < 2:
            continue
        _check_inputs(loaded, path, own)
        if input is not None:
            raise OptionError(
                f"{loaded.name} takes each column of '{path}' as an input of its own: all are explained together, "
                f"leave {parameter('input', input)} out"
            )
        _check_cells(table, found, own)
        here = tuple(own[str(v.name)] for v in found)
        if chosen not in ((), here):
            raise InputError(f"'{path}' calls its columns otherwise than the table before it; explain them one by one")
        chosen = here
    if not chosen:
        return loaded, reading
    if reading.channels is not None and set(reading.channels) != set(chosen):
        raise OptionError(
            f"{loaded.name} takes each column as an input of its own, and {parameter('channels')} names others than "
            f"{', '.join(chosen)}: leave it out"
        )
    return joining.joined(loaded, [str(v.name) for v in found]), replace(reading, channels=chosen)


def _plain(name: str) -> str:
    """Return a name without what exporters add or replace."""
    return re.sub(r"\W", "_", re.sub(r":\d+$", "", name.removeprefix("serving_default_")))


def _columns(names: Sequence[str], inputs: Sequence[ir.Value]) -> dict[str, str]:
    """Return the column of every input that has one."""
    plain = {_plain(name): name for name in reversed(names)}
    return {
        str(v.name): str(v.name) if v.name in names else plain[key]
        for v in inputs
        if (key := _plain(str(v.name))) in plain or v.name in names
    }


def _check_inputs(loaded: LoadedModel, path: Path, own: dict[str, str]) -> None:
    """Refuse a model with an input that no column of numbers gives."""
    inputs = free_inputs(loaded.ir.graph)
    listed = ", ".join(list(own)[:_LISTED]) + (", ..." if len(own) > _LISTED else "")
    takes = f"{loaded.name} takes each column of '{path}' as an input of its own ({listed})"
    texts = [str(v.name) for v in inputs if v.dtype == ir.DataType.STRING]
    if texts:
        raise InputError(
            f"{takes}, and texts as '{texts[0]}': texts of categories have no gradient; {_BEHIND}, and give the table "
            "as the preprocessing writes it"
        )
    if missing := [str(v.name) for v in inputs if v.name not in own]:
        raise InputError(
            f"{takes}, and has another, '{missing[0]}', that no column is called by"
            f"{near(missing[0], list(own))}: add the column, or fix the input ({parameter('bind')})"
        )
    if calculated := joining.whole(inputs).calculated:
        raise InputError(
            f"{takes}, and calculates whole numbers of '{calculated[0]}', which have no gradient; {_BEHIND}"
        )


def _check_cells(table: Columns, inputs: Sequence[ir.Value], own: dict[str, str]) -> None:
    """Refuse cells that an input of whole numbers or of truth values would take as others."""
    for v in inputs:
        if v.dtype is None or v.dtype.is_floating_point():
            continue
        at = table.place(own[str(v.name)])
        most = 1 if v.dtype == ir.DataType.BOOL else _EXACT
        for i, row in enumerate(table.rows):
            number = _number(row[at])
            if number is None or (number == int(number) and abs(number) <= most and (most > 1 or number >= 0)):
                continue
            takes = "0 or 1" if most == 1 else f"whole numbers up to {_EXACT:,}"
            raise InputError(
                f"'{table.path}', {table.where(i)}, column '{table.names[at]}': {row[at].strip()[:40]} does not fit "
                f"the input '{v.name}' of the model, which takes {takes}"
            )


def _number(cell: str) -> float | None:
    """Return a cell as a finite number; None for others, which are named where they are read."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
