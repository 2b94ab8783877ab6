"""Samples of a batch explained side by side, each in a thread of its own.

ONNX Runtime divides convolutions and matrix products among threads, but hardly the passes over memory that an
explanation is full of; and the values of a batch do not stay in the cache that those of one sample fit into. Small
models run in one piece: there the start of a run costs more than that.

Samples run apart in one thread, too: what a batch is rounded to then depends on threads as little as ONNX Runtime's
kernels do.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.providers import CPU
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.session import Array, Session
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.explain import batches

_LARGE = 1 << 28
"""Bytes of weights that are not read anew for every sample, nor kept in memory twice."""
_SMALL = 1 << 22
"""Values computed for a sample, below which samples run in one piece.

At eight samples and two threads, models of 2 million values are 1.1 to 1.5 times as fast in one piece, those of 6
million .75 to .85 times.
"""


class SideBySide:
    """A session that runs each sample of a batch apart: side by side where there are as many as threads, else in turn.

    What depends on the number of samples is run in one piece: a result that is not one row per sample, such as a list
    of what is found.

    Parameters
    ----------
    r : Rewritten
        The model.
    session : Session
        Runs with all threads at one operator.
    running : Running
        How the model runs.
    folder : Path, optional
        Folder of its external weights.
    """

    def __init__(self, r: Rewritten, session: Session, running: Running, folder: Path | None) -> None:
        self._r, self._session, self._folder = r, session, folder
        self._running, self._threads = running, running.used_threads
        self._single: Session | None = None
        self._apart = True
        self._lock = threading.Lock()
        self.inputs, self.outputs, self.types = session.inputs, session.outputs, session.types
        self.providers = session.providers

    def run(self, feeds: dict[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model; see `Session.run`."""
        count = len(feeds[self._r.normal.input_name])
        if not self._apart or count == 1:
            return self._session.run(feeds, outputs)
        samples = batches.cut(self._r, feeds, 1)
        if self._threads == 1 or count < self._threads:
            rows = [self._session.run(sample, outputs) for sample in samples]
        else:
            session = self._opened()
            with ThreadPoolExecutor(self._threads) as pool:
                rows = list(pool.map(lambda sample: session.run(sample, outputs), samples))
        if not all(array.shape == (1, *rows[0][name].shape[1:]) for row in rows for name, array in row.items()):
            self._apart = False
            return self._session.run(feeds, outputs)
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _opened(self) -> Session:
        """Return a session for one sample in one thread."""
        if not self._running.spin:  # then threads at the same operator leave the cores to others
            return self._session
        with self._lock:
            if self._single is None:
                self._single = replace(self._running, threads=1).session(self._r.model, self._folder)
            return self._single


def side_by_side(r: Rewritten, session: Session, running: Running, folder: Path | None) -> Session | SideBySide:
    """Return a session that runs samples side by side where it may: on processors, samples that are independent."""
    independent = r.normal.batched and not r.entangled
    large = running.used_threads > 1 and sum(_bytes(v) for v in r.model.graph.initializers.values()) > _LARGE
    small = _computed(r.model.graph) < _SMALL
    if not independent or large or small or session.providers != [CPU] or running.batch_size < 2:
        return session
    return SideBySide(r, session, running, folder)


def _computed(graph: Iterable[ir.Node]) -> int:
    """Return how many values the nodes compute for a sample, of those whose size is known."""
    shapes = (v.shape for node in graph for v in node.outputs)
    return sum(math.prod(d for d in shape if isinstance(d, int)) for shape in shapes if shape is not None)


def _bytes(weight: ir.Value) -> int:
    return 0 if weight.const_value is None else weight.const_value.nbytes
