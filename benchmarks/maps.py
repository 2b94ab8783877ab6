"""Methods by measures by networks, with paired differences: `python -m benchmarks.maps` writes a page of tables.

Every network is a run of `fgonnx evaluate` in a folder of its own, so that an interrupted study goes on where it
stopped, and methods, measures and networks may be added; the page has all that was ever measured in the folder, of the
methods and networks asked for, and `--written` makes it without measuring anything. Methods are compared with FullGrad,
image by image: the mean difference with its bootstrap interval, and the p-value of the sign-flip test, corrected for
all comparisons of the network by Holm's method. A candidate for a better aggregation is chosen on every other image and
judged on the others, by the rule in `benchmarks.verdict`; the tables are of the half that was not used to choose.
`libra/METHOD` and `attnlrp/METHOD` are a method with another backward pass, `centred/METHOD` explains a score against
the mean of all scores.

    python -m benchmarks.maps --images 100 --page docs/maps.md
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, variants, verdict
from benchmarks.evaluation import ROOT, SEED, SHARED, evaluated
from benchmarks.results import Difference, Results, difference, half, holm, number, only, read, whole
from benchmarks.verdict import AGAINST, LEVEL
from fgonnx.audit import evaluate

CANDIDATES = (
    "net-fullgrad",
    "net-fullgrad:psi=positive:scale=mass:blur=0.05",
    "net-fullgrad:focus=0.9",
    "net-fullgrad:focus=0.97",
    "net-fullgrad:psi=positive:scale=mass:blur=0.05:focus=0.9",
)
METHODS = (
    "fullgrad",
    *CANDIDATES,
    "grad-cam",
    "layer-cam",
    "gradient-x-input",
    "integrated-gradients:steps=20",
    "expected-gradients:samples=50",
    "smoothgrad:samples=20",
    "fullgrad+",
    "libra/fullgrad",
    "libra/net-fullgrad",
    "libra/net-fullgrad:focus=0.9",
    "libra/fullgrad+",
    "libra/gradient-x-input",
    "libra/grad-cam",
    "attnlrp/fullgrad+",
    "attnlrp/gradient-x-input",
    "centred/fullgrad",
    "centred/net-fullgrad",
    "centred/net-fullgrad:focus=0.9",
    "edge",
    "random",
)
MEASURES = (
    "random-logit",
    "deletion:steps=20",
    "insertion:steps=20",
    "pixel-perturbation",
    "randomisation:stages=1",
    "sensitivity-n:subsets=5",
    "randomisation-entropy",
    "completeness",
    "pointing-game",
    "energy",
    "polarity",
    "part-removal",
    "part-deletion",
    "part-preservation",
)

_PER_TABLE = 5
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
    "parts-vit": Network(ROOT / "examples" / "parts_vit.onnx", "parts"),
    "resnet20": Network(
        SHARED / "models" / "resnet20_cifar10_bn.onnx", "cifar10", ("--preprocess", "imagenet,resize=stretch,size=32")
    ),
    "squeezenet": Network(SHARED / "models" / "squeezenet1_0_fp32.onnx", "photos", ("--preprocess", "caffe")),
    "mobilenet": Network(SHARED / "models" / "mobilenet_v2_tf_fp32.onnx", "photos", ("--preprocess", "tf")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run, and write the page."""
    args = _parser().parse_args(arguments)
    chosen, measures = args.methods.split(","), [evaluate.get(name) for name in args.measures.split(",")]
    if AGAINST not in chosen:
        raise SystemExit(f"{AGAINST}, which the others are compared with, is not among the methods")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Results] = {}
    absent = []
    for name in args.networks.split(","):
        network = NETWORKS[name]
        if not network.model.is_file():
            absent.append(f"Left out: {name}, as {network.model.name} is not there.\n")
        elif args.written:
            networks[name] = written(name, chosen, args.images, out)
        else:
            networks[name] = measured(name, network, chosen, measures, args.images, out, threads=args.threads)
    page = args.page or out / "maps.md"
    page.write_text("\n".join([*report(networks, args.images), *absent]), encoding="utf-8")
    print(f"wrote {page}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/maps"), help="folder of the runs")
    parser.add_argument("--page", type=Path, help="the page to write; maps.md in the folder by default")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, of: %(default)s")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--measures", default=",".join(MEASURES))
    parser.add_argument("--images", type=int, default=100, help="pictures for every network, as far as there are")
    parser.add_argument("--written", action="store_true", help="write the page from what has been measured so far")
    parser.add_argument("--threads", type=int)
    return parser


def written(name: str, methods: Sequence[str], images: int, out: Path) -> Results:
    """Return what has been measured on a network so far."""
    found = Results()
    for prefix, variant in variants.VARIANTS.items():
        journal = _folder(out, name, images, prefix) / "journal.jsonl"
        if journal.is_file():
            read(journal, prefix, found)
        elif why := variant.idle(NETWORKS[name].model):
            found.left_out[f"{prefix}..."] = why
    return whole(only(found, methods))


def _folder(out: Path, name: str, images: int, prefix: str) -> Path:
    return out / "-".join([f"{name}{images}", *prefix.split("/")[:-1]])


