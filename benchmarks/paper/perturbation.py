"""Section 5.1, the pixel-perturbation figure: what removing the least salient pixels does to the score."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.evaluation import SHARED, evaluated
from benchmarks.paper import record
from fgonnx import Explainer
from fgonnx.audit.evaluate import figures
from fgonnx.audit.evaluate.faithfulness import REMOVED
from fgonnx.engine.model.load import ModelLike

OURS, NULL = "fullgrad", "random"
METHODS = (
    NULL,
    "gradient",
    "gradient-x-input",
    "integrated-gradients",
    "smoothgrad",
    "grad-cam",
    "simple-fullgrad",
    OURS,
)
MEASURES = {
    "pixel-perturbation": "least salient, logit",
    "pixel-perturbation:of=probability": "least salient, probability",
    "pixel-perturbation-most": "most salient, logit",
}
REFERENCE = {name: NULL if "most" in name else OURS for name in MEASURES}
"""What a method is held against: the paper says who is least, and that removing the most tells few from chance."""


@dataclass(frozen=True)
class Network:
    """A classifier.

    Attributes
    ----------
    path : Path
        The ONNX file.
    preprocess : str
        As for `fgonnx evaluate`; "" for what the file says.
    """

    path: Path
    preprocess: str = ""

    @classmethod
    def parse(cls, text: str) -> Network:
        """Read MODEL.onnx or MODEL.onnx=PREPROCESS."""
        path, _, preprocess = text.partition("=")
        return cls(Path(path).resolve(), preprocess)

    def arguments(self, pictures: Path, images: int, methods: Sequence[str], threads: int | None) -> list[str]:
        """Return what `fgonnx evaluate` is given to run methods on some pictures of a folder."""
        chosen = ["--methods", ",".join(methods), "--limit", str(images)]
        chosen += ["--preprocess", self.preprocess] if self.preprocess else []
        return [str(self.path), str(pictures), *chosen, *(["--threads", str(threads)] if threads else [])]


NETWORKS = (
    Network(SHARED / "models" / "squeezenet1_0_fp32.onnx", "caffe"),
    Network(SHARED / "models" / "mobilenet_v2_tf_fp32.onnx", "tf"),
)
PICTURES = SHARED / "data" / "imagenet50"


def run(
    out: Path, networks: Sequence[Network], pictures: Path, images: int, methods: Sequence[str], threads: int | None
) -> dict[str, Any]:
    """Measure, or go on measuring, into a folder.

    Parameters
    ----------
    out : Path
        For the runs of `fgonnx evaluate`.
    networks : sequence of Network
        The classifiers.
    pictures : Path
        Folder of pictures.
    images : int
        How many of them.
    methods : sequence of str
        As for `fgonnx evaluate`; "fullgrad" and "random" among them.
    threads : int, optional
        Of a run.
    """
    found = []
    for network in networks:
        folder = out / f"{network.path.stem}-{images}"
        measured = ["--measures", ",".join(MEASURES), "--shown", "0"]
        arguments = [*network.arguments(pictures, images, methods, threads), *measured]
        about = {"unread": unread(network.path)}  # before what takes long
        found.append({**_network(evaluated(folder, arguments), folder, methods), **about})
    return {**record.made_on(), "shares": list(REMOVED), "methods": list(methods), "networks": found}


def unread(model: ModelLike, samples: int = 8) -> float:
    """Return the share of pixels that no score depends on: those whose gradient is 0 for every one of some noise.

    A convolution with a stride and no padding may leave out the last rows and columns. To remove those changes nothing,
    which favours maps that are exactly 0 there and nowhere else.
    """
    explainer = Explainer(model, method="gradient")
    shape = explainer.loaded.input().shape
    assert shape is not None
    noise = np.random.default_rng(0).normal(size=(samples, *(d for d in shape[1:] if isinstance(d, int))))
    return float((explainer(noise.astype(np.float32)).saliency == 0).all(axis=0).mean())


def _network(summary: Mapping[str, Any], folder: Path, methods: Sequence[str]) -> dict[str, Any]:
    values: dict[record.Key, dict[str, float]] = {}
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = row["method"], row["measure"], row["quantity"]
            values.setdefault(key, {})[row["image"]] = float(row["value"] or "nan")
    curves = {(c["measure"], c["method"]): c for c in summary["curves"]}
    kept = ("mean", "low", "high")
    return {
        "name": summary["model"]["name"],
        "sha256": summary["model"]["sha256"],
        "preprocessing": summary["settings"]["preprocessing"],
        "images": summary["data"]["images"],
        "skipped": summary["data"]["skipped"],
        "failed": summary["failed"],
        "measures": {
            name: {
                "reference": REFERENCE[name],
                "means": record.against(values, name, "change", methods, REFERENCE[name]),
                "curves": {m: {key: curves[name, m][key] for key in kept} for m in methods if (name, m) in curves},
            }
            for name in MEASURES
        },
    }


def draw(stored: Mapping[str, Any]) -> Figure:
    """Draw a row of panels for every network, with the bands of the 95 % bootstrap intervals."""
    networks = stored["networks"]
    percent = [100 * share for share in stored["shares"]]
    figure = Figure(figsize=(11, 3.1 * len(networks) + 0.6), layout="constrained")
    panels = figure.subplots(len(networks), len(MEASURES), squeeze=False)
    for line, network in zip(panels, networks, strict=True):
        for panel, (name, title) in zip(line, MEASURES.items(), strict=True):
            for i, (method, curve) in enumerate(network["measures"][name]["curves"].items()):
                strong = method == OURS
                how = {**figures.told_apart(i), "markersize": 3.5}
                if strong:
                    how |= {"color": "black", "linestyle": "-", "linewidth": 2.2, "zorder": 3}
                panel.plot(percent, curve["mean"], label=method, **{"linewidth": 1.2, "zorder": 2, **how})
                panel.fill_between(percent, curve["low"], curve["high"], color=how["color"], alpha=0.08, linewidth=0)
            panel.set_xscale("log")
            panel.grid(alpha=0.25)
            panel.set_title(f"{network['name']}: {title}", fontsize=9)
            panel.set_xlabel("pixels removed (%)", fontsize=8)
        line[0].set_ylabel("absolute fractional change", fontsize=8)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure
