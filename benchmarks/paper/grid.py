"""Section 5.3, the visual comparison: the maps of all methods beside each other."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluation import ROOT, evaluated
from benchmarks.paper import record
from benchmarks.paper.perturbation import Network
from fgonnx import files

NETWORK = Network(ROOT / "examples" / "shapes.onnx")
PICTURES = ROOT / "examples" / "images"


def run(
    out: Path, figure: Path, network: Network, pictures: Path, images: int, methods: Sequence[str], threads: int | None
) -> dict[str, Any]:
    """Explain pictures with every method and put the maps side by side.

    Parameters
    ----------
    out : Path
        For the run of `fgonnx evaluate`.
    figure : Path
        The .png to write.
    network : Network
        The classifier.
    pictures : Path
        Folder of pictures.
    images : int
        How many of them, a row for each.
    methods : sequence of str
        As for `fgonnx evaluate`.
    threads : int, optional
        Of a run.
    """
    folder = out / f"{network.path.stem}-{images}"
    measured = ["--measures", "sparseness", "--shown", str(images)]
    summary = evaluated(folder, [*network.arguments(pictures, images, methods, threads), *measured])
    with files.replacing(figure) as temporary:
        shutil.copyfile(folder / "maps.png", temporary)
    return {
        **record.made_on(),
        "network": {key: summary["model"][key] for key in ("name", "sha256")},
        "images": summary["data"]["images"],
        "methods": list(methods),
        "sparseness": {
            entry["method"]: {key: entry[key] for key in ("mean", "low", "high")} for entry in summary["results"]
        },
    }
