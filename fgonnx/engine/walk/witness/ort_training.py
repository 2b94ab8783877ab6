"""engine="ort-training": cotangents by the gradient builder of ONNX Runtime's training build.

It replaces `backward.walk`. The builder gets a lowered copy of the path; the nodes it adds are imported into the
graph, where they read the model's own values. The rules provide the intercepts alone, never a cotangent, so that a
wrong derivative shows in the comparison of the engines and in the certificate.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.providers import TRAINING
from fgonnx.engine.graph.values import content_of, shaped
from fgonnx.engine.rules.registry import Unsupported
from fgonnx.engine.walk import backward
from fgonnx.engine.walk.witness.lower import LOWERINGS, Lowering, lower
from fgonnx.engine.walk.witness.operators import WAY_OUT
from fgonnx.errors import ModelError, ProviderError, Refusal, UnsupportedError
from fgonnx.wording import parameter

OPSET, IR_VERSION = 21, 10  # the newest that the training build reads

_CONTRIB = "com.microsoft"
_KEPT_SIZE = 1024  # elements up to which a floating-point constant keeps its content in the copy


def require() -> None:
    """Check that the training build is installed.

    Raises
    ------
    ProviderError
        If it is not.
    """
    if not TRAINING:
        raise ProviderError(
            f"{parameter('engine', 'ort-training')} needs ONNX Runtime's training build, which takes the place of the "
            "other wheels: in "
            "an environment of its own (Linux on x86-64, Python 3.11), pip install onnxruntime-training==1.19.2"
        )


def walk(op: Emitter, nodes: Sequence[ir.Node], head: ir.Value, seed: ir.Value, opset: int) -> backward.Walk:
    """Write the gradient of a head into the graph; see `backward.walk` for parameters and errors.

    Raises
    ------
    ProviderError
        If the training build is not installed.
    ModelError
        If the builder fails on the graph.
    """
    require()
    if opset > OPSET:
        raise ModelError(f"ONNX Runtime's training build reads opsets up to {OPSET}, this model has {opset}")
    copy = Copy(op, nodes, opset)
    built = build(copy.model([copy.twins[head]]), str(copy.twins[head].name), copy.sources)
    known = {str(twin.name): v for v, twin in copy.twins.items()}
    known[f"{copy.twins[head].name}_grad"] = seed
    imported = _import(op, built, known)
    cotangents = {
        v: imported[f"{twin.name}_grad"]
        for v, twin in copy.twins.items()
        if v in op.active and f"{twin.name}_grad" in imported
    }
    return backward.attach(op, nodes, cotangents, opset)


class Copy:
    """A lowered copy of a path of nodes, with names of its own.

    Parameters
    ----------
    op : Emitter
        Emitter of the graph of the nodes; its `active` set has the values with a cotangent.
    nodes : sequence of ir.Node
        The path, in order.
    opset : int
        Version of the default operator set.
    lowerings : mapping of str to callable
        Lowerings by operator.

    Attributes
    ----------
    twins : dict of ir.Value to ir.Value
        From every value of the path to its copy.
    inputs : dict of ir.Value to str
        From every value that is an input of the copy to its name there.
    sources : list of str
        Names of the inputs that have a gradient: the active values that nothing on the path computes.

    Raises
    ------
    UnsupportedError
        Naming every node the builder has no gradient for.
    """

    def __init__(
        self, op: Emitter, nodes: Sequence[ir.Node], opset: int, lowerings: Mapping[str, Lowering] = LOWERINGS
    ) -> None:
        self.twins: dict[ir.Value, ir.Value] = {}
        self.inputs: dict[ir.Value, str] = {}
        self.sources: list[str] = []
        self._lowerings = lowerings
        self._source_op = op
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="gradient")
        self._op = Emitter(self._graph, prefix="fg_")
        refused: list[Refusal] = []
        made = {v for node in nodes for v in node.outputs}
        for node in nodes:
            for v in node.inputs:
                if v is not None and v not in self.twins:
                    self._enter(v, source=v in op.active and v not in made)
            try:
                self._add(node)
            except Unsupported as error:
                refused.append(backward.refusal(node, opset, error))
                for v in node.outputs:
                    self._enter(v)
        if refused:
            raise UnsupportedError(refused)

    def model(self, outputs: Sequence[ir.Value]) -> onnx.ModelProto:
        """Return it as a model."""
        self._graph.outputs.extend(outputs)
        for v in [v for v in self._graph.inputs if not v.uses()]:
            self._graph.inputs.remove(v)
        proto: onnx.ModelProto = ir.to_proto(ir.Model(self._graph, ir_version=IR_VERSION))
        return proto

    def _enter(self, v: ir.Value, *, source: bool = False) -> None:
        """Copy a constant with its content if that may matter; anything else becomes an input."""
        content = v.const_value if not v.is_graph_input() else None
        small = (
            content is not None and not source and (content.size <= _KEPT_SIZE or not content.dtype.is_floating_point())
        )
        twin = ir.Value(name=f"v{len(self.twins)}", shape=v.shape, type=v.type, const_value=content if small else None)
        if small:
            self._graph.register_initializer(twin)
        else:
            self._graph.inputs.append(twin)
            self.inputs[v] = str(twin.name)
        if source:
            self.sources.append(self.inputs[v])
            # a node that reads a graph input twice would get one of its two gradients
            twin = shaped(self._op.Identity(twin), v)
        self._pair(v, twin)

    def _add(self, node: ir.Node) -> None:
        inputs = [None if v is None else self.twins[v] for v in node.inputs]
        made = lower(self._op, node, inputs, self._lowerings)
        if any(v in self._source_op.active and v.uses() for v in node.outputs[len(made) :]):
            raise Unsupported("ONNX Runtime's training build has a gradient for its first output alone", WAY_OUT)
        for v, twin in zip(node.outputs, made, strict=False):
            twin.type, twin.shape = v.type, v.shape
            self._pair(v, twin)

    def _pair(self, v: ir.Value, twin: ir.Value) -> None:
        self.twins[v] = twin
        if v in self._source_op.active:
            self._op.active.add(twin)


def build(model: onnx.ModelProto, head: str, sources: Sequence[str]) -> ir.Model:
    """Return the gradient graph of a model, built and run once in a separate process.

    Parameters
    ----------
    model : onnx.ModelProto
        A lowered copy.
    head : str
        The value to differentiate; `<head>_grad` is an input of the result.
    sources : sequence of str
        The inputs to differentiate by.

    Raises
    ------
    ModelError
        If the builder fails.
    """
    script = str(Path(__file__).with_name("builder.py"))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "gradient.onnx")
        source.write_bytes(model.SerializeToString())
        done = subprocess.run(
            [sys.executable, "-P", script, str(source), str(target), head, *sources], capture_output=True, text=True
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
            raise ModelError(f"ONNX Runtime's gradient builder fails on the model: {said[0]}. {WAY_OUT}")
        return ir.from_proto(onnx.load(target))


def _import(op: Emitter, built: ir.Model, known: dict[str, ir.Value]) -> dict[str, ir.Value]:
    """Import the nodes that compute values the graph lacks; return all values by their names in the builder's graph."""
    graph = built.graph
    graph.sort()
    values = dict(known)
    for name, constant in graph.initializers.items():
        if name not in values and (content := content_of(constant)) is not None:
            values[name] = op.constant(content)
    bound = {v: values[name] for v in [*graph.inputs, *graph.initializers.values()] if (name := str(v.name)) in values}
    for node in graph:
        named = [v for v in node.outputs if v.name]
        if any(v.name not in values for v in named):
            op.place(copy_node(node, bound, op.unique, shapes=True))
        for v in named:
            bound[v] = values[str(v.name)] = values.get(str(v.name)) or bound[v]
    op.graph.opset_imports.setdefault(_CONTRIB, 1)
    return values
