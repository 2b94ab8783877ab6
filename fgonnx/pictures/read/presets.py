"""Presets of preprocessing, and parsing of descriptions given as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgonnx import files
from fgonnx.errors import PreprocessingError
from fgonnx.fields import pairs
from fgonnx.pictures.read.preprocess import CHOICES, Preprocessing, check_key
from fgonnx.wording import near

PRESETS: Mapping[str, Preprocessing] = {
    preset.name or "": preset
    for preset in (
        Preprocessing(
            name="imagenet",
            resize="crop",
            channels="RGB",
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        Preprocessing(name="tf", resize="crop", channels="RGB", scale=1 / 127.5, mean=(1.0,)),
        # Means in the order of the channels: blue first.
        Preprocessing(name="caffe", channels="BGR", mean=(104.0, 117.0, 123.0)),
        Preprocessing(name="unit", scale=1 / 255),
        Preprocessing(name="symmetric", scale=1 / 127.5, mean=(1.0,)),
        Preprocessing(name="raw"),
        Preprocessing(name="yolo", resize="letterbox", channels="RGB", scale=1 / 255),
        Preprocessing(
            name="cifar",
            channels="RGB",
            scale=1 / 255,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
        Preprocessing(name="mnist", channels="GRAY", scale=1 / 255, mean=(0.1307,), std=(0.3081,)),
        Preprocessing(name="gray", channels="GRAY", scale=1 / 255),
    )
}
"""Descriptions by name. Layout, size and dtype come from the model; for unit, symmetric and raw the channels too."""


def parse(text: str) -> Preprocessing:
    """Parse a description.

    Parameters
    ----------
    text : str
        A preset (``imagenet``), a preset and changes (``imagenet,size=224,layout=NHWC``), changes to the defaults
        (``scale=0.0039,mean=0.5:0.5:0.5``), or the path of a JSON file. ``size`` is ``224`` or ``HEIGHTxWIDTH``; lists
        are separated by ``:``; numbers may be quotients (``1/255``). Where RGB and BGR are swapped, the mean and
        std of a preset move with their colours.

    Returns
    -------
    Preprocessing
        The description; its name is `text`, unless the file has one.

    Raises
    ------
    PreprocessingError
        The preset, a key or a value does not exist (the closest one is named), or the file cannot be read.
    """
    text = text.strip()
    if not text:
        raise PreprocessingError(f"the preprocessing is empty: give one of {', '.join(PRESETS)}, or key=value pairs")
    path = Path(text)
    if path.suffix.lower() == ".json":
        content = files.read_text(path, PreprocessingError, "preprocessing file")
        try:
            pre = Preprocessing.from_json(content)
        except PreprocessingError as error:
            raise PreprocessingError(f"preprocessing file '{text}': {error}") from None
        return pre if pre.name else replace(pre, name=path.name)
    first, *rest = (part.strip() for part in text.split(","))
    if "=" in first:
        base, rest = Preprocessing(), [first, *rest]
    elif first in PRESETS:
        base = PRESETS[first]
    else:
        raise PreprocessingError(
            f"preset '{first}' does not exist{near(first, PRESETS)}: give one of {', '.join(PRESETS)}, "
            "key=value pairs, or the path of a .json file"
        )
    changes: dict[str, Any] = {"name": text}
    for key, value in pairs(rest, "size=224", PreprocessingError).items():
        check_key(key)
        changes[key] = _value(key, value)
    if {base.channels, changes.get("channels")} == {"RGB", "BGR"}:
        # The numbers of a preset belong to colours, not positions: they are swapped too.
        changes = {"mean": base.mean[::-1], "std": base.std[::-1], **changes}
    return replace(base, **changes)


def _value(key: str, text: str) -> object:
    """Parse the text after ``key=`` as the value of a field."""
    if key in ("mean", "std", "scale"):
        numbers = tuple(_quotient(key, part) for part in text.split(":"))
        return numbers[0] if key == "scale" and len(numbers) == 1 else numbers
    if key in ("size", "resize_to", "fill"):
        parts = text.lower().replace(":", "x").split("x")
        try:
            values = tuple(int(part) for part in parts)
        except ValueError:
            example = "224 or 224x320 (height x width)" if key == "size" else "an integer"
            raise PreprocessingError(f"{key} is '{text}': give {example}") from None
        if key == "size":
            return values * 2 if len(values) == 1 else values
        return values[0] if len(values) == 1 else values
    if key in CHOICES:
        # Choices are not case-sensitive.
        return next((choice for choice in CHOICES[key] if choice.lower() == text.lower()), text)
    return text


def _quotient(key: str, text: str) -> float:
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise PreprocessingError(f"{key} holds '{text}': give numbers such as 0.5 or 1/255, separated by ':'") from None
