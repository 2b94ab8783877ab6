"""Runs killed at random moments: what was there before is whole, and the same run completes it afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from PIL import Image
from pyarrow import parquet

from benchmarks.reliability import seeds
from fgonnx import files
from fgonnx.errors import FgonnxError

_PICTURES = 6


@dataclass(frozen=True)
class Kills:
    """What became of runs that were killed.

    Attributes
    ----------
    runs : int
        How many were killed.
    lost : int
        After how many a file was broken, or the run could not be completed.
    said : tuple of str
        What was wrong.
    """

    runs: int = 0
    lost: int = 0
    said: tuple[str, ...] = ()


def killed(count: int, seed: int) -> Kills:
    """Kill explain, rewrite, evaluate, compare and audit in turn, each at a random moment, and look at what is left."""
    rng = random.Random(seed)
    said = []
    for i in range(count):
        with tempfile.TemporaryDirectory(prefix="fgonnx-kill-") as name:
            folder = Path(name)
            _prepare(folder)
            arguments = _COMMANDS[i % len(_COMMANDS)]
            took = _run(arguments, folder, None) if i < len(_COMMANDS) else _TOOK[arguments[0]]
            _TOOK[arguments[0]] = took
            if i < len(_COMMANDS):
                _clear(folder, arguments)
            _run(arguments, folder, rng.uniform(0, took))
            wrong = [*_broken(folder), *_completed(arguments, folder)]
            said += [f"{arguments[0]}: {w}" for w in wrong[:1]]
    return Kills(count, len(said), tuple(said))


_TOOK: dict[str, float] = {}
_SHARDS = ("--sanity", "0", "--shard-size", "2")
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("explain", "m.onnx", "pictures", "-o", "out", "--preprocess", "unit", "--resume", "--no-cache"),
    ("rewrite", "m.onnx", "-o", "written.onnx"),
    ("evaluate", "m.onnx", "pictures", "-o", "out", "--preprocess", "unit", "--measures", "insertion", "--no-cache"),
    ("compare", "m.onnx", "m.onnx", "pictures", "-o", "out", "--preprocess", "unit", "--no-cache"),
    (*("audit", "m.onnx", "pictures", "-o", "out", "--preprocess", "unit", "--no-cache"), *_SHARDS),
)


def _prepare(folder: Path) -> None:
    (folder / "m.onnx").write_bytes((seeds.ROOT / "examples/shapes.onnx").read_bytes())
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(_PICTURES):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"pictures/{i}.png")
    (folder / "written.onnx").write_bytes((folder / "m.onnx").read_bytes())  # an earlier one, that is replaced


def _clear(folder: Path, arguments: Sequence[str]) -> None:
    for path in sorted((folder / "out").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def _run(arguments: Sequence[str], folder: Path, seconds: float | None) -> float:
    """Run a command, killed after some seconds; return how long it took."""
    begin = time.monotonic()
    code = f"import sys; sys.path.insert(0, {str(seeds.ROOT)!r}); from fgonnx.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FGONNX_CACHE": "off"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        if seconds is None and process.returncode not in (0, 1):
            raise RuntimeError(f"fgonnx {' '.join(arguments)} ended with {process.returncode}")
    return time.monotonic() - begin


def _broken(folder: Path) -> list[str]:
    """Return the files that cannot be read, but for temporary ones."""
    found = []
    for path in folder.rglob("*"):
        reads = _READERS.get(path.suffix)
        if reads is not None and not path.name.startswith(files.TEMPORARY):
            try:
                reads(path)
            except Exception as error:  # each library has kinds of its own
                found.append(f"{path.name} is broken ({type(error).__name__})")
    return found


def _picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


_READERS: dict[str, Callable[[Path], object]] = {
    ".png": _picture,
    ".npy": files.read_array,
    ".json": lambda path: files.parsed(path.read_text(encoding="utf-8"), path.name, FgonnxError),
    ".npz": lambda path: dict(np.load(path)),
    ".parquet": parquet.read_table,
    ".onnx": lambda path: onnx.checker.check_model(onnx.load(path)),
}


def _completed(arguments: Sequence[str], folder: Path) -> list[str]:
    try:
        _run(arguments, folder, None)
    except RuntimeError as error:
        return [str(error)]
    return _broken(folder)
