"""`python -m benchmarks.paper [PART ...]`: run the parts, write records and figures to docs/paper/, and docs/paper.md.

What is finished stays in `--out`, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.evaluation import ROOT
from benchmarks.paper import ablation, grid, perturbation, toys
from benchmarks.paper.page import page
from benchmarks.paper.perturbation import Network
from fgonnx import files

PARTS = ("toys", "grid", "ablation", "perturbation", "page")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("out/paper"), help="folder of the runs")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page")
    parser.add_argument("--methods", default=",".join(perturbation.METHODS))
    parser.add_argument("--images", type=int, default=50, help="pictures of the perturbation")
    parser.add_argument("--shapes", type=int, default=80, help="drawn pictures of the ablation")
    parser.add_argument("--threads", type=int, help="of a run")
    known = "a model, as MODEL.onnx or MODEL.onnx=PREPROCESS"
    parser.add_argument("--network", type=Network.parse, action="append", help=f"{known}; may be repeated")
    parser.add_argument("--pictures", type=Path, default=perturbation.PICTURES)
    parser.add_argument("--grid-network", type=Network.parse, default=grid.NETWORK, help=known)
    parser.add_argument("--grid-pictures", type=Path, default=grid.PICTURES)
    parser.add_argument("--grid-images", type=int, default=6)
    args = parser.parse_args(arguments)
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    parts = args.parts or PARTS
    out, results = args.out.resolve(), args.docs.resolve() / "paper"
    methods = args.methods.split(",")
    files.make_folder(results)
    if "toys" in parts:
        _store(results / "toys", found := toys.run(), toys.draw(found))
    if "grid" in parts:
        shown = (args.grid_network, args.grid_pictures.resolve(), args.grid_images)
        _store(results / "grid", grid.run(out / "grid", results / "grid.png", *shown, methods, args.threads))
    if "ablation" in parts:
        _store(results / "ablation", found := ablation.run(out, args.shapes, args.threads), ablation.draw(found))
    if "perturbation" in parts:
        networks = args.network or perturbation.NETWORKS
        missing = [str(p) for p in (args.pictures, *(n.path for n in networks)) if not p.exists()]
        if missing and args.parts:
            parser.error(f"not there: {', '.join(missing)}; give --network and --pictures")
        elif missing:
            print(f"perturbation left out, not there: {', '.join(missing)}")
        else:
            given = (networks, args.pictures.resolve(), args.images, methods, args.threads)
            found = perturbation.run(out / "perturbation", *given)
            _store(results / "perturbation", found, perturbation.draw(found))
    if "page" in parts:
        with files.replacing(results.parent / "paper.md") as temporary:
            temporary.write_text(page(stored(results)), encoding="utf-8")


def stored(folder: Path) -> dict[str, dict[str, object]]:
    """Read the records of a folder, by part."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def _store(path: Path, found: dict[str, object], figure: Figure | None = None) -> None:
    files.write_json(path.with_suffix(".json"), found)
    if figure is not None:
        content = io.BytesIO()
        figure.savefig(content, dpi=130, metadata={"Software": None})
        with files.replacing(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(content.getvalue())


if __name__ == "__main__":
    main()
