"""A plain gradient graph: any output with respect to any tensor, as one ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.load import ModelLike, load
from fgonnx.engine.normal.normalise import normalise
from fgonnx.engine.normal.tie import resolve_own_nodes
from fgonnx.engine.rewrite.arranged import sized
from fgonnx.engine.rewrite.options import FAST, OPENVINO, Options, options_with_changes, refuse_others
from fgonnx.engine.rewrite.portable import forget_shapes, make_portable
from fgonnx.engine.walk import backward, cuts
from fgonnx.engine.walk.chosen_sizes import refused_sizes
from fgonnx.errors import ModelError, OptionError, UnsupportedError
from fgonnx.kinds import converted
from fgonnx.wording import near, parameter

_FIELDS = ("input", "input_shape", "bind", "form")


def grad(
    model: ModelLike,
    of: str | None = None,
    wrt: Sequence[str] | str | None = None,
    *,
    options: Options | None = None,
    **changes: Any,
) -> onnx.ModelProto:
    """Return a model with the gradients of one value with respect to others.

    Its inputs are the model's own and `<of>_grad`, the cotangent of `of` (ones give the gradient of its sum). Its
    outputs are the model's own, then `<name>_grad` for every name in `wrt`.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto or ir.Model
        The model.
    of : str, optional
        Value to differentiate: an output or any value of the graph. The first output by default.
    wrt : str or sequence of str, optional
        What to differentiate by: inputs, weights (initializers) or any values of the graph. The input by default.
    options : Options, optional
        Of these `input`, `input_shape`, `bind` and `form`; others, which have no effect here, are refused.
    **changes
        Those fields, where they differ from `options`.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    OptionError
        If a name does not exist, or is not floating-point, or an option has no effect on a plain gradient.
    ModelError
        If `of` does not depend on one of `wrt`.
    UnsupportedError
        If an operator between them has no rule.

    Examples
    --------
    >>> import fgonnx
    >>> model = fgonnx.grad("examples/shapes.onnx", of="logits", wrt=["image", "head.weight"])
    >>> [i.name for i in model.graph.input]
    ['image', 'logits_grad']
    >>> [o.name for o in model.graph.output]
    ['logits', 'image_grad', 'head.weight_grad']
    """
    options = options_with_changes(options, changes)
    refuse_others(options, _FIELDS, f"a plain gradient takes {', '.join(_FIELDS)} alone")
    loaded, options = sized(bound_to(load(model), options.bind, options.input_shape), options)
    of = converted("of", of, str | None)
    wanted = _names(wrt)
    named = options.input or next((str(v.name) for v in loaded.ir.graph.inputs if v.name in wanted), None)
    normal = normalise(loaded, input_name=named, input_shape=options.explained_shape, per_sample=False)
    graph = normal.model.graph
    nodes = list(graph)
    values = {str(v.name): v for v in [*graph.inputs, *graph.initializers.values()]}
    values.update({str(v.name): v for node in nodes for v in node.outputs if v.name})
    names = wanted or [normal.input_name]
    of = of if of is not None else str(normal.outputs[0].name)
    for name in (of, *names):
        if name not in values:
            raise OptionError(f"{loaded.name}: there is no value '{name}' in the graph{near(name, values)}")
        if not backward.differentiable(values[name]):
            raise OptionError(f"{loaded.name}: '{name}' is not floating-point, it has no gradient")
    head, sources = values[of], [values[n] for n in names]
    active = backward.active_values(nodes, sources)
    cuts.require_whole(nodes, sources, active, head, normal.model.opset_imports[""], cuts.Origin.of(normal))
    if refused := refused_sizes(normal, backward.path(nodes, active, head), active):
        raise UnsupportedError(refused)
    op = Emitter(graph, active, portable=options.form != FAST, openvino=options.form == OPENVINO)
    seed = ir.Value(name=f"{of}_grad", shape=head.shape, type=head.type)
    graph.inputs.append(seed)
    walked = backward.walk(op, backward.path(nodes, active, head), head, seed, normal.model.opset_imports[""])
    unreached = [n for n, v in zip(names, sources, strict=True) if v not in walked.cotangents]
    if unreached:
        raise ModelError(
            f"{loaded.name}: '{of}' does not depend on {', '.join(unreached)} through differentiable operators"
        )
    for name, v in zip(names, sources, strict=True):
        out = op.Identity(walked.cotangents[v])
        out.name, out.type, out.shape = f"{name}_grad", v.type, v.shape
        graph.outputs.append(out)
    resolve_own_nodes(graph)
    common.RemoveUnusedNodesPass()(normal.model)
    if op.portable:
        make_portable(normal.model)
    if normal.sized:  # as in an explanation
        forget_shapes(graph)
    proto: onnx.ModelProto = ir.to_proto(normal.model)
    return proto


def _names(wrt: Sequence[str] | str | None) -> list[str]:
    if wrt is None:
        return []
    names = [wrt] if isinstance(wrt, str) else list(converted("wrt", wrt, tuple[str, ...]))
    if not names or "" in names:
        raise OptionError(f"{parameter('wrt', wrt)} names nothing; give names of values, or leave it out")
    return names
