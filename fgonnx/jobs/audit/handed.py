"""What would be handed on of a run, looked at before there is one: what no run of these data can give is refused."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fgonnx.errors import InputError, OptionError
from fgonnx.jobs.audit.options import Auditing, Handing
from fgonnx.wording import parameter

FEWEST = 16
"""Maps that can be grouped, at least."""

VIRELAY = "virelay"
_ROWS = {"text": "texts", "table": "rows of a table", "array": "arrays"}
_ARRAY = ".npy"


def refuse_kind(kind: str, of: Path, handing: Handing) -> None:
    """Refuse exports of rows that are no pictures, and packages that are missing.

    Parameters
    ----------
    kind : str
        What the rows are: "text", "table", "array", or anything else where they may be pictures.
    of : Path
        The data or the run, for the message.
    handing : Handing
        What is asked for.

    Raises
    ------
    FgonnxError
        No run of such rows can be written so.
    """
    if handing.exports and kind in _ROWS:
        raise no_pictures(of, _ROWS[kind])
    if VIRELAY in (handing.exports or ()) and find_spec("h5py") is None:
        raise OptionError("an export for ViRelAy needs h5py: pip install h5py")


def refuse_rows(paths: Sequence[str], of: Path, auditing: Auditing, handing: Handing) -> None:
    """Refuse exports of rows that are arrays, are too few to group, or whose maps are not kept.

    Parameters
    ----------
    paths : sequence of str
        The file of each row.
    of : Path
        The data, for the message.
    auditing : Auditing
        What is kept.
    handing : Handing
        What is asked for.

    Raises
    ------
    InputError
        No run of these rows can be written so.
    """
    if not handing.exports:
        return
    arrays = sum(Path(path).suffix.lower() == _ARRAY for path in paths)
    if arrays == len(paths):
        raise no_pictures(of, "arrays")
    if VIRELAY not in handing.exports:
        return
    if auditing.maps == "none":
        raise no_maps(of)
    if len(paths) < FEWEST:
        raise too_few(of)
    if arrays:
        raise some_arrays(of)


def no_pictures(of: Path, what: str) -> InputError:
    """Return the error for rows that are no pictures."""
    return InputError(f"'{of}' holds {what}, and other tools are given pictures: leave the export out")


def no_maps(of: Path) -> InputError:
    """Return the error for a run without maps."""
    return InputError(f"of '{of}' no maps are kept ({parameter('maps', 'none')}), and ViRelAy shows them")


def too_few(of: Path) -> InputError:
    """Return the error for a run with too few maps to group."""
    return InputError(f"'{of}' has too few maps to group, and ViRelAy shows groups: audit {FEWEST} pictures or more")


def some_arrays(of: Path) -> InputError:
    """Return the error for pictures and arrays in one run."""
    return InputError(f"'{of}' has maps of arrays, and ViRelAy shows pictures")
