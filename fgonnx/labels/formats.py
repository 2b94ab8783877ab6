"""Class names as files and metadata hold them: text, CSV, JSON, YAML, and what other tools write."""

from __future__ import annotations

import ast
import csv
import importlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import bounds, files
from fgonnx.errors import InputError
from fgonnx.labels.label import METADATA_KEY, WNID, Label, Unnamed

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_NUMBER = re.compile(r"\s*([0-9]{1,18})(\s*[:\t]\s*|\s+)(?=\S)")
_CONFIGURED = ("id2label", "label_names", "pretrained_cfg")
_SHOWN = 6  # classes without a name that a note lists


def load(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read class names from a file, in the order of the model's outputs.

    Parameters
    ----------
    path : path-like
        ``.json``: a list of names, an object ``{index: name}``, ``{index: [wnid, name]}`` (Keras) or ``{name: index}``
        (`class_to_idx` of torchvision), or a ``config.json`` of Hugging Face or timm. ``.yaml``: `names` as Ultralytics
        writes them, where PyYAML is installed. ``.csv``: two columns, a name and an index in either order, with or
        without a heading. Anything else: text, one name per line, numbered from 0 or not. In all of them a name may
        begin with a WordNet identifier, as in ``n01440764 tench, Tinca tinca``.

    Returns
    -------
    tuple of str
        Readable names, one per class; the elements are `Label`, which keep the identifier.

    Raises
    ------
    InputError
        The file is missing, empty, not text, or does not name every class 0..n-1 exactly once.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"label file '{path}' is a folder: name a .txt, .csv or .json file")
    text = files.read_text(path, InputError, "label file")
    where = f"label file '{path}'"
    if not text.strip():
        raise InputError(f"{where} is empty: write one class name per line")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_file(_parsed(text, where), where)
    if suffix in (".yaml", ".yml"):
        return _from_yaml(text, where)
    if suffix == ".csv":
        return _from_csv(text, where)
    # Editors leave blank lines at the end; one in the middle would shift every class after it.
    lines = text.rstrip().splitlines()
    blank = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if blank is not None:
        raise InputError(f"{where} has a blank line {blank}: one name per class, in the order of the outputs")
    return _written(text, where) or _numbered(lines, where) or _bounded(map(Label.from_line, lines), where)


