"""Methods by measures by networks, with paired differences: `python -m benchmarks.maps` writes a page of tables.

Every network is a run of `fgonnx evaluate` in a folder of its own, so that an interrupted study goes on where it
stopped, and methods, measures and networks may be added. Methods are compared with one of them, image by image: the
mean difference with its bootstrap interval, and the p-value of the sign-flip test, corrected for all comparisons of the
network by Holm's method. `--half choose` and `--half report` take every other image, so that what is chosen on one half
can be reported on the other. `libra/METHOD` is a method with the libra backward pass.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import permutation_test

import fgonnx
from benchmarks.evaluation import ROOT, SEED, SHARED, evaluated
from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.page import number
from fgonnx.audit.evaluate.summary import interval

Float = npt.NDArray[np.float64]

METHODS = (
    "fullgrad",
    "net-fullgrad",
    "grad-cam",
    "layer-cam",
    "gradient-x-input",
    "integrated-gradients",
    "expected-gradients",
    "smoothgrad",
    "libra/fullgrad",
    "libra/gradient-x-input",
    "libra/grad-cam",
    "edge",
    "random",
)
MEASURES = (
    "deletion",
    "insertion",
    "pixel-perturbation",
    "road",
    "sensitivity-n",
    "max-sensitivity:samples=3",
    "random-logit",
    "randomisation-smooth:stages=1:samples=5",
    "randomisation-entropy",
    "completeness",
    "pointing-game",
    "energy",
    "polarity",
    "part-removal",
    "part-deletion",
    "part-preservation",
)
HALVES = ("all", "choose", "report")
LEVEL = 0.05

_LIBRA = "libra/"
_PER_TABLE = 5
_RESAMPLES = 9999
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Network:
    """A trained network and the pictures that it is explained on.

    Attributes
    ----------
    model : Path
        Its file.
    data : {"shapes", "parts", "cifar10", "photos"}
        Its pictures.
    arguments : tuple of str
        Further arguments of `fgonnx evaluate`.
    """

    model: Path
    data: str
    arguments: tuple[str, ...] = ()

    @property
    def has(self) -> frozenset[str]:
        """What of `Measure.needs` its pictures have."""
        return {"shapes": frozenset({"masks"}), "parts": frozenset({"masks", "parts"})}.get(self.data, frozenset())


NETWORKS: Mapping[str, Network] = {
    "shapes": Network(ROOT / "examples" / "shapes.onnx", "shapes"),
    "parts": Network(ROOT / "examples" / "parts.onnx", "parts"),
    "parts-convnext": Network(ROOT / "examples" / "parts_convnext.onnx", "parts"),
    "resnet20": Network(
        SHARED / "models" / "resnet20_cifar10_bn.onnx", "cifar10", ("--preprocess", "imagenet,resize=stretch,size=32")
    ),
    "squeezenet": Network(SHARED / "models" / "squeezenet1_0_fp32.onnx", "photos", ("--preprocess", "caffe")),
    "mobilenet": Network(SHARED / "models" / "mobilenet_v2_tf_fp32.onnx", "photos", ("--preprocess", "tf")),
}


@dataclass
class Results:
    """What was measured on one network.

    Attributes
    ----------
    values : dict of (method, measure) to dict of image to float
        The first quantity of every measure; NaN where an image has none.
    left_out : dict of str to str
        Methods and measures that could not be run, and why.
    """

    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """The difference of a method from the one it is compared with: mean, 95 % interval and p-value over images."""

    mean: float
    low: float
    high: float
    p: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run, and write the page."""
    args = _parser().parse_args(arguments)
    networks = {name: NETWORKS[name] for name in args.networks.split(",")}
    chosen, measures = args.methods.split(","), [evaluate.get(name) for name in args.measures.split(",")]
    if args.against not in chosen:
        raise SystemExit(f"--against {args.against} is not among the methods")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = [_heading(args)]
    for name, network in networks.items():
        if network.model.is_file():
            found = measured(name, network, chosen, measures, args.images, out)
            parts.append(section(name, network, half(found, args.half), measures, args.against))
        else:
            parts.append(f"## {name}\n\nLeft out: {network.model.name} is not there.\n")
    page = args.page or out / "maps.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {page}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/maps"), help="folder of the runs")
    parser.add_argument("--page", type=Path, help="the page to write; maps.md in the folder by default")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, of: %(default)s")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--measures", default=",".join(MEASURES))
    parser.add_argument("--against", default="fullgrad", help="the method that others are compared with")
    parser.add_argument("--images", type=int, default=50, help="pictures for every network")
    parser.add_argument("--half", choices=HALVES, default="all", help="which images are reported")
    return parser


