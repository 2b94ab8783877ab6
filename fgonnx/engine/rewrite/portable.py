"""The portable form: what every runtime reads in the same way. The rest of it is in the rules (`Emitter.portable`).

Each step is here because a runtime got a file wrong, or refused it, without it; docs/runtimes.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnx_ir.traversal import RecursiveGraphIterator

from fgonnx.engine.graph.emit import PREFIX, Emitter
from fgonnx.engine.graph.values import content_of
from fgonnx.engine.rewrite.own_weights import constant, copied, own_copies
from fgonnx.engine.rewrite.unpacked import unpack
from fgonnx.engine.rewrite.weight_readers import packed_weights, shared_weights

MOST = 7
"""Values that one node joins or divides at most: WebGPU binds ten buffers, and a shader needs some for itself."""

_POOLS = ("AveragePool", "LpPool", "MaxPool")
_QUANTISERS = ("DequantizeLinear", "QuantizeLinear")
_JOINING = ("Concat", "Max", "Min")


def make_portable(model: ir.Model) -> None:
    """Bring a written graph to the portable form. No result changes.

    Requires: no unused nodes, known sizes of pools with ceil_mode. Ensures: `portable_violations` finds nothing.
    """
    graph = model.graph
    op = Emitter(graph)
    for node in list(graph):
        if node.domain:
            continue
        if node.op_type == "ConvTranspose":
            _own_weights(op, node)
        elif node.op_type in _POOLS:
            _explicit_end(op, node)
        elif node.op_type == "Sum":
            _chained(op, node)
        elif node.op_type in _JOINING:
            _joined(op, node)
        elif node.op_type == "Split":
            _divided(op, node)
    unpack(op)
    own_copies(op)
    _name_results(graph)
    forget_shapes(graph)
    common.RemoveUnusedNodesPass()(model)  # sizes of what was written in another way; onnxruntime warns of each
    _keep_used_domains(model)


def forget_shapes(graph: ir.Graph) -> None:
    """Leave only inputs and outputs their shapes: one that binds the batch stops runtimes that fix it at the input."""
    for node in graph:
        for v in node.outputs:
            if not v.is_graph_output():
                v.shape = v.type = None


def _own_weights(op: Emitter, node: ir.Node) -> None:
    """Give a ConvTranspose weights of its own.

    OpenVINO keeps one repacked copy of a tensor for all nodes that read it: of a Conv's square weights, the Conv's.
    """
    w = node.inputs[1]
    if w is None or len(w.uses()) < 2 or not constant(w):
        return
    node.replace_input_with(1, copied(op, w, {}))


def _explicit_end(op: Emitter, node: ir.Node) -> None:
    """Write ceil_mode as padding at the end."""
    if not node.attributes.get_int("ceil_mode", 0):
        return
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    rank = op.rank(x) - 2
    kernel = _integers(node, "kernel_shape", [])
    pads = _integers(node, "pads", [0] * (2 * rank))
    ends = []
    for i, step in enumerate(_integers(node, "strides", [1] * rank)):
        reach = _integers(node, "dilations", [1] * rank)[i] * (kernel[i] - 1)
        ends.append((op.size(y, 2 + i) - 1) * step + reach + 1 - pads[i] - op.size(x, 2 + i))
    outside = [e - p for e, p in zip(ends, pads[rank:], strict=True)]
    if node.op_type == "AveragePool" and node.attributes.get_int("count_include_pad", 0) != 0 and max(outside) > 0:
        # The node's own padding counts in the divisor, the windows that stick out of it do not.
        own = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
        padded = op.in_front_of(node).Pad(x, own, 0.0)
        node.replace_input_with(0, padded)
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 0)
        pads, ends = [0] * rank, outside
    node.attributes["pads"] = ir.AttrInt64s("pads", [*pads[:rank], *(max(e, 0) for e in ends)])
    node.attributes.pop("ceil_mode")


def _chained(op: Emitter, node: ir.Node) -> None:
    """Write a Sum as additions, in its order."""
    here = op.in_front_of(node)
    terms = [v for v in node.inputs if v is not None]
    total = terms[0]
    for v in terms[1:-1]:
        total = here.Add(total, v)
    last = [total, terms[-1]] if len(terms) > 1 else [total]
    node.op_type = "Add" if len(terms) > 1 else "Identity"
    _set_inputs(node, last)


def _joined(op: Emitter, node: ir.Node) -> None:
    """Join many values in groups, and the groups."""
    values = [v for v in node.inputs if v is not None]
    if len(values) <= MOST:
        return
    here = op.in_front_of(node)
    axis = node.attributes.get_int("axis", None)
    while len(values) > MOST:
        groups = [values[i : i + MOST] for i in range(0, len(values), MOST)]
        values = [g[0] if len(g) == 1 else here.emit(node.op_type, *g, axis=axis) for g in groups]
    _set_inputs(node, values)


def _divided(op: Emitter, node: ir.Node) -> None:
    """Divide into groups, and the groups into their parts."""
    count = len(node.outputs)
    if count <= MOST:
        return
    axis = node.attributes.get_int("axis", 0)
    sizes = _sizes(node, axis)
    if sizes is None:
        return
    here = op.in_front_of(node)

    def divide(v: ir.Value, start: int, stop: int) -> list[ir.Value]:
        width = 1
        while (stop - start) > width * MOST:
            width *= MOST
        bounds = list(pairwise([*range(start, stop, width), stop]))
        parts = [sum(sizes[a:b]) for a, b in bounds]
        found = here.several("Split", v, parts, outputs=len(parts), axis=axis)
        if width == 1:
            return list(found)
        return [part for each, (a, b) in zip(found, bounds, strict=True) for part in divide(each, a, b)]

    assert node.inputs[0] is not None
    for old, new in zip(node.outputs, divide(node.inputs[0], 0, count), strict=True):
        name, new.shape, new.type = old.name, old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = None, name
    op.graph.remove(node, safe=True)


def _sizes(node: ir.Node, axis: int) -> list[int] | None:
    """Return the sizes of the parts of a Split, None where they are not known."""
    given = content_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is not None:
        return [int(n) for n in given]
    dims = [v.shape.dims[axis] if v.shape is not None else None for v in node.outputs]
    return [d for d in dims if isinstance(d, int)] if all(isinstance(d, int) for d in dims) else None


def _name_results(graph: ir.Graph) -> None:
    """Give outputs of fgonnx the name where they are computed: a copy at the end is merged, and its name lost."""
    for i, out in enumerate(list(graph.outputs)):
        node = out.producer()
        if node is None or node.op_type != "Identity" or not str(node.name).startswith(PREFIX):
            continue
        v = node.inputs[0]
        if v is None or v.producer() is None or v.is_graph_output() or not str(v.name).startswith(PREFIX):
            continue  # the source's own value, or an output already
        v.shape, v.type = out.shape, out.type
        graph.outputs[i] = v
        ir.convenience.replace_all_uses_with(out, v)
        name, out.name = out.name, None
        graph.remove(node, safe=True)
        v.name = name


def _keep_used_domains(model: ir.Model) -> None:
    """Declare the operator sets that are used, at a version in which quantisers have what they are used with."""
    nodes = list(RecursiveGraphIterator(model.graph))
    for function in model.functions.values():
        nodes += list(RecursiveGraphIterator(function))
    used = {"", *(n.domain for n in nodes)}
    for name in set(model.opset_imports) - used:
        del model.opset_imports[name]
    if any(n.op_type in _QUANTISERS and not n.domain for n in nodes) and model.opset_imports[""] < _QUANTISED_OPSET:
        model.opset_imports[""] = _QUANTISED_OPSET
        model.ir_version = max(model.ir_version, _QUANTISED_IR)


# Opset 19 changes no operator of 18 in what it computes here; the reference evaluator has its quantisers alone.
_QUANTISED_OPSET, _QUANTISED_IR = 19, 9


def _set_inputs(node: ir.Node, values: Sequence[ir.Value]) -> None:
    node.resize_inputs(len(values))
    for i, v in enumerate(values):
        node.replace_input_with(i, v)


def _integers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def portable_violations(model: onnx.ModelProto) -> list[str]:
    """Return what keeps a written model from running alike everywhere; see docs/runtimes.md.

    Parameters
    ----------
    model : onnx.ModelProto
        A rewritten model.

    Returns
    -------
    list of str
        One entry for every node or value, none for the portable form. Operators that the source itself has count where
        they can be written in another way.
    """
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    found = [f"value_info of '{v.name}'" for v in graph.value_info if v.name not in weights]
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    inputs = {v.name for v in graph.input}
    varying = set(inputs)
    for node in graph.node:
        if any(name in varying for name in node.input):
            varying.update(node.output)
    outputs = {v.name for v in graph.output}
    for node in graph.node:
        where = f"{node.op_type} '{node.name}'"
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        ours = node.name.startswith(PREFIX)
        if node.domain:
            continue
        if node.op_type == "ConvTranspose" and readers[node.input[1]] > 1 and node.input[1] not in varying:
            found.append(f"{where} shares its weights")
        if node.op_type in (*_JOINING, "Split") and max(len(node.input), len(node.output)) > MOST:
            found.append(f"{where} has more than {MOST} values")
        if node.op_type == "Sum":
            found.append(f"{where} is no Add")
        if node.op_type in _POOLS and given.get("ceil_mode"):
            found.append(f"{where} has ceil_mode")
        if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1].startswith(PREFIX):
            found.append(f"{where} gives indices")
        if node.op_type == "Resize" and ours and (given.get("axes") or not node.input[2]):
            found.append(f"{where} has axes or sizes in place of scales")
        if node.op_type == "OneHot" and ours:
            found.append(f"{where} is written by fgonnx")
        if node.op_type == "Identity" and ours and node.output[0] in outputs and node.input[0].startswith(PREFIX):
            found.append(f"{where} names an output")
    inferred = onnx.shape_inference.infer_shapes(model)
    ranks = _ranks(inferred.graph)
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        where = f"{node.op_type} '{node.name}'"
        if node.op_type == "MatMul" and node.name.startswith(PREFIX) and 1 in [ranks.get(n) for n in node.input]:
            found.append(f"{where} has a vector as factor")
        if node.op_type not in ("Add", "Div", "Mul", "Sub") or not node.name.startswith(PREFIX):
            continue
        reduced = [producers[n] for n in node.input if n in producers and producers[n].op_type.startswith("Reduce")]
        beside = [n for n in node.input if n not in varying and ranks.get(n, 0) > 0]
        if beside and any(ranks.get(r.input[0]) == 3 for r in reduced):
            found.append(f"{where} is a reduction of three axes with a vector")
    found += [*shared_weights(inferred.graph), *packed_weights(inferred.graph)]
    nodes = _all_nodes(graph.node)
    read = {name for n in nodes for name in n.input} | outputs
    found += [f"nothing reads the initializer '{name}'" for name in sorted(weights - read - inputs)]
    domains = {n.domain for n in nodes} | {n.domain for f in model.functions for n in f.node}
    versions = {o.domain: o.version for o in model.opset_import}
    found += [f"the operator set '{name}' is not used" for name in versions if name and name not in domains]
    if any(n.op_type in _QUANTISERS for n in graph.node) and versions.get("", 1) < _QUANTISED_OPSET:
        found.append(f"quantisers of opset {versions.get('', 1)}")
    return found


def _ranks(inferred: onnx.GraphProto) -> dict[str, int]:
    """Return the number of axes of every value whose shape is known."""
    ranks = {t.name: len(t.dims) for t in inferred.initializer}
    for v in (*inferred.value_info, *inferred.input, *inferred.output):
        if v.type.tensor_type.HasField("shape"):
            ranks.setdefault(v.name, len(v.type.tensor_type.shape.dim))
    return ranks


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    found = []
    for node in nodes:
        found.append(node)
        for a in node.attribute:
            for graph in (*a.graphs, *([a.g] if a.HasField("g") else [])):
                found += _all_nodes(graph.node)
    return found