def _written(text: str, where: str) -> tuple[str, ...] | None:
    """Read a text that is a dict or a list as Python or JSON write them; None for lines."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        bounds.check_nesting(text, where, InputError)
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if isinstance(found, (dict, list)):
        return _of_file(found, where)
    if text.lstrip().startswith("{"):
        raise InputError(f"{where} begins as an object of JSON and is none: mend it, or write one class name per line")
    return None


def _numbered(lines: Sequence[str], where: str) -> tuple[str, ...] | None:
    """Read lines such as ``2: owl``, by their numbers; None where they are not all numbered."""
    found = [_NUMBER.match(line) for line in lines]
    if len(lines) < 2 or not all(found):
        return None
    pairs = [(m.group(1), m.string[m.end() :].strip()) for m in found if m]
    numbers = sorted(int(number) for number, _ in pairs)
    counted = [list(range(first, first + len(lines))) for first in (0, 1)]
    if numbers not in counted and not all(m.group(2).strip() for m in found if m):
        return None  # numbers that belong to the names
    return _by_index(pairs, where)


def _from_yaml(text: str, where: str) -> tuple[str, ...]:
    """Read the `names` of a ``data.yaml``."""
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError as error:
        raise InputError(
            f"{where}: YAML needs PyYAML: pip install pyyaml, or write one class name per line in a .txt"
        ) from error
    try:
        bounds.check_nesting(text, where, InputError)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where} is not YAML ({str(error).splitlines()[0][:80]}): mend it") from None
    found = found.get("names", found) if isinstance(found, dict) else found
    return _of_file(found, where)


def _of_file(value: Any, where: str) -> tuple[str, ...]:
    """Return the names of a list or mapping in any of the forms that are written."""
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return _bounded(map(Label.from_line, value), where)
    if isinstance(value, Mapping) and value:
        if any(key in value for key in _CONFIGURED):
            if (names := from_config(json.dumps(value, default=str))) is None:
                raise InputError(
                    f"{where} names no classes: its id2label or label_names lack some, or are placeholders"
                )
            return _bounded(map(_as_label, names), where)
        return of_mapping(value, where)
    raise InputError(f'{where} must hold a JSON list of names, or an object such as {{"0": "cat", "1": "dog"}}')


def of_mapping(value: Mapping[Any, Any], where: str) -> tuple[str, ...]:
    """Return the names of ``{index: name}``, ``{index: [wnid, name]}`` or ``{name: index}``."""
    if value and all(isinstance(v, str) for v in value.values()):
        return _by_index([(str(k), v) for k, v in value.items()], where)
    if value and all(_is_pair(v) for v in value.values()):
        return _by_index([(str(k), f"{wnid} {name}") for k, (wnid, name) in value.items()], where)
    if value and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in value.values()):
        return _by_index([(str(v), str(k)) for k, v in value.items()], where)
    raise InputError(f'{where} must hold a JSON list of names, or an object such as {{"0": "cat", "1": "dog"}}')


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, str) for v in value)


def _as_label(name: str) -> Label:
    return name if isinstance(name, Label) else Label.from_line(name)


def _bounded(found: Iterable[Label], where: str) -> tuple[Label, ...]:
    """Refuse too many names, and too long ones."""
    names = tuple(found)
    bounds.check("label_count", len(names), f"{where} holds", InputError)
    bounds.check("label_length", max(map(len, names)), f"{where} has", InputError)
    return names


def to_json(labels: Sequence[str]) -> str:
    """Write labels as the JSON list for a model's metadata, with wnids before the names.

    Parameters
    ----------
    labels : sequence of str
        One name per class.

    Returns
    -------
    str
        JSON that `from_json` reads back to equal labels.
    """
    wnids = (getattr(label, "wnid", None) for label in labels)
    lines = [f"{wnid} {label}" if wnid else str(label) for wnid, label in zip(wnids, labels, strict=True)]
    return json.dumps(lines, ensure_ascii=False)


def from_json(text: str, where: str = f"metadata '{METADATA_KEY}'") -> tuple[str, ...]:
    """Read labels from a JSON list of names or an object ``{index: name}``.

    Parameters
    ----------
    text : str
        The JSON.
    where : str
        What to call its source in errors.

    Returns
    -------
    tuple of str
        One name per class; the elements are `Label`.

    Raises
    ------
    InputError
        It is not JSON, does not hold names, or its indices are not 0..n-1.
    """
    value = _parsed(text, where)
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return _bounded((Label.from_line(v) for v in value), where)
    if isinstance(value, dict) and value and all(isinstance(v, str) for v in value.values()):
        return _by_index([(k, v) for k, v in value.items()], where)
    raise InputError(f'{where} must hold a JSON list of names, or an object such as {{"0": "cat", "1": "dog"}}')


def _parsed(text: str, where: str) -> Any:
    bounds.check_nesting(text, where, InputError)
    try:
        return json.loads(text)
    except ValueError as error:
        why = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{where} is not JSON ({why}): fix it, or use one name per line") from None


def from_ultralytics(text: str | None) -> tuple[str, ...] | None:
    """Read what Ultralytics writes, such as ``"{0: 'person', 1: 'car'}"``; None for anything else.

    Parameters
    ----------
    text : str or None
        The entry of the metadata.
    """
    try:
        found = ast.literal_eval(text or "")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(found, dict):
        return None
    if not found or not all(_is_index(str(key)) for key in found):
        return None
    try:
        return _by_index([(str(key), str(name)) for key, name in found.items()], "names", gaps=True) or None
    except InputError:
        return None


def from_config(text: str | None) -> tuple[str, ...] | None:
    """Read the names of Hugging Face's ``config.json``: `id2label`, or `label_names` as timm writes them.

    Parameters
    ----------
    text : str or None
        The JSON.

    Returns
    -------
    tuple of str or None
        None where it holds none, or only placeholders such as ``LABEL_0``. A class that `id2label` leaves out is
        called by its number, so that the others keep theirs; `gaps_in` tells.
    """
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    cfg = content.get("pretrained_cfg")
    timm = content if content.get("label_names") else cfg if isinstance(cfg, dict) else {}
    found = content.get("id2label")
    try:
        if isinstance(found, dict) and found and all(isinstance(v, str) for v in found.values()):
            names = _by_index(list(found.items()), "id2label", gaps=True)
        else:
            names = from_json(json.dumps(found or timm.get("label_names")), "id2label")
    except InputError:
        return None
    if not found:
        names = _described(names, timm.get("label_descriptions"))
    return None if all(isinstance(n, Unnamed) or _PLACEHOLDER.fullmatch(n) for n in names) else names


def gaps_in(names: Sequence[str]) -> str | None:
    """Return a note on classes that a mapping of names leaves out; None where there are none.

    Parameters
    ----------
    names : sequence of str
        As they were read.
    """
    gaps = [str(name) for name in names if isinstance(name, Unnamed)]
    if not gaps:
        return None
    more = f" and {len(gaps) - _SHOWN} more" if len(gaps) > _SHOWN else ""
    said = (
        f"class {gaps[0]} has no name and is"
        if len(gaps) == 1
        else f"classes {', '.join(gaps[:_SHOWN])}{more} have no names and are"
    )
    return f"{said} called by {'its number' if len(gaps) == 1 else 'their numbers'}; all others keep theirs"


def _described(names: Sequence[str], found: Any) -> tuple[str, ...]:
    """Return timm's descriptions of its names, by name or in their order, where they are more readable."""
    if isinstance(found, list) and len(found) == len(names):
        found = dict(zip(names, found, strict=True))
    if not isinstance(found, dict):
        return tuple(names)
    texts = [text if isinstance(text := found.get(name), str) and text.strip() else name for name in names]
    return tuple(
        Label(text, name if text != name and WNID.match(f"{name} x") else getattr(name, "wnid", None))
        for name, text in zip(names, texts, strict=True)
    )


