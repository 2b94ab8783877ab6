"""What is no batch: the first axis of an input that may be a part of one sample, and inputs that samples share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine.graph.values import dims_of, inputs_of
from fgonnx.engine.model.arrangement import Place
from fgonnx.engine.model.inputs import choose_input, free_inputs
from fgonnx.engine.model.layouts import plain
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.layout import contradicted
from fgonnx.engine.normal.roles import Roles, roles
from fgonnx.errors import OptionError
from fgonnx.wording import parameter


def allows(loaded: LoadedModel, layout: str, input_name: str | None = None) -> bool:
    """Tell whether no operator contradicts a layout of an input."""
    x = choose_input(loaded.ir, input_name, loaded.name)
    rank = len(dims_of(x))
    if rank != len(layout):
        return False
    try:
        contradicted(plain(layout), read_axes(loaded, x, rank), dims_of(x), loaded.name, layout)
    except OptionError:
        return False
    return True


_OF_ONE = {2: ("TF", "FT", "HW"), 3: ("CHW", "HWC", "DHW"), 4: ("DCHW", "CDHW", "DHWC")}
"""Layouts of a whole array as one sample, by its number of axes."""


def as_one(loaded: LoadedModel, input_name: str | None = None) -> str:
    """Return a layout that makes one sample of the whole explained input, if operators allow one; "" otherwise."""
    source = loaded if loaded.own is None else replace(loaded, ir=loaded.own)
    x = choose_input(source.ir, input_name, source.name)
    return next((layout for layout in _OF_ONE.get(len(dims_of(x)), ()) if allows(source, layout, str(x.name))), "")


def no_batch(loaded: LoadedModel, input_name: str | None = None) -> str:
    """Return advice for an input whose first axis may be no batch; "" where it is one, or no layout says so."""
    known = loaded.arrangement
    if known is not None and (known.axis != 0 or known.given):
        return ""
    layout = as_one(loaded, input_name)
    said = f". If its first axis is no batch but part of one sample, say so ({parameter('layout', layout)})"
    return said if layout else ""


def read_axes(loaded: LoadedModel, x: ir.Value, rank: int) -> Roles:
    """Return how operators read the axes of an input, those in functions, too."""
    model = loaded.ir
    if model.functions:
        model = model.clone()
        common.InlinePass()(model)
        x = next(v for v in model.graph.inputs if v.name == x.name)
    return roles(model.graph, x, rank)


def beside(graph: ir.Graph, x: ir.Value, placed: Mapping[str, Place], head: str) -> list[str]:
    """Return the inputs that the head depends on whose first axis has a free size, but not the name of the batch."""
    left = [v for v in free_inputs(graph) if v.name not in (x.name, *placed) and v.shape is not None and v.shape.rank()]
    others = [v for v in left if not isinstance(dims_of(v)[0], int)]
    needed = {v for v in graph.outputs if v.name == head}
    for node in reversed(list(graph) if others else []):
        if not needed.isdisjoint(node.outputs):
            needed.update(inputs_of(node))
    return [str(v.name) for v in others if v in needed]
