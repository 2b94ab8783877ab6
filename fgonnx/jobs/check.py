"""Samples for `fgonnx check`, the user's own or random ones; what it found, for programs; what it did not test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx._version import __version__
from fgonnx.audit.check import Thoroughness
from fgonnx.audit.found import CheckResult
from fgonnx.engine.graph.lookups import holds_ids
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import InputError, OptionError
from fgonnx.fields import refuse_idle
from fgonnx.files import read_array
from fgonnx.jobs.reading import Reading, agreed_layout
from fgonnx.jobs.recordings import rated, refuse_unread
from fgonnx.jobs.samples import Reader, Source, find, is_picture
from fgonnx.jobs.tabular import Tabular
from fgonnx.pictures.read.synthetic import random_pictures
from fgonnx.text.ids import whole_numbers

Array = npt.NDArray[Any]


def check_samples(
    loaded: LoadedModel, inputs: Sequence[Path], options: Options, reading: Reading, thoroughness: Thoroughness
) -> tuple[Array | None, str | None, list[tuple[str, str]]]:
    """Return samples to check a model on, and their layout.

    Parameters
    ----------
    loaded : LoadedModel
        The model, with samples first.
    inputs : sequence of Path
        Pictures, recordings, tables or arrays; seeded random ones if there are none.
    options : Options
        Which input is explained, its shape and layout where they were given.
    reading : Reading
        How files become samples.
    thoroughness : Thoroughness
        How many random samples, and their seed.

    Returns
    -------
    numpy array, (N, ...), or None
        None: `check` draws random ones.
    str or None
        The layout, if known.
    list of pair of str
        The samples used, as labels and texts for the user.

    Raises
    ------
    OptionError
        The samples have different sizes.
    """
    value = loaded.input(options.input)
    how = rated(reading, loaded)
    tables = Tabular(str(value.name), dims_of(value), how)
    sources = find(inputs, len(dims_of(value)), loaded.batch_axis, tables) if inputs else []
    refuse_unread(reading, sources, tables)
    pictures = any(is_picture(s.path) for s in sources)
    pre, origin = reading.preprocessing(loaded, options.input, required=pictures, shape=options.explained_shape)
    layout, said = options.layout, []
    if pre is not None:
        said.append(("preprocessing", f"{pre.describe()}  (from: {origin})"))
        layout = agreed_layout(layout, pre, loaded, options.input)
    if sources:
        refuse_idle(thoroughness, ["samples"], "pictures or arrays to check on are given")
        reader = Reader(value, pre, how, axis=loaded.batch_axis)
        ids = holds_ids(loaded.ir, value)
        rows = [reader.prepared(_ids(s, reader), s).x if ids else reader.read(s).x for s in sources]
        if len({row.shape for row in rows}) > 1:
            raise OptionError("the samples have different sizes; check those of one size at a time")
        return np.stack(rows), layout, [*said, ("checked on", f"{len(rows)} sample(s) given")]
    count, seed = thoroughness.samples, thoroughness.random_state
    if pre is not None and (pre.size is not None or options.explained_shape is not None):
        said.append(("checked on", f"{count} random picture(s), seed {seed}"))
        return random_pictures(pre, options.explained_shape, count, seed), layout, said
    said.append(("checked on", f"{count} random array(s), seed {seed}; the model may be made for other values"))
    return None, layout, said


def _ids(source: Source, reader: Reader) -> Array:
    """Return ids of a file, whole numbers of any type, as numbers of the input's type."""
    whole = whole_numbers(read_array(source.path, InputError), f"'{source.path}'")
    row = np.array(whole if source.row is None else np.take(whole, source.row, axis=reader.axis))
    return row.astype(reader.dtype) if reader.dtype.kind == "f" and row.dtype.kind in "iu" else row


def not_tested(result: CheckResult, *, drawn: bool) -> list[str]:
    """Return what the verdict is not about; `drawn` tells whether the samples were random ones."""
    found = ["inputs of your own, as these were drawn at random"] if drawn else []
    return [*found, *result.untested]


def described(
    loaded: LoadedModel, result: CheckResult, untested: Sequence[str], said: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Return what a check found, ready for JSON.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    result : CheckResult
        What was found.
    untested : sequence of str
        What the verdict is not about.
    said : sequence of pair of str
        The samples, as `check_samples` describes them.
    """
    return {
        "fgonnx": __version__,
        "model": {"path": None if loaded.path is None else str(loaded.path), "sha256": loaded.sha256},
        "verdict": result.verdict,
        "checks": [asdict(check) for check in result.checks],
        "not_tested": list(untested),
        "samples": dict(said),
        "explained": list(result.explanation.described),
        "notes": list(result.notes),
    }
