"""Remove and retrain, in an environment with the training build: `python -m benchmarks.roar --data cifar10 --folder F`.

What is finished stays in the folder, so that the same command goes on where it was stopped. In the end there are
roar.json, roar.md and roar.png in it; `--docs` puts page and figure into docs/.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.roar.experiment import SHARES, WHOLE, Experiment, Plan, summary
from benchmarks.roar.fidelity import Fidelity, fidelity, table
from fgonnx import files
from fgonnx.pictures.read import presets
from fgonnx.pictures.read.complete import complete

Array = npt.NDArray[Any]
Part = tuple[Array, Array]

ROOT = Path(__file__).resolve().parents[2]
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10_subset.npz"
METHODS = (
    *("random", "gradient", "gradient-x-input", "integrated-gradients", "grad-cam", "fullgrad", "fullgrad+"),
    *("net-fullgrad", "net-fullgrad:focus=0.9"),
)
LAYERS = ((24, 5, 2), (48, 3, 2), (96, 3, 2))
_PREPROCESSING = "scale=1/255,mean=0.5,std=0.25"


def network(size: int, classes: int, layers: Sequence[tuple[int, int, int]] = LAYERS) -> onnx.ModelProto:
    """Return a CNN: for each layer (width, kernel, stride) Conv, BatchNormalization, Relu; a mean, a dense layer.

    Parameters
    ----------
    size : int
        Height and width of its pictures, of 3 channels.
    classes : int
        Number of logits.
    layers : sequence of (int, int, int)
        Its convolutions.
    """
    nodes, weights, before, channels = [], [], "image", 3

    def weight(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
        return name

    for i, (width, kernel, stride) in enumerate(layers):
        w = weight(f"w{i}", width, channels, kernel, kernel)
        pads = [kernel // 2] * 4
        norm = [weight(f"{kind}{i}", width) for kind in ("scale", "shift", "mean", "var")]
        nodes += [
            helper.make_node("Conv", [before, w], [f"conv{i}"], pads=pads, strides=[stride, stride]),
            helper.make_node("BatchNormalization", [f"conv{i}", *norm], [f"norm{i}"]),
            helper.make_node("Relu", [f"norm{i}"], [f"relu{i}"]),
        ]
        before, channels = f"relu{i}", width
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", weight("w", channels, classes), weight("b", classes)], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(nodes, "small_cnn", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pictures(name: str, train: int | None, test: int | None) -> tuple[Part, Part, int]:
    """Return training and test pictures with their classes, and the number of classes."""
    if name == "cifar10":
        if not CIFAR10.is_file():
            raise SystemExit(f"{CIFAR10} is not there; use --data shapes, which is drawn here")
        with np.load(CIFAR10) as data:
            parts = [
                (data[f"{p}_x"][:n], data[f"{p}_y"][:n].astype(np.int64)) for p, n in (("train", train), ("test", test))
            ]
        return parts[0], parts[1], 10
    spec = importlib.util.spec_from_file_location("shapes", ROOT / "examples" / "shapes.py")
    assert spec is not None
    assert spec.loader is not None
    shapes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shapes)
    drawn = [shapes.dataset(n, seed, 32)[:2] for n, seed in ((train or 6000, 2_000_000), (test or 1200, 21))]
    return drawn[0], drawn[1], len(shapes.CLASSES)


def page(
    plan: Plan, rows: Sequence[dict[str, Any]], measured: Sequence[Fidelity], data: str, counts: tuple[int, int]
) -> str:
    """Return the tables as markdown."""
    found = {(r["method"], r["share"]): r for r in rows}
    whole = found.get((WHOLE, 0.0))
    goes = "kept, the others replaced" if plan.keep else "replaced"
    lines = [
        f"# {'Keep' if plan.keep else 'Remove'} and retrain",
        "",
        f"Written by `python -m benchmarks.roar --data {data}`; do not edit by hand. Python "
        f"{platform.python_version()}, onnxruntime {onnxruntime.__version__}.",
        "",
        f"Test accuracy in percent, mean and standard deviation over {len(plan.seeds)} seed(s), of a small CNN trained "
        f"from scratch for {plan.epochs} epochs on {counts[0]} pictures ({data}), tested on {counts[1]}. The given "
        f"share of the most salient pixels of every picture is {goes} by the training mean, in training and test "
        "alike. The maps explain the decisions of one network that was trained on unmodified pictures.",
        "",
    ]
    if whole is not None:
        lines += [f"On unmodified pictures: {_percent(whole)}.", ""]
    lines.append("| method | " + " | ".join(f"{k:.0%}" for k in plan.shares) + " |")
    lines.append("| --- |" + " ---: |" * len(plan.shares))
    for method in plan.methods:
        cells = [_percent(found[method, k]) if (method, k) in found else "" for k in plan.shares]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![Test accuracy by share of pixels](images/roar.png)", "", *table(measured), ""])


def _percent(row: dict[str, Any]) -> str:
    deviation = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.1f}"
    return f"{100 * row['accuracy']:.1f}{deviation}"


def draw(path: Path, plan: Plan, rows: Sequence[dict[str, Any]]) -> None:
    """Draw accuracy over share, a line for each method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from fgonnx.audit.evaluate import figures

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    whole = [r for r in rows if r["method"] == WHOLE]
    for i, method in enumerate(plan.methods):
        line = [*whole, *sorted((r for r in rows if r["method"] == method), key=lambda r: r["share"])]
        axes.errorbar(
            [100 * r["share"] for r in line],
            [100 * r["accuracy"] for r in line],
            [100 * (r["deviation"] or 0) for r in line],
            label=method,
            capsize=2,
            linewidth=1.2,
            **figures.told_apart(i),
        )
    axes.set(xlabel=f"pixels {'kept' if plan.keep else 'removed'} (%)", ylabel="test accuracy (%)")
    axes.legend(frameon=False)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def main() -> None:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("cifar10", "shapes"), default="cifar10")
    parser.add_argument("--folder", type=Path, required=True, help="for maps, finished trainings and results")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", action="store_true", help="keep the most salient pixels, remove the others")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train", type=int, help="number of training pictures; all by default")
    parser.add_argument("--test", type=int, help="number of test pictures; all by default")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--docs", action="store_true", help="write docs/roar.md and docs/images/roar.png too")
    given = parser.parse_args()
    train, test, classes = pictures(given.data, given.train, given.test)
    size = train[0].shape[1]
    plan = Plan(
        tuple(given.methods),
        tuple(given.shares),
        tuple(given.seeds),
        given.keep,
        given.epochs,
        mirror=given.data == "cifar10",
    )
    pre = complete(presets.parse(_PREPROCESSING), (None, 3, size, size), np.dtype(np.float32))
    experiment = Experiment(given.folder, network(size, classes), train, test, pre, plan)
    columns = (TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(experiment.tasks()))
        for _ in experiment.run(given.workers):
            progress.advance(task)
    rows = summary(experiment.cells())
    measured = fidelity(experiment)
    text = page(plan, rows, measured, given.data, (len(train[0]), len(test[0])))
    files.write_json(
        given.folder / "roar.json",
        {"data": given.data, "epochs": plan.epochs, "rows": rows, "fidelity": [asdict(f) for f in measured]},
    )
    with files.replacing(given.folder / "roar.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    draw(given.folder / "roar.png", plan, rows)
    if given.docs:
        shutil.copy(given.folder / "roar.md", ROOT / "docs" / "roar.md")
        shutil.copy(given.folder / "roar.png", ROOT / "docs" / "images" / "roar.png")
        shutil.copy(given.folder / "roar.json", ROOT / "docs" / "roar.json")
    print(text)


if __name__ == "__main__":
    main()
