"""Bare onnxruntime sessions of a file, its batch fixed, and of its rewritten twin, opened as fgonnx opens it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

Array = npt.NDArray[Any]

#: Seconds: threads that have just worked keep spinning, those of onnxruntime for some 40 ms; the next call, in another
#: process, starts when they sleep.
PAUSE = 0.15
#: Name of the free first axis in exported networks.
BATCH = "N"


@dataclass(frozen=True)
class Bare:
    """A session and what it is fed.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        The session.
    feeds : dict of str to numpy array
        One array per input.
    """

    session: ort.InferenceSession
    feeds: dict[str, Array]

    def __call__(self) -> list[Array]:
        """Run once and return all outputs."""
        return self.session.run(None, self.feeds)


def bare(model: onnx.ModelProto | Path, x: Array, threads: int, **settings: Any) -> Bare:
    """Open a model for batches like `x`, or one that explains itself (for the largest entry).

    The batch of the former is fixed, which is when onnxruntime runs it fastest. One that fgonnx wrote is opened as
    docs/forms.md recommends: its batch left free, without memory patterns.

    Parameters
    ----------
    model : onnx.ModelProto or Path
        Its first input takes `x`; a second one is an index per sample. A file is read by onnxruntime alone, its first
        axis must be called as in the exports of `benchmarks.networks`.
    x : numpy array
        The batch.
    threads : int
        Threads within an operator.
    **settings
        Attributes of onnxruntime.SessionOptions to set.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if isinstance(model, onnx.ModelProto) and model.producer_name == "fgonnx":
        options.enable_mem_pattern = False
    else:
        for name in {BATCH} if isinstance(model, Path) else free_dimensions(model):
            options.add_free_dimension_override_by_name(name, len(x))
    for name, value in settings.items():
        setattr(options, name, value)
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    arrays = (x, np.full(len(x), -1, np.int64))
    return Bare(session, {i.name: array for i, array in zip(session.get_inputs(), arrays, strict=False)})


def alternate(
    calls: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Call each in turn, once to warm up and then `rounds` times; return the seconds of the latter."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = clock()
            call()
            seconds[name].append(clock() - start)
    return {name: values[1:] for name, values in seconds.items()}


def free_dimensions(model: onnx.ModelProto) -> set[str]:
    """Return the names of the inputs' first axes that have no fixed size."""
    firsts = [v.type.tensor_type.shape.dim[0] for v in model.graph.input if v.type.tensor_type.shape.dim]
    return {d.dim_param for d in firsts if d.dim_param}
