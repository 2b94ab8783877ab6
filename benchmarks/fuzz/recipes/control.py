"""Control flow and local functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.fuzz.builder import LOCAL, Builder, Undrawn, Value, type_of
from benchmarks.fuzz.recipes.registry import recipe

_SIMPLE = ("Relu", "Tanh", "Sigmoid", "Neg", "Softsign", "Identity")


def _info(name: str, v: Value, shape: bool = True) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, type_of(v.array), [None] * v.rank if shape else None)


def _chain(b: Builder, name: str) -> tuple[list[onnx.NodeProto], str]:
    """Return one to three nodes in a row, and the name of what they give."""
    nodes = []
    for _ in range(b.whole(1, 3)):
        out = b.name("c")
        nodes.append(helper.make_node(b.any(_SIMPLE), [name], [out]))
        name = out
    return nodes, name


@recipe("If")
def branch(b: Builder, op_type: str) -> Value:
    """By a constant, by a size, by another input, or by the explained input itself."""
    v = b.data()
    way = b.whole(0, 3)
    if way == 0:
        condition = b.const(np.array(b.chance(0.5)))
    elif way == 1:
        size = b.emit("Gather", b.emit("Shape", v, batch=False), b.const(np.array(-1, np.int64)), batch=False)
        condition = b.emit("Equal", replace(size, moves=False), b.const(np.array(v.shape[-1], np.int64)), batch=False)
    elif way == 2:
        condition = b.input(np.array(b.chance(0.5)), batch=False, name=b.name("flag"))
    else:
        mean = b.emit("ReduceMean", v, keepdims=0, batch=False)
        condition = b.emit("Greater", mean, b.scalar(0.0))
        if b.form == "free":
            raise Undrawn("one branch for all samples")
    graphs = []
    for name in ("then", "else"):
        nodes, out = _chain(b, v.name)
        if b.chance(0.5):
            weight = (b.rng.standard_normal(()) + 1.0).astype(v.dtype)
            nodes.append(helper.make_node("Mul", [out, f"{out}_w"], [f"{out}_y"]))
            given = [numpy_helper.from_array(weight, f"{out}_w")]
            graphs.append(helper.make_graph(nodes, name, [], [_info(f"{out}_y", v)], given))
        else:
            graphs.append(helper.make_graph(nodes, name, [], [_info(out, v)]))
    b.extra = (v,)
    return b.emit(op_type, condition, then_branch=graphs[0], else_branch=graphs[1], batch=v.batch)


@recipe("Loop")
def loop(b: Builder, op_type: str) -> Value:
    """A few steps with a state, and now and then results that are stacked."""
    v = b.data()
    state, step, go = b.name("state"), b.name("i"), b.name("go")
    nodes, out = _chain(b, state)
    gated = b.name("c")
    nodes.append(helper.make_node(b.any(["Add", "Mul", "Sub"]), [out, v.name], [gated]))
    goes = b.name("go")
    nodes.append(helper.make_node("Identity", [go], [goes]))
    number = helper.make_tensor_value_info
    inputs = [number(step, onnx.TensorProto.INT64, []), number(go, onnx.TensorProto.BOOL, []), _info(state, v)]
    outputs = [number(goes, onnx.TensorProto.BOOL, []), _info(gated, v)]
    stacked = b.chance(0.3)
    if stacked:
        copy = b.name("c")
        nodes.append(helper.make_node("Identity", [gated], [copy]))
        outputs.append(_info(copy, v))
    body = helper.make_graph(nodes, "body", inputs, outputs)
    count = b.const(np.array(b.whole(1, 3), np.int64))
    condition = b.const(np.array(True)) if b.chance(0.5) else None
    b.extra = (v,)
    if not stacked:
        return b.emit(op_type, count, condition, b.emit("Tanh", v), body=body)
    last, all_steps = b.emit(op_type, count, condition, b.emit("Tanh", v), body=body, outputs=2)
    b.keep(last)
    axes = list(range(1, all_steps.rank))
    return b.emit("Transpose", all_steps, perm=[1, 0, *axes[1:]], batch=True)


@recipe("Scan")
def scan(b: Builder, op_type: str) -> Value:
    """Along a sequence, with a state."""
    v = b.data(3)
    first = b.emit("Squeeze", b.emit("Slice", v, b.ints(0), b.ints(1), b.ints(1)), b.ints(1))
    state, entry = b.name("state"), b.name("entry")
    out, copy = b.name("c"), b.name("c")
    nodes, inner = _chain(b, entry)
    nodes += [helper.make_node("Add", [state, inner], [f"{out}_s"]), helper.make_node("Tanh", [f"{out}_s"], [out])]
    nodes.append(helper.make_node("Identity", [out], [copy]))
    body = helper.make_graph(
        nodes, "body", [_info(state, first), _info(entry, first)], [_info(out, first), _info(copy, first)]
    )
    fields = {"scan_input_axes": [1], "scan_output_axes": [1], "num_scan_inputs": 1}
    if b.chance(0.3):
        fields |= {"scan_input_directions": [1]}
    last, seen = b.emit(op_type, first, v, body=body, outputs=2, **fields)
    if b.chance(0.5):
        b.keep(last)
        return seen
    b.keep(seen)
    return last


@recipe(f"{LOCAL}:Gate")
def local_function(b: Builder, op_type: str) -> Value:
    """A function of the file's own, with an attribute, called once or twice."""
    v = b.data()
    name = f"Gate{len(b.functions)}"
    nodes, out = _chain(b, "a")
    leak = helper.make_node("LeakyRelu", [out], ["slope"])
    leak.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT))
    nodes += [leak, helper.make_node("Sigmoid", ["a"], ["g"]), helper.make_node("Mul", ["slope", "g"], ["y"])]
    function = helper.make_function(
        LOCAL, name, ["a"], ["y"], nodes, [helper.make_opsetid("", b.opset)], attributes=["alpha"]
    )
    b.functions.append(function)
    v = b.emit(name, v, domain=LOCAL, alpha=0.2)
    b.used.add(f"{LOCAL}:Gate")
    return b.emit(name, v, domain=LOCAL, alpha=0.5) if b.chance(0.3) else v


@recipe("SequenceAt", "SequenceLength", "ConcatFromSequence")
def sequence(b: Builder, op_type: str) -> Value:
    """Parts of a value in a sequence: one of them, their number, or all of them joined again."""
    v = b.data(3)
    axis = b.axis(v, least=2) % v.rank
    parts, out = b.name("parts"), b.name()
    if b.chance(0.5):
        sizes = b.ints(1, v.shape[axis] - 1)
        steps, given = [helper.make_node("SplitToSequence", [v.name, sizes.name], [parts], axis=axis)], [v, sizes]
    else:
        other = b.emit("Neg", v)
        steps, given = [helper.make_node("SequenceConstruct", [v.name, other.name], [parts])], [v, other]
    if op_type == "SequenceAt":
        place = b.const(np.array(b.any([0, 1, -1]), np.int64))
        steps.append(helper.make_node(op_type, [parts, place.name], [out]))
        return b.chain(steps, [*given, place], batch=v.batch)
    if op_type == "ConcatFromSequence":
        return b.chain([*steps, helper.make_node(op_type, [parts], [out], axis=axis)], given, batch=v.batch)
    steps += [helper.make_node(op_type, [parts], [f"{out}_n"])]
    steps += [helper.make_node("Cast", [f"{out}_n"], [f"{out}_f"], to=type_of(v.array))]
    return b.chain([*steps, helper.make_node("Mul", [v.name, f"{out}_f"], [out])], given, batch=v.batch)
