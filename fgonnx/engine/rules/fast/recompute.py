"""Forward values that the backward pass recomputes instead of keeping them (rematerialisation).

Forward values that the gradient reads stay in memory until it runs, once per layer. Of a GELU decomposed by an
exporter, h (1 + erf(h / sqrt 2)) / 2, it reads up to four values of the widest layer, all of which follow from h.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter

_AFFINE = ("Add", "Sub", "Mul", "Div")


def error_functions(op: Emitter, nodes: Sequence[ir.Node]) -> None:
    """Make the nodes written after `nodes` read copies of their Erf and of the affine nodes around it.

    A copy runs when it is first read. Results are bit-identical.
    """
    known = set(nodes)
    scalings = [v.producer() for n in nodes if n.op_type == "Erf" and not n.domain and (v := n.inputs[0]) is not None]
    for base in dict.fromkeys(v for node in scalings if node is not None and (v := _operand(op, node)) is not None):
        copies = _copies(op, base, known)
        new = {v.producer() for v in copies.values()}
        for v, copy in copies.items():
            for reader, i in list(v.uses()):
                if reader not in known and reader not in new:
                    reader.replace_input_with(i, copy)


def _operand(op: Emitter, node: ir.Node) -> ir.Value | None:
    """Return the operand of an Erf, or of an affine node whose other operand is one number; None for other nodes."""
    if node.domain or node.op_type not in (*_AFFINE, "Erf"):
        return None
    rest = [v for v in node.inputs if (array := op.array(v)) is None or array.size != 1]
    return rest[0] if len(rest) == 1 else None


def _copies(op: Emitter, base: ir.Value, known: set[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Copy all Erf and affine nodes that depend on a value alone, each right after its original."""
    copies: dict[ir.Value, ir.Value] = {}
    reached = [base]
    while reached:
        v = reached.pop()
        for node in dict.fromkeys(n for n in v.consumers() if n in known and _operand(op, n) is v):
            copy = copy_node(node, copies, op.unique, shapes=True)
            if v is base:
                for i, w in enumerate(copy.inputs):
                    copy.replace_input_with(i, _with_other_rank(op, w, op.rank(base)))
            op.graph.insert_after(node, copy)
            reached.append(node.outputs[0])
    return copies


def _with_other_rank(op: Emitter, v: ir.Value | None, rank: int) -> ir.Value | None:
    """Return a number with another rank, so that onnxruntime does not merge the copy with its original."""
    array = op.array(v)
    if array is None:
        return v
    axes = array.ndim + 1 if array.ndim < rank else array.ndim - 1
    return op.constant(np.reshape(array, (1,) * axes))