def _from_csv(text: str, where: str) -> tuple[str, ...]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f"{where} is not CSV ({error}): write 'name,index' in every row") from None
    if not rows:
        raise InputError(f"{where} names no class: write 'name,index' in every row")
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise InputError(f"{where}: row {number} has {len(row)} columns, not 2: write 'name,index' in every row")
    if len(rows) > 1 and not any(map(_is_index, rows[0])):
        rows = rows[1:]
    # Names can be numbers too (digits), so the index column is the one without exception; the last one if both.
    column = next((c for c in (1, 0) if all(_is_index(row[c]) for row in rows)), None)
    if column is None:
        raise InputError(f"{where}: no column holds an index in every row: write 'name,index'")
    return _by_index([(row[column], row[1 - column]) for row in rows], where)


def _is_index(cell: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", cell) is not None


def _by_index(pairs: Sequence[tuple[str, str]], where: str, *, gaps: bool = False) -> tuple[str, ...]:
    """Order names by their indices, which must be 0..n-1 unless there may be gaps."""
    wrong = next((key for key, _ in pairs if not _is_index(key.strip())), None)
    if wrong is not None:
        raise InputError(f"{where}: '{wrong[:80]}' is not an index: number the classes 0..{len(pairs) - 1}")
    names = {int(key): name for key, name in pairs}
    if len(names) < len(pairs):
        raise InputError(f"{where}: an index occurs twice: number the classes 0..{len(pairs) - 1}")
    if gaps:
        count = max(names, default=-1) + 1
        bounds.check("label_count", count, f"{where} holds", InputError)
        return _bounded((Label.from_line(names[i]) if i in names else Unnamed(str(i)) for i in range(count)), where)
    missing = next((i for i in range(len(pairs)) if i not in names), None)
    if missing is not None:
        raise InputError(f"{where}: class {missing} has no name: number the classes 0..{len(pairs) - 1}")
    return _bounded((Label.from_line(names[i]) for i in range(len(pairs))), where)
