"""Options of recordings and tables, for a command's files: the rate of the metadata, and what has no effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import InputError, ModelError
from fgonnx.fields import refuse_idle
from fgonnx.jobs.reading import OF_FILES, OF_SERIES, SOUND, Reading
from fgonnx.jobs.samples import Source, is_recording, is_table, is_text
from fgonnx.jobs.tabular import Tabular
from fgonnx.pictures.read import columns
from fgonnx.pictures.read.audio import RATE_KEY


def rated(reading: Reading, loaded: LoadedModel) -> Reading:
    """Return reading options with the sample rate of the model's metadata, where none was given.

    That of the metadata is of sound, not of the columns of a spectrogram.

    Raises
    ------
    ModelError
        What the metadata says is no rate.
    """
    text = loaded.ir.metadata_props.get(RATE_KEY)
    if reading.rate is not None or reading.axes is not None or text is None:
        return reading
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ModelError(
            f"{loaded.name}: its metadata entry '{RATE_KEY}' is {text!r}, not a number of samples per second"
        )
    return replace(reading, rate=rate)


def refuse_unread(reading: Reading, sources: Sequence[Source], tables: Tabular) -> bool:
    """Refuse options that none of the files has a use for; return whether they are rows of tables.

    Raises
    ------
    OptionError
        There is one.
    InputError
        A file is text, and no table by its name.
    """
    if text := next((s.path for s in sources if is_text(s.path)), None):
        raise InputError(
            f"'{text}' is text: tables are read from {' and '.join(sorted(columns.SUFFIXES))} files; name it so if "
            "it is one. Texts are explained where the model takes some ('fgonnx explain')"
        )
    of_rows = any(is_table(s.path) and tables.is_table(tables.open(s.path)) for s in sources[:1])
    if of_rows:
        refuse_idle(reading, OF_SERIES, "every row of a table is a sample of its own")
    if not any(is_recording(s.path) for s in sources):
        arrays = any(s.path.suffix.lower() == ".npy" for s in sources)
        idle = OF_FILES if reading.axes is None and reading.channels is None else OF_FILES[1:]
        refuse_idle(reading, idle if arrays else SOUND, "no recording is among the inputs")
    return of_rows
