"""Methods by measures: `python -m benchmarks.evaluation` writes the tables of docs/evaluation.md.

The shipped example, whose evidence is known, is drawn anew from a seed that it was not trained on; the ImageNet part
takes a folder of pictures and a model (`--imagenet`, `--model`) and is left out where they are not there. Both are runs
of `fgonnx evaluate` into `--out`, so that an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.page import number, table
from fgonnx.engine import methods

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evaluation.md"
SHARED = ROOT.parent / "shared"
SEED = 7  # below 1 000 000: the shipped example was not trained on it

MEASURES = (
    "pixel-perturbation",
    "pixel-perturbation-most",
    "deletion",
    "insertion",
    "average-drop",
    "road",
    "sensitivity-n",
    "infidelity",
    "max-sensitivity:samples=3",
    "sparseness",
    "complexity",
    "randomisation",
    "randomisation-independent",
    "random-logit",
    "completeness",
)
LOCAL = ("pointing-game", "energy")
NULLS = ("edge", "random")
_PER_TABLE = 6
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


def main() -> None:
    """Run, and write the tables between their marks."""
    args = _parser().parse_args()
    args.out, args.imagenet, args.model = (p.resolve() for p in (args.out, args.imagenet, args.model))
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [_shapes(args)]
    if args.imagenet.is_dir() and args.model.is_file():
        parts.append(_photos(args))
    text = PAGE.read_text(encoding="utf-8")
    for name, content in (("measures", described()), ("results", "\n".join(parts))):
        between = re.compile(rf"(?<=<!-- {name} -->\n).*(?=<!-- end of {name} -->)", re.DOTALL)
        text = between.sub(f"\n{content}\n".replace("\\", r"\\"), text)
    PAGE.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ",".join("rise:samples=1000" if name == "rise" else name for name in methods.names())
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), help="folder of the runs")
    parser.add_argument("--methods", default=default, help="for the shipped example")
    parser.add_argument("--imagenet-methods", help="for the pictures; the same by default")
    parser.add_argument("--measures", default=",".join(MEASURES))
    parser.add_argument("--shapes", type=int, default=60, help="drawn pictures")
    parser.add_argument("--images", type=int, default=50, help="pictures of the folder")
    parser.add_argument("--imagenet", type=Path, default=SHARED / "data" / "imagenet50")
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "squeezenet1_0_fp32.onnx")
    parser.add_argument("--preprocess", default="caffe")
    parser.add_argument("--threads", type=int)
    return parser


def _shapes(args: argparse.Namespace) -> str:
    """Return the section on drawn pictures."""
    drawn = args.out / f"shapes{args.shapes}.npz"
    if not drawn.exists():
        sys.path.insert(0, str(ROOT / "examples"))
        x, y, mask = importlib.import_module("shapes").dataset(args.shapes, SEED)
        np.savez_compressed(drawn, x=x, y=y, mask=mask)
    measures = f"{args.measures},{','.join(LOCAL)}"
    shapes = [str(ROOT / "examples" / "shapes.onnx"), str(drawn), "--methods", args.methods, "--measures", measures]
    return section(
        f"Drawn shapes: {args.shapes} pictures of the shipped example, the evidence is known",
        evaluated(args.out / f"shapes{args.shapes}", [*shapes, *_threads(args)]),
    )


def _photos(args: argparse.Namespace) -> str:
    """Return the section on a folder of pictures."""
    chosen = ["--methods", args.imagenet_methods or args.methods, "--measures", args.measures]
    chosen += ["--preprocess", args.preprocess, "--limit", str(args.images)]
    photos = [str(args.model), str(args.imagenet), *chosen, *_threads(args)]
    found = evaluated(args.out / f"imagenet{args.images}", photos)
    return section(f"ImageNet: {found['data']['images']} photos, {args.model.stem}", found)


def _threads(args: argparse.Namespace) -> list[str]:
    return ["--threads", str(args.threads)] if args.threads else []


def described() -> str:
    """Return the table of measures as markdown."""
    rows = [evaluate.get(name) for name in evaluate.names()]
    lines = [f"| {m.name} {_ARROWS[m.better]} | {m.meaning} | {m.source} |" for m in rows]
    return "\n".join(["| measure | what it is | source |", "| --- | --- | --- |", *lines])


def evaluated(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `fgonnx evaluate` and return its summary."""
    done = subprocess.run([sys.executable, "-m", "fgonnx", "evaluate", *arguments, "-o", str(folder)], cwd=ROOT)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def section(title: str, summary: Mapping[str, Any]) -> str:
    """Return the tables of one run as markdown."""
    lines = [f"### {title}", ""]
    columns = table(summary)
    for first in range(0, len(columns), _PER_TABLE):
        part = columns[first : first + _PER_TABLE]
        heads = [f"{c['measure']['name']} {_ARROWS[c['measure']['better']]}" for c in part]
        lines += [f"| method | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(part)}"]
        for method in summary["methods"]:
            lines.append(f"| {method['name']} | {' | '.join(_cell(c['cells'].get(method['name'])) for c in part)} |")
        lines.append("")
    lines += nulls(columns)
    lines += [f"Left out: {what}: {why}." for what, why in summary["failed"].items()]
    lines += [f"Skipped: {what}: {why}." for what, why in summary["data"]["skipped"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return "\n".join(
        [*lines, f"Model {summary['model']['name']}, sha256 {summary['model']['sha256'][:12]}; {versions}.", ""]
    )


def nulls(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where the null baselines, which do not look at the model, come out."""
    last, other = [], []
    for column in columns:
        ranks = {name: (cell["rank"], cell["of"]) for name, cell in column["cells"].items() if cell["rank"] is not None}
        found = [ranks[name] for name in NULLS if name in ranks]
        if len(found) == len(NULLS):
            behind = all(rank >= of - len(NULLS) for rank, of in found)
            places = " and ".join(f"{rank + 1}" for rank, _ in found)
            (last if behind else other).append(column["measure"]["name"] + ("" if behind else f" (places {places})"))
    return [
        f"The null baselines, {' and '.join(NULLS)}, have the last places by: {', '.join(last) or 'no measure'}. "
        f"They have not by: {', '.join(other) or 'no measure'}.",
        "",
    ]


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["mean"] is None:
        return "–"
    mean = f"**{number(cell['mean'])}**" if cell["best"] else number(cell["mean"])
    return mean if cell["low"] is None else f"{mean} ({number(cell['low'])} … {number(cell['high'])})"


if __name__ == "__main__":
    main()
