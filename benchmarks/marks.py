"""Whether an audit finds a mark by its clusters, by how maps are made: `python -m benchmarks.marks`.

Draws the pictures of `examples/marked.py`, of which the star carries a mark in a corner in six of ten, and audits the
network that leans on it and the one that never saw it. Printed are, for each way, the clusters named after a place, how
many of the marked pictures are in those of that corner, and how many others. `--folder` and `--model` audit another
data set, on which every named cluster is one to look at.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from fgonnx.auditing import audit, records
from fgonnx.jobs.audit.report import build, clusters

ROOT = Path(__file__).resolve().parents[1]
CORNER = "bottom_right"
WAYS: dict[str, dict[str, Any]] = {
    "abs": {"psi": "abs"},
    "positive": {"psi": "positive"},
    "signed": {"psi": "signed"},
    "grad-cam": {"method": "grad-cam"},
}


def found(model: Path, data: Path, run: Path, marked: set[str], way: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Audit and say which clusters are named, and what of the marked pictures is in them."""
    audit(model, data, run, sanity=0, pictures=False, maps="none", **way, **more)
    read = build.read(run)
    grouping = clusters.group(read.files, read.columns, read.about["labels"], len(read.sites))
    names = [row["name"] for row in records(run, ["row"]).column("row").to_pylist()]
    named = [c for c in (grouping.clusters if grouping else ()) if c["place"] is not None]
    in_corner = [c for c in named if c["place"] == CORNER]
    held = {
        names[n] for n, k in (grouping.of_rows() if grouping else {}).items() if k in {c["cluster"] for c in in_corner}
    }
    return {
        "clusters": len(grouping.clusters) if grouping else 0,
        "named": [f"{c['place']}:{c['count']}" for c in named],
        "marked": f"{len(held & marked)} of {len(marked)}",
        "others": len(held - marked),
        "share there": [round(c["places"][c["place"]], 2) for c in in_corner],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=360)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--preprocess")
    given = parser.parse_args()
    print(machine.describe())
    sys.path.insert(0, str(ROOT / "examples"))
    import marked

    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        if given.folder is not None:
            for way, options in WAYS.items():
                more = {"preprocess": given.preprocess} if given.preprocess else {}
                line = found(given.model, given.folder, base / way, set(), options, **more)
                print(given.model.name, way, json.dumps(line), flush=True)
            return
        for seed in range(7, 7 + given.seeds):
            names = set(marked.write(base / f"{seed}", given.count, seed))
            for network in ("marked", "shapes"):
                for way, options in WAYS.items():
                    run = base / f"{seed}-{network}-{way}"
                    line = found(ROOT / "examples" / f"{network}.onnx", base / f"{seed}", run, names, options)
                    print(seed, network, way, json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
