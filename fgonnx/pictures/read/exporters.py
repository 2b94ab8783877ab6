"""What exporters write of how pictures become numbers: Ultralytics, Hugging Face, timm, and ONNX's own image metadata.

Where they do something that `Preprocessing` does not, the description is refused by name: an approximation would
explain another picture than the one that the model was made for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgonnx import files
from fgonnx.errors import PreprocessingError
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.read.presets import PRESETS

HF_KEY = "hf_preprocessor_config"
"""Key of a model's metadata that holds what `preprocessor_config.json` does."""

FORMAT_KEY, RANGE_KEY, GAMMA_KEY = "Image.BitmapPixelFormat", "Image.NominalPixelRange", "Image.ColorSpaceGamma"
"""Keys of a model's metadata that the ONNX standard gives images."""

HF_FILE, TIMM_FILE = "preprocessor_config.json", "config.json"

Sides = tuple[int | None, int | None]
"""Height and width of a model's input, where they are fixed."""

#: Numbers of Pillow's filters. Its linear, cubic and Lanczos filters average where they shrink, which OpenCV's do not:
#: "auto" is the closest (on photographs 1.4 grey levels from Pillow's cubic filter, OpenCV's own 5.9).
_RESAMPLE = {0: "nearest", 1: "auto", 2: "auto", 3: "auto", 4: "area", 5: "auto"}
_DETECTS = ("detect", "segment", "pose", "obb")
_EDGES = ("CLIP", "ConvNext", "Levit", "MobileNetV", "PoolFormer", "ChineseCLIP", "Swin2SR", "EfficientFormer")
"""Beginnings of processors for which a size that is one number is the shorter side; for others it is both sides."""
_STEPS = ("size_divisor", "size_divisibility", "ensure_multiple_of")
"""Entries of processors that make the sizes follow the picture."""
_PADS = ("pad_size", "pad_size_divisor", "size_divisor", "size_divisibility")
_WIDE = 384  # ConvNeXt cuts nothing off from this size on
_RANGES = {
    "NominalRange_0_255": (1.0, 0.0),
    "Normalized_0_1": (1 / 255, 0.0),
    "Normalized_1_1": (1 / 127.5, 1.0),
    "NominalRange_16_235": (219 / 255, -16.0),
}
_FORMATS = {"Gray8": "GRAY", "Rgb8": "RGB", "Bgr8": "BGR", "Rgba8": "RGBA", "Bgra8": "BGRA"}


def preprocessing(
    metadata: Mapping[str, str], folder: Path | None, sides: Sides = (None, None)
) -> tuple[Preprocessing, str] | None:
    """Return the preprocessing that an exporter wrote, and where; None where none did.

    Parameters
    ----------
    metadata : mapping of str to str
        The model's.
    folder : Path or None
        The folder of its file: Hugging Face and timm write files beside it, or above a folder ``onnx``.
    sides : tuple of int or None
        Height and width of the model's input, which choose between two sizes that timm names.

    Raises
    ------
    PreprocessingError
        What is there cannot be understood, or is nothing that `Preprocessing` does.
    """
    if "imgsz" in metadata and "task" in metadata:
        found = _ultralytics(metadata["task"], metadata["imgsz"])
        return (found, "what Ultralytics wrote into the metadata") if found is not None else None
    if HF_KEY in metadata:
        where = f"metadata '{HF_KEY}'"
        found = _understood(_hugging_face, _parsed(metadata[HF_KEY], where), where)
        return (found, where) if found is not None else None
    for file in files.beside(folder, HF_FILE, TIMM_FILE):
        where = f"'{file}'"
        content = _parsed(files.read_text(file, PreprocessingError, "description"), where)
        made = _understood(_hugging_face if file.name == HF_FILE else lambda c: _timm(c, sides), content, where)
        if made is not None:
            return made, f"{file.name} beside the model"
    if RANGE_KEY in metadata:
        return _of_onnx(metadata), "ONNX's image metadata, which say nothing of resizing: pictures are stretched"
    return None


