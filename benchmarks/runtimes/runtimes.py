"""The runtimes: how each is installed beside the others, and how one file is run in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RUNNERS = Path(__file__).with_name("runners")
PIP, NPM, HERE = "pip", "npm", "here"


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    Attributes
    ----------
    key, name : str
        In file names, and in the table.
    runner : str
        File in `runners`.
    packages : tuple of str
        What is installed for it; the first names it.
    by : str
        Who installs: pip, into a folder of its own that goes before all others; npm; or nobody.
    env : mapping of str to str
        More environment variables.
    heavy : bool
        Whether it is given large models.
    without : tuple of str
        Cases that it is not given, for the time they take.
    """

    key: str
    name: str
    runner: str
    packages: tuple[str, ...]
    by: str = PIP
    env: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = True
    without: tuple[str, ...] = ()


RUNTIMES = (
    Runtime("ort", "ONNX Runtime, CPU", "run_onnxruntime.py", ("onnxruntime",), HERE),
    Runtime(
        "ort_format", "ONNX Runtime, `.ort` file", "run_onnxruntime.py", ("onnxruntime",), HERE, {"ORT_FORMAT": "1"}
    ),
    Runtime("ort_oldest", "ONNX Runtime, CPU, oldest", "run_onnxruntime.py", ("onnxruntime==1.20.0",)),
    Runtime(
        "ort_openvino", "ONNX Runtime's OpenVINO build, CPU provider", "run_onnxruntime.py", ("onnxruntime-openvino",)
    ),
    Runtime(
        "ort_openvino_provider",
        "ONNX Runtime's OpenVINO build, OpenVINO provider",
        "run_onnxruntime.py",
        ("onnxruntime-openvino",),
        env={"PROVIDER": "OpenVINOExecutionProvider"},
    ),
    Runtime("node", "onnxruntime-node", "run_node.cjs", ("onnxruntime-node",), NPM),
    Runtime("web_wasm", "onnxruntime-web, WebAssembly, Chromium", "run_web.py", ("onnxruntime-web",), NPM),
    Runtime(
        "web_gpu",
        "onnxruntime-web, WebGPU in software",
        "run_web.py",
        ("onnxruntime-web",),
        NPM,
        {"BACKEND": "webgpu"},
        heavy=False,
        without=("resnet20", "vit"),
    ),
    Runtime("openvino", "OpenVINO, CPU, float32", "run_openvino.py", ("openvino",)),
    Runtime("tract", "tract", "run_tract.py", ("tract",)),
    Runtime("opencv", "OpenCV, new engine", "run_opencv.py", ("opencv-python",), HERE),
    Runtime("reference", "onnx.reference", "run_reference.py", ("onnx",), HERE, heavy=False),
    Runtime("onnx2torch", "onnx2torch", "run_onnx2torch.py", ("onnx2torch",), heavy=False),
)


def folder_of(r: Runtime, envs: Path) -> Path | None:
    """Return the folder a runtime is installed in, None for one of this environment."""
    return None if r.by == HERE else envs / ("node" if r.by == NPM else r.key)


def install(r: Runtime, envs: Path) -> None:
    """Install a runtime where it is missing."""
    folder = folder_of(r, envs)
    if folder is None or installed(r, envs):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if r.by == NPM:  # without scripts, which would fetch binaries for GPUs
        command = [
            "npm",
            "install",
            "--ignore-scripts",
            "--no-fund",
            "--no-audit",
            "--prefix",
            str(folder),
            *r.packages,
        ]
    else:
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), *r.packages]
        command += ["--no-deps"] if r.key == "onnx2torch" else []  # torch is here already
    subprocess.run(command, check=True)


def installed(r: Runtime, envs: Path) -> bool:
    """Tell whether a runtime is there."""
    return version(r, envs) is not None


def version(r: Runtime, envs: Path) -> str | None:
    """Return the version of a runtime, None where it is not installed."""
    folder, name = folder_of(r, envs), re.split("[=<>]", r.packages[0])[0]
    if r.by == NPM:
        assert folder is not None
        path = folder / "node_modules" / name / "package.json"
        return json.loads(path.read_text())["version"] if path.exists() else None
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    if folder is not None:
        code = (
            "import importlib.metadata as m, sys; "
            f"print(next(d.version for d in m.distributions(path=[{str(folder)!r}]) if d.name == {name!r}))"
        )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def run(r: Runtime, envs: Path, case: Path, stem: str, *, limit: float, more: Mapping[str, str] | None = None) -> str:
    """Run one file; return why it failed, or an empty text."""
    folder, runner = folder_of(r, envs), RUNNERS / r.runner
    env = {**os.environ, "OMP_NUM_THREADS": "1", **r.env, **(more or {})}
    env.pop("PYTHONPATH", None)
    program = sys.executable
    if r.by == NPM:
        assert folder is not None
        modules = folder / "node_modules"
        env |= {
            "NODE_PATH": str(modules),
            "RUNTIME_DIST": str(modules / "onnxruntime-web" / "dist"),
            "LIMIT": str(limit),
        }
        program = "node" if runner.suffix == ".cjs" else sys.executable
    elif folder is not None:
        env["PYTHONPATH"] = str(folder)
    result = case / f"{stem}.{r.key}.json"
    result.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [program, str(runner), str(case), stem, r.key], env=env, capture_output=True, text=True, timeout=limit + 15
        )
    except subprocess.TimeoutExpired:
        return f"no result in {limit:.0f} s"
    if done.returncode == 0 and result.exists():
        return ""
    return reason(done.stderr.splitlines()) or f"ended with code {done.returncode}"


def reason(lines: Sequence[str]) -> str:
    """Return the line of an error output that says what was wrong."""
    said = [line.strip() for line in lines if line.strip() and not line.startswith(("Node.js", "    at ", " at "))]
    errors = [
        line for line in said if re.search(r"[Ee]rror|[Ee]xception|Failed|failed|not implemented|[Ii]mpossible", line)
    ]
    return re.sub(r"\s+", " ", (errors or said or [""])[-1])[:300]
