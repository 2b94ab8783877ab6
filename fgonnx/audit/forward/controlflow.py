"""Control flow of a source, written out as one sample takes it: the branch of an If, the steps of a Loop or a Scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fgonnx.audit.forward.operators import Array, Unmeasured
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.session import Session
from fgonnx.engine.normal.expand.controlflow import inline, replace, scanned_axis, unrolled_loop, unrolled_scan

KINDS = ("If", "Loop", "Scan")
_MOST_STEPS, _MOST_NODES = 2_000, 50_000  # written out, of which every value is read


def written_out(model: ir.Model, folder: Path | None, feeds: Mapping[str, Array]) -> None:
    """Write out all branches and steps that a sample takes, also those inside of others.

    Conditions and numbers of steps are those that onnxruntime computes for the sample.

    Parameters
    ----------
    model : ir.Model
        The source, which is changed.
    folder : Path or None
        Folder of external weights.
    feeds : mapping of str to numpy array
        The sample.

    Raises
    ------
    Unmeasured
        What is written out is too large, or a condition cannot be read.
    """
    count = 0
    while (node := next((n for n in model.graph if n.op_type in KINDS and not n.domain), None)) is not None:
        count += 1
        prefix = f"{node.name}/{count}/"
        op = Emitter(model.graph, prefix=prefix, before=node)
        replace(model.graph, node, _WRITERS[node.op_type](_At(model, folder, feeds, node, prefix), op))
        if len(model.graph) > _MOST_NODES:
            raise Unmeasured(f"'{node.name or node.outputs[0].name}' ({node.op_type}) takes too many steps")


class _At:
    """A node with graphs inside, in a model that is run on a sample."""

    def __init__(
        self, model: ir.Model, folder: Path | None, feeds: Mapping[str, Array], node: ir.Node, prefix: str
    ) -> None:
        self._model, self._folder, self._feeds, self.node, self.prefix = model, folder, feeds, node, prefix

    def body(self, name: str = "body") -> ir.Graph:
        """Return a graph inside."""
        return self.node.attributes[name].as_graph()

    def value(self, v: ir.Value) -> Array:
        """Return what the sample makes of a value around the node."""
        name = str(v.name)
        if v.const_value is not None:
            return v.const_value.numpy()
        if name in self._feeds:
            return self._feeds[name]
        copy = self._model.clone()
        return self._run(copy, next(u for n in copy.graph for u in n.outputs if u.name == name))

    def steps(self) -> int:
        """Return how often the sample runs the body of a Loop."""
        copy = self._model.clone()
        node = next(n for n in copy.graph if n.outputs[0].name == self.node.outputs[0].name)
        body = node.attributes["body"].as_graph()
        counted = Emitter(body, prefix=self.prefix, before=None).Identity(body.inputs[0])
        counted.type = ir.TensorType(ir.DataType.INT64)
        body.outputs.append(counted)
        before = list(node.outputs)
        node.resize_outputs(len(before) + 1)
        node.outputs[-1].name = f"{self.prefix}steps"
        node.outputs[-1].type = counted.type
        return len(self._run(copy, node.outputs[-1]))

    def some(self, steps: int) -> int:
        """Return a number of steps that can be written out."""
        if not 0 < steps <= _MOST_STEPS:
            name = self.node.name or self.node.outputs[0].name
            raise Unmeasured(f"'{name}' ({self.node.op_type}) takes {steps} steps")
        return steps

    def _run(self, model: ir.Model, v: ir.Value) -> Array:
        if v not in model.graph.outputs:
            model.graph.outputs.append(v)
        session = Session(model, folder=self._folder, providers=["cpu"], optimise=False)
        return session.run(dict(self._feeds), [str(v.name)])[str(v.name)]


def _if(at: _At, op: Emitter) -> list[ir.Value]:
    condition = at.node.inputs[0]
    if condition is None:
        raise Unmeasured("an If has no condition")
    holds = bool(np.reshape(at.value(condition), -1)[0])
    return inline(op, at.body("then_branch" if holds else "else_branch"), [], at.prefix)


def _loop(at: _At, op: Emitter) -> list[ir.Value]:
    return unrolled_loop(op, at.node, at.some(at.steps()), at.prefix)


def _scan(at: _At, op: Emitter) -> list[ir.Value]:
    source, axis = scanned_axis(at.node)
    return unrolled_scan(op, at.node, at.some(at.value(source).shape[axis]), at.prefix)


_WRITERS: dict[str, Callable[[_At, Emitter], list[ir.Value]]] = {"If": _if, "Loop": _loop, "Scan": _scan}