def _parsed(text: str, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PreprocessingError(f"{where} is not JSON: mend it, or give the preprocessing") from error
    return content if isinstance(content, dict) else {}


def _understood(
    read: Callable[[Mapping[str, Any]], Preprocessing | None], content: Mapping[str, Any], where: str
) -> Preprocessing | None:
    try:
        return read(content)
    except PreprocessingError as error:
        raise PreprocessingError(f"{where}: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise PreprocessingError(
            f"{where} does not hold what it should ({error}): mend it, or give the preprocessing"
        ) from error


def _refused(what: str) -> PreprocessingError:
    return PreprocessingError(f"{what}, which fgonnx does not: prepare the pictures as arrays, or give --preprocess")


def _ultralytics(task: str, imgsz: str) -> Preprocessing | None:
    """Letterboxed for detectors; for classifiers the shorter side is resized, and the middle is cut out."""
    try:
        given = json.loads(imgsz)
        height, width = (given, given) if isinstance(given, int) else given
        size = (int(height), int(width))
    except (ValueError, TypeError):
        return None
    if task in _DETECTS:
        return Preprocessing(**{**PRESETS["yolo"].__dict__, "size": size, "name": "ultralytics"})
    if task != "classify":
        return None
    return Preprocessing(
        size=size, resize="crop", resize_to=min(size), channels="RGB", scale=1 / 255, name="ultralytics"
    )


def _hugging_face(content: Mapping[str, Any]) -> Preprocessing | None:
    """Of an image processor: `size`, `crop_size`, `crop_pct`, `rescale_factor`, `image_mean`, `image_std`, ..."""
    if not {"image_mean", "do_resize", "size"} & set(content):
        return None
    normal = bool(content.get("do_normalize", True)) and content.get("image_mean") is not None
    mean = _numbers(content["image_mean"]) if normal else (0.0,)
    std = _numbers(content.get("image_std") or 1.0) if normal else (1.0,)
    if content.get("include_top"):  # EfficientNet divides twice
        std = tuple(s * s for s in std)
    offset = 1.0 if content.get("rescale_offset", content.get("offset")) else 0.0
    return Preprocessing(
        **_framed(content),
        channels="BGR" if content.get("do_flip_channel_order") else "RGB",
        scale=float(content.get("rescale_factor") or 1 / 255) if content.get("do_rescale", True) else 1.0,
        mean=tuple(m + offset for m in mean),
        std=std,
        interpolation=_RESAMPLE.get(content.get("resample", 2), "auto"),  # type: ignore[arg-type]
        name="hugging face",
    )


def _framed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return size and resizing of an image processor."""
    kind = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "")
    size, edge = _sides(content.get("size"), kind)
    _check_sizes(content, size)
    if isinstance(content.get("size"), dict) and "longest_edge" in content["size"]:
        raise _refused("the processor resizes pictures by their longer side, to sizes of their own")
    cropped = bool(content.get("do_center_crop")) and content.get("crop_size") is not None
    if not content.get("do_resize", True):
        if cropped:
            raise _refused("the processor crops pictures without resizing them")
        return {}
    if cropped:
        crop = _both(content["crop_size"])
        if size == crop:
            return {"size": crop, "resize": "stretch"}
        if size is not None:
            raise _refused(f"the processor stretches pictures to {size[0]} x {size[1]} and then crops them")
        edge = _scaled(content, kind, edge or min(crop))
        if edge < min(crop):
            raise _refused(f"the processor resizes pictures to {edge} and pads them to {crop[0]} x {crop[1]}")
        return {"size": crop, "resize": "crop", "resize_to": edge}
    if edge is not None and kind.startswith("ConvNext"):
        if edge >= _WIDE:
            return {"size": (edge, edge), "resize": "stretch"}
        return {"size": (edge, edge), "resize": "crop", "resize_to": int(edge / float(content.get("crop_pct", 0.875)))}
    if edge is not None:
        return {"size": (edge, edge), "resize": "crop", "resize_to": edge}
    return {"size": size, "resize": "stretch"}


def _check_sizes(content: Mapping[str, Any], size: tuple[int, int] | None) -> None:
    """Refuse processors whose sizes follow the picture, and those that pad."""
    step = next((name for name in _STEPS if _set(content, name)), None)
    if step is not None and content.get("do_resize", True):
        raise _refused(f"the processor resizes pictures to multiples of {step}={_short(content[step])}")
    ratio = next(
        (name for name in ("keep_aspect_ratio", "do_thumbnail", "do_align_long_axis") if content.get(name)), ""
    )
    if ratio:
        raise _refused(f"the processor's {ratio} makes the sizes follow the picture")
    padded = content.get("pad_size")
    filled = size is not None and (padded is None or _both(padded) == size)  # nothing is left to pad
    if content.get("do_pad") and not (filled and not _set(content, "pad_size_divisor") and content.get("do_resize", 1)):
        how = next((f" ({name}={_short(content[name])})" for name in _PADS if _set(content, name)), "")
        raise _refused(f"the processor pads pictures, do_pad{how}")


def _set(content: Mapping[str, Any], name: str) -> bool:
    """Tell whether a step has a size that changes anything."""
    return content.get(name) not in (None, False, 0, 1)


def _short(value: Any) -> str:
    return json.dumps(value)[:60]


def _scaled(content: Mapping[str, Any], kind: str, edge: int) -> int:
    """Return the shorter side before the crop: some processors make it larger than they say."""
    if kind.startswith("Levit"):
        return int((256 / 224) * edge)
    return int(edge / float(content["crop_pct"])) if content.get("crop_pct") is not None else edge


def _timm(content: Mapping[str, Any], sides: Sides) -> Preprocessing | None:
    """Of timm's `pretrained_cfg`: `input_size`, `crop_pct`, `crop_mode`, `mean`, `std`, `interpolation`."""
    cfg = content.get("pretrained_cfg")
    if not isinstance(cfg, dict) or "mean" not in cfg or "std" not in cfg:
        return None
    size, pct = _of_test(cfg, sides)
    part = float(pct or 0.875)
    mode = cfg.get("crop_mode") or "center"
    if mode != "center" and (mode != "squash" or part != 1.0):
        raise _refused(f"timm's crop_mode is '{mode}', with crop_pct {part:g}")
    framed: dict[str, Any] = {"resize": "stretch"}
    if mode == "center":
        framed = {"resize": "crop", "resize_to": math.floor(min(size) / part)}
    return Preprocessing(
        size=size,
        channels="RGB",
        scale=1 / 255,
        mean=_numbers(cfg["mean"]),
        std=_numbers(cfg["std"]),
        interpolation="nearest" if cfg.get("interpolation") == "nearest" else "auto",
        name="timm",
        **framed,
    )


def _of_test(cfg: Mapping[str, Any], sides: Sides) -> tuple[tuple[int, int], Any]:
    """Return size and share of the crop: those for tests, unless the model's input has the size of training."""
    size = _last_two(cfg.get("input_size") or (3, 224, 224))
    if cfg.get("test_input_size") is None:
        return size, cfg.get("test_crop_pct") or cfg.get("crop_pct")
    tested = _last_two(cfg["test_input_size"])
    if sides == size != tested:
        return size, cfg.get("crop_pct")
    return tested, cfg.get("test_crop_pct") or cfg.get("crop_pct")


def _of_onnx(metadata: Mapping[str, str]) -> Preprocessing:
    """Of ONNX's image metadata: the order of the channels and the range of the values, and nothing of resizing."""
    given, kind = metadata[RANGE_KEY], metadata.get(FORMAT_KEY)
    if given not in _RANGES:
        raise PreprocessingError(
            f"metadata '{RANGE_KEY}' is '{given}', none of {', '.join(_RANGES)}: give the preprocessing"
        )
    if kind is not None and kind not in _FORMATS:
        raise PreprocessingError(
            f"metadata '{FORMAT_KEY}' is '{kind}', none of {', '.join(_FORMATS)}: give the preprocessing"
        )
    if metadata.get(GAMMA_KEY, "SRGB") != "SRGB":
        raise _refused(f"metadata '{GAMMA_KEY}' asks for {metadata[GAMMA_KEY]} colours instead of SRGB")
    scale, mean = _RANGES[given]
    channels: Any = _FORMATS[kind] if kind is not None else None
    return Preprocessing(channels=channels, scale=scale, mean=(mean,), name="onnx")


def _sides(size: Any, kind: str = "") -> tuple[tuple[int, int] | None, int | None]:
    """Return height and width, or the shorter side, of what Hugging Face calls a size."""
    if isinstance(size, dict) and "shortest_edge" in size:
        return None, int(size["shortest_edge"])
    if isinstance(size, int) and kind.startswith(_EDGES):
        return None, size
    return (None if size is None else _both(size)), None


def _both(size: Any) -> tuple[int, int]:
    """Return height and width."""
    if isinstance(size, dict) and "shortest_edge" in size:
        return (int(size["shortest_edge"]),) * 2
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if isinstance(size, int):
        return size, size
    return _last_two(size)


def _last_two(size: Any) -> tuple[int, int]:
    *_, height, width = size
    return int(height), int(width)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
