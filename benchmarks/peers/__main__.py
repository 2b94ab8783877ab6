"""The same five jobs beside other libraries: `python -m benchmarks.peers captum=ENV ...` writes docs/peers.md.

ENV is the folder of a virtual environment in which the library is installed. Every job of a library is a script in
`jobs/`, written as its documentation shows it; it runs in a process of its own, in a folder with the example models.
Libraries that are not given keep what docs/peers.json says of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, today
from fgonnx._version import __version__

ROOT = Path(__file__).resolve().parents[2]
JOBS = Path(__file__).with_name("jobs")
RESULTS, PAGE = ROOT / "docs" / "peers.json", ROOT / "docs" / "peers.md"
TITLES = {
    "picture": "why this decision, on a picture",
    "int8": "does the int8 file look at the same",
    "detector": "one detection of a detector",
    "audio": "which part of a recording",
    "own": "a method of one's own",
}
PEERS = {
    "fgonnx": ("fgonnx", "the .onnx file"),
    "captum": (
        "captum",
        "the torch.nn.Module: the class from the training code with the file's weights, or, where there is none, what "
        "onnx2torch makes of the file",
    ),
    "gradcam": ("grad-cam", "the torch.nn.Module, as captum"),
    "dianna": ("dianna", "the .onnx file, or a function of batches"),
    "ovxai": ("openvino_xai", "the .onnx file, read by OpenVINO"),
}
"""Name of the distribution, and what it takes as a model."""

SEEN = {
    ("fgonnx", "picture"): "the map over the picture; the certificate with the object",
    ("captum", "picture"): "the attribution over the small picture, as a figure; a convergence delta",
    ("gradcam", "picture"): "the map over the small picture",
    ("dianna", "picture"): "the map over the small picture, as a figure; another run gives another map",
    ("ovxai", "picture"): "the map over the small picture",
    ("fgonnx", "int8"): "a picture for each pair, tables, the layers that differ, an exit code",
    ("dianna", "int8"): "a correlation for each picture, by code of one's own",
    ("ovxai", "int8"): "a correlation for each picture, by code of one's own",
    ("fgonnx", "detector"): "the map of the best detection over the picture; the certificate",
    ("dianna", "detector"): "the map of the best class, wherever its window is",
    ("fgonnx", "audio"): "waveform, map and certificate on one axis of time",
    ("dianna", "audio"): "segments coloured over the waveform",
    ("fgonnx", "own"): "a method with a name and settings for all commands; the map over the picture",
    ("captum", "own"): "an attribution over the small picture, as a figure",
    ("captum", "detector"): "the attribution over the grey picture, as a figure, by code that finds the best window",
    ("captum", "audio"): "the attribution over the waveform, as a figure",
    ("gradcam", "detector"): "the map over the picture, by code that finds the best class",
    ("gradcam", "own"): "the map over the small picture; weights of a class activation map, nothing else",
    ("ovxai", "detector"): "the box and a map over the picture, which is strongest beside the box",
    ("ovxai", "own"): "the map over the small picture, through classes that the pages of the library do not show",
}
WITHOUT = {
    ("dianna", "own"): "methods are those of the package",
    ("ovxai", "audio"): "takes pictures",
}

HEAD = """# Beside other libraries

The same five jobs, each as a script of its own (`benchmarks/peers/jobs/`), written as the library's documentation
shows it. Lines are those of the script without empty ones; seconds are processor time on one thread, of the whole
process with its imports, in the second of two runs ({machine}). The files hold their preprocessing and labels, which
fgonnx reads and the others are told. `python -m benchmarks.peers` measures them.

| library | takes as a model |
| --- | --- |
{rows}"""
TAIL = """
These are jobs that fgonnx was made for: deployed files. With the model in torch and time for research, captum has many
more methods and hooks; grad-cam has metrics for class activation maps; dianna takes any function; openvino_xai explains
in OpenVINO's own pipeline.
"""
COLUMNS = "| library | lines | seconds | what one sees |\n| --- | ---: | ---: | --- |\n"


def lines_of(script: Path) -> int:
    """Return how many lines a script has, without empty ones."""
    return sum(bool(line.strip()) for line in script.read_text(encoding="utf-8").splitlines())


def _processor_time() -> float:
    """Return the seconds that processes started here have taken, user and system."""
    import resource  # Windows has none

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tried(peer: str, job: str, python: Path, folder: Path) -> dict[str, Any]:
    """Run a job once to warm up the disk, once for the time."""
    script = JOBS / f"{peer}_{job}.py"
    path = [str(ROOT / "examples"), *([str(ROOT)] if peer == "fgonnx" else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "FGONNX_CACHE": "off"}
    environment["OMP_NUM_THREADS"] = "1"
    took = 0.0
    for _ in range(2):
        start = _processor_time()
        done = subprocess.run([str(python), str(script)], cwd=folder, env=environment, capture_output=True, text=True)
        took = _processor_time() - start
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["?"])[-1]
            return {"lines": lines_of(script), "failed": re.sub(r"/\S*/", "", last)[:160]}
    return {"lines": lines_of(script), "seconds": round(took, 1)}


def measured(peer: str, environment: Path) -> dict[str, Any]:
    """Return what all jobs of a library took."""
    python = environment / "bin" / "python"
    asked = f"import importlib.metadata as m; print(m.version({PEERS[peer][0]!r}))"
    version = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=False).stdout.strip()
    version = __version__ if peer == "fgonnx" else version
    found: dict[str, Any] = {"version": version, "jobs": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "examples", folder / "examples")
        tutorial = (ROOT / "docs" / "tutorials" / "int8.md").read_text(encoding="utf-8")
        int8 = tutorial.split("```python\n")[1].split("```")[0]
        for made in (["examples/scene.py", "scene"], ["examples/tones.py", "sound"], ["-c", int8]):
            environ = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, *made], cwd=folder, env=environ, check=True, capture_output=True)
        for job in TITLES:
            if (JOBS / f"{peer}_{job}.py").exists():
                found["jobs"][job] = tried(peer, job, python, folder)
    return found


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    known = [peer for peer in PEERS if peer in results["peers"]]
    rows = "".join(
        f"| {name} {results['peers'][peer]['version']} | {takes} |\n"
        for peer, (name, takes) in PEERS.items()
        if peer in known
    )
    text = HEAD.format(machine=results["machine"], rows=rows)
    for job, title in TITLES.items():
        text += f"\n## {title[0].upper()}{title[1:]}\n\n{COLUMNS}"
        for peer in known:
            one = results["peers"][peer]["jobs"].get(job)
            if one is None:
                text += f"| {PEERS[peer][0]} | – | – | {WITHOUT[peer, job]} |\n"
            elif "failed" in one:
                text += f"| {PEERS[peer][0]} | {one['lines']} | – | the script ends with: `{one['failed']}` |\n"
            else:
                text += f"| {PEERS[peer][0]} | {one['lines']} | {one['seconds']} | {SEEN[peer, job]} |\n"
    return text + TAIL


def main() -> None:
    """Measure the libraries that are given, and write the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"peers": {}}
    for peer, _, environment in (given.partition("=") for given in sys.argv[1:]):
        results["peers"][peer] = measured(peer, Path(environment).absolute())
        print(peer, results["peers"][peer])
    about = describe()
    results["machine"] = f"{about['cores']} cores of {about['processor']}, {about['system']}, {today()}"
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
