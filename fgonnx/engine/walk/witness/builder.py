"""Builds a gradient graph with ONNX Runtime's training build, and runs it once: `python builder.py IN OUT HEAD X...`.

It is a separate process, which imports nothing of fgonnx: on some graphs the build or the first run crashes, and must
not take the user's process with it.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi._pybind_state import GradientGraphBuilder

_SEVERE = 4
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def build(model: bytes, head: str, sources: set[str]) -> bytes:
    """Return the model with its gradient: `<head>_grad` is an input, `<source>_grad` are outputs."""
    options = ort.SessionOptions()
    options.log_severity_level = _SEVERE
    builder = GradientGraphBuilder(model, {head}, sources, "", options)
    builder.build()
    built = onnx.load_from_string(builder.get_model())
    (value,) = [v for v in built.graph.output if v.name == head]
    cotangent = built.graph.input.add()
    cotangent.CopyFrom(value)
    cotangent.name = f"{head}_grad"  # the builder does not declare it as an input
    content: bytes = built.SerializeToString()
    return content


def try_out(model: bytes) -> None:
    """Run a model on random numbers, with N = 2 in free dimensions k*N."""
    options = ort.SessionOptions()
    options.log_severity_level = _SEVERE
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        shape = [d if isinstance(d, int) else 2 * int(d.split("*")[0] if "*" in d else 1) for d in value.shape]
        feeds[value.name] = rng.uniform(0.5, 1.5, shape).astype(_TYPES.get(value.type, np.float32))
    session.run(None, feeds)


def main(source: str, target: str, head: str, *sources: str) -> None:
    """Read a model from a file, write its gradient graph to another, and run it."""
    graph = build(Path(source).read_bytes(), head, set(sources))
    Path(target).write_bytes(graph)
    with contextlib.suppress(ort.capi.onnxruntime_pybind11_state.RuntimeException):
        try_out(graph)  # random numbers may be invalid inputs; the point is that the process survives


if __name__ == "__main__":
    main(*sys.argv[1:])