def measured(
    name: str,
    network: Network,
    methods: Sequence[str],
    measures: Sequence[evaluate.Measure],
    images: int,
    out: Path,
) -> Results:
    """Run what is not yet done on a network, and return all results."""
    data = pictures(network.data, images, out)
    fitting = [m.name for m in measures if m.needs in {"", "model", *network.has}]
    plain = [m for m in methods if not m.startswith(_LIBRA)]
    libra = [m.removeprefix(_LIBRA) for m in methods if m.startswith(_LIBRA)]
    found = Results()
    for prefix, group, more in (("", plain, ()), (_LIBRA, libra, ("--backward", "libra"))):
        if not group:
            continue
        if prefix and not changed_by_libra(network.model):
            found.left_out[f"{prefix}..."] = (
                "the network has no operators that the libra backward pass treats otherwise"
            )
            continue
        folder = out / f"{name}{images}{'-libra' if prefix else ''}"
        limit = ["--limit", str(images)] if data.is_dir() else []
        given = ["--methods", ",".join(group), "--measures", ",".join(fitting), *limit, *network.arguments, *more]
        summary = evaluated(folder, [str(network.model), str(data), *given])
        read(folder / "results.csv", prefix, found)
        found.left_out.update({f"{prefix}{what}": why for what, why in summary["failed"].items()})
    return found


def pictures(data: str, count: int, out: Path) -> Path:
    """Return the pictures of a name, drawn or unpacked into the folder if need be."""
    if data == "photos":
        return SHARED / "data" / "imagenet50"
    path = out / f"{data}{count}.npz"
    if not path.exists():
        arrays: dict[str, Any]
        if data == "cifar10":
            with np.load(SHARED / "data" / "cifar10_subset.npz") as archive:
                arrays = {"x": archive["test_x"][:count], "y": archive["test_y"][:count]}
        else:
            if str(ROOT / "examples") not in sys.path:
                sys.path.insert(0, str(ROOT / "examples"))
            module = importlib.import_module(data)
            x, y, mask, *without = module.dataset(count, SEED)
            arrays = {"x": x, "y": y, "mask": mask}
            if without:  # the evidence is on the badges that spell the class
                arrays |= {"mask": mask[:, : len(module.WORDS[0])].any(axis=1), "without": without[0]}
        np.savez_compressed(path, **arrays)
    return path


def changed_by_libra(model: Path) -> bool:
    """Tell whether the libra backward pass of a network differs from the gradient."""
    plain, libra = (fgonnx.rewrite(model, backward=how).graph.node for how in ("gradient", "libra"))
    return [(node.op_type, *node.input) for node in plain] != [(node.op_type, *node.input) for node in libra]


