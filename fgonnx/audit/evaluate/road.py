"""Remove and debias (ROAD): removed pixels are imputed from their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.accepted import Amount
from fgonnx.audit.evaluate.data import SPATIAL, Bool, Data, Explains, Float
from fgonnx.audit.evaluate.registry import Measured, measure

Array = npt.NDArray[Any]

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)

_NEIGHBOURS = tuple(
    (dy, dx, 1 / 6 if dy == 0 or dx == 0 else 1 / 12) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx
)


def impute(x: Float, removed: Bool, noise: float, rng: np.random.Generator) -> Float:
    """Replace pixels by the weighted mean of their neighbours, solved for all of them at once, plus noise.

    Weights are 1/6 for direct and 1/12 for diagonal neighbours, normalised at the border. Noise has a standard
    deviation of `noise` times that of the picture.

    Parameters
    ----------
    x : numpy array, (H, W, C)
        A picture.
    removed : numpy array of bool, (H, W)
        Pixels to replace.
    noise : float
        Noise, relative.
    rng : numpy.random.Generator
        Generator of the noise.

    Returns
    -------
    numpy array, (H, W, C)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    if not removed.any():
        return x.copy()
    if removed.all():
        return np.broadcast_to(x.mean(axis=(0, 1)), x.shape) + noise * x.std() * rng.standard_normal(x.shape)
    height, width = removed.shape
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(removed.sum())
    ys, xs = np.nonzero(removed)
    rows, columns, weights = [], [], []
    known = np.zeros((len(ys), x.shape[2]))
    total = np.zeros(len(ys))
    for dy, dx, weight in _NEIGHBOURS:
        y, z = ys + dy, xs + dx
        inside = np.flatnonzero((y >= 0) & (y < height) & (z >= 0) & (z < width))
        there = number[y[inside], z[inside]]
        total[inside] += weight
        unknown = there >= 0
        rows.append(inside[unknown])
        columns.append(there[unknown])
        weights.append(np.full(int(unknown.sum()), -weight))
        known[inside[~unknown]] += weight * x[y[inside[~unknown]], z[inside[~unknown]]]
    diagonal = np.arange(len(ys))
    entries = (
        np.concatenate([*weights, total]),
        (np.concatenate([*rows, diagonal]), np.concatenate([*columns, diagonal])),
    )
    solved = splu(coo_array(entries, shape=(len(ys), len(ys))).tocsc()).solve(known)
    out = x.copy()
    out[removed] = solved + noise * x.std() * rng.standard_normal(solved.shape)
    return out


@measure(
    "road",
    better="higher",
    source="Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022, section 5",
    runs=11,
    axes=("share of pixels removed", "share still decided alike, most salient first"),
    pictures=True,
)
def road(explainer: Explains, data: Data, *, noise: Amount = 0.01) -> Measured:
    """How much more the probability drops when the most salient pixels are imputed than when the least salient are.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    noise : float
        Standard deviation of the noise on imputed pixels, as a fraction of the picture's.

    Returns
    -------
    Measured
        "gap": mean over the shares of the probability left, least salient first minus most salient first; "most" and
        "least", the two; the curve is 1 where the decision stays when the most salient pixels go.
    """
    space = [a for a, letter in enumerate(data.layout[1:]) if letter in SPATIAL]
    maps = data.maps(explainer)
    curves = np.zeros((2, len(data), len(SHARES)))
    kept = np.zeros((len(data), len(SHARES)))
    for i in range(len(data)):
        heads = explainer.head(np.stack(list(_imputed(data, i, maps[i], space, noise))))
        curves[:, i] = data.score(heads, i, "probability").reshape(2, -1)
        kept[i] = heads.reshape(len(heads), -1).argmax(axis=1)[: len(SHARES)] == data.target[i]
    most, least = curves.mean(axis=2)
    return Measured({"gap": least - most, "most": most, "least": least}, np.array(SHARES), kept)


def _imputed(data: Data, i: int, saliency: Float, space: list[int], noise: float) -> Iterator[Array]:
    places = data.order(saliency, i)
    picture = np.moveaxis(data.x[i].astype(np.float64), space, (0, 1))
    rng = data.rng(i, "road")
    for order in (places[::-1], places):
        for share in SHARES:
            removed = np.zeros(places.size, bool)
            removed[order[: round(share * places.size)]] = True
            changed = np.moveaxis(impute(picture, removed.reshape(data.grid), noise, rng), (0, 1), space)
            yield data.as_input(changed)
