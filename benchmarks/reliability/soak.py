"""Long use of one process: mixed calls from 8 threads, their answers, and how the memory grows."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fgonnx
from benchmarks.reliability import seeds
from fgonnx.errors import FgonnxError

THREADS = 8
_METHODS = ("fullgrad", "gradient", "grad-cam", "smoothgrad", "integrated-gradients")
_WARM = 0.25  # share of the time after which memory is compared


@dataclass(frozen=True)
class Soak:
    """What became of long use.

    Attributes
    ----------
    seconds : float
        How long.
    calls : int
        How many calls.
    wrong : int
        Answers that differed from the first, and errors.
    growth : float
        How much the memory grew after the first quarter, in MiB.
    said : tuple of str
        What was wrong.
    """

    seconds: float = 0
    calls: int = 0
    wrong: int = 0
    growth: float = 0
    said: tuple[str, ...] = ()


def soaked(seconds: float, seed: int) -> Soak:
    """Call explainers of several methods, rewrites, inspections and refusals from 8 threads at once."""
    model = seeds.ROOT / "examples/shapes.onnx"
    x = np.random.default_rng(seed).normal(size=(2, 3, 64, 64)).astype(np.float32)
    calls = _calls(model, x)
    right = {name: call() for name, call in calls.items()}
    counts: Counter[str] = Counter()
    said: list[str] = []
    begin = time.monotonic()
    stop = threading.Event()

    def work(number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        while not stop.is_set():
            name = rng.choice(list(calls))
            try:
                same = np.array_equal(calls[name](), right[name])
            except Exception as error:  # counted, whatever it is
                same = False
                said.append(f"{name}: {type(error).__name__}: {error}"[:200])
            counts[f"{number}"] += 1
            if not same:
                counts["wrong"] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds * _WARM)
    warm = _memory()
    time.sleep(seconds * (1 - _WARM))
    stop.set()
    for thread in threads:
        thread.join()
    total = sum(n for name, n in counts.items() if name != "wrong")
    return Soak(time.monotonic() - begin, total, counts["wrong"], (_memory() - warm) / 2**20, tuple(said[:5]))


def _calls(model: Path, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return calls by name, each with an array as its answer."""
    shared = {m: fgonnx.Explainer(model, method=m, threads=1, **_settings(m)) for m in _METHODS}
    damaged = model.read_bytes()[:-100]

    def refused() -> Any:
        try:
            fgonnx.Explainer(damaged)
        except FgonnxError as error:
            return np.array(str(error))
        return np.array("")

    found: dict[str, Callable[[], Any]] = {m: lambda e=e: e(x, "star").saliency for m, e in shared.items()}  # type: ignore[misc]
    found["batch of one"] = lambda: shared["fullgrad"](x[:1]).saliency
    found["new explainer"] = lambda: fgonnx.Explainer(model, threads=1)(x).saliency
    found["rewrite"] = lambda: np.array(len(fgonnx.rewrite(model).graph.node))
    found["inspect"] = lambda: np.array(len(fgonnx.inspect(model)["explanation"]["sites"]))
    found["refused"] = refused
    return found


def _settings(method: str) -> dict[str, int]:
    return {"smoothgrad": {"samples": 3}, "integrated-gradients": {"steps": 4}}.get(method, {})


def _memory() -> int:
    """Return the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096
