"""Measure where written files run: `python -m benchmarks.runtimes [--install] [--runtimes A,B] [--cases A,B]`.

Every file is run by every runtime that is installed (`--install` installs those that are missing, into folders of
their own under --envs), each run in a process of its own, with one thread. What was measured is kept in
docs/runtimes.json, which docs/runtimes.md is written from; a part that is run again replaces that part.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.fingerprints import ROOT
from benchmarks.runtimes import cases, page
from benchmarks.runtimes.cases import CASES, Case
from benchmarks.runtimes.runtimes import RUNTIMES, Runtime, install, run, version

STORED = ROOT / "docs" / "runtimes.json"
LIMIT = 120.0
#: Changes of the input in the last bit, to see what rounding alone does to a map.
PERTURBATIONS = 2


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__)
    parser.add_argument("--envs", type=Path, default=ROOT / ".runtimes", help="folder of the environments")
    parser.add_argument("--install", action="store_true", help="install runtimes that are missing")
    parser.add_argument("--runtimes", default=",".join(r.key for r in RUNTIMES))
    parser.add_argument("--cases", default=",".join(c.name for c in CASES))
    parser.add_argument("--page", action="store_true", help="only write the page from what is stored")
    args = parser.parse_args()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {"runtimes": {}, "cases": {}}
    if not args.page:
        chosen = [r for r in RUNTIMES if r.key in args.runtimes.split(",")]
        if args.install:
            for r in chosen:
                install(r, args.envs)
        with tempfile.TemporaryDirectory() as folder:
            measure(stored, chosen, [c for c in CASES if c.name in args.cases.split(",")], args.envs, Path(folder))
    (ROOT / "docs" / "runtimes.md").write_text(page.render(stored))


def measure(stored: dict[str, Any], runtimes: list[Runtime], chosen: list[Case], envs: Path, folder: Path) -> None:
    """Run the cases in the runtimes, and put what was found into `stored`."""
    for case in chosen:
        place = folder / case.name
        if not cases.write(case, place):
            print(f"{case.name}: the model is missing")
            continue
        truth = _Truth(place, envs)
        sizes = {stem: (place / f"{stem}.onnx").stat().st_size for stem in ("plain", "input")}
        stored["cases"][case.name] = {
            "what": case.what,
            "bytes": sizes,
            "rounding": _rounding(place, envs, truth["input"]),
        }
        for r in runtimes:
            if (number := version(r, envs)) is None or (case.heavy and not r.heavy) or case.name in r.without:
                continue
            entry = stored["runtimes"].setdefault(r.key, {"name": r.name, "cases": {}})
            entry["version"] = number
            entry["cases"][case.name] = found = _measured(r, envs, place, truth)
            print(f"{case.name:15} {r.key:12} {json.dumps(found)[:200]}", flush=True)
        stored["machine"] = {**machine.describe(), "date": machine.today()}
        STORED.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")


class _Truth(dict[str, Any]):
    """Outputs of ONNX Runtime, by file, computed when they are asked for."""

    def __init__(self, place: Path, envs: Path) -> None:
        super().__init__()
        self.place, self.envs = place, envs

    def __missing__(self, stem: str) -> Any:
        if why := run(RUNTIMES[0], self.envs, self.place, stem, limit=LIMIT):
            raise RuntimeError(f"{self.place.name} {stem} does not run in ONNX Runtime: {why}")
        self[stem] = cases.get(self.place, stem, RUNTIMES[0].key)
        return self[stem]


def _measured(r: Runtime, envs: Path, place: Path, truth: _Truth) -> dict[str, Any]:
    """Run the files of one case in one runtime."""
    found: dict[str, Any] = {}
    seconds = {}
    for stem in ("plain", "input", "argmax", "optional"):
        if stem in ("argmax", "optional") and place.name != "shapes" and "input" in seconds:
            continue
        more = {"OFFER": "1"} if stem == "optional" else None
        if why := run(r, envs, place, stem, limit=LIMIT, more=more):
            found[stem] = {"error": why}
            continue
        outputs = cases.get(place, stem, r.key)
        seconds[stem] = json.loads((place / f"{stem}.{r.key}.json").read_text())["seconds"]
        if stem == "plain":
            found[stem] = {}
            continue
        wanted = truth[stem]
        missing = sorted(set(wanted) - set(outputs))
        if missing:
            found[stem] = {"error": f"no output of the name {', '.join(missing)}"}
            continue
        chosen = bool(np.array_equal(outputs["target"].reshape(-1), wanted["target"]))
        found[stem] = {"target": chosen, **differences(outputs, wanted)}
    for stem in ("input", "argmax"):
        if {"plain", stem} <= set(seconds):
            found["ms"] = [1e3 * seconds["plain"], 1e3 * seconds[stem]]
            break
    return found


def differences(outputs: dict[str, Any], wanted: dict[str, Any]) -> dict[str, float]:
    """Return the largest differences of map and certificate: relative to the map's maximum, and to the score's."""
    ours, theirs = (np.asarray(o["saliency"], np.float64).reshape(wanted["saliency"].shape) for o in (outputs, wanted))
    scale = max(float(np.abs(wanted["score"]).max()), float(np.abs(wanted["contributions"]).max()))
    certificate = max(
        float(np.abs(np.asarray(outputs[n], np.float64).reshape(wanted[n].shape) - wanted[n]).max())
        for n in ("contributions", "completeness", "score")
    )
    return {"map": float(np.abs(ours - theirs).max() / np.abs(theirs).max()), "certificate": certificate / scale}


def _rounding(place: Path, envs: Path, truth: dict[str, Any]) -> float:
    """Return what a change of the input in its last bits does to the map in ONNX Runtime itself."""
    feeds = json.loads((place / "feeds.json").read_text())
    (name,) = set(feeds) - {"target_index"}
    path = place / feeds[name]["file"]
    clean = np.fromfile(path, np.float32)
    worst = 0.0
    for seed in range(PERTURBATIONS):
        noise = np.random.default_rng(seed).uniform(-1e-6, 1e-6, clean.shape).astype(np.float32)
        (clean * (1 + noise)).tofile(path)
        if not run(RUNTIMES[0], envs, place, "input", limit=LIMIT):
            worst = max(worst, differences(cases.get(place, "input", RUNTIMES[0].key), truth)["map"])
    clean.tofile(path)
    return worst


if __name__ == "__main__":
    main()
