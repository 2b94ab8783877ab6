"""Where channels, rows, columns and time lie in an input: given, read off the operators that take it, or guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from fgonnx.engine.model.arrangement import Arrangement
from fgonnx.engine.model.layouts import check_layout, samples_first
from fgonnx.engine.normal.roles import BATCH_AXIS, CHANNEL, Reading, Roles
from fgonnx.errors import OptionError
from fgonnx.wording import parameter

_GRIDS = {1: "W", 2: "HW", 3: "DHW"}
_CHANNELS = (1, 3, 4)


def settle_layout(
    x: ir.Value,
    shape: tuple[int, ...],
    found: Roles,
    given: str | None,
    where: str,
    notes: list[str],
    arrangement: Arrangement | None = None,
    stepped: Roles | None = None,
) -> str:
    """Return the layout of an input with its samples first, in the letters N, C, D, H, W, or NF.

    Parameters
    ----------
    x : ir.Value
        The explained input.
    shape : tuple of int
        Its shape for one sample.
    found : Roles
        How operators read its axes.
    given : str or None
        The user's choice.
    where : str
        The model's name, for messages.
    notes : list of str
        A guess is added to it.
    arrangement : Arrangement, optional
        Where the samples lie in the model's own input: a guess is said in the order of its axes.
    stepped : Roles, optional
        How the bodies of loops read its axes, too: asked where the operators outside of them do not tell.

    Raises
    ------
    OptionError
        If what is given does not exist, or contradicts an operator.
    """
    rank = len(shape)
    if given is not None:
        layout = samples_first(given)
        if len(layout) != rank:
            check_layout(given, rank, where)
        contradicted(layout, found, shape, where, given)
        return layout
    if rank < 2:
        return ""
    if rank == 2:
        return "NF"
    known = _by_readers(found, shape) or _by_steps(stepped, shape) or _by_transpose(x, rank)
    if known is not None:
        return known
    guess = _names(rank)[1] if _is_grid(stepped or found, 1) or _time_to_front(x) else _by_sizes(shape)
    if guess:
        own = guess if arrangement is None else arrangement.layout(guess)
        notes.append(
            f"the layout {own} of the input '{x.name}' is a guess from its sizes, as nothing that reads it "
            "tells its axes apart; give another where it is wrong (layout=, --layout)"
        )
    return guess


def contradicted(layout: str, found: Roles, shape: Sequence[int | ir.SymbolicDim], where: str, given: str) -> None:
    """Refuse a layout that an operator contradicts, axis by axis.

    Parameters
    ----------
    layout : str
        In the letters N, C, D, H, W, F.
    found : Roles
        What the operators say.
    shape : sequence of int or ir.SymbolicDim
        Sizes; an axis of one element may be anything.
    where, given : str
        The model's name, and the layout as the user wrote it, for messages.

    Raises
    ------
    OptionError
        The layout is wrong.
    """
    for axis, (letter, size) in enumerate(zip(layout, shape, strict=True)):
        reading = found.of(axis, proven=True)
        if reading is None or size == 1 or _agrees(letter, reading, layout):
            continue
        if reading.role == BATCH_AXIS and layout[0] == "N" and shape[0] == 1:
            continue  # parts of the only sample
        raise OptionError(
            f"{where}: {parameter('layout', given)} makes axis {axis} of the input ({_size(size)}) {_WORDS[letter]}, "
            f"but {reading.node} reads it as {reading.role}; leave the layout out, or correct it"
        )


def _size(d: int | ir.SymbolicDim) -> str:
    return str(d) if isinstance(d, int) else str(d.value or "?")


_WORDS = {"N": "the batch", "C": "channels", "F": "features", **dict.fromkeys("DHWT", "a part of the map's grid")}


def _agrees(letter: str, reading: Reading, layout: str) -> bool:
    if reading.role == BATCH_AXIS:
        return letter in "ND"  # frames may be explained as one sample
    if letter == "F" and len(layout.replace("N", "")) == 1:
        return True  # the only axis is the map, whatever it is
    return (letter in "CF") == (reading.role == CHANNEL) and letter != "N"


def _by_readers(found: Roles, shape: tuple[int, ...]) -> str | None:
    """Return the layout that operators tell; None where they do not."""
    readings = [found.of(axis) for axis in range(1, len(shape))]
    channels = [r is not None and r.role == CHANNEL for r in readings]
    cells = [r is not None and r.role not in (CHANNEL, BATCH_AXIS) for r in readings]
    if not any(cells):
        # The one axis that is contracted or normalised over is the channels, the others make up the grid.
        if sum(channels) != 1 or any(r is not None and r.role == BATCH_AXIS for r in readings):
            return None
        cells = [not c for c in channels]
    grid = _GRIDS.get(sum(cells))
    if grid is None:
        return None
    letters = iter(grid)
    return "N" + "".join(next(letters) if cell else "C" for cell in cells)


def _by_steps(stepped: Roles | None, shape: tuple[int, ...]) -> str | None:
    """Return the layout that the steps of loops tell, where it leaves one axis to the channels."""
    known = None if stepped is None else _by_readers(stepped, shape)
    return known if known is not None and known.count("C") == 1 else None


def _is_grid(found: Roles, axis: int) -> bool:
    reading = found.of(axis)
    return reading is not None and reading.role not in (CHANNEL, BATCH_AXIS)


def _by_transpose(x: ir.Value, rank: int) -> str | None:
    """Return the layout that a Transpose behind the input tells: it brings channels behind the batch, or to the end.

    One that moves the batch, as for the steps of a recurrence, or that swaps other axes tells nothing of channels.
    """
    first, last = _names(rank)
    for perm in _turned(x):
        if len(perm) != rank or perm[0] != 0:
            continue
        front, back = perm[1] == rank - 1, perm[-1] == 1
        if front and (rank == 3 or not back):
            return last
        if back and not front:
            return first
    return None


def _time_to_front(x: ir.Value) -> bool:
    """Tell whether axis 1 is brought before the batch, as it is for the steps of a recurrence."""
    return any(len(perm) > 2 and list(perm) == [1, 0, *range(2, len(perm))] for perm in _turned(x))


def _turned(x: ir.Value) -> Iterator[Sequence[int]]:
    """Yield the orders of axes that Transposes right behind the input make."""
    queue, seen = [x], 0
    while queue and seen < 32:
        seen += 1
        for node in queue.pop(0).consumers():
            if node.op_type == "Transpose":
                yield node.attributes["perm"].as_ints() if "perm" in node.attributes else []
            elif node.op_type == "Reshape":
                return
            else:
                queue.extend(node.outputs[:1])


def _by_sizes(shape: tuple[int, ...]) -> str:
    """Guess from which axis has the size 1, 3 or 4."""
    first, last = _names(len(shape))
    return last if shape[-1] in _CHANNELS and shape[1] not in _CHANNELS else first


def _names(rank: int) -> tuple[str, str]:
    grid = _GRIDS.get(rank - 2)
    return ("", "") if grid is None else (f"NC{grid}", f"N{grid}C")
