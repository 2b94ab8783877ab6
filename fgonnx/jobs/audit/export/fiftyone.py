"""A run as a data set of FiftyOne: every picture with its classes, its certificate and its map as a heat map.

The layout is that of `fiftyone.types.FiftyOneDataset` without a version, which every release reads: `metadata.json`,
`samples.json`, and pictures in folders. FiftyOne itself is not needed to write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files
from fgonnx.errors import InputError
from fgonnx.jobs.audit.export.rows import Row, preprocessing, rows
from fgonnx.jobs.audit.report.build import Run
from fgonnx.jobs.audit.report.clusters import Grouping
from fgonnx.jobs.record import entry_name
from fgonnx.opencv import cv2

_LONGEST = 512  # side of a heat map in pixels: FiftyOne stretches it over the picture
_SIGNED = ("evidence_for", "evidence_against")


def write(run: Run, grouping: Grouping | None, folder: Path) -> int:
    """Write a run into a folder, and return how many pictures it has.

    Pictures in folders and lists stay where they are; those in tables and archives are copied.

    Raises
    ------
    InputError
        There is none, or one is not what it was.
    """
    pre = preprocessing(run)
    signed = run.about["request"]["options"]["psi"] == "signed"
    in_cluster = grouping.of_rows() if grouping is not None else {}
    samples = []
    for row in rows(run):
        several = run.columns.positions is not None
        sample = _sample(row, in_cluster.get(row.record["row"]["number"]), several)
        sample["filepath"] = str(row.path.resolve() if row.path is not None else _copied(row, folder))
        if row.map is not None:
            placed = pre.place(row.map, row.rgb.shape)
            parts = (np.maximum(placed, 0), np.maximum(-placed, 0)) if signed else (np.abs(placed),)
            top = float(np.abs(placed).max()) or 1.0
            for name, part in zip(_SIGNED if signed else ("map",), parts, strict=True):
                path = f"fields/{name}/{row.record['row']['number']:09}.png"
                _write_heat(folder / path, part / top)
                sample[name] = {"_cls": "Heatmap", "map_path": path}
        samples.append(sample)
    if not samples:
        raise InputError(f"'{run.folder}' has no row with a result and a picture: there is nothing to export")
    about = {k: run.about[k] for k in ("id", "time", "data", "model", "command")}
    files.write_json(folder / "samples.json", {"samples": samples})
    name = f"{Path(run.about['model']['path'] or 'model').stem} {run.about['id'][:12]}"
    files.write_json(folder / "metadata.json", {"name": name, "media_type": "image", "info": {"audit": about}})
    return len(samples)


def _sample(row: Row, cluster: int | None, several: bool) -> dict[str, Any]:
    """Return the fields of a sample but its paths; what is not known is left out."""
    record = row.record
    top = record["top5"][0] if record["top5"] else None
    height, width = row.rgb.shape[:2]
    certificate, localised = record["completeness"] or {}, record["localised"] or {}
    fields = {
        "metadata": {"_cls": "ImageMetadata", "size_bytes": len(row.content), "width": width, "height": height},
        "ground_truth": _class(record["truth"], several=False),
        "prediction": _class(top, several=several, confidence=top["probability"], logit=top["score"])
        if top is not None
        else None,
        "correct": record["correct"],
        "score": record["score"],
        "cluster": cluster,
        "rounding": certificate.get("rounding"),
        "in_map": localised.get("share"),
        "record": record["id"],
        "row": record["row"]["number"],
        **_named("evidence", record["evidence"] or {}),
        **_named("measure", record["measures"]),
        **_named("slice", record["slices"]),
    }
    return {"tags": [], **{k: v for k, v in fields.items() if v is not None}}


def _class(entry: Mapping[str, Any] | None, *, several: bool, **more: Any) -> dict[str, Any] | None:
    if entry is None:
        return None
    label = entry_name(entry, several=several)
    return {"_cls": "Classification", "label": label, **{k: v for k, v in more.items() if v is not None}}


def _named(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under names that a database takes."""
    return {f"{kind}_{re.sub(r'[^A-Za-z0-9_]+', '_', name)}": value for name, value in values.items()}


def _copied(row: Row, folder: Path) -> str:
    suffix = Path(row.record["input"]["member"] or "").suffix or _suffix(row.content)
    path = f"data/{row.record['row']['number']:09}{suffix}"
    files.make_folder(folder / "data")
    with files.replacing(folder / path) as temporary:
        temporary.write_bytes(row.content)
    return path


def _suffix(content: bytes) -> str:
    """Return the suffix of a picture by its first bytes, as servers of files go by it."""
    known = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
    return next((suffix for begin, suffix in known.items() if content.startswith(begin)), ".img")


def _write_heat(path: Path, values: npt.NDArray[np.floating[Any]]) -> None:
    factor = min(1.0, _LONGEST / max(values.shape))
    size = max(1, round(values.shape[1] * factor)), max(1, round(values.shape[0] * factor))
    small = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".png", np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8))
    files.make_folder(path.parent)
    with files.replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
