"""Small data sets and a small model for audits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fgonnx.errors import ProviderError
from tests import skips
from tests.cli_support import SMALL, model

CLASSES = ("ant", "bee", "cat", "dog")
PREPROCESSING = {"scale": 1 / 255, "mean": [0.5], "std": [0.25], "size": [8, 8], "channels": "RGB", "layout": "NCHW"}


@contextlib.contextmanager
def ray() -> Iterator[None]:
    """Skip where Ray is not installed, or the machine is too busy: it starts within half a minute or not."""
    skips.without("ray")
    try:
        yield
    except ProviderError as error:
        if not str(error).startswith("Ray does not start"):
            raise
        skips.now(skips.SYSTEM, str(error))


def classifier(path: Path, text: str = SMALL, **weights: Any) -> Path:
    """Save a classifier of 8 x 8 pictures that knows its preprocessing and its labels."""
    import onnx

    model(text, path, **weights)
    proto = onnx.load(path)
    entries = {"fgonnx.preprocessing": json.dumps(PREPROCESSING), "fgonnx.labels": json.dumps(CLASSES)}
    onnx.helper.set_model_props(proto, entries)
    onnx.save(proto, path)
    return path


def picture(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def encoded(seed: int, size: int = 8) -> bytes:
    return bytes(cv2.imencode(".png", picture(seed, size))[1].tobytes())


def folder(path: Path, count: int = 12, *, classes: bool = True) -> Path:
    """Write a folder of pictures, one folder per class, in turn."""
    for i in range(count):
        file = path / (CLASSES[i % 4] if classes else ".") / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(i))
    return path


def shard_bytes(run: Path) -> dict[str, bytes]:
    """Return the files of a run's shards."""
    return {f.name: f.read_bytes() for f in sorted((run / "shards").iterdir())}
