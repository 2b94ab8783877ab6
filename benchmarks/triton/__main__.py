"""An exported model repository in Triton Inference Server: `python -m benchmarks.triton`.

Takes the server out of the package `nvidia-pytriton`, which has it without the backend for ONNX Runtime; `backend.py`
takes that one's place. Clients of both protocols ask for classes of their own, several at once; every answer is held
against an `Explainer`'s. Then a second version is exported, which the server is to take up. Needs Linux and the extra
`test`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

import fgonnx
from fgonnx.engine.rewrite.options import Options
from fgonnx.jobs.export import export_triton
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.triton import Exporting

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "examples" / "shapes.onnx"
PACKAGE, NUMPY = "nvidia-pytriton==0.7.0", "numpy<2"  # the stub of its Python backend was built for numpy 1
PORTS = {"http": 18000, "grpc": 18001, "metrics": 18002}
CLOSE = 2e-5
ASKED = (-1, 0, 1, 2, 3, 4, 5, -1, 0, 1, 2, 3)


def pip(*arguments: str) -> None:
    """Run pip."""
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments], check=True)


def installed(folder: Path) -> Path:
    """Unpack the server, and put the backend in its place; return the folder of the server."""
    pip("download", "--no-deps", "-d", str(folder), PACKAGE)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    server = folder / "pytriton" / "tritonserver"
    python, ours = server / "backends" / "python", server / "backends" / "onnxruntime"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", python)
    for program in (python / "triton_python_backend_stub", server / "bin" / "tritonserver"):
        program.chmod(0o755)
    ours.mkdir()
    shutil.copy(Path(__file__).with_name("backend.py"), ours / "model.py")
    pip("install", "--target", str(ours / "packages"), NUMPY, "onnxruntime")
    return server


def started(server: Path, repository: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the server."""
    libraries = f"{server.parents[1] / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    ports = [f"--{name}-port={port}" for name, port in PORTS.items()]
    how = [
        "--model-control-mode=poll",
        "--repository-poll-secs=1",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=5",
    ]
    folders = [f"--model-repository={repository}", f"--backend-directory={server / 'backends'}"]
    command = [str(server / "bin" / "tritonserver"), *folders, *ports, *how, "--http-address=127.0.0.1"]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    with log.open("wb") as out:
        return subprocess.Popen([*command, "--grpc-address=127.0.0.1"], stdout=out, stderr=out, env=environment)


def until(what: str, holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if holds():
                return
        except (OSError, tritonclient.http.InferenceServerException):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"Triton was not {what} within a minute")


def right(client: Any, library: Any, x: np.ndarray, asked: int, expected: Any, i: int) -> bool:
    """Tell whether the server's answer to one sample is that of an Explainer."""
    image = library.InferInput("image", list(x.shape), "FP32")
    image.set_data_from_numpy(x)
    target = library.InferInput("target_index", [1, 1], "INT64")
    target.set_data_from_numpy(np.array([[asked]], np.int64))
    found = client.infer("shapes_explained", [image, target])
    return all(
        np.abs(found.as_numpy(name).reshape(array.shape[1:]) - array[i]).max()
        <= CLOSE * max(1.0, np.abs(array[i]).max())
        for name, array in (("saliency", expected.saliency), ("score", expected.score), ("target", expected.target))
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    x = np.random.default_rng(0).normal(size=(len(ASKED), 3, 64, 64)).astype(np.float32)
    explainer = fgonnx.Explainer(SHAPES)
    largest = explainer(x).target
    expected = explainer(x, [int(large) if a < 0 else a for a, large in zip(ASKED, largest, strict=True)])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        repository, log = folder / "models", folder / "log"

        def export() -> None:
            export_triton(SHAPES, repository, Options(), Reading(), Exporting(max_delay=100))

        export()
        server = installed(folder)
        process = started(server, repository, log)
        try:
            web = tritonclient.http.InferenceServerClient(f"127.0.0.1:{PORTS['http']}")
            until("ready", lambda: web.is_server_ready() and web.is_model_ready("shapes_explained"))
            for name, library in (("http", tritonclient.http), ("grpc", tritonclient.grpc)):
                address = f"127.0.0.1:{PORTS[name]}"
                clients = [library.InferenceServerClient(address) for _ in ASKED]
                with ThreadPoolExecutor(len(ASKED)) as pool:
                    rows = [(clients[i], library, x[i : i + 1], ASKED[i], expected, i) for i in range(len(ASKED))]
                    answers = list(pool.map(lambda row: right(*row), rows))
                print(f"{name}: {sum(answers)} of {len(answers)} right")
            image = tritonclient.http.InferInput("image", [1, 3, 64, 64], "FP32")
            image.set_data_from_numpy(x[:1])
            wanted = tritonclient.http.InferRequestedOutput("logits", class_count=1)
            print("class:", web.infer("shapes", [image], outputs=[wanted]).as_numpy("logits").item().decode())
            export()
            until("at version 2", lambda: web.get_model_metadata("shapes_explained")["versions"] == ["2"])
            print("version 2 taken up")
        finally:
            process.kill()
            process.wait()
        together = [int(n) for n in re.findall(r"requests together: (\d+)", log.read_text(errors="replace"))]
        print("requests run together:", together)


if __name__ == "__main__":
    main()
