"""A source model run on one sample, and its slopes along directions taken forwards from node to node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from fgonnx.audit.forward.controlflow import KINDS, written_out
from fgonnx.audit.forward.operators import Array, Floats, Operators, Unmeasured
from fgonnx.audit.forward.quantised import step_behind, through
from fgonnx.audit.forward.through import Tangents, Through, Ties
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import inputs_of, subgraphs_of
from fgonnx.engine.maps.sites import Site
from fgonnx.engine.normal.rounding import PREFIX
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.walk.declared import STEPS
from fgonnx.errors import ModelError
from fgonnx.explain.source import allowed_difference

_READ = (
    *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
    *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16),
    *(ir.DataType.INT32, ir.DataType.UINT32, ir.DataType.INT64, ir.DataType.UINT64),
)
_ARRAYS = [f"tensor({t})" for t in ("float", "double", "float16", "bool")] + [
    f"tensor({u}int{bits})" for u in ("", "u") for bits in (8, 16, 32, 64)
]
_MOST_BYTES = 1 << 31  # of values of one sample


class Forward:
    """Takes slopes forwards through a model.

    Parameters
    ----------
    model : ir.Model
        The source.
    folder : Path or None
        Folder of external weights.
    r : Rewritten
        What was made of it: which input is explained, and which value.
    sites : sequence of Site
        The terms of its explanation: which roundings are quantisers written by hand.
    """

    def __init__(self, model: ir.Model, folder: Path | None, r: Rewritten, sites: Sequence[Site] = ()) -> None:
        self._model = model.clone()
        if self._model.functions:
            common.InlinePass()(self._model)
            common.NameFixPass()(self._model)
        self._folder, self._head = folder, r.head
        self._input = r.normal.input_name if r.normal.selected is None else str(r.normal.selected.name)
        self._compute = Operators(dict(self._model.opset_imports))
        self._close = allowed_difference(model.graph)
        # A step has the slope zero, unless it is a quantiser written by hand, which passes that of what it rounds.
        self._steps = {str(v.name) for n in self._model.graph if n.op_type in STEPS for v in n.outputs}
        tied = {s.node for s in sites if s.op_type == "StraightThrough" and s.node.startswith(PREFIX)}
        self._straight = {name for name in self._steps if f"{PREFIX}{name}::real" in tied}
        # One of another name (inside a function, say) may be any of them: then no slope of a step is known.
        self._held = self._steps - self._straight if len(self._straight) == len(tied) else set()
        self._branches = any(n.op_type in KINDS and not n.domain for n in model.graph)
        self._opened: tuple[ir.Model, Session] | None = None
        self._taken: Mapping[str, Array] = {}  # the sample whose branches and steps are written out

    def slopes(
        self, feeds: Mapping[str, Array], entry: int, score: float, directions: Floats, *, other: bool = False
    ) -> tuple[Floats, bool]:
        """Return the derivatives of an entry of the head along directions.

        Parameters
        ----------
        feeds : mapping of str to numpy array
            The source's inputs, of one sample.
        entry : int
            Flat index of the entry explained.
        score : float
            What the explanation gives for it.
        directions : numpy array, (K, ...)
            Along which the explained input moves.
        other : bool
            Whether to choose the other one among equal values.

        Returns
        -------
        numpy array, (K,)
            The derivatives.
        bool
            Whether equal values moved differently, so that another choice among them is as right.

        Raises
        ------
        Unmeasured
            The slope cannot be taken through some node, or the values cannot be read.
        """
        ties = Ties(other, held=self._held, straight=self._straight)
        try:
            model, values = self._values(feeds)
        except ModelError as error:
            raise Unmeasured(f"onnxruntime does not give its inner values: {error}") from error
        if self._input not in values:
            raise Unmeasured(f"the source has no value '{self._input}', which is explained")
        tangents: dict[str, Tangents] = {self._input: directions.astype(np.float64)}
        steps: dict[str, tuple[Array | None, Array | None]] = {}
        proto = ir.to_proto(ir.Model(_without_weights(model.graph), ir_version=model.ir_version))
        captured = [_captured(node) for node in model.graph]
        left = Counter(name for node in proto.graph.node for name in node.input)
        left.update(name for names in captured for name in names)
        for node, inside in zip(proto.graph.node, captured, strict=True):
            if any(tangents.get(name) is not None for name in inside):
                raise Unmeasured(f"'{node.name or node.output[0]}' is a {node.op_type}")
            given = [values.get(name) if name else None for name in node.input]
            moved = [tangents.get(name) if name else None for name in node.input]
            if any(d is not None for d in moved):
                made = [values.get(name) for name in node.output]
                t = Through(node, given, made, moved, self._compute, ties)
                for name, value, d in zip(node.output, made, through(t), strict=True):
                    if d is not None and not np.isfinite(d).all():
                        raise Unmeasured(f"the slope of '{name}' ({node.op_type}) is not finite")
                    tangents[name] = d
                    if value is not None and value.dtype.kind in "iu":
                        behind = step_behind(node, given)
                        steps[name] = behind if behind[0] is not None else steps.get(node.input[0], (None, None))
            for name in (*node.input, *inside):
                left[name] -= 1
                if not left[name] and name != self._head:
                    tangents.pop(name, None)
        return self._at_head(values, tangents, steps, (entry, score), len(directions)), ties.met

    def _at_head(
        self,
        values: Mapping[str, Array],
        tangents: Mapping[str, Tangents],
        steps: Mapping[str, tuple[Array | None, Array | None]],
        explained: tuple[int, float],
        count: int,
    ) -> Floats:
        """Return the slopes of the entry explained, which has to be the score."""
        entry, score = explained
        if self._head not in values:
            raise Unmeasured(f"the source has no value '{self._head}', which is explained")
        rows = values[self._head].reshape(-1).astype(np.float64)
        scale, zero = steps.get(self._head, (None, None))
        if np.size(scale if scale is not None else 1) != 1:
            raise Unmeasured("the value explained has several scales")
        step = 1.0 if scale is None else float(np.reshape(scale, -1)[0])
        rows = step * (rows - (0.0 if zero is None else float(np.reshape(zero, -1)[0])))
        if entry >= len(rows) or abs(rows[entry] - score) > self._close * max(float(np.abs(rows).max()), 1e-3):
            raise Unmeasured(f"'{self._head}' of the source is not the score")
        found = tangents.get(self._head)
        return np.zeros(count) if found is None else np.asarray(found.reshape(count, -1)[:, entry]) * step

    def _values(self, feeds: Mapping[str, Array]) -> tuple[ir.Model, dict[str, Array]]:
        """Return the model, branches and steps that are taken written out, and all its values that can be read."""
        if self._opened is None or (self._branches and not _same(self._taken, feeds)):
            model = self._model.clone()
            written_out(model, self._folder, feeds)
            copy = model.clone()
            names = {str(v.name) for v in copy.graph.outputs}
            for v in (v for node in copy.graph for v in node.outputs):
                if v.name and v.name not in names and (v.dtype is None or v.dtype in _READ):
                    v.shape = None
                    copy.graph.outputs.append(v)
            session = Session(copy, folder=self._folder, providers=["cpu"], optimise=False)
            self._opened, self._taken = (model, session), dict(feeds)
        model, session = self._opened
        found = session.run(dict(feeds), [n for n in session.outputs if session.types[n] in _ARRAYS])
        if sum(a.nbytes for a in found.values()) > _MOST_BYTES:
            raise Unmeasured("its values are too large")
        weights = {
            str(name): v.const_value.numpy()
            for name, v in model.graph.initializers.items()
            if v.const_value is not None
        }
        return model, {**weights, **found, **{name: np.asarray(a) for name, a in feeds.items()}}


def _same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _captured(node: ir.Node) -> list[str]:
    """Return the names of the values around a node that its subgraphs read."""
    graphs = list(subgraphs_of(node))
    read = {v for graph in graphs for v in graph.outputs}
    made: set[ir.Value] = set()
    while graphs:
        graph = graphs.pop()
        made.update(graph.inputs, graph.initializers.values())
        for inner in graph:
            graphs += subgraphs_of(inner)
            read.update(inputs_of(inner))
            made.update(inner.outputs)
    return sorted(str(v.name) for v in read - made)


def _without_weights(graph: ir.Graph) -> Any:
    return ir.GraphView(graph.inputs, graph.outputs, nodes=graph, opset_imports=graph.opset_imports, name="source")
