"""Expansion by a builder: a function that computes a node's result by other operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import say_why
from fgonnx.engine.normal.expand.controlflow import replace

Builder = Callable[..., ir.Value | tuple[ir.Value | None, ...]]
Expander = Callable[[ir.Model, ir.Node], bool]


def expanders(builders: Mapping[tuple[str, str], Builder]) -> dict[tuple[str, str], Expander]:
    """Return the expansion of each builder, by domain and operator.

    A builder gets an Emitter, the inputs in ONNX order and the attributes by keyword, and returns the outputs, None
    for those it does not compute. It raises NotImplementedError for unsupported options.
    """
    return {key: partial(expand, builder) for key, builder in builders.items()}


def expand(builder: Builder, model: ir.Model, node: ir.Node) -> bool:
    """Expand a node into standard operators; False where one of its options or sizes is not supported."""
    op = Emitter(model.graph, prefix=f"{node.name or node.op_type}/")
    attributes = {name: _plain(a.value) for name, a in node.attributes.items()}
    before = len(model.graph)
    try:
        built = builder(op, *node.inputs, **attributes)
    except (NotImplementedError, TypeError, ValueError) as error:
        if isinstance(error, NotImplementedError):
            say_why(node, str(error))
        for extra in list(model.graph)[before:][::-1]:
            model.graph.remove(extra, safe=True)
        return False
    outputs = built if isinstance(built, tuple) else (built,)
    if missing := [i for i, v in enumerate(outputs[: len(node.outputs)]) if v is None and node.outputs[i].uses()]:
        say_why(node, f"its output {missing[0]} is used")
        for extra in list(model.graph)[before:][::-1]:
            model.graph.remove(extra, safe=True)
        return False
    for v, old in zip(outputs, node.outputs, strict=False):
        if v is not None and old.type is not None:
            v.type = old.type
    replace(model.graph, node, outputs[: len(node.outputs)])
    return True


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
