"""From the pixels of a picture to the numbers a model was trained on, and back for the map.

An ONNX file does not say how pixels become the model's input. A `Preprocessing` describes this, is stored in the
model's metadata as JSON, completed from the shape of the model's input, and printable with `describe`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from fgonnx import bounds
from fgonnx.errors import InputError, PreprocessingError
from fgonnx.opencv import cv2
from fgonnx.pictures.read.frame import Frame, Pixels, check_picture, over_white, resized
from fgonnx.wording import near

Layout = Literal["NCHW", "NHWC", "NHW"]
Resize = Literal["stretch", "crop", "letterbox"]
Channels = Literal["RGB", "BGR", "GRAY", "RGBA", "BGRA"]
DType = Literal["float32", "float16", "uint8"]
Interpolation = Literal["auto", "nearest", "linear", "cubic", "area", "lanczos"]

WITH_ALPHA = ("RGBA", "BGRA")
COUNT: Mapping[str, int] = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4}
_ORDER = {"BGR": [2, 1, 0], "BGRA": [2, 1, 0, 3]}

CHOICES: Mapping[str, tuple[str, ...]] = {
    "layout": get_args(Layout),
    "resize": get_args(Resize),
    "channels": get_args(Channels),
    "dtype": get_args(DType),
    "interpolation": get_args(Interpolation),
}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a model: ``x = (pixel * scale - mean) / std``, pixels 0..255.

    Fields that are None are not known yet: `complete` infers them from the model.

    Attributes
    ----------
    layout : {"NCHW", "NHWC", "NHW"} or None
        Position of the channels in the model's input.
    size : (int, int) or None
        Height and width of the model's input; None for a model that takes a picture at its own size.
    resize : {"stretch", "crop", "letterbox"}
        ``stretch`` changes the proportions. ``crop`` scales the picture so that its shorter side is `resize_to` (more
        where the crop needs it) and crops the centre. ``letterbox`` fits the whole picture in and pads the rest.
    resize_to : int or None
        Shorter side before the centre crop, in pixels; None is 256/224 of the size. Only for ``crop``.
    channels : {"RGB", "BGR", "GRAY", "RGBA", "BGRA"} or None
        Order of the channels; GRAY is one channel of luminance, A is alpha, 255 where a picture has none.
    scale : float
        Multiplies a pixel first.
    mean, std : tuple of float
        Subtracted next, divided by last; one number for all channels, or one per channel in the order of `channels`.
    dtype : {"float32", "float16", "uint8"} or None
        Element type of the model's input. ``uint8`` takes pixels as they are: scale 1, mean 0, std 1.
    interpolation : {"auto", "nearest", "linear", "cubic", "area", "lanczos"}
        ``auto`` averages areas when shrinking and interpolates linearly when enlarging.
    fill : int
        Grey level around a letterboxed picture, 0..255.
    name : str or None
        Where the description comes from, such as the name of a preset; has no effect.

    Raises
    ------
    PreprocessingError
        A field has an invalid value, or one that contradicts another field.

    Examples
    --------
    >>> import numpy as np
    >>> import fgonnx
    >>> how = fgonnx.Preprocessing(layout="NCHW", size=(64, 64), channels="RGB", scale=1 / 255, dtype="float32")
    >>> how.apply(np.full((100, 80, 3), 255, np.uint8)).shape
    (3, 64, 64)
    >>> fgonnx.Preprocessing.from_json(how.to_json()) == how
    True
    """

    layout: Layout | None = None
    size: tuple[int, int] | None = None
    resize: Resize = "stretch"
    resize_to: int | None = None
    channels: Channels | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: DType | None = None
    interpolation: Interpolation = "auto"
    fill: int = 114
    name: str | None = None

    def __post_init__(self) -> None:
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed and not (value is None and field in ("layout", "channels", "dtype")):
                raise PreprocessingError(f"{field} is {value!r}: choose one of {', '.join(allowed)}")
        # Lists, as JSON has them, become tuples of plain numbers, so that equal descriptions compare equal.
        object.__setattr__(self, "scale", _numbers("scale", self.scale)[0])
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if self.size is not None:
            if not isinstance(self.size, Sequence) or len(self.size) != 2 or not all(map(_is_positive, self.size)):
                raise PreprocessingError(f"size is {self.size!r}: give height and width, two integers above 0")
            object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        if self.resize_to is not None:
            if not _is_positive(self.resize_to):
                raise PreprocessingError(f"resize_to is {self.resize_to!r}: give an integer above 0, in pixels")
            if self.resize != "crop":
                raise PreprocessingError(f"resize_to only goes with resize=crop, not {self.resize}: leave it out")
        if isinstance(self.fill, bool) or not isinstance(self.fill, int) or not 0 <= self.fill <= 255:
            raise PreprocessingError(f"fill is {self.fill!r}: give a grey level, an integer 0..255")
        if self.name is not None and not isinstance(self.name, str):
            raise PreprocessingError(f"name is {self.name!r}: give a text, or leave it out")
        if self.scale <= 0:
            raise PreprocessingError(f"scale is {self.scale}: give a number above 0, often 1/255")
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self._n_channels or 3):
                wanted = f"1 or {self._n_channels} for channels={self.channels}" if self.channels else "1 or 3"
                raise PreprocessingError(f"{field} has {len(values)} numbers: give {wanted}")
        if min(self.std) <= 0:
            raise PreprocessingError(f"std is {_list(self.std)}: it divides, so every number must be above 0")
        if self.dtype == "uint8" and (self.scale != 1 or set(self.mean) != {0.0} or set(self.std) != {1.0}):
            raise PreprocessingError(
                "a uint8 input takes pixels as they are: use scale=1, mean=0, std=1 (preset 'raw'), or dtype=float32"
            )

    @property
    def _n_channels(self) -> int | None:
        return None if self.channels is None else COUNT[self.channels]

    def apply(self, image: Pixels) -> npt.NDArray[Any]:
        """Turn a picture into one sample of the model's input.

        Parameters
        ----------
        image : ndarray of uint8 or float32, shape (H, W, 3) or (H, W, 4)
            RGB or RGBA pixels, 0 to 255, of any size; float32 for pictures of more than 8 bits. Alpha is blended over
            white unless `channels` has it.

        Returns
        -------
        ndarray of `dtype`, shape (C, h, w), (h, w, C) or (h, w)
            In the layout of the model, without a batch axis, contiguous.

        Raises
        ------
        InputError
            The array is not such a picture.
        PreprocessingError
            Layout, channels or dtype are not known yet.
        """
        for field in ("layout", "channels", "dtype"):
            if getattr(self, field) is None:
                raise PreprocessingError(
                    f"{field} is not known: take it from the model with complete(), or set it to one of "
                    f"{', '.join(CHOICES[field])}"
                )
        pixels = self._framed(image)
        if self.channels == "GRAY":
            pixels = cast("Pixels", cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[:, :, None]
        elif self.channels in _ORDER:
            pixels = pixels[:, :, _ORDER[self.channels]]
        if self.dtype == "uint8" and pixels.dtype != np.uint8:
            pixels = np.rint(pixels).astype(np.uint8)
        sample: npt.NDArray[Any] = pixels
        if self.dtype != "uint8":
            mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
            sample = ((pixels.astype(np.float32) * np.float32(self.scale) - mean) / std).astype(self.dtype)
        if self.layout == "NHW":
            sample = sample[:, :, 0]
        return np.ascontiguousarray(sample.transpose(2, 0, 1) if self.layout == "NCHW" else sample)

    def to_display(self, image: Pixels) -> npt.NDArray[np.uint8]:
        """Return the picture as the model sees it, to overlay a map on it.

        Parameters
        ----------
        image : ndarray of uint8 or float32, shape (H, W, 3) or (H, W, 4)
            RGB or RGBA pixels, 0 to 255.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB pixels, resized, cropped or padded, grey if the model takes grey, over white, not normalised.

        Raises
        ------
        InputError
            The array is not such a picture.
        PreprocessingError
            `resize_to` is set but not the size.
        """
        pixels = self._framed(image)
        if pixels.shape[2] == 4:
            pixels = over_white(pixels)
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels).astype(np.uint8)
        if self.channels == "GRAY":
            grey = cast("npt.NDArray[np.uint8]", cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
            return np.repeat(grey[:, :, None], 3, axis=2)
        return cast("npt.NDArray[np.uint8]", pixels)

    def frame(self, image_shape: Sequence[int]) -> tuple[float, float, float, float]:
        """Return where the edges of the model's input are in the coordinates of the original picture.

        Parameters
        ----------
        image_shape : sequence of int
            Shape of the original picture, (H, W) or (H, W, 3).

        Returns
        -------
        tuple of float
            Left, top, right and bottom in pixels; beyond the picture where it is padded.

        Examples
        --------
        >>> Preprocessing(size=(100, 200), resize="letterbox").frame((100, 100))
        (-50.0, 0.0, 150.0, 100.0)
        """
        height, width = int(image_shape[0]), int(image_shape[1])
        frame = self._frame(height, width)
        edges = []
        for axis, whole in ((1, width), (0, height)):
            first = frame.source[axis].start - frame.target[axis].start
            unit = whole / frame.scaled[axis]
            edges.append((first * unit, (first + frame.size[axis]) * unit))
        (left, right), (top, bottom) = edges
        return left, top, right, bottom

    def place(self, saliency: npt.ArrayLike, image_shape: Sequence[int]) -> npt.NDArray[np.float32]:
        """Transform a map of the model's input to the coordinates of the original picture.

        Parameters
        ----------
        saliency : array-like, shape (h, w)
            A map over the picture as the model sees it.
        image_shape : sequence of int
            Shape of the original picture, (H, W) or (H, W, 3).

        Returns
        -------
        ndarray of float32, shape (H, W)
            Values are interpolated, not rescaled; 0 outside of the crop, which the model does not see.

        Raises
        ------
        InputError
            The map is not as large as the picture the model sees.
        """
        height, width = int(image_shape[0]), int(image_shape[1])
        map_ = np.asarray(saliency, dtype=np.float32)
        frame = self._frame(height, width)
        if map_.shape != frame.size:
            raise InputError(
                f"the map has shape {map_.shape} but the model sees {frame.size} of this picture: pass one (h, w) map"
            )
        scaled = np.zeros(frame.scaled, np.float32)
        scaled[frame.source] = map_[frame.target]
        return resized(scaled, (height, width))

    def to_json(self) -> str:
        """Return the description as a JSON object of all known fields, for the model's metadata."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read a description from a JSON object.

        Parameters
        ----------
        text : str
            Keys are the fields of this class, all optional; lists stand for tuples.

        Returns
        -------
        Preprocessing
            The description; absent keys have the defaults of the fields.

        Raises
        ------
        PreprocessingError
            Not a JSON object, an unknown key or a bad value.
        """
        bounds.check_nesting(text, "the preprocessing", PreprocessingError)
        try:
            values = json.loads(text)
        except ValueError as error:
            why = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise PreprocessingError(
                f'the preprocessing is not JSON ({why}): write an object such as {{"layout": "NCHW", "scale": 0.0039}}'
            ) from None
        if not isinstance(values, dict):
            raise PreprocessingError(f"the preprocessing is a JSON {type(values).__name__}: write an object {{...}}")
        for key in values:
            check_key(key)
        return cls(**values)

    def describe(self) -> str:
        """Describe in one line what is done to a picture."""
        resize = "the picture's own size"
        if self.size is not None:
            resize = {
                "stretch": "stretch to {0}x{1}",
                "crop": "shorter side to {2}, centre crop {0}x{1}",
                "letterbox": "letterbox into {0}x{1} on grey {3}",
            }[self.resize].format(*self.size, min(self._cover(self.size)), self.fill)
            resize += "" if self.interpolation == "auto" else f" ({self.interpolation})"
        x = "pixel" if self.scale == 1 else f"pixel * {self.scale:.6g}"
        if any(self.mean):
            x += f" - {_list(self.mean)}"
        if set(self.std) != {1.0}:
            x = f"({x}) / {_list(self.std)}" if x != "pixel" else f"pixel / {_list(self.std)}"
        kinds = " ".join(getattr(self, field) or f"{field}?" for field in ("layout", "channels", "dtype"))
        return f"{self.name + ': ' if self.name else ''}{resize}, {kinds}, x = {x}"

    def _cover(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that a picture to be cropped must at least have after scaling."""
        if self.resize_to is not None:
            return max(self.resize_to, size[0]), max(self.resize_to, size[1])
        return round(size[0] * 256 / 224), round(size[1] * 256 / 224)

    def _frame(self, height: int, width: int) -> Frame:
        """Compute the position of a picture of that size in the model's input."""
        if self.size is None:
            if self.resize_to is not None:
                raise PreprocessingError("resize_to is set but size is not: set size to the model's height and width")
            return Frame((height, width), (height, width))
        if self.resize == "stretch":
            return Frame(self.size, self.size)
        if self.resize == "letterbox":
            factor = min(self.size[0] / height, self.size[1] / width)
            return Frame(self.size, (max(1, round(height * factor)), max(1, round(width * factor))))
        # The other side is rounded down, as torchvision, timm and Hugging Face's processors do.
        rows, columns = self._cover(self.size)
        if rows * width >= columns * height:
            return Frame(self.size, (rows, rows * width // height))
        return Frame(self.size, (columns * height // width, columns))

    def _framed(self, image: Pixels) -> Pixels:
        """Resize and crop or pad: (H, W, 3) to (h, w, 3), or (h, w, 4) for channels with alpha."""
        check_picture(image)
        frame = self._frame(image.shape[0], image.shape[1])
        for made in (frame.size, frame.scaled):
            bounds.check("pixels", made[0] * made[1], "the picture becomes an input of", PreprocessingError)
        if self.channels in WITH_ALPHA and image.shape[2] == 3:
            image = np.dstack([image, np.full(image.shape[:2], 255, image.dtype)])
        elif self.channels not in WITH_ALPHA and image.shape[2] == 4:
            image = over_white(image)
        return frame.filled(image, self.interpolation, self.fill)


def _numbers(field: str, value: object) -> tuple[float, ...]:
    """Check that a value is one finite number or a list of them."""
    values = tuple(value) if isinstance(value, list | tuple) and field != "scale" else (value,)
    for v in values:
        if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
            raise PreprocessingError(f"{field} holds {v!r}: give finite numbers")
    return tuple(float(cast("float", v)) for v in values)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _list(values: Sequence[float]) -> str:
    return f"{values[0]:.6g}" if len(values) == 1 else "[" + ", ".join(f"{v:.6g}" for v in values) + "]"


def check_key(key: str) -> None:
    """Raise PreprocessingError for a key that is not a field of Preprocessing, naming the closest one."""
    names = [f.name for f in fields(Preprocessing)]
    if key not in names:
        raise PreprocessingError(f"key '{key}' does not exist{near(key, names)}: give some of {', '.join(names)}")