def measured(
    name: str,
    network: Network,
    methods: Sequence[str],
    measures: Sequence[evaluate.Measure],
    images: int,
    out: Path,
    *,
    threads: int | None = None,
) -> Results:
    """Run what is not yet done on a network, and return all results."""
    data = pictures(network.data, images, out)
    found = Results()
    for prefix, variant in variants.VARIANTS.items():
        group = [m.removeprefix(prefix) for m in methods if variants.prefix(m) == prefix]
        if not group:
            continue
        if why := variant.idle(network.model):
            found.left_out[f"{prefix}..."] = why
            continue
        has = {"", "model", *network.has}
        fitting = [m.name for m in measures if m.needs in has and m.name.partition(":")[0] not in variant.unfit]
        if not fitting:
            continue
        folder = _folder(out, name, images, prefix)
        given = ["--methods", ",".join(group), "--measures", ",".join(fitting), *network.arguments, *variant.arguments]
        given += ["--threads", str(threads)] if threads else []
        given += ["--limit", str(images)] if data.is_dir() else []
        summary = evaluated(folder, [str(variant.model(network.model, out)), str(data), *given])
        read(folder / "journal.jsonl", prefix, found)
        found.left_out.update({f"{prefix}{what}": why for what, why in summary["failed"].items()})
    return only(found, methods)


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


def report(networks: Mapping[str, Results], images: int) -> list[str]:
    """Return the page as blocks of markdown."""
    choose = {name: half(found, "choose") for name, found in networks.items()}
    judged = {name: half(found, "report") for name, found in networks.items()}
    parts = [_heading(images), _PICTURE, "## The rule\n", verdict.RULE]
    winner = verdict.chosen(choose, CANDIDATES)
    if winner is not None:
        parts += ["## Chosen on the half *choose*\n", "Conditions of the rule that are met:\n"]
        parts += ["\n".join(verdict.choice(choose, CANDIDATES)), "## Verdict on the half *report*\n"]
        parts += [f"Chosen: `{winner}`. Differences are those from `{AGAINST}`.\n"]
        parts += ["\n".join(verdict.verdict(judged, winner)), _REACHABLE, "\n".join(verdict.reachable(judged))]
    parts += ["## What is best for what\n", "\n".join(verdict.best(judged))]
    parts += [f"## When `{AGAINST}` is the wrong choice\n", _AGAINST, "\n".join(verdict.against(judged))]
    return [*parts, *(section(name, NETWORKS[name], found) for name, found in judged.items())]


def section(name: str, network: Network, found: Results) -> str:
    """Return the tables of one network as markdown."""
    shown = [m for m in found.better if any(np.isfinite(list(v.values())).any() for v in _of(m, found))]
    methods = list(dict.fromkeys(method for method, _ in found.values))
    differences = {
        (method, m): d
        for m in shown
        for method in methods
        if method != AGAINST
        and (d := difference(found.values.get((method, m), {}), found.values.get((AGAINST, m), {}))) is not None
    }
    corrected = dict(zip(differences, holm(d.p for d in differences.values()), strict=True))
    count = max((len(v) for v in found.values.values()), default=0)
    lines = [f"## {name}", "", f"{network.model.name}, {count} pictures ({network.data}).", ""]
    for first in range(0, len(shown), _PER_TABLE):
        part = shown[first : first + _PER_TABLE]
        lines += [
            f"| method | {' | '.join(f'{m} {_ARROWS[found.better[m]]}' for m in part)} |",
            f"| --- |{' ---: |' * len(part)}",
        ]
        for method in methods:
            cells = [
                _cell(
                    found.better[m],
                    found.values.get((method, m), {}),
                    differences.get((method, m)),
                    corrected.get((method, m), 1.0),
                )
                for m in part
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"Left out: {what}: {why}." for what, why in found.left_out.items()]
    return "\n".join([*lines, ""])


def _of(measure: str, found: Results) -> list[Mapping[str, float]]:
    return [values for (_, name), values in found.values.items() if name == measure]


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


_PICTURE = """\
![Maps of four methods on drawn pictures, for the decision and for the runner-up](images/maps.png)

Drawn pictures (`python -m benchmarks.gallery`), explained for the decision and for the runner-up. `fullgrad` shows the
object for either; `net-fullgrad` with `focus=0.9` shows for the runner-up what speaks for it, such as the arcs for a
ring, and keeps the resolution that `grad-cam` does not have.
"""

_REACHABLE = """\
Whether any method could meet the rule, of all that were measured:
"""

_AGAINST = f"""\
On how many networks a method is significantly better (▲) or worse (▼) than `{AGAINST}`, at the {LEVEL:.0%} level of the
sign-flip test, corrected for all comparisons of the network by Holm's method.
"""


def _heading(images: int) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in machine.versions(("onnxruntime", "numpy")).items())
    return f"""\
# Maps: which aggregation, which method

Written by `python -m benchmarks.maps --images {images} --page docs/maps.md` on {machine.today()}, commit {_commit()},
{versions}; drawn pictures are of seed {SEED}.

Every cell of the tables at the end is the mean over the pictures of the half *report*, and the mean difference from
`{AGAINST}` on the same pictures with its 95 % bootstrap interval; ▲ is better and ▼ worse than `{AGAINST}` at the
{LEVEL:.0%} level of the sign-flip test, corrected for all comparisons of the network by Holm's method.
[evaluation.md](evaluation.md) says what the measures mean, [methods.md](methods.md) what the methods compute;
"random-logit rank" is the rank correlation of the same two maps, "completeness cut" the largest residual at the values
where a block begins, of methods whose maps are sums over these. `libra/` and `attnlrp/` before a method say what goes
back through the network; `centred/` is the score less the mean of all scores, a contrast against every other class.
What to take for what, in words, is in [methods.md](methods.md#which-one).
"""


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
