"""Whether the head has a row for every sample: sizes that follow from data, and samples that influence each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from fgonnx.engine.graph.values import content_of, inputs_of, optional
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.expand import depends_on_inputs
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.normal.sized import COUNTING
from fgonnx.engine.normal.whole import no_batch
from fgonnx.engine.rewrite.head import own_name
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.walk import backward
from fgonnx.errors import ModelError
from fgonnx.wording import parameter

ONE_AT_A_TIME = f" ({parameter('batch_size', 1)})"
"""How samples are given one at a time where several are read."""

_NAMED = 3
"""Tensors that a message names at most."""

_OF_THE_DATA = {"ScatterND", "ScatterElements", "GatherElements", "OneHot", "RoiAlign", "Shape", "Size"}

Sized = frozenset[int]


def refuse_sized_by_data(loaded: LoadedModel, normal: Normal, head: ir.Value) -> None:
    """Refuse a head that has as many rows as something is found, none of them a sample's.

    Raises
    ------
    ModelError
        With the tensors before it that have a row for every sample.
    """
    sizes, found = _sized(normal.model.graph)
    if not sizes.get(head):
        return
    node = found[head]
    told = f"'{normal.origin.get(node.outputs[0]) or node.name}' ({node.op_type})"
    before = [v for v in node.inputs if v is not None and backward.differentiable(v)]
    named = _named(loaded, normal, head, sizes, before)
    raise ModelError(
        f"{loaded.name}: '{own_name(loaded, normal, head)}' has as many rows as {told} finds, and no axis that answers "
        f"to the batch{_instead(named)}"
    )


def sized_by(normal: Normal) -> str:
    """Return which node finds as many entries as the data have, for messages; "" where there is none."""
    node = next(iter(_sized(normal.model.graph)[1].values()), None)
    return "" if node is None else f"'{normal.origin.get(node.outputs[0]) or node.outputs[0].name}' ({node.op_type})"


def entangled(loaded: LoadedModel, normal: Normal, options: Options, head: ir.Value) -> str:
    """Return why several samples at once are not explained; "" where they are."""
    output = options.output
    if output is None:
        output = next((str(v.name) for v in normal.outputs if backward.differentiable(v)), "")
    if output not in normal.entangled or normal.batched:
        return ""
    named = _named(loaded, normal, head, {}, [])
    several = len(free_inputs(loaded.ir.graph)) > 1
    bound = f". Bind inputs that have no row for each sample ({parameter('bind')})" if several else ""
    whole = no_batch(loaded, normal.given)
    either = ", or its first axis is no batch" if whole else ""
    return (
        f"{loaded.name}: the samples of a batch influence each other{either}: '{output}' of two samples is not that of "
        f"either alone, so a sample has no score of its own. Give one sample at a time{ONE_AT_A_TIME}, which "
        f"is explained alone{_instead(named, ', or')}{bound}{whole}"
    )


def _instead(named: Sequence[str], word: str = ";") -> str:
    if not named:
        return f"{word} choose another output ({parameter('output')})"
    listed = " or ".join(f"'{n}'" for n in named)
    return f"{word} explain a tensor before it that has a row for every sample: {listed} ({parameter('output')})"


def _named(
    loaded: LoadedModel,
    normal: Normal,
    head: ir.Value,
    sizes: dict[ir.Value, Sized],
    first: Iterable[ir.Value],
) -> list[str]:
    """Return the model's own values behind the input, nearest to the head, whose first axis is the batch."""
    own = {str(v.name) for node in loaded.ir.graph for v in node.outputs}
    active = backward.active_values(list(normal.model.graph), [normal.x])
    known = set(normal.rows)

    def fits(v: ir.Value) -> bool:
        dims = v.shape.dims if v.shape is not None else ()
        return (
            str(v.name) in own
            and v in active
            and backward.differentiable(v)
            and not sizes.get(v)
            and len(dims) > 1
            and (dims[0] == 1 or not isinstance(dims[0], int))
            and (not known or str(v.name) in known)
        )

    found = [str(v.name) for v in first if fits(v)]
    queue, seen = [head], {head}
    while queue and len(found) < _NAMED:
        node = queue.pop(0).producer()
        for v in inputs_of(node) if node is not None else ():
            if v in seen:
                continue
            seen.add(v)
            if fits(v):
                found.append(str(v.name))
            else:
                queue.append(v)
    return list(dict.fromkeys(found))[:_NAMED]


