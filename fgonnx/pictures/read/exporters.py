"""What exporters write of how pictures become numbers: Ultralytics, Hugging Face, timm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgonnx.errors import PreprocessingError
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.read.presets import PRESETS

HF_KEY = "hf_preprocessor_config"
"""Key of a model's metadata that holds what `preprocessor_config.json` does."""

HF_FILE, TIMM_FILE = "preprocessor_config.json", "config.json"
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "auto", 3: "cubic", 4: "area", 5: "area"}  # numbers of Pillow's filters
_DETECTS = ("detect", "segment", "pose", "obb")


def preprocessing(metadata: Mapping[str, str], folder: Path | None) -> tuple[Preprocessing, str] | None:
    """Return the preprocessing that an exporter wrote, and where; None where none did.

    Parameters
    ----------
    metadata : mapping of str to str
        The model's.
    folder : Path or None
        The folder of its file: Hugging Face and timm write files beside it, or above a folder ``onnx``.

    Raises
    ------
    PreprocessingError
        What is there cannot be understood.
    """
    if "imgsz" in metadata and "task" in metadata:
        found = _ultralytics(metadata["task"], metadata["imgsz"])
        return (found, "what Ultralytics wrote into the metadata") if found is not None else None
    if HF_KEY in metadata:
        found = _hugging_face(_parsed(metadata[HF_KEY], f"metadata '{HF_KEY}'"))
        return (found, f"metadata '{HF_KEY}'") if found is not None else None
    if folder is None:
        return None
    for place in (folder, folder.parent) if folder.name == "onnx" else (folder,):
        for name, read in ((HF_FILE, _hugging_face), (TIMM_FILE, _timm)):
            file = place / name
            if file.is_file() and (content := _parsed(file.read_text(encoding="utf-8"), f"'{file}'")):
                made = read(content)
                if made is not None:
                    return made, f"{name} beside the model"
    return None


def _parsed(text: str, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise PreprocessingError(f"{where} is not JSON: mend it, or give the preprocessing") from error
    return content if isinstance(content, dict) else {}


def _ultralytics(task: str, imgsz: str) -> Preprocessing | None:
    """Letterboxed for detectors; for classifiers the shorter side is resized, and the middle is cut out."""
    try:
        height, width = json.loads(imgsz)
    except (ValueError, TypeError):
        return None
    size = (int(height), int(width))
    if task in _DETECTS:
        return Preprocessing(**{**PRESETS["yolo"].__dict__, "size": size, "name": "ultralytics"})
    if task != "classify":
        return None
    return Preprocessing(
        size=size, resize="crop", resize_to=min(size), channels="RGB", scale=1 / 255, name="ultralytics"
    )


def _hugging_face(content: Mapping[str, Any]) -> Preprocessing | None:
    """Of an image processor: `size` and `crop_size`, `rescale_factor`, `image_mean` and `image_std`, `resample`."""
    if not {"image_mean", "do_resize", "size"} & set(content):
        return None
    size, edge = _sides(content.get("size"))
    cropped = bool(content.get("do_center_crop")) and content.get("crop_size") is not None
    if cropped:
        size, edge = _sides(content["crop_size"])[0] or _square(_sides(content["crop_size"])[1]), edge or _least(size)
    elif size is None and edge is not None:
        size = _square(edge)
    normal = bool(content.get("do_normalize", True)) and "image_mean" in content
    resize = "crop" if cropped or edge is not None else "stretch"
    return Preprocessing(
        size=size,
        resize="crop" if resize == "crop" else "stretch",
        resize_to=edge if resize == "crop" else None,
        channels="RGB",
        scale=float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 1.0,
        mean=tuple(content["image_mean"]) if normal else (0.0,),
        std=tuple(content.get("image_std", (1.0,))) if normal else (1.0,),
        interpolation=_RESAMPLE.get(content.get("resample", 2), "auto"),  # type: ignore[arg-type]
        name="hugging face",
    )


def _timm(content: Mapping[str, Any]) -> Preprocessing | None:
    """Of timm's `pretrained_cfg`: `input_size`, `crop_pct`, `mean`, `std`, `interpolation`."""
    cfg = content.get("pretrained_cfg")
    if not isinstance(cfg, dict) or "mean" not in cfg or "std" not in cfg:
        return None
    size = tuple(cfg.get("test_input_size") or cfg.get("input_size") or (3, 224, 224))[1:]
    part = float(cfg.get("test_crop_pct") or cfg.get("crop_pct") or 0.875)
    cubic = cfg.get("interpolation") == "bicubic"
    return Preprocessing(
        size=(int(size[0]), int(size[1])),
        resize="crop",
        resize_to=int(min(size) / part),
        channels="RGB",
        scale=1 / 255,
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        interpolation="cubic" if cubic else "auto",
        name="timm",
    )


def _sides(size: Any) -> tuple[tuple[int, int] | None, int | None]:
    """Return height and width, or the shorter side, of what Hugging Face calls a size."""
    if isinstance(size, int):
        return None, size
    if isinstance(size, dict) and "height" in size:
        return (int(size["height"]), int(size["width"])), None
    if isinstance(size, dict) and "shortest_edge" in size:
        return None, int(size["shortest_edge"])
    return None, None


def _square(edge: int | None) -> tuple[int, int] | None:
    return None if edge is None else (edge, edge)


def _least(size: Sequence[int] | None) -> int | None:
    return None if size is None else min(size)
