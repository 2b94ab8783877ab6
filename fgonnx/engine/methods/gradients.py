"""The gradient and its variants: one reverse walk, some with another rule for Relu."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.maps.sites import at_least_float32
from fgonnx.engine.methods.registry import Plain, written
from fgonnx.engine.methods.view import View, Written
from fgonnx.engine.rules.fast.masks import positive
from fgonnx.engine.rules.registry import Local, Rule
from fgonnx.engine.walk.backward import Modify
from fgonnx.errors import OptionError
from fgonnx.wording import parameter

_WITH_ATTRIBUTION = ("saliency", "attribution")


@written(
    "gradient",
    source="Simonyan, Vedaldi, Zisserman, ICLR workshop 2014, section 3.",
    writes=_WITH_ATTRIBUTION,
)
def gradient(view: View) -> Mapping[str, Written]:
    """The gradient of the score with respect to the input."""
    return view.attributed(view.gradient)


@written(
    "gradient-x-input",
    source="Shrikumar, Greenside, Shcherbina, Kundaje, arXiv:1605.01713, 2016.",
    writes=_WITH_ATTRIBUTION,
)
def gradient_x_input(view: View) -> Mapping[str, Written]:
    """The gradient times the input."""
    return view.attributed(view.op.Mul(view.gradient, at_least_float32(view.op, view.x)))


def rectifier(backwards: Callable[[Emitter, ir.Value, ir.Value], ir.Value]) -> Callable[[Plain], Modify]:
    """Return a `modify` that replaces the vector-Jacobian product of Relu by `backwards(op, g, y)`."""

    def relu(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
        return Local(lambda g: backwards(op, g, y))

    def modify(r: Rule) -> Rule:
        return replace(r, linearise=relu) if r.op_type == "Relu" and not r.domain else r

    return lambda settings: modify


def _require_relu(view: View) -> None:
    if not any(node.op_type == "Relu" for node in view.nodes):
        raise OptionError(
            "there is no Relu on the way to the score, and without one this is the gradient; "
            f"choose {parameter('method', 'gradient')}"
        )


@written(
    "guided-backprop",
    source="Springenberg, Dosovitskiy, Brox, Riedmiller, ICLR workshop 2015, section 3.4.",
    writes=_WITH_ATTRIBUTION,
    modify=rectifier(lambda op, g, y: op.Mul(op.Relu(g), positive(op, y))),
)
def guided_backprop(view: View) -> Mapping[str, Written]:
    """The gradient with every Relu applied in the forward and in the backward direction."""
    _require_relu(view)
    return view.attributed(view.gradient)


@written(
    "deconvnet",
    source="Zeiler, Fergus, ECCV 2014, section 2.1.",
    writes=_WITH_ATTRIBUTION,
    modify=rectifier(lambda op, g, y: op.Relu(g)),
)
def deconvnet(view: View) -> Mapping[str, Written]:
    """The gradient with every Relu applied to the cotangent instead of masking it by the activation."""
    _require_relu(view)
    return view.attributed(view.gradient)
