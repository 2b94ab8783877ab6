"""The rows that ids select, as the value that a model with ids is explained with respect to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.lookups import LookUp
from fgonnx.engine.graph.values import dims_of, shaped
from fgonnx.errors import ModelError

PREFIX = "embedded/"


def embedded(model: ir.Model, x: ir.Value, found: Sequence[LookUp], where: str) -> ir.Value:
    """Return the value of all rows that ids select: a single one, or several tables' side by side.

    Requires: exact shapes. The graph is changed where there are several.

    Raises
    ------
    ModelError
        The rows of several tables are not those of the same ids.
    """
    values = list(dict.fromkeys(f.value for f in found))
    if len(values) == 1:
        return values[0]
    shapes = {dims_of(v)[:-1] for v in values}
    if len(shapes) > 1 or len({v.dtype for v in values}) > 1:
        listed = ", ".join(f"'{v.name}'" for v in values[:3])
        raise ModelError(
            f"{where}: parts of its ids '{x.name}' select rows of several tables ({listed}); ids that are looked up "
            "part by part are not explained"
        )
    # read: whatever was read of each table; joined: the rows of a token side by side, which are taken apart again
    graph = model.graph
    users = [[(node, i) for node, i in v.uses()] for v in values]
    op = Emitter(graph, prefix=PREFIX)
    sizes = [dims_of(v)[-1] for v in values]
    assert all(isinstance(size, int) for size in sizes)
    widths = [int(size) for size in sizes if isinstance(size, int)]
    joined = shaped(op.Concat(*values, axis=-1, name="rows"), [*dims_of(values[0])[:-1], sum(widths)])
    parts = op.several("Split", joined, widths, outputs=len(values), axis=-1)
    for v, part, used in zip(values, parts, users, strict=True):
        shaped(part, v)
        for node, i in used:
            node.replace_input_with(i, part)
    graph.sort()
    return joined
