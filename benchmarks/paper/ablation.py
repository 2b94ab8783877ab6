"""Section 4, the choice of psi and of the biases, on drawn pictures whose evidence is known."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from rich.progress import Progress

from benchmarks.evaluation import ROOT, SEED
from benchmarks.paper import record
from benchmarks.paper.perturbation import OURS
from fgonnx import Explainer, Explanation, files
from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.journal import Journal
from fgonnx.audit.evaluate.run import Run, Shard
from fgonnx.engine.model.load import LoadedModel, load
from fgonnx.pictures.read.preprocess import Preprocessing

MODEL = ROOT / "examples" / "shapes.onnx"
MAGNITUDE = "magnitude"
"""The absolute value of the signed map: taken of the sum, where psi "abs" takes it of every term."""

PROFILES, PSIS = ("full", "reference", "paper"), ("abs", "positive", "signed", MAGNITUDE)
VARIANTS = {f"{OURS}, {profile}, {psi}": (profile, psi) for profile in PROFILES for psi in PSIS}
DEFAULT = next(iter(VARIANTS))
OTHERS = ("random", "edge", "gradient", "gradient-x-input", "integrated-gradients", "smoothgrad", "grad-cam")
MEASURES = {
    "pixel-perturbation": "change",
    "pixel-perturbation:of=probability": "change",
    "energy": "inside",
    "pointing-game": "hit",
    "sparseness": "gini",
}
"""Measures, and the quantity of each that is compared."""

_SHARD = 8


class _Magnitude(evaluate.Subject):
    def __call__(self, x: npt.NDArray[Any], target: Any = None, /) -> Explanation:
        found = super().__call__(x, target)
        return replace(found, saliency=np.abs(found.saliency))


def run(out: Path, shapes: int, threads: int | None) -> dict[str, Any]:
    """Measure every variant and the other methods on drawn pictures.

    Parameters
    ----------
    out : Path
        For what is done so far.
    shapes : int
        Pictures to draw.
    threads : int, optional
        Of a run.
    """
    loaded = load(MODEL)
    folder = out / f"ablation-{shapes}"
    files.make_folder(folder)
    made_on = record.made_on()
    journal = Journal(folder / "journal.jsonl", {"model": loaded.sha256, "versions": made_on["versions"]})
    work = _work(loaded, journal, folder / "maps", shapes, threads)
    with Progress() as progress:
        task = progress.add_task("drawn shapes", total=work.cost)
        for part in work:
            progress.advance(task, part)
    if work.failed:
        raise SystemExit(json.dumps(work.failed, indent=2))
    values: dict[record.Key, dict[str, float]] = {}
    for row in journal.rows():
        for quantity, found in row.measured.values.items():
            key = row.method, row.measure, quantity
            values.setdefault(key, {}).update(zip(row.images, found.tolist(), strict=True))
    return {
        **made_on,
        "model": {"name": loaded.name, "sha256": loaded.sha256},
        "images": shapes,
        "default": DEFAULT,
        "variants": list(VARIANTS),
        "others": list(OTHERS),
        "measures": {
            name: {
                "better": evaluate.get(name).better,
                "means": record.against(values, name, quantity, [*VARIANTS, *OTHERS], DEFAULT),
            }
            for name, quantity in MEASURES.items()
        },
    }


def _work(loaded: LoadedModel, journal: Journal, maps: Path, shapes: int, threads: int | None) -> Run:
    """Return the run of all variants and methods on drawn pictures."""
    preprocessing = Preprocessing.from_json(str(loaded.preprocessing_json()))
    sys.path.insert(0, str(ROOT / "examples"))
    pictures, _, masks = importlib.import_module("shapes").dataset(shapes, SEED)
    x = np.stack([preprocessing.apply(picture) for picture in pictures])
    black = preprocessing.apply(np.zeros((8, 8, 3), np.uint8))[:, :1, :1]
    forward = Explainer(loaded, threads=threads)

    def subject(name: str) -> evaluate.Subject:
        if name in VARIANTS:
            profile, psi = VARIANTS[name]
            made, psi = (_Magnitude, "signed") if psi == MAGNITUDE else (evaluate.Subject, psi)
            return made(loaded, OURS, forward=forward, profile=profile, psi=psi, threads=threads)
        return evaluate.Subject(loaded, name, forward=forward, threads=threads)

    def read(k: int) -> Shard:
        rows = range(shapes)[k * _SHARD : (k + 1) * _SHARD]
        part = slice(rows.start, rows.stop)
        data = evaluate.Data.of(forward, x[part], masks=masks[part], numbers=rows, black=black, seed=SEED)
        return Shard(tuple(map(str, rows)), data)

    return Run(
        subject,
        journal,
        [*VARIANTS, *OTHERS],
        [evaluate.get(name) for name in MEASURES],
        [len(range(shapes)[i : i + _SHARD]) for i in range(0, shapes, _SHARD)],
        read,
        maps,
    )


def draw(stored: dict[str, Any]) -> Figure:
    """Draw means with their intervals, a panel for every measure."""
    measures = stored["measures"]
    names = [*stored["variants"], *stored["others"]]
    figure = Figure(figsize=(2.1 * len(measures) + 2, 0.22 * len(names) + 1), layout="constrained")
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))
    for panel, (title, measure) in zip(panels, measures.items(), strict=True):
        for place, row in zip(places, measure["means"], strict=True):
            colour = "black" if row["method"] in stored["variants"] else "tab:gray"
            panel.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.2)
            panel.plot(row["mean"], place, "o", color=colour, markersize=3.5)
        panel.set_title(title.replace(":", "\n") + {"higher": " ↑", "lower": " ↓"}[measure["better"]], fontsize=8)
        if measure["better"] == "lower":
            panel.set_xscale("log")
        panel.grid(alpha=0.25)
        panel.tick_params(labelsize=7)
    panels[0].set_yticks(places, names)
    panels[0].invert_yaxis()
    return figure
