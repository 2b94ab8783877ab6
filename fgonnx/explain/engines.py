"""The rewritten models of an Explainer and their sessions: one for each size and question, the last few kept."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fgonnx.engine.graph.openvino import OpenVinoSession
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.session import Session
from fgonnx.engine.model.bind import with_sizes
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite import cache as caches
from fgonnx.engine.rewrite.options import NEXT, Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import ModelError
from fgonnx.explain import ids
from fgonnx.explain.beside import SideBySide, side_by_side
from fgonnx.explain.runtime import hold, not_run
from fgonnx.explain.source import of_whom
from fgonnx.explain.written import check_call
from fgonnx.labels import check_count

_KEPT_SIZES = 4


@dataclass
class Engine:
    """A rewritten model and its session, for one input size; `verified` once it was held against the source.

    `rows` computes those that ids select, where the graph takes them beside the ids.
    """

    rewritten: Rewritten
    session: Session | SideBySide | OpenVinoSession
    verified: bool = False
    rows: ids.Rows | None = None


class Engines:
    """Rewrites a model for what is asked of it, and opens sessions; from several threads at once.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    running : Running
        How the model runs.
    file : Rewritten, optional
        What a file is that fgonnx wrote, and that is run as it is.
    labels : sequence of str, optional
        Class names that were given, one for each entry of the head.

    Attributes
    ----------
    held : bool
        Whether results of another runtime are held against ONNX Runtime's; as `running` says, at first.
    """

    def __init__(
        self, loaded: LoadedModel, running: Running, file: Rewritten | None, labels: Sequence[str] | None
    ) -> None:
        self.loaded, self.running, self.held = loaded, running, running.verify
        self.build = caches.builder(running.cache)
        self._file, self._labels = file, labels
        self._engines: dict[Any, Engine] = {}
        self._lock = threading.Lock()

    def running_as(self, running: Running) -> Engines:
        """Return the same, run in another way, without sessions."""
        other = Engines(self.loaded, running, self._file, self._labels)
        other.build, other.held = self.build, self.held
        return other

    def get(
        self,
        options: Options,
        shape: Sequence[int] | None,
        others: Mapping[str, tuple[int, ...]],
        *,
        seed: bool,
        contrast: bool | None,
        forward: bool,
    ) -> Engine:
        """Return the rewritten model and its session; see `Explainer.engine`."""
        if self._file is not None:
            asked = options.contrast if contrast is None or contrast else None
            check_call(self._file, self.loaded.name, seed=seed, contrast=asked, forward=forward)
            return self._of_file(self._file)
        free = tuple(int(s) for s in shape[1:]) if shape is not None and self._free(options) else None
        contrast = options.contrast is not None if contrast is None else contrast
        key = (free, seed, contrast, forward, tuple((name, dims[1:]) for name, dims in sorted(others.items())))
        with self._lock:
            if key not in self._engines:
                given = options.explained_shape if key[0] is None else (1, *key[0])
                own = self._asked(options, contrast=contrast, forward=forward)
                loaded = with_sizes(self.loaded, others)
                rewritten = self.build(loaded, replace(own, input_shape=given, seed=seed))
                if self._labels is not None:
                    check_count(self._labels, rewritten.head_shape)
                session = self._opened(rewritten, loaded)
                while len(self._engines) >= _KEPT_SIZES:
                    self._engines.pop(next(iter(self._engines)))
                rows = None
                if rewritten.normal.given != rewritten.normal.input_name:
                    rows = ids.Rows(rewritten, self.running, self.loaded.folder)
                self._engines[key] = Engine(rewritten, session, rows=rows)
            return self._engines[key]

    def failure(self, error: ModelError, loaded: LoadedModel, *ran: Any) -> ModelError:
        """Return the error for a graph that the runtime does not take, or does not run."""
        return not_run(loaded) if self.running.form is not None else of_whom(loaded, error, *ran)

    def _of_file(self, r: Rewritten) -> Engine:
        """Return the engine of a written file, which is not held against a source."""
        with self._lock:
            if not self._engines:
                self._engines[None] = Engine(r, self._opened(r, self.loaded), verified=True)
            return self._engines[None]

    def _opened(self, r: Rewritten, loaded: LoadedModel) -> Session | SideBySide | OpenVinoSession:
        try:
            session = self.running.open(r.model, self.loaded.folder)
        except ModelError as error:
            raise self.failure(error, loaded) from error
        if not isinstance(session, OpenVinoSession):
            return side_by_side(r, session, self.running, self.loaded.folder)
        if self.held:
            session.hold = partial(hold, loaded, r)
        return session

    def _asked(self, options: Options, *, contrast: bool, forward: bool) -> Options:
        """Return the options of the graph to build: what is compared is an input of it, not one of its constants."""
        own = replace(options, form=self.running.form or options.form)
        if forward or not contrast:
            own = replace(own, contrast=None)
            return own.only("head") if forward else own
        outputs = options.outputs
        if outputs is not None:
            outputs = tuple(dict.fromkeys([*outputs, "target", "contrast"]))
        return replace(own, contrast=NEXT, outputs=outputs)

    def _free(self, options: Options) -> bool:
        """Tell whether a candidate input has free sizes other than the batch."""
        graph = self.loaded.ir.graph
        return any(
            v.shape is not None and any(not isinstance(d, int) for d in v.shape.dims[1:])
            for v in graph.inputs
            if v.name not in graph.initializers and options.input in (None, v.name)
        )
