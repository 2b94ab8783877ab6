"""The three files about one explained sample: a picture, the map, and a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files as storage
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.explain.parts import Features, Lanes
from fgonnx.fields import arguments
from fgonnx.jobs import panel, provenance, record
from fgonnx.jobs.reading import OF_FILES, SOUND, Reading
from fgonnx.jobs.samples import Sample, Source, is_picture, is_recording
from fgonnx.jobs.schema import SCHEMA
from fgonnx.pictures.read import images
from fgonnx.pictures.read.preprocess import Preprocessing

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Asked:
    """What explains samples: from it, the command that does so again is written.

    Attributes
    ----------
    model : str
        The model's file.
    options, running, reading
        As given.
    target : str or None
        As given.
    """

    model: str
    options: Options
    running: Running
    reading: Reading
    target: str | None = None

    def request(
        self,
        model: Mapping[str, Any],
        bound: Mapping[str, str],
        source: Mapping[str, Any],
        preprocessing: Preprocessing | None,
        target: Mapping[str, Any],
        picture: str,
    ) -> dict[str, Any]:
        """Return the first keys of a record: everything that determines its content.

        Parameters
        ----------
        model : mapping
            What identifies the model, of `provenance.model_of`.
        bound : mapping of str to str
            Its inputs that are bound to values.
        source : mapping
            The input: path, row and hash.
        preprocessing : Preprocessing or None
            How pictures become numbers.
        target : mapping
            What was asked for.
        picture : {"panel", "overlay", "heat"}
            What the picture shows.
        """
        idle = _idle(Path(str(source["path"])), self.reading) if source["path"] is not None else SOUND
        asked = {
            "schema": SCHEMA,
            "input": dict(source),
            "model": dict(model),
            "versions": record.versions(self.running),
            "providers": self.running.used_providers,
            "settings": {
                **self.options.to_dict(),
                **target,
                **record.asked(self.running),
                "picture": picture,
                **({"bind": dict(bound)} if bound else {}),
                **{k: v for k, v in self.reading.sound().items() if k not in idle},
            },
            "preprocessing": json.loads(preprocessing.to_json()) if preprocessing is not None else None,
        }
        return {"schema": SCHEMA, "id": provenance.identity(asked), **asked}

    def command(self, source: Source, folder: Path, picture: str) -> list[str]:
        """Return the command that explains a sample again: the file that it is in."""
        return [
            *("fgonnx", "explain", self.model, str(source.path), "-o", str(folder)),
            *(("--target", self.target) if self.target is not None else ()),
            *(("--picture", picture) if picture != record.PICTURES[0] else ()),
            *arguments(self.options, without=FILE),
            *arguments(self.running, defaults={"cache": True}),
            *arguments(self.reading, without=_idle(source.path, self.reading)),
        ]


def _idle(path: Path, reading: Reading) -> tuple[str, ...]:
    """Return the fields for recordings that mean nothing for a file."""
    if is_picture(path) or is_recording(path):
        return SOUND if is_picture(path) else ()
    return OF_FILES if reading.axes is None and reading.channels is None else OF_FILES[1:]


def names(name: str) -> dict[str, str]:
    """Return the names of the files beside the record of a sample, by kind."""
    return {"picture": f"{name}.png", "map": f"{name}.npy"}


def drawn(
    made: Mapping[str, Any],
    sample: Sample,
    saliency: Array,
    kind: str,
    layout: str,
    preprocessing: Preprocessing | None,
    parts: Lanes | Features | None = None,
) -> RGB:
    """Draw the picture of one sample.

    Parameters
    ----------
    made : mapping
        Its record.
    sample : Sample
        The sample, with what is shown of it.
    saliency : numpy array
        Its map.
    kind : {"panel", "overlay", "heat"}
        What the picture shows.
    layout : str
        Axes of the input with samples first, such as "NCHW".
    preprocessing : Preprocessing or None
        What places the map in the whole photo.
    parts : Lanes, Features or None
        The map in lanes or by features.
    """
    over = placed(sample, saliency, layout, preprocessing) if kind == "overlay" else None
    return panel.draw(made, sample, saliency, kind, over, record.arranged(sample.x, layout), parts)


def placed(sample: Sample, saliency: Array, layout: str, preprocessing: Preprocessing | None) -> Array | None:
    """Return a map in the coordinates of the whole photo, (H, W); None where there is none."""
    if sample.photo is None or preprocessing is None:
        return None
    map_ = record.flat(saliency)
    if saliency.ndim == 1 and sample.x.ndim == 2:  # rows or columns of a grey picture, read as a sequence
        map_ = np.broadcast_to(map_ if layout[1] == "C" else map_.T, sample.x.shape)
    return preprocessing.place(map_, sample.photo.shape)


def write(folder: Path, name: str, made: Mapping[str, Any], picture: RGB, saliency: Array) -> list[Path]:
    """Write the files of one sample, and return their paths; if the record exists, the other files do too.

    Raises
    ------
    InputError
        A file cannot be written.
    """
    named = names(name)
    storage.make_folder(folder)
    storage.write_array(folder / named["map"], saliency.astype("float32", copy=False))
    images.write_png(folder / named["picture"], picture)
    storage.write_json(folder / f"{name}.json", made)
    return [folder / named["picture"], folder / named["map"], folder / f"{name}.json"]
