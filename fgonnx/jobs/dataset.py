"""The data of `fgonnx evaluate`: pictures in a folder or in one folder per class, or an .npz; labels and masks."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx import files, labels
from fgonnx.errors import InputError, OptionError, PreprocessingError, TargetError
from fgonnx.jobs.samples import RGB, Reader, Source, digest, is_table
from fgonnx.pictures.read import images
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]

BOXES = "boxes.csv"
"""File in a folder of masks with boxes instead of masks: columns image, left, top, right, bottom, in pixels."""

_ARRAYS = ("x", "y", "mask", "without")
_LISTED = 6
_HALF = 127  # grey level above which a pixel of a mask is part of the object


@dataclass(frozen=True)
class Item:
    """One image to measure on.

    Attributes
    ----------
    name : str
        Its name in results: its path within the data, or its number in an array.
    path : Path
        The file.
    row : int or None
        Row of an array.
    label : int or None
        The true class, if known.
    """

    name: str
    path: Path
    row: int | None = None
    label: int | None = None


@dataclass(frozen=True)
class Picture:
    """An image in memory: the model's input, its mask (or None), pixels to show, and inputs without each part."""

    x: Array
    mask: Bool | None
    shown: RGB
    without: Array | None = None


def check_data(path: Path) -> None:
    """Refuse data that are neither a folder nor an .npz.

    Raises
    ------
    InputError
        They are something else.
    """
    if os.path.isdir(path) or path.suffix.lower() == ".npz":
        return
    rows = "; rows of tables are explained ('fgonnx explain') and audited ('fgonnx audit')" if is_table(path) else ""
    raise InputError(f"'{path}' is neither a folder of pictures nor an .npz file: give one of those{rows}")


