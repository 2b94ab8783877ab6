"""A run as a project of ViRelAy: pictures, maps and clusters as the HDF5 files that it reads, and `project.yaml`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files
from fgonnx.errors import InputError
from fgonnx.jobs.audit import handed
from fgonnx.jobs.audit.export.rows import Row, preprocessing, rows
from fgonnx.jobs.audit.report.build import Run
from fgonnx.jobs.audit.report.clusters import Grouping

_ALL, _UNKNOWN = "all", "unknown"


def write(run: Run, grouping: Grouping | None, folder: Path) -> int:
    """Write a run into a folder, and return how many pictures it has.

    Pictures are what the model sees, as they have to be as large as the maps.

    Raises
    ------
    InputError
        There are too few maps to group, or they differ in size, or a picture is not what it was.
    """
    import h5py

    if grouping is None:
        raise handed.too_few(run.folder)
    pre, names = preprocessing(run), _names(run)
    at: dict[int, int] = {}
    count = int(run.columns.explained.sum())
    files.make_folder(folder)
    with (
        files.replacing(folder / "dataset.h5") as dataset,
        files.replacing(folder / "attributions.h5") as attributions,
        h5py.File(dataset, "w") as pictures,
        h5py.File(attributions, "w") as maps,
    ):
        for row in rows(run):
            if row.map is None:
                continue
            seen, n = pre.to_display(row.rgb), len(at)
            if not at:
                _make(pictures, maps, count, seen.shape, len(names))
            if seen.shape != pictures["data"].shape[1:] or row.map.shape != seen.shape[:2]:
                raise InputError(
                    f"'{row.record['row']['name']}' gives a map of {row.map.shape}, others of "
                    f"{pictures['data'].shape[1:3]}: ViRelAy takes maps of one size, that of the pictures"
                )
            at[row.record["row"]["number"]] = n
            pictures["data"][n] = seen
            maps["attribution"][n, 0] = row.map
            maps["prediction"][n] = _scores(row, len(names))
            truth = row.record["truth"]
            pictures["label"][n] = maps["label"][n] = truth["index"] if truth is not None else len(names)
        if len(at) != count:
            raise handed.some_arrays(run.folder)
    with files.replacing(folder / "analysis.h5") as analysis, h5py.File(analysis, "w") as groups:
        _analyse(groups, grouping, at, run)
    _describe(run, names, folder)
    return len(at)


def _names(run: Run) -> list[str]:
    labels = run.about["labels"]
    if labels is not None:
        return list(labels)
    if run.columns.positions is None:
        return [str(i) for i in range(run.about["entries"])]
    return [str(position) for position in np.ndindex(*run.about["head"])]


def _flat(run: Run) -> Any:
    """Return the decision of every row as an index of the names."""
    predicted, positions = run.columns.predicted, run.columns.positions
    if positions is None or not len(positions):
        return predicted
    places = np.ravel_multi_index(tuple(positions.T), tuple(run.about["head"]))
    return np.where(predicted >= 0, places[predicted], -1)


def _make(pictures: Any, maps: Any, count: int, shape: Sequence[int], classes: int) -> None:
    """Create the arrays; ViRelAy adds up the channels of an attribution, of which it takes three, and two are zero."""
    height, width = shape[:2]
    small: dict[str, Any] = {"compression": "gzip", "shuffle": True}
    pictures.create_dataset("data", (count, *shape), np.uint8, chunks=(1, *shape), **small)
    maps.create_dataset("attribution", (count, 3, height, width), np.float32, chunks=(1, 1, height, width), **small)
    maps.create_dataset("prediction", (count, classes), np.float32)
    for file in (pictures, maps):
        file.create_dataset("label", (count,), np.int64)


def _scores(row: Row, classes: int) -> Any:
    """Return the scores of all classes; those that the record does not hold are at most its last one, and given it."""
    known = {e["index"]: e["score"] if e["score"] is not None else e["probability"] for e in row.record["top5"]}
    values = np.full(classes, min(known.values(), default=0.0), np.float32)
    for index, score in known.items():
        values[index] = score
    return values


def _analyse(groups: Any, grouping: Grouping, at: dict[int, int], run: Run) -> None:
    """Write the clusters of all rows, and of those decided as each class; cluster 0 holds the rows in none."""
    numbers = grouping.numbers
    predicted = dict(zip(run.columns.number.tolist(), _flat(run).tolist(), strict=True))
    decided = np.array([predicted[n] for n in numbers.tolist()])
    for index in (None, *np.unique(decided).tolist()):
        rows_of = np.flatnonzero(np.ones(len(numbers), bool) if index is None else decided == index)
        group = groups.create_group(_ALL if index is None else _key(index))
        group["index"] = np.array([at[n] for n in numbers[rows_of].tolist()], np.int64)
        embedding = group.create_group("embedding").create_dataset("pca", data=grouping.placed[rows_of].astype("f4"))
        embedding.attrs["eigenvalue"] = grouping.variances.astype(np.float32)
        label = (grouping.label[rows_of] + 1).astype(np.int64)
        group.create_group("cluster").create_dataset("hdbscan", data=label).attrs["embedding"] = "pca"


def _key(index: int) -> str:
    """Return the name of a class as ViRelAy looks it up: it asks for identifiers of WordNet, whatever they are."""
    return f"class-{index}"


def _describe(run: Run, names: Sequence[str], folder: Path) -> None:
    labels = [{"index": i, "word_net_id": _key(i), "name": name} for i, name in enumerate((*names, _UNKNOWN))]
    files.write_text(folder / "label-map.json", json.dumps(labels, ensure_ascii=False, indent=2) + "\n")
    options, model = run.about["request"]["options"], run.about["model"]["path"] or "model"
    project = {
        "name": f"Audit {run.about['id'][:12]}",
        "model": Path(model).name,
        "label_map": "label-map.json",
        "dataset": {"name": Path(run.about["data"]["path"]).name, "type": "hdf5", "path": "dataset.h5"},
        "attributions": {
            "attribution_method": options["method"],
            "attribution_strategy": "predicted_label",
            "sources": ["attributions.h5"],
        },
        "analyses": [{"analysis_method": "fgonnx", "sources": ["analysis.h5"]}],
    }
    files.write_json(folder / "project.yaml", {"project": project})  # JSON is YAML
