"""Where the object is in a picture: boxes and polygons of a COCO file, or a folder of masks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError
from fgonnx.jobs.samples import digest
from fgonnx.opencv import cv2
from fgonnx.pictures.read import images
from fgonnx.pictures.read.preprocess import Preprocessing

_HALF = 127  # grey level above which a pixel of a mask is part of the object


class Objects:
    """The objects of a data set.

    Parameters
    ----------
    path : Path
        A COCO ``.json``, or a folder of pictures of the same name, ``.png``, white on the object.

    Raises
    ------
    OptionError
        It is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shapes: dict[str, list[dict[str, Any]]] | None = None
        if path.is_dir():
            state = hashlib.sha256()
            for file in sorted(f for f in path.rglob("*.png") if f.is_file()):
                state.update(f"{file.relative_to(path).as_posix()}\n{digest(file)}\n".encode())
            self.sha256 = state.hexdigest()
            return
        try:
            coco = json.loads(path.read_text(encoding="utf-8"))
            names = {image["id"]: str(image["file_name"]) for image in coco["images"]}
            shapes: dict[str, list[dict[str, Any]]] = {}
            for found in coco["annotations"]:
                shapes.setdefault(names[found["image_id"]], []).append(found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"the objects '{path}' are neither a folder of masks nor a COCO file with images and annotations"
            ) from error
        self._shapes, self.sha256 = shapes, digest(path)

    def mask(self, name: str, size: tuple[int, int], pre: Preprocessing) -> npt.NDArray[np.bool_] | None:
        """Return where the object is in what the model sees, (h, w); None where it is not known.

        Parameters
        ----------
        name : str
            Name of the row.
        size : tuple of int
            Height and width of the whole picture.
        pre : Preprocessing
            How the model sees it.

        Raises
        ------
        InputError
            The mask has another size.
        """
        last = name.rpartition("/")[2]
        if self._shapes is None:
            names = (Path(name).with_suffix(".png"), Path(last).with_suffix(".png"))
            file = next((f for n in names if (f := self.path / n).is_file()), None)
            if file is None:
                return None
            mask = images.read(file).rgb.max(axis=2) > _HALF
        else:
            found = self._shapes.get(name) or self._shapes.get(last)
            if found is None:
                return None
            mask = _drawn(found, size)
        if mask.shape != tuple(size):
            raise InputError(
                f"the mask of '{name}' is {mask.shape[1]} x {mask.shape[0]}, its picture {size[1]} x {size[0]}"
            )
        white = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)
        # What is padded around a picture is grey: it is no part of the object.
        return np.asarray(Preprocessing(**{**pre.__dict__, "fill": 0}).to_display(white)[:, :, 0] > _HALF)


def _drawn(found: list[dict[str, Any]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    canvas = np.zeros(size, np.uint8)
    for shape in found:
        outline = shape.get("segmentation")
        if isinstance(outline, list) and outline:
            for polygon in outline:
                cv2.fillPoly(canvas, [np.rint(np.reshape(polygon, (-1, 2))).astype(np.int32)], 1)
        else:
            left, top, width, height = (round(float(v)) for v in shape["bbox"])
            canvas[max(0, top) : top + height, max(0, left) : left + width] = 1
    return canvas.astype(bool)