def read(path: Path, prefix: str, found: Results) -> None:
    """Add the first quantity of every method and measure in a results.csv; methods get the prefix."""
    first: dict[tuple[str, str], str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = (prefix + row["method"], row["measure"])
            if first.setdefault(key, row["quantity"]) == row["quantity"]:
                found.values.setdefault(key, {})[row["image"]] = float(row["value"] or "nan")


def half(found: Results, which: str) -> Results:
    """Return the results on every other image, in the order of their names: the first, the second, or all of them."""
    if which == "all":
        return found
    names = sorted({image for values in found.values.values() for image in values})
    kept = set(names[which == "report" :: 2])
    values = {key: {i: v for i, v in given.items() if i in kept} for key, given in found.values.items()}
    return Results(values, found.left_out)


def difference(values: Mapping[str, float], base: Mapping[str, float], seed: int = 0) -> Difference | None:
    """Return the paired difference of two methods on the images that both have a value of; None for fewer than two.

    The p-value is that of the test that flips the signs of the differences at random.
    """
    pairs = np.array([values[i] - base[i] for i in sorted(values.keys() & base.keys())])
    pairs = pairs[np.isfinite(pairs)]
    low, high = interval(pairs, seed)
    if low is None or high is None:
        return None
    test = permutation_test(
        (pairs,), _mean, permutation_type="samples", n_resamples=_RESAMPLES, rng=np.random.default_rng(seed)
    )
    return Difference(float(pairs.mean()), low, high, float(test.pvalue))


def _mean(values: Float, axis: int = -1) -> Float:
    return np.asarray(np.mean(values, axis=axis))


def holm(ps: Iterable[float]) -> Float:
    """Return p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    given = np.array(list(ps), np.float64)
    order = np.argsort(given, kind="stable")
    factors = len(given) - np.arange(len(given))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return corrected


def section(name: str, network: Network, found: Results, measures: Sequence[evaluate.Measure], against: str) -> str:
    """Return the tables of one network as markdown."""
    shown = [m for m in measures if (against, m.name) in found.values]
    methods = list(dict.fromkeys(method for method, _ in found.values))
    differences = {
        (method, m.name): d
        for m in shown
        for method in methods
        if method != against
        and (d := difference(found.values.get((method, m.name), {}), found.values[against, m.name])) is not None
    }
    corrected = dict(zip(differences, holm(d.p for d in differences.values()), strict=True))
    count = max((len(v) for v in found.values.values()), default=0)
    lines = [f"## {name}", "", f"{network.model.name}, {count} pictures ({network.data}).", ""]
    for first in range(0, len(shown), _PER_TABLE):
        part = shown[first : first + _PER_TABLE]
        lines += [
            f"| method | {' | '.join(f'{m.name} {_ARROWS[m.better]}' for m in part)} |",
            f"| --- |{' ---: |' * len(part)}",
        ]
        for method in methods:
            keys = [(method, m.name) for m in part]
            cells = [
                _cell(m.better, found.values.get(key, {}), differences.get(key), corrected.get(key, 1.0))
                for m, key in zip(part, keys, strict=True)
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"Left out: {what}: {why}." for what, why in found.left_out.items()]
    return "\n".join([*lines, ""])


def _cell(better: str, values: Mapping[str, float], found: Difference | None, p: float) -> str:
    known = np.array([v for v in values.values() if np.isfinite(v)])
    if not known.size:
        return "–"
    mean = number(float(known.mean()))
    if found is None:
        return mean
    mark = ""
    if p < LEVEL and better:
        mark = " ▲" if (found.mean > 0) == (better == "higher") else " ▼"
    return f"{mean}; {found.mean:+.2g} ({found.low:+.2g} … {found.high:+.2g}){mark}"


def _heading(args: argparse.Namespace) -> str:
    which = {
        "all": "all pictures",
        "choose": "every other picture, the first",
        "report": "every other picture, the second",
    }
    return (
        "# Maps\n\nWritten by `python -m benchmarks.maps`. Every cell is the mean over "
        f"{which[args.half]}, and the mean difference from {args.against} on the same pictures with its 95 % bootstrap "
        f"interval; ▲ is better and ▼ worse than {args.against} at the {LEVEL:.0%} level of the sign-flip test, "
        "corrected for all comparisons of the network by Holm's method.\n"
    )


if __name__ == "__main__":
    main()