class Dataset:
    """Images, labels and masks behind one path.

    Parameters
    ----------
    path : Path
        A folder of pictures, a folder with one folder per class, or an .npz with x, and y, mask and without if known.
    graph_input : ir.Value
        The input of the model.
    preprocessing : Preprocessing or None
        How pictures become numbers.
    names : sequence of str
        Class names; may be empty.
    entries : int
        Classes of the model.
    masks : Path, optional
        Folder of masks: pictures of the same stem, white on the object, or a file boxes.csv.
    limit : int, optional
        Largest number of images, the first ones in the order of their names.
    axis : int
        Which axis of the arrays of an .npz is the batch.

    Attributes
    ----------
    items : list of Item
        The images.
    skipped : dict of str to str
        Files that are skipped, and why.
    masked, in_parts : bool
        Whether there are masks, and pictures without each part.

    Raises
    ------
    InputError, TargetError, OptionError
        There is nothing to measure on, folders do not name classes of the model, or arrays have the wrong shape.
    """

    def __init__(
        self,
        path: Path,
        graph_input: ir.Value,
        preprocessing: Preprocessing | None,
        *,
        names: Sequence[str] = (),
        entries: int,
        masks: Path | None = None,
        limit: int | None = None,
        axis: int = 0,
    ) -> None:
        self.path, self.preprocessing, self.skipped = path, preprocessing, dict[str, str]()
        self._reader = Reader(graph_input, preprocessing)
        self._arrays: dict[str, Array] = {}
        self._axis = axis
        if os.path.isdir(path):
            self.items = self._folder(names, entries)
        elif path.suffix.lower() == ".npz":
            self.items = self._archive(entries)
        else:
            check_data(path)
        if masks is not None and not os.path.isdir(masks):
            raise OptionError(
                f"the masks '{masks}' are not a folder; give one with a picture for each image, or {BOXES}"
            )
        self._masks = masks
        self._boxes = _boxes(masks / BOXES) if masks is not None and (masks / BOXES).is_file() else {}
        self.masked = masks is not None or "mask" in self._arrays
        self.in_parts = "without" in self._arrays
        if limit is not None:
            self.items = self.items[:limit]
        if not self.items:
            raise InputError(f"'{path}' holds no picture{_why(self.skipped)}")
        if masks is not None and not any(self._has_mask(item) for item in self.items):
            raise OptionError(
                f"{parameter('masks', str(masks))} has no effect: it holds a mask of none of the {len(self.items)} "
                f"images; give pictures of the same name, .png, such as {_mask_names(self.items[0])[0]}, or {BOXES}"
            )

    def digest(self) -> str:
        """Return a hash of the content of all items and masks."""
        state = hashlib.sha256()
        for item in self.items:
            state.update(f"{item.name}\n{item.label}\n".encode())
            if not self._arrays:
                state.update(digest(item.path).encode())
        if self._arrays:
            state.update(digest(self.path).encode())
        if self._masks is not None:
            for file in sorted(f for f in self._masks.rglob("*") if f.is_file()):
                state.update(f"{file.relative_to(self._masks)}\n{digest(file)}\n".encode())
        return state.hexdigest()

    def read(self, item: Item) -> Picture:
        """Read one image.

        Raises
        ------
        InputError
            It cannot be read, does not fit the model, or its mask has another size.
        """
        if item.row is not None:
            return self._row(item.row)
        sample = self._reader.read(Source(item.path, None, item.name))
        assert sample.photo is not None
        return Picture(sample.x, self._mask(item, sample.photo.shape[:2]), sample.shown)

    def _folder(self, names: Sequence[str], entries: int) -> list[Item]:
        classes = sorted(p for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))
        found = [Item(f.name, f) for f in self._pictures(self.path)]
        if found and classes:
            raise InputError(
                f"'{self.path}' holds both pictures and folders; give pictures alone, or folders of classes alone"
            )
        given = [p.name for p in classes]
        known = classes_of(given, names, entries, "folders are not classes of this model", "folders")
        for folder in classes:
            found += [Item(f"{folder.name}/{f.name}", f, None, known[folder.name]) for f in self._pictures(folder)]
        return found

    def _pictures(self, folder: Path) -> Iterator[Path]:
        for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")):
            if file.suffix.lower() in images.SUFFIXES:
                yield file
            else:
                self.skipped[str(file.relative_to(self.path))] = "is not a picture"

    def _archive(self, entries: int) -> list[Item]:
        self._arrays = files.read_arrays(self.path, _ARRAYS, InputError)
        if self._axis and "x" in self._arrays and self._arrays["x"].ndim > self._axis:
            self._arrays["x"] = np.moveaxis(self._arrays["x"], self._axis, 0)
        x, y, mask = (self._arrays.get(name) for name in ("x", "y", "mask"))
        if x is None or not x.ndim or not len(x):
            raise InputError(f"'{self.path}' holds no samples: write numpy.savez(file, x=..., y=..., mask=...)")
        if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "ui" or y.min() < 0 or y.max() >= entries):
            raise InputError(
                f"'{self.path}': y must hold a class of 0..{entries - 1} for each of the {len(x)} samples, as integers"
            )
        if mask is not None and (mask.ndim != 3 or len(mask) != len(x)):
            raise InputError(
                f"'{self.path}': mask has the shape {mask.shape}; give one (H, W) for each of {len(x)} samples"
            )
        without = self._arrays.get("without")
        if without is not None and ((without.shape[:1] + without.shape[2:]) != x.shape or without.dtype != x.dtype):
            raise InputError(
                f"'{self.path}': without is {without.dtype} of the shape {without.shape}; give {x.dtype} of "
                f"({', '.join(map(str, (len(x), 'parts', *x.shape[1:])))}), each sample without each of its parts"
            )
        return [Item(f"{i:06}", self.path, i, None if y is None else int(y[i])) for i in range(len(x))]

    def _row(self, row: int) -> Picture:
        x = self._arrays["x"][row]
        masks = self._arrays.get("mask")
        mask = None if masks is None else masks[row] > 0
        others = self._arrays["without"][row] if self.in_parts else ()
        if x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] == 3 and self._reader.dtype != np.uint8:
            if self.preprocessing is None:
                raise PreprocessingError("the array holds pictures; give --preprocess")
            mask = None if mask is None else self._placed(mask, x.shape[:2], f"'{self.path}', row {row}")
            changed = [self.preprocessing.apply(other) for other in others]
            shown = self.preprocessing.to_display(x)
            return Picture(self.preprocessing.apply(x), mask, shown, np.stack(changed) if changed else None)
        sample = self._reader.prepared(x, Source(self.path, row, str(row)))
        changed = [self._reader.prepared(other, Source(self.path, row, f"{row}, without")).x for other in others]
        return Picture(sample.x, mask, sample.shown, np.stack(changed) if changed else None)

    def _mask(self, item: Item, size: tuple[int, int]) -> Bool | None:
        if self._masks is None:
            return None
        if item.name in self._boxes or item.path.name in self._boxes:
            mask = np.zeros(size, bool)
            for left, top, right, bottom in self._boxes.get(item.name) or self._boxes[item.path.name]:
                mask[max(0, top) : bottom, max(0, left) : right] = True
            return self._placed(mask, size, f"'{self._masks / BOXES}'")
        file = self._mask_file(item)
        if file is None:
            return None
        return self._placed(images.read(file).rgb.max(axis=2) > _HALF, size, f"'{file}'")

    def _has_mask(self, item: Item) -> bool:
        return item.name in self._boxes or item.path.name in self._boxes or self._mask_file(item) is not None

    def _mask_file(self, item: Item) -> Path | None:
        assert self._masks is not None
        return next((f for name in _mask_names(item) if (f := self._masks / name).is_file()), None)

    def _placed(self, mask: Bool, size: tuple[int, int], where: str) -> Bool:
        """Transform a mask to the part of the picture that the model sees."""
        pre = self.preprocessing
        assert pre is not None
        if mask.shape == tuple(size):
            return np.asarray(pre.to_display(np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2))[:, :, 0] > _HALF)
        if mask.shape == pre.size:
            return mask
        raise InputError(
            f"the mask {where} is {_size(mask.shape)}, its picture {_size(size)}: draw it at the size of the picture"
        )


