"""F-Fidelity: what a network that is used to missing pixels loses without salient ones, and without others.

Zheng et al., "F-Fidelity: A Robust Framework for Faithfulness Evaluation of Explainable AI", ICLR 2025. Once for all
methods, the network is trained on, on pictures without a random share of up to BETA of their pixels, so that these are
no longer out of its distribution. Then a random share ALPHA of the most salient pixels, or of the others, is removed,
never more than BETA of the picture. A good map loses much accuracy by the first (plus), little by the second (minus).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.roar import experiment as roar
from fgonnx import files
from fgonnx.engine.model import save
from fgonnx.training import Batches, Network, accuracy, fit

Array = npt.NDArray[Any]

ALPHA, BETA = 0.5, 0.1
SIZES = (0.1, 0.2, 0.3, 0.4, 0.5)
_DRAWS, _EPOCHS, _SLOWER = 3, 5, 0.1
_ADAPTED = "adapted.onnx"


@dataclass(frozen=True)
class Fidelity:
    """What removing pixels costs, for the most salient ones of a share.

    Attributes
    ----------
    method : str
        The method that ranked the pixels.
    size : float
        Share of the pixels that count as salient.
    plus, minus : float
        Loss of accuracy without some of them, and without some of the others, means over draws.
    """

    method: str
    size: float
    plus: float
    minus: float


def fidelity(experiment: roar.Experiment, sizes: Sequence[float] = SIZES) -> list[Fidelity]:
    """Measure every method of an experiment that has run; what is measured is kept in its folder."""
    found: list[Fidelity] = []
    for method in experiment.plan.methods:
        file = experiment.folder / "cells" / f"fidelity-{method}.json"
        if not file.exists():
            measured = [asdict(f) for f in _measured(experiment.folder, experiment.plan, method, sizes)]
            files.write_json(file, measured)
        found += [Fidelity(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    return found


def adapted(folder: Path, plan: roar.Plan) -> Network:
    """Return the base network, used to pictures without up to BETA of their pixels."""
    stored = folder / _ADAPTED
    if not stored.exists():
        network, data = Network(str(folder / "base.onnx")), roar.stored_data(folder)
        fill = roar.fill_of(data)
        for epoch in range(_EPOCHS):
            rng = np.random.default_rng(epoch)
            x = data["train_x"].copy()
            noise = rng.random(x.shape[:3], np.float32)
            x[noise < rng.uniform(0, BETA, (len(x), 1, 1))] = fill
            batches = Batches(roar.prepared(folder, x), data["train_y"], plan.batch_size, epoch)
            fit(network, batches, 1, rate=_SLOWER * plan.rate)
        save.save(network.model(), stored)
    return Network(str(stored))


def _measured(folder: Path, plan: roar.Plan, method: str, sizes: Sequence[float]) -> list[Fidelity]:
    network, data = adapted(folder, plan), roar.stored_data(folder)
    pictures, fill = data["test_x"], roar.fill_of(data)
    maps = roar.stored_maps(folder, method, "test", pictures.shape[:3])

    def accurate(x: Array) -> float:
        return accuracy(network, Batches(roar.prepared(folder, x), data["test_y"], 1))

    def loss(among: npt.NDArray[np.bool_], share: float) -> float:
        found = []
        for draw in range(_DRAWS):
            x = pictures.copy()
            x[removed(among, min(ALPHA * share, BETA), draw)] = fill
            found.append(whole - accurate(x))
        return float(np.mean(found))

    whole = accurate(pictures)
    marked = [roar.salient(maps, size) for size in sizes]
    return [
        Fidelity(method, size, loss(top, size), loss(~top, 1 - size)) for size, top in zip(sizes, marked, strict=True)
    ]


def removed(among: npt.NDArray[np.bool_], share: float, draw: int) -> npt.NDArray[np.bool_]:
    """Choose a share of a picture's pixels at random, among some of them.

    Parameters
    ----------
    among : numpy array
        (N, H, W) of bool: which may be chosen.
    share : float
        Share of all pixels, at most that of those that may be chosen.
    draw : int
        Seed.

    Returns
    -------
    numpy array
        (N, H, W) of bool.
    """
    flat = among.reshape(len(among), -1)
    count = round(share * flat.shape[1])
    chance = np.where(flat, np.random.default_rng(draw).random(flat.shape), 2.0)
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, np.argpartition(chance, count, axis=1)[:, :count], True, axis=1)
    return chosen.reshape(among.shape)


def table(rows: Sequence[Fidelity]) -> list[str]:
    """Return the section of the page."""
    sizes = sorted({r.size for r in rows})
    by = {(r.method, r.size): r for r in rows}
    lines = [
        "## F-Fidelity",
        "",
        f"The same network is trained on for {_EPOCHS} epochs, once for all methods, on pictures without up to "
        f"{BETA:.0%} of their pixels, at random. Then a random {ALPHA:.0%} of the given share of most salient pixels "
        "is removed (plus: the larger the better), or of the others (minus: the smaller the better), but never more "
        f"than {BETA:.0%} of the picture. Loss of accuracy in points, mean over {_DRAWS} draws, plus / minus (Zheng et "
        "al., ICLR 2025).",
        "",
        "| method | " + " | ".join(f"{k:.0%}" for k in sizes) + " | plus - minus |",
        "| --- |" + " ---: |" * (len(sizes) + 1),
    ]
    for method in dict.fromkeys(r.method for r in rows):
        own = [by[method, k] for k in sizes]
        cells = [f"{100 * r.plus:.1f} / {100 * r.minus:.1f}" for r in own]
        lines.append(f"| {method} | {' | '.join(cells)} | {100 * np.mean([r.plus - r.minus for r in own]):.1f} |")
    return lines
