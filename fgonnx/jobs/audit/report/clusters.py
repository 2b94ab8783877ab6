"""Groups of explanations that resemble one another, and explanations that resemble no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fgonnx.jobs.audit.evidence import GRID, places
from fgonnx.jobs.audit.handed import FEWEST
from fgonnx.jobs.audit.report.columns import Columns, vectors
from fgonnx.jobs.audit.report.parts import FEATURES, amounts, features_of
from fgonnx.jobs.audit.shardfiles import count_of, table_of

Array = npt.NDArray[Any]

MOST = 5000
"""Rows that are grouped: the first of the plan, whose order is drawn at random."""

SHOWN = 12
_LEAST = 8  # rows of a cluster, at least
_SHARE = 0.01  # of the rows that are grouped, at least
_COMPONENTS = 12
_NEIGHBOURS = 10
_WIDEST = 1024  # features that are compared, those that add most
_LAYERS = 0.5  # weight of the contributions beside the maps
#: A place is named where a cluster has this much of its map there, and so many times what other rows have.
NAMED, TIMES = 0.25, 2.5
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


@dataclass
class Grouping:
    """Groups of rows.

    Attributes
    ----------
    numbers : numpy array of int
        The rows that were grouped.
    label : numpy array of int
        Their cluster, -1 for those in none.
    clusters : list of dict
        The clusters, largest first.
    outliers : list of dict
        Rows that resemble no other, with their mean distance to their neighbours.
    placed : numpy array of float, (n, components)
        Where the rows are in the space of the main components.
    variances : numpy array of float, (components,)
        How far they spread along each.
    """

    numbers: Array
    label: Array
    clusters: list[dict[str, Any]]
    outliers: list[dict[str, Any]]
    placed: Array
    variances: Array

    def of_rows(self) -> dict[int, int]:
        """Return the cluster of every row that was grouped, by its number: from 1, as in the report; 0 for none."""
        return dict(zip(self.numbers.tolist(), (self.label + 1).tolist(), strict=True))


def group(files: Sequence[Path], columns: Columns, labels: Sequence[str] | None, sites: int) -> Grouping | None:
    """Group the explanations of a run; None where there are too few.

    What is compared is the square root of each map on 8 x 8 cells and of each layer's share of the contributions, so
    that distances are Hellinger's, in the space of their main components. Of rows of a table, what each feature adds
    takes the place of cells, with its sign, and of texts what each word adds, wherever it stands; of recordings, cells
    are taken one by one, since neighbours have nothing in common. Clusters are where explanations lie densely
    (HDBSCAN, Campello, Moulavi and Sander 2013): many pictures whose evidence is in the same place, as a mark in a
    corner is, while objects that move about form none.
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    rows, grids, shares = _drawn(files, columns, sites)
    if len(rows) < FEWEST:
        return None
    features = _features(files, columns, rows, grids)
    if shares.size:
        features = np.hstack([features, _LAYERS * np.sqrt(np.nan_to_num(shares))])
    components = min(_COMPONENTS, *features.shape)
    main = PCA(components, svd_solver="full")
    placed = main.fit_transform(features)
    least = max(_LEAST, round(_SHARE * len(rows)))
    label = HDBSCAN(min_cluster_size=least, min_samples=min(_LEAST, least), copy=True).fit_predict(placed)
    near = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(rows) - 1) + 1).fit(placed)
    distance = near.kneighbors(placed)[0][:, 1:].mean(axis=1)
    order = sorted(set(label[label >= 0].tolist()), key=lambda c: -int((label == c).sum()))
    label = np.array([order.index(c) if c >= 0 else -1 for c in label.tolist()])
    found = [_described(c, label, rows, grids, placed, columns, labels) for c in range(len(order))]
    outliers = [
        {"number": int(columns.number[rows[i]]), "distance": float(distance[i])} for i in np.argsort(-distance)[:SHOWN]
    ]
    return Grouping(columns.number[rows], label, found, outliers, placed, main.explained_variance_)


def _in_pictures(columns: Columns, rows: Array) -> bool:
    """Tell whether cells are places: of tables and texts, they are not."""
    return bool(np.isfinite(columns.evidence["border"][rows]).any())


