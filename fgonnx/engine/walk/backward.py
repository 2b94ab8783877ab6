"""The reverse walk: cotangents of all active values, and the terms `<g_y, c>`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from fgonnx.engine import rules
from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.origin import source_of, tensor_of, why_not
from fgonnx.engine.graph.values import inputs_of
from fgonnx.engine.rules.refused import OF_CLASSICAL, REASONS
from fgonnx.engine.rules.registry import Cotangent, Kind, Unsupported, bind
from fgonnx.engine.walk.declared import declared_input
from fgonnx.errors import Refusal, UnsupportedError

_REGISTER = "Register a rule for it (fgonnx.rule), or explain an output before it"
_PORTABLE = "Explain the model it was made from, or save it with the optimisation level ORT_ENABLE_EXTENDED"
FLOATING = "Explain the floating-point model it was made from, or an output before it"


#: Takes the rule of an operator and returns the one to use in the reverse walk.
Modify = Callable[[rules.Rule], rules.Rule]


@dataclass(frozen=True)
class Term:
    """A term `<g, c>` of the decomposition: the cotangent and the intercept of a node's output.

    Attributes
    ----------
    name : str
        Name of its site: that of the output.
    node : ir.Node
        The node.
    kind : {"bias", "implicit"}
        Whether the intercept comes from a parameter or a non-linearity.
    y, g, c : ir.Value
        Output, its cotangent, and its intercept (broadcastable to y).
    product : ir.Value, optional
        `g * c`, if the rule has written it.
    """

    name: str
    node: ir.Node
    kind: Kind
    y: ir.Value
    g: ir.Value
    c: ir.Value
    product: ir.Value | None = None


@dataclass
class Walk:
    """Results of the reverse walk.

    Attributes
    ----------
    cotangents : dict of ir.Value to ir.Value
        The cotangent of every active value on the path.
    terms : list of Term
        Terms in the order of the forward graph.
    """

    cotangents: dict[ir.Value, ir.Value]
    terms: list[Term] = field(default_factory=list)


def differentiable(v: ir.Value | None) -> bool:
    """Tell whether a value can have a cotangent; values of 8 bits or fewer are quantised."""
    return v is not None and (v.dtype is None or (v.dtype.is_floating_point() and v.dtype.bitwidth >= 16))


def active_values(nodes: Sequence[ir.Node], sources: Sequence[ir.Value]) -> set[ir.Value]:
    """Return the floating-point values that depend on the sources, the sources included."""
    active = set(sources)
    for node in nodes:
        if any(v in active for v in inputs_of(node)):
            active.update(v for v in node.outputs if differentiable(v))
    return active


def obstacles(nodes: Sequence[ir.Node], source: ir.Value, head: ir.Value, opset: int) -> list[Refusal]:
    """Return the nodes on a path from source to head whose results have a type without gradient.

    Only those with a floating-point input, if there are any: it can be explained instead.
    """
    reached = {source}
    for node in nodes:
        if any(v in reached for v in inputs_of(node)):
            reached.update(node.outputs)
    found: dict[bool, list[Refusal]] = {True: [], False: []}
    for node in path(nodes, reached, head):
        if not any(differentiable(v) for v in node.outputs):
            dtype = node.outputs[0].dtype
            kind = dtype.name.lower() if dtype is not None else "unknown"
            taken = [v for v in inputs_of(node) if v in reached and differentiable(v)]
            way_out = f"Explain the tensor '{tensor_of(taken[0])}' instead (output=)" if taken else FLOATING
            error = Unsupported(f"its output holds {kind} values, which carry no gradient", way_out)
            found[bool(taken)].append(refusal(node, opset, error))
    return found[True] or found[False]


def path(nodes: Sequence[ir.Node], active: set[ir.Value], head: ir.Value) -> list[ir.Node]:
    """Return the nodes on paths of active values to the head, in order."""
    needed = {head}
    found: list[ir.Node] = []
    for node in reversed(nodes):
        sources = [v for v in inputs_of(node) if v in active]
        if sources and any(v in needed and v in active for v in node.outputs):
            found.append(node)
            needed.update(sources)
    return found[::-1]


def refusals(nodes: Sequence[ir.Node], opset: int) -> list[Refusal]:
    """Return why nodes cannot be linearised, as far as known before anything is emitted."""
    found = []
    for node in nodes:
        try:
            _bound(node, opset)
        except Unsupported as error:
            found.append(refusal(node, opset, error))
    return found


def _bound(node: ir.Node, opset: int) -> tuple[rules.Rule, dict[str, object]]:
    r = rules.find(node.op_type, opset, node.domain)
    if r is None and node.domain == "com.microsoft.nchwc":
        raise Unsupported("the file was optimised for one kind of processor", _PORTABLE)
    if r is None and (why := why_not(node)):
        raise Unsupported(why, REASONS[node.op_type][1] if not node.domain and node.op_type in REASONS else _REGISTER)
    if r is None and not node.domain and node.op_type in REASONS:
        raise Unsupported(*REASONS[node.op_type])
    if r is None and node.domain == "ai.onnx.ml" and node.op_type in OF_CLASSICAL:
        raise Unsupported(*OF_CLASSICAL[node.op_type])
    if r is None:
        raise Unsupported("the operator has no rule", _REGISTER)
    return r, bind(r, node, opset)


def _linearise(op: Emitter, node: ir.Node, opset: int, modify: Modify | None = None) -> rules.Local:
    r, attributes = _bound(node, opset)
    r = modify(r) if modify is not None else r
    _check_arity(r, node)
    outputs = tuple(node.outputs)
    return r.linearise(op, outputs if len(outputs) > 1 else outputs[0], *node.inputs, **attributes)


def refusal(node: ir.Node, opset: int, error: Unsupported) -> Refusal:
    """Return the record of why a node cannot be explained, by the node of the model that it stands for."""
    name, op_type = source_of(node)
    return Refusal(name, op_type, opset, error.why, error.what_to_do)


def _refuse(refused: list[Refusal], node: ir.Node, opset: int, error: Unsupported) -> None:
    """Note why a node cannot be explained, once for each node of the model that it stands for."""
    record = refusal(node, opset, error)
    if record not in refused:
        refused.append(record)


def walk(
    op: Emitter,
    nodes: Sequence[ir.Node],
    head: ir.Value,
    seed: ir.Value,
    opset: int,
    modify: Modify | None = None,
) -> Walk:
    """Walk back from the head and emit all cotangents and intercepts.

    Parameters
    ----------
    op : Emitter
        Writes into the graph; its `active` set has the values that get cotangents.
    nodes : sequence of ir.Node
        The path, in topological order.
    head : ir.Value
        The value explained.
    seed : ir.Value
        Its cotangent.
    opset : int
        Version of the default operator set.
    modify : callable, optional
        Changes rules for this walk, for methods other than the gradient.

    Raises
    ------
    UnsupportedError
        Naming every node of the path that cannot be linearised.
    """
    op.modify = modify
    refused = refusals(nodes, opset)
    pending: dict[ir.Value, list[ir.Value]] = {head: [seed]}
    result = Walk({})
    for node in reversed(nodes):
        incoming = [_total(op, result, pending, v) for v in node.outputs]
        if all(g is None for g in incoming):
            continue
        try:
            local = _linearise(op, node, opset, modify)
            returned = local.vjp(*incoming)
            _check_complete(op, node, returned)
        except Unsupported as error:
            _refuse(refused, node, opset, error)
            # The walk goes on, so that all refusals are reported at once; sequences have no shape.
            shaped = [v if v is not None and v.shape is not None and op.is_active(v) else None for v in node.inputs]
            returned = [op.zeros_like(v) if v is not None else None for v in shaped]
            local = rules.Local(lambda *g: None)
        _collect(op, result, node, incoming, local)
        cotangents = [returned] if isinstance(returned, ir.Value) or returned is None else list(returned)
        for v, g in zip(node.inputs, cotangents, strict=False):
            if v is not None and g is not None and v in op.active:
                pending.setdefault(v, []).append(_typed(g, v))
    if refused:
        raise UnsupportedError(refused)
    for v in list(pending):
        _total(op, result, pending, v)
    result.terms.reverse()
    return result


def attach(op: Emitter, nodes: Sequence[ir.Node], cotangents: Mapping[ir.Value, ir.Value], opset: int) -> Walk:
    """Emit the intercepts alone, for cotangents that have been computed otherwise; see `walk`."""
    refused = refusals(nodes, opset)
    result = Walk({v: _typed(g, v) for v, g in cotangents.items()})
    for node in nodes:
        incoming = [cotangents.get(v) for v in node.outputs]
        if all(g is None for g in incoming):
            continue
        try:
            _collect(op, result, node, incoming, _linearise(op, node, opset))
        except Unsupported as error:
            _refuse(refused, node, opset, error)
    if refused:
        raise UnsupportedError(refused)
    return result


def _check_complete(op: Emitter, node: ir.Node, returned: ir.Value | Sequence[Cotangent] | None) -> None:
    """Refuse a rule that is silent about an input; one without influence has the cotangent None."""
    given = len(returned) if isinstance(returned, Sequence) else 1
    taken = inputs_of(node)
    for i, v in enumerate(node.inputs):
        if i >= given and v in taken and op.is_active(v) and declared_input(node, i) is None:
            raise Unsupported(
                f"its rule gives no cotangent for input {i}, which depends on the explained one", _REGISTER
            )


def _check_arity(r: rules.Rule, node: ir.Node) -> None:
    parameters = list(inspect.signature(r.linearise).parameters.values())
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(node.inputs) > len(positional) - 2:
        raise Unsupported(f"it has {len(node.inputs)} inputs, the rule takes {len(positional) - 2}", _REGISTER)


def _typed(g: ir.Value, primal: ir.Value) -> ir.Value:
    """Give a cotangent its primal's type and shape, so that emitted nodes need no inference."""
    g.type = primal.type
    if g.shape is None:
        g.shape = primal.shape
    return g