def _sized(graph: ir.Graph) -> tuple[dict[ir.Value, Sized], dict[ir.Value, ir.Node]]:
    """Return the axes of values whose size follows from data, and the operators it follows from."""
    dependent = depends_on_inputs(graph)
    sizes: dict[ir.Value, Sized] = {}
    origin: dict[ir.Value, ir.Node] = {}
    for node in graph:
        counted = node.inputs[1] if node.op_type == "Compress" else node.inputs[0] if node.inputs else None
        if node.op_type in COUNTING and not node.domain and counted in dependent:
            flat = node.op_type in ("Unique", "Compress") and "axis" in node.attributes
            axis = node.attributes["axis"].as_int() if flat else COUNTING[node.op_type]
            rank = node.outputs[0].shape.rank() if node.outputs[0].shape is not None else 1
            sizes[node.outputs[0]] = frozenset([axis % rank])
            sizes.update({v: frozenset([0]) for v in node.outputs[1:]})
            origin.update(dict.fromkeys(node.outputs, node))
            continue
        slots = [i for i, v in enumerate(node.inputs) if v is not None and sizes.get(v)]
        if not slots:
            continue
        axes = _after(node, slots, sizes)
        source = node.inputs[slots[0]]
        assert source is not None
        for v in node.outputs:
            if axes:
                sizes[v], origin[v] = axes, origin[source]
    return sizes, origin


def _after(node: ir.Node, slots: Sequence[int], sizes: dict[ir.Value, Sized]) -> Sized:
    """Return the axes of a node's output whose size follows from data, of those of its inputs."""
    v = node.inputs[slots[0]]
    assert v is not None
    axes, rank = sizes[v], v.shape.rank() if v.shape is not None else 1
    after = node.outputs[0].shape.rank() if node.outputs[0].shape is not None else rank
    rule = _RULES.get(node.op_type)
    if rule is not None:
        return rule(node, slots, axes, rank)
    if node.op_type in _OF_THE_DATA:
        return axes if slots[0] == 0 and node.op_type.startswith("Scatter") else frozenset()
    if node.op_type.startswith("Reduce") or node.op_type in ("ArgMax", "ArgMin"):
        return _reduced(node, axes, rank)
    if after == rank:
        return axes
    return frozenset(a + after - rank for a in axes) if after > rank else frozenset([0][:after])


def _reduced(node: ir.Node, axes: Sized, rank: int) -> Sized:
    given = content_of(optional(node, 1)) if node.op_type.startswith("Reduce") else [node.attributes.get_int("axis", 0)]
    gone = set(range(rank)) if given is None else {int(a) % rank for a in given}
    if node.attributes.get_int("keepdims", 1):
        return axes - gone
    return frozenset(a - sum(g < a for g in gone) for a in axes if a not in gone)


def _gathered(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    data, indices = node.inputs[0], node.inputs[1]
    assert data is not None
    assert indices is not None
    whole = data.shape.rank() if data.shape is not None else rank
    at = node.attributes.get_int("axis", 0) % whole
    count = indices.shape.rank() if indices.shape is not None else 1
    found: set[int] = set()
    if 1 in slots:
        taken = axes if slots[0] == 1 else frozenset([0][:count])
        found |= {at + a for a in taken if a < count}
    if slots[0] == 0:
        found |= {a if a < at else a + count - 1 for a in axes if a != at}
    return frozenset(found)


def _gathered_nd(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    return frozenset(a for a in axes if a < rank - 1) if slots[0] == 1 else frozenset()


def _transposed(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
    return frozenset(i for i, p in enumerate(perm) if p in axes)


def _squeezed(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    given = content_of(optional(node, 1))
    gone = {int(a) % rank for a in given} if given is not None else set()
    return frozenset(a - sum(g < a for g in gone) for a in axes)


def _unsqueezed(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    given = content_of(optional(node, 1))
    added = {int(a) % (rank + len(given)) for a in given} if given is not None else set()
    places = [i for i in range(rank + len(added)) if i not in added]
    return frozenset(places[a] for a in axes)


def _reshaped(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    if slots[0] != 0:
        return frozenset([0])  # a shape that is counted
    target = content_of(optional(node, 1))
    if target is None:
        return frozenset([0])
    free = [i for i, t in enumerate(target) if t == -1 or (t == 0 and i in axes)]
    return frozenset(free)


def _top(node: ir.Node, slots: Sequence[int], axes: Sized, rank: int) -> Sized:
    at = node.attributes.get_int("axis", -1) % rank
    fixed = content_of(optional(node, 1)) is not None
    return axes - {at} if fixed and slots[0] == 0 else axes | {at}


_RULES: dict[str, Callable[[ir.Node, Sequence[int], Sized, int], Sized]] = {
    "Gather": _gathered,
    "GatherND": _gathered_nd,
    "Transpose": _transposed,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Reshape": _reshaped,
    "TopK": _top,
}