def _features(files: Sequence[Path], columns: Columns, rows: Array, grids: Array) -> Array:
    """Return the square roots of the shares of the map by place, or of what the features of a table add."""
    if _in_pictures(columns, rows):
        coarse = grids.reshape(-1, GRID // 2, 2, GRID // 2, 2).sum(axis=(2, 4)).reshape(len(rows), -1)
        return np.asarray(np.sqrt(np.maximum(coarse, 0)))
    found = _added(files, rows)
    if found is None:
        words = _words(files, rows)
        if words is not None:
            return words
        return np.asarray(np.sqrt(np.maximum(grids, 0)))
    sizes = np.abs(found)
    total = np.maximum(sizes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    strongest = np.argsort(-(sizes / total).sum(axis=0), kind="stable")[:_WIDEST]
    kept = np.sort(strongest)
    return np.asarray((np.sign(found) * np.sqrt(sizes / total))[:, kept])


def _added(files: Sequence[Path], rows: Array) -> Array | None:
    """Return what each feature adds to these rows of a run, (rows, features); None where these are none of a table."""
    found: list[Array] = []
    start = 0
    for file in files:
        count = count_of(file)
        wanted = rows[(rows >= start) & (rows < start + count)] - start
        if len(wanted):
            same = list(features_of(table_of(file, [FEATURES]).take(pa.array(wanted))))
            if len(same) != 1 or len(same[0][0]) < len(wanted):
                return None
            found.append(same[0][2])
        start += count
    return np.concatenate(found) if len({values.shape[1] for values in found}) == 1 else None


def _words(files: Sequence[Path], rows: Array) -> Array | None:
    """Return the signed roots of the shares of the words that add most in these rows of a run; None of no texts."""
    said: list[dict[str, float]] = []
    start = 0
    for file in files:
        count = count_of(file)
        wanted = rows[(rows >= start) & (rows < start + count)] - start
        if len(wanted):
            texts = table_of(file, ["text"]).column("text").take(pa.array(wanted)).to_pylist()
            if None in texts:
                return None
            for text in texts:
                added = amounts({"text": text})
                total = sum(map(abs, added.values())) or 1.0
                said.append({word: value / total for word, value in added.items()})
        start += count
    sums: Counter[str] = Counter()
    for shares in said:
        sums.update({word: abs(share) for word, share in shares.items()})
    kept = sorted(sums, key=lambda word: (-sums[word], word))[:_WIDEST]
    found = np.array([[shares.get(word, 0.0) for word in kept] for shares in said]).reshape(len(said), len(kept))
    return np.asarray(np.sign(found) * np.sqrt(np.abs(found))) if kept else None


def _drawn(files: Sequence[Path], columns: Columns, sites: int) -> tuple[Array, Array, Array]:
    """Return the first rows with a map: their places, grids, and shares of the contributions."""
    rows, grids, shares, start, count = [], [], [], 0, 0
    for file, shard in zip(files, vectors(files, sites), strict=True):
        rows.append(start + shard.rows)
        grids.append(shard.grids)
        weights = np.abs(shard.contributions)
        shares.append(weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))
        start += count_of(file)
        count += len(shard.rows)
        if count >= MOST:
            break
    if not rows:
        return np.zeros(0, int), np.zeros((0, GRID**2)), np.zeros((0, 0))
    whole = np.concatenate(shares)[:MOST]
    return (
        np.concatenate(rows)[:MOST],
        np.concatenate(grids)[:MOST],
        whole if np.isfinite(whole).any() else whole[:, :0],
    )


def _described(
    c: int, label: Array, rows: Array, grids: Array, placed: Array, columns: Columns, labels: Sequence[str] | None
) -> dict[str, Any]:
    inside = label == c
    mine = rows[inside]
    grid = grids[inside].mean(axis=0)
    rest = grids[~inside].mean(axis=0) if (~inside).any() else np.zeros_like(grid)
    here, there = (places(g.reshape(GRID, GRID)) for g in (grid, rest))
    named = [p for p in CORNERS if here[p] >= NAMED and here[p] >= TIMES * there[p]]
    border = here["border"] >= 2 * NAMED and here["border"] >= TIMES * there["border"]
    place = max(named, key=here.__getitem__) if named else "border" if border else None
    if not _in_pictures(columns, mine):
        place = None
    centre = placed[inside].mean(axis=0)
    typical = np.argsort(np.linalg.norm(placed[inside] - centre, axis=1))[:SHOWN]
    predicted, counts = np.unique(columns.predicted[mine], return_counts=True)
    best = int(predicted[counts.argmax()])
    judged = columns.correct[mine]
    judged = judged[np.isfinite(judged)]
    return {
        "cluster": c + 1,
        "count": int(inside.sum()),
        "share": float(inside.mean()),
        "predicted": columns.name(best, labels),
        "purity": float(counts.max() / counts.sum()),
        "accuracy": float(judged.mean()) if judged.size else None,
        "places": here,
        "elsewhere": there,
        "place": place,
        "grid": grid.tolist(),
        "typical": [int(columns.number[mine[i]]) for i in typical],
    }


def worst(columns: Columns, most: int = SHOWN) -> list[dict[str, Any]]:
    """Return the rows whose contributions miss their score by most, relative to the contributions."""
    known = np.flatnonzero(np.isfinite(columns.rounding))
    order = known[np.argsort(-columns.rounding[known], kind="stable")][:most]
    return [
        {
            "number": int(columns.number[i]),
            "rounding": float(columns.rounding[i]),
            "relative": float(columns.relative[i]) if np.isfinite(columns.relative[i]) else None,
            "localised": float(columns.localised[i]),
        }
        for i in order
    ]