def _total(op: Emitter, result: Walk, pending: dict[ir.Value, list[ir.Value]], v: ir.Value) -> ir.Value | None:
    """Add up the cotangents of a value; the walk has visited all of its consumers before its own node."""
    if v in result.cotangents:
        return result.cotangents[v]
    arrived = pending.pop(v, None)
    if not arrived or v not in op.active:
        return None
    result.cotangents[v] = _typed(_sum(op, arrived, v), v)
    return result.cotangents[v]


def _sum(op: Emitter, arrived: Sequence[ir.Value], v: ir.Value) -> ir.Value:
    if len(arrived) == 1:
        return arrived[0]
    total = op.Sum(*arrived)
    by_channels = [r.channels for g in arrived if (r := op.recipe(g, v)) is not None and r.channels is not None]
    if len(by_channels) == len(arrived):

        def channels(start: int, stop: int, part: ir.Value) -> ir.Value:
            return op.Sum(*(_typed(each(start, stop, part), part) for each in by_channels))

        op.recipes[total] = Recipe(channels=channels, primal=v)
    return total


def _collect(op: Emitter, result: Walk, node: ir.Node, incoming: Sequence[ir.Value | None], local: rules.Local) -> None:
    intercepts = local.intercept
    if intercepts is None:
        return
    if isinstance(intercepts, ir.Value):
        intercepts = [intercepts]
    for y, g, c in zip(node.outputs, incoming, intercepts, strict=False):
        if g is not None and c is not None:
            product = local.product(g) if local.product is not None else None
            result.terms.append(Term(str(y.name), node, local.kind, y, g, c, product))
