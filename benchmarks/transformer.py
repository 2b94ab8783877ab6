"""Maps of the shipped vision transformer: a picture of them, and how well they agree with what badges are worth.

`python -m benchmarks.transformer` draws docs/images/vit.png and prints the figures of docs/methods.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx

from fgonnx import Explainer
from fgonnx.pictures.show import visual
from fgonnx.pictures.show.sheet import FAINT, Sheet

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "examples" / "parts_vit.onnx"
SEED, SHOWN, MEASURED = 77, 6, 90
SIDE, GAP, ROOM = 80, 4, 190

RUNS: dict[str, dict[str, Any]] = {
    "fullgrad": {},
    "fullgrad, libra": {"backward": "libra"},
    "fullgrad+": {"method": "fullgrad+"},
    "fullgrad+, libra": {"method": "fullgrad+", "backward": "libra"},
    "fullgrad+, attnlrp": {"method": "fullgrad+", "backward": "attnlrp"},
    "gradient-x-input, attnlrp": {"method": "gradient-x-input", "backward": "attnlrp"},
    "grad-cam": {"method": "grad-cam"},
    "grad-cam, libra": {"method": "grad-cam", "backward": "libra"},
}


def inputs(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return pictures (..., H, W, 3) as the model takes them."""
    how = json.loads({p.key: p.value for p in onnx.load(MODEL).metadata_props}["fgonnx.preprocessing"])
    x = (images * how["scale"] - np.array(how["mean"])) / np.array(how["std"])
    return np.moveaxis(x, -1, -3).astype(np.float32)


def agreement(maps: npt.NDArray[Any], masks: npt.NDArray[Any], drops: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the mean correlation of sums over badges with the drops of the score, and the share of badges in the map.

    Maps that are zero everywhere have neither and are left out.

    Parameters
    ----------
    maps : numpy array, (N, H, W)
        Maps.
    masks : numpy array of bool, (N, badges, H, W)
        Where the badges are.
    drops : numpy array, (N, badges)
        What the score loses without each.
    """
    sums = np.einsum("nhw,nkhw->nk", maps, masks)
    shown = maps.any((1, 2))
    shares = sums[shown].sum(1) / maps[shown].sum((1, 2))
    with np.errstate(invalid="ignore"):  # badges that all have nothing
        found = [np.corrcoef(a, b)[0, 1] for a, b in zip(sums[shown], drops[shown], strict=True)]
    return float(np.nanmean(found)), float(shares.mean())


def sheet(images: npt.NDArray[np.uint8], rows: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """Draw pictures in a row, and under them the maps by each method, with its name."""
    step = SIDE + GAP
    paper = Sheet((1 + len(rows)) * step, SHOWN * step)
    for i, image in enumerate(images):
        paper.place(np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8), i * step, 0)
    for k, (name, maps) in enumerate(rows.items(), start=1):
        for i, map_ in enumerate(maps):
            paper.place(np.asarray(cv2.resize(visual.heat(map_), (SIDE, SIDE)), np.uint8), i * step, k * step)
        paper.write(name, (SHOWN * step + 8) / paper.unit, (k * step + SIDE / 2 + 4) / paper.unit, 13 / paper.unit)
    paper.write("picture", (SHOWN * step + 8) / paper.unit, (SIDE / 2 + 4) / paper.unit, 13 / paper.unit, FAINT)
    return np.asarray(paper.image.crop((0, 0, SHOWN * step + ROOM, (1 + len(rows)) * step)))


def main() -> int:
    """Explain, draw and print."""
    sys.path.insert(0, str(ROOT / "examples"))
    import parts

    images, labels, masks, without = parts.dataset(MEASURED, SEED)
    x, bare = inputs(images), inputs(without)
    every, head = np.arange(MEASURED), Explainer(MODEL, threads=1)
    whole = head.head(x)[every, labels]
    drops = np.stack([whole - head.head(bare[:, k])[every, labels] for k in range(len(parts.PARTS))], 1)
    rows = {}
    print("| map | correlation with the drop of the score | share on badges |\n| --- | --- | --- |")
    for name, options in RUNS.items():
        maps = Explainer(MODEL, threads=1, **options)(x, labels.tolist()).saliency
        correlation, share = agreement(maps.astype(np.float64), masks, drops)
        print(f"| {name} | {correlation:.2f} | {share:.2f} |")
        rows[name] = maps[:SHOWN]
    drawn = sheet(images[:SHOWN], rows)
    cv2.imwrite(str(ROOT / "docs" / "images" / "vit.png"), drawn[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
