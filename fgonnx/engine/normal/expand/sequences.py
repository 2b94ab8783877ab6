"""Expand sequences and optional values whose lengths and places are known into the tensors they hold.

SplitToSequence becomes Split, SequenceAt the element, ConcatFromSequence a Concat; what only builds sequences is left
without use. Loops that carry sequences are unrolled as others are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import say_why
from fgonnx.engine.graph.values import content_of, dims_of, optional, producer_of, required
from fgonnx.engine.normal.expand.controlflow import inline, replace

_FOR = "fgonnx.written_for"
BUILT = (
    "Identity",
    "Optional",
    "OptionalGetElement",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SplitToSequence",
)
"""Operators that build or pass on a sequence of known length; they go when what reads it is written out."""


def elements(graph: ir.Graph, v: ir.Value | None) -> list[ir.Value]:
    """Return the tensors of a sequence in order; where it is split from one, the Split is written.

    Raises
    ------
    NotImplementedError
        If its length, or a place in it, is not known.
    """
    node = v.producer() if v is not None else None
    if node is None or node.domain or node.op_type not in BUILT:
        raise NotImplementedError("the sequence that it reads is not built of a known number of tensors")
    if node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return [required(node, i) for i in range(len(node.inputs))]
    if node.op_type == "SplitToSequence":
        return _parts(graph, node)
    found = elements(graph, optional(node, 0))
    if node.op_type == "SequenceInsert":
        place = _place(optional(node, 2), len(found), most=len(found), default=len(found))
        return [*found[:place], required(node, 1), *found[place:]]
    if node.op_type == "SequenceErase":
        place = _place(optional(node, 1), len(found), most=len(found) - 1, default=-1)
        return [*found[:place], *found[place + 1 :]]
    return found


def _place(position: ir.Value | None, count: int, *, most: int, default: int = 0) -> int:
    """Return a place from the front; negative ones count from the end."""
    known = content_of(position)
    if position is not None and known is None:
        raise NotImplementedError("a place in the sequence is not constant")
    place = default if known is None else int(known.reshape(()))
    place += count if place < 0 else 0
    if not 0 <= place <= most:
        raise NotImplementedError(f"place {place} is not in a sequence of {count}")
    return place


def _parts(graph: ir.Graph, node: ir.Node) -> list[ir.Value]:
    """Return the parts of a tensor that a node splits into a sequence."""
    x, given = required(node, 0), optional(node, 1)
    axis = node.attributes.get_int("axis", 0)
    keeps = "keepdims" not in node.attributes or bool(node.attributes["keepdims"].as_int())
    size = dims_of(x)[axis]
    if not isinstance(size, int):
        raise NotImplementedError("it is split along the batch")
    sizes = _sizes(given, size)
    op = Emitter(graph, prefix=f"{node.name or node.op_type}/", before=node)
    parts = (
        [x] if len(sizes) == 1 else _once(node, x, lambda: op.several("Split", x, sizes, axis=axis, outputs=len(sizes)))
    )
    if given is not None or keeps:
        return parts
    return [_once(node, part, partial(op.several, "Squeeze", part, [axis], outputs=1))[0] for part in parts]


def _once(node: ir.Node, x: ir.Value, write: Callable[[], Sequence[ir.Value]]) -> list[ir.Value]:
    """Return what has been written of x for a node, or write it."""
    for user, _ in x.uses():
        if user.meta.get(_FOR) == node.name:
            return list(user.outputs)
    written = write()
    producer_of(written[0]).meta[_FOR] = node.name
    return list(written)


def _sizes(given: ir.Value | None, size: int) -> list[int]:
    if given is None:
        return [1] * size
    known = content_of(given)
    if known is None:
        raise NotImplementedError("the sizes of its parts are not constant")
    if known.ndim:
        return [int(n) for n in known]
    step = int(known)
    return [min(step, size - start) for start in range(0, size, step)]


def _at(graph: ir.Graph, op: Emitter, node: ir.Node) -> ir.Value:
    """The element itself."""
    found = elements(graph, node.inputs[0])
    return found[_place(required(node, 1), len(found), most=len(found) - 1)]


def _length(graph: ir.Graph, op: Emitter, node: ir.Node) -> ir.Value:
    """The number of elements, a constant."""
    return op.constant(np.array(len(elements(graph, node.inputs[0])), np.int64))


def _concat(graph: ir.Graph, op: Emitter, node: ir.Node) -> ir.Value:
    """The elements side by side, along an axis of theirs or a new one."""
    found = elements(graph, node.inputs[0])
    if not found:
        raise NotImplementedError("the sequence that it reads is empty")
    axis = node.attributes["axis"].as_int()
    if "new_axis" in node.attributes and node.attributes["new_axis"].as_int():
        found = [op.Unsqueeze(v, [axis]) for v in found]
    return op.Concat(*found, axis=axis, name="joined")


def _held(v: ir.Value | None) -> ir.Value | None:
    """Return what an optional value holds; a tensor or a sequence stands for one that is there."""
    maker = v.producer() if v is not None else None
    if maker is not None and maker.op_type == "Optional" and not maker.domain:
        return optional(maker, 0)
    if v is not None and isinstance(v.type, ir.OptionalType):
        raise NotImplementedError("whether the optional value that it reads is there is not known")
    return v


def _get(graph: ir.Graph, op: Emitter, node: ir.Node) -> ir.Value:
    """What an optional value holds."""
    held = _held(node.inputs[0])
    if held is None:
        raise NotImplementedError("the optional value that it reads is empty")
    return held


def _has(graph: ir.Graph, op: Emitter, node: ir.Node) -> ir.Value:
    """Whether an optional value is there, a constant."""
    return op.constant(np.array(_held(optional(node, 0)) is not None))


_READERS: dict[str, Callable[[ir.Graph, Emitter, ir.Node], ir.Value]] = {
    "ConcatFromSequence": _concat,
    "OptionalGetElement": _get,
    "OptionalHasElement": _has,
    "SequenceAt": _at,
    "SequenceLength": _length,
}


def expand(model: ir.Model, node: ir.Node) -> bool:
    """Replace what reads a sequence or an optional value by what it reads; False where that is not known."""
    op = Emitter(model.graph, prefix=f"{node.name or node.op_type}/", before=node)
    old = node.outputs[0]
    try:
        found = _READERS[node.op_type](model.graph, op, node)
    except NotImplementedError as error:
        return say_why(node, str(error))
    except ValueError:  # a shape that the next run tells
        return False
    if found.producer() is None or found in node.inputs or found.is_graph_output():
        found = op.Identity(found, name="element")
    if found.type is None:
        found.type = old.type
    replace(model.graph, node, [found])
    return True


def expand_map(model: ir.Model, node: ir.Node) -> bool:
    """Write the body of a SequenceMap for every element; False where their number is not known."""
    graph, body = model.graph, node.attributes["body"].as_graph()
    given = [required(node, i) for i in range(len(node.inputs))]
    op = Emitter(graph, prefix=f"{node.name or node.op_type}/", before=node)
    try:
        held = [elements(graph, v) if isinstance(v.type, ir.SequenceType) else v for v in given]
    except NotImplementedError as error:
        return say_why(node, str(error))
    except ValueError:  # a shape that the next run tells
        return False
    count = min(len(v) for v in held if isinstance(v, list))
    columns: list[list[ir.Value]] = [[] for _ in node.outputs]
    for i in range(count):
        arguments = [v[i] if isinstance(v, list) else v for v in held]
        for column, v in zip(columns, inline(op, body, arguments, f"{node.name}/{i}/"), strict=True):
            column.append(v)
    found = [op.SequenceConstruct(*column, name="mapped") for column in columns]
    for v, old in zip(found, node.outputs, strict=True):
        v.type = old.type
    replace(graph, node, found)
    for v in found:
        producer_of(v).name = f"{node.name}"  # should it be refused, then as the model's own
    return True


EXPANDERS: dict[str, Callable[[ir.Model, ir.Node], bool]] = {
    **dict.fromkeys(_READERS, expand),
    "SequenceMap": expand_map,
}
