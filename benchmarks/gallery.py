"""Maps of several methods on drawn pictures: `python -m benchmarks.gallery` writes docs/images/maps.png.

Every picture is explained twice, for the class that the network decides for and for another one: a map that depends on
the class differs.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np

import fgonnx
from benchmarks.evaluation import ROOT, SEED
from fgonnx.audit.evaluate import figures
from fgonnx.engine.model.load import load
from fgonnx.jobs.reading import Reading

METHODS = {
    "fullgrad": {},
    "net-fullgrad": {"method": "net-fullgrad"},
    "focus=0.9": {"method": "net-fullgrad", "focus": 0.9},
    "grad-cam": {"method": "grad-cam"},
}
DRAWN = {"shapes": (1, 4), "parts": (0,)}
"""Which of the pictures of a seed are shown."""

_SHORT = 10  # letters of a label that fit beside a picture


def main() -> None:
    """Draw."""
    sys.path.insert(0, str(ROOT / "examples"))
    rows = []
    for name, chosen in DRAWN.items():
        loaded = load(ROOT / "examples" / f"{name}.onnx")
        preprocessing, _ = Reading().preprocessing(loaded, None, required=True)
        pictures = importlib.import_module(name).dataset(max(chosen) + 1, SEED)[0][list(chosen)]
        x = np.stack([preprocessing.apply(picture) for picture in pictures])
        explainers = [fgonnx.Explainer(loaded.path, threads=1, **options) for options in METHODS.values()]
        labels, scores = loaded.labels(), explainers[0].head(x)
        for i, order in enumerate(np.argsort(-scores, axis=1)):
            for what, target in zip(("decision", "runner-up"), order[:2].tolist(), strict=True):
                maps = [explainer(x[i : i + 1], target).saliency[0] for explainer in explainers]
                label = labels[target] if labels else str(target)
                rows.append((what if len(label) > _SHORT else f"{what}: {label}", pictures[i], maps))
    drawn = figures.grid(rows, list(METHODS))
    (ROOT / "docs" / "images" / "maps.png").write_bytes(drawn["png"])


if __name__ == "__main__":
    main()