def _mask_names(item: Item) -> tuple[Path, Path]:
    within = Path(item.name).with_suffix(".png")
    return within, Path(within.name)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, reversed(shape))) + " pixels"


_FLOAT = re.compile(r"([+-]?\d+)\.0*")  # an index as it is written in a column with missing values


def classes_of(given: Sequence[str], names: Sequence[str], entries: int, told: str, what: str) -> dict[str, int]:
    """Return the class of every text: its index, also written as 1.0, its name or its synset.

    Parameters
    ----------
    given : sequence of str
        Texts, each once.
    names : sequence of str
        Labels of the model; empty where it has none.
    entries : int
        Number of classes.
    told, what : str
        What the message says of those that are none, and what it calls them all.

    Raises
    ------
    TargetError
        Some are no classes of the model.
    """
    found, wrong = {}, {}
    for text in given:
        try:
            whole = _FLOAT.fullmatch(text) if text not in names else None
            found[text] = labels.resolve(whole[1] if whole else text, names, entries)
        except TargetError as error:
            wrong[text] = str(error)
    if wrong:
        some = ", ".join(f"'{t}'" for t in list(wrong)[:_LISTED]) + (", ..." if len(wrong) > _LISTED else "")
        raise TargetError(
            f"{len(wrong)} of {len(given)} {told}: {some} "
            f"({next(iter(wrong.values()))}); name {what} by index, label or synset, or give the right --labels"
        )
    return found


def _boxes(file: Path) -> dict[str, list[tuple[int, int, int, int]]]:
    """Read boxes by image."""
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    table = csv.DictReader(io.StringIO(files.read_text(file, InputError, "boxes")))
    try:
        for row in table:
            left, top, right, bottom = (round(float(row[key])) for key in ("left", "top", "right", "bottom"))
            boxes.setdefault(row["image"], []).append((left, top, right, bottom))
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise InputError(
            f"'{file}', line {table.line_num}: no box; columns are image, left, top, right, bottom, in pixels"
        ) from error
    return boxes


def _why(skipped: dict[str, str]) -> str:
    few = ", ".join(f"{name} {why}" for name, why in list(skipped.items())[:_LISTED])
    return f" ({few})" if few else ""
