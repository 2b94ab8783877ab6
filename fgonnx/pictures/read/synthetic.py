"""Random pictures, for models whose own pictures are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.opencv import cv2
from fgonnx.pictures.read.preprocess import Preprocessing

Array = npt.NDArray[Any]


def random_pictures(pre: Preprocessing, shape: Sequence[int] | None, samples: int, random_state: int = 0) -> Array:
    """Return seeded random pictures, prepared as the model wants them: coloured clouds with grain, (N, ...)."""
    assert pre.size is not None or shape is not None
    size = pre.size or (shape[2:4] if pre.layout == "NCHW" else shape[1:3])  # type: ignore[index]
    rng = np.random.default_rng(random_state)
    rows = []
    for _ in range(samples):
        clouds = cv2.resize(rng.uniform(0, 255, (6, 6, 3)), (int(size[1]), int(size[0])), interpolation=cv2.INTER_CUBIC)
        picture = np.clip(clouds + rng.normal(0, 12, clouds.shape), 0, 255)
        rows.append(pre.apply(np.rint(picture).astype(np.uint8)))
    return np.stack(rows)
