"""One random graph: its inputs, five to thirty nodes around the operator whose turn it is, and its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from benchmarks.fuzz.builder import Array, Builder, Undrawn, Value, exists, make_model, type_of
from benchmarks.fuzz.recipes import EXCEPTIONS, RECIPES

OPSETS = tuple(range(13, 27))
"""From the oldest that exporters still write to the newest of onnxruntime."""

FORMS = {"free": 0.45, "one": 0.35, "fixed": 0.12, "none": 0.08}
_TYPES = {np.float32: 0.7, np.float16: 0.1, np.float64: 0.2}
_ATTEMPTS = 40


@dataclass(frozen=True)
class Size:
    """How large graphs are.

    Attributes
    ----------
    least, most : int
        Number of nodes.
    """

    least: int = 5
    most: int = 30


@dataclass(frozen=True)
class Drawn:
    """One graph.

    Attributes
    ----------
    seed, index : int
        What it is drawn from.
    model : onnx.ModelProto
        The graph.
    feeds : dict of str to numpy array
        Its inputs.
    input : str
        The one to explain.
    form, lead : str
        How its first axis is, and the operator whose turn it was.
    operators : frozenset of str
        Operators that it holds.
    head : str
        Which head to explain.
    """

    seed: int
    index: int
    model: onnx.ModelProto
    feeds: dict[str, Array]
    input: str
    form: str
    lead: str
    operators: frozenset[str]
    head: str = "output"

    @property
    def name(self) -> str:
        """The seed and the number."""
        return f"{self.seed}-{self.index}"


@cache
def operators() -> tuple[str, ...]:
    """Return every operator that is drawn, in an order of its own."""
    return tuple(sorted(set(RECIPES) - set(EXCEPTIONS)))


def draw(seed: int, index: int, size: Size | None = None) -> Drawn:
    """Draw a graph.

    Parameters
    ----------
    seed : int
        Of a run.
    index : int
        Number of the graph in it. Every operator leads one graph in turn.
    size : Size, optional
        How large it is.
    """
    known = operators()
    turn = np.random.default_rng([seed, index // len(known)]).permutation(len(known))
    lead = known[int(turn[index % len(known)])]
    rng = np.random.default_rng([seed, index, 1])
    for _ in range(_ATTEMPTS):
        try:
            return _draw(rng, (seed, index), lead, size or Size())
        except Undrawn:
            continue
    raise RuntimeError(f"{lead} is not drawn in {_ATTEMPTS} attempts")


def _draw(rng: np.random.Generator, key: tuple[int, int], lead: str, size: Size) -> Drawn:
    types, odds = list(_TYPES), list(_TYPES.values())
    form = str(rng.choice(list(FORMS), p=list(FORMS.values())))
    newer = [o for o in OPSETS if exists(lead, o)] or OPSETS  # operators of other domains are in every set
    b = Builder(rng, int(rng.choice(newer)), form, types[int(rng.choice(len(types), p=odds))])
    x = _inputs(b)
    wanted = b.whole(size.least, size.most)
    when = b.whole(0, max(wanted // 3, 1))
    _turn(b, lead) if when == 0 else None
    while len(b.nodes) < wanted - 3:
        if lead not in b.used and len(b.nodes) >= when:
            _turn(b, lead)
        _turn(b, b.any(operators()), needed=False)
    if lead not in b.used:
        _turn(b, lead)
    outputs, head = _outputs(b)
    graph = helper.make_graph(
        b.nodes,
        "drawn",
        [_declared(b, v) for v in b.inputs],
        [_declared(b, v, i == 0) for i, v in enumerate(outputs)],
        b.initializers,
    )
    model = make_model(graph, b.opset, b.functions)
    for found in [o for o in model.opset_import if o.domain and o.domain not in b.domains]:
        model.opset_import.remove(found)
    feeds = {v.name: v.array for v in b.inputs}
    return Drawn(*key, model, feeds, x.name, form, lead, frozenset(_held(b)), head)


def _held(b: Builder) -> set[str]:
    """Return the operators of a graph that is done."""
    named = {f"{n.domain}:{n.op_type}" if n.domain else n.op_type for n in b.nodes}
    functions = {f"local:{f.name}" for f in b.functions}
    return (named - functions) | ({"local:Gate"} if functions else set())


def _turn(b: Builder, op_type: str, *, needed: bool = True) -> None:
    """Draw an operator and keep what it gives; take everything back if it does not go."""
    ways = RECIPES[op_type]
    for _ in range(6 if needed else 1):
        before = len(b.nodes), len(b.initializers), len(b.functions), len(b.values), len(b._weights), len(b.inputs)
        used = set(b.used)
        try:
            b.keep(b.any(ways)(b, op_type))
            if needed and op_type not in b.used:
                raise Undrawn(f"{op_type} is not among them")
        except Undrawn:
            lists: Sequence[list[Any]] = (b.nodes, b.initializers, b.functions, b.values, b._weights, b.inputs)
            for items, count in zip(lists, before, strict=True):
                del items[count:]
            b.used = used
        else:
            return
    if needed:
        raise Undrawn(op_type)


def _inputs(b: Builder) -> Value:
    """Add the input to explain, what stands at its door, and now and then others beside it."""
    shape = b.any(
        [
            (b.whole(3, 10),),
            (b.whole(2, 5), b.whole(2, 4)),
            (b.any([1, 3, 4]), b.whole(4, 6), b.whole(4, 6)),
            (b.any([1, 3]), b.whole(4, 6), b.whole(4, 6)),
            (b.whole(4, 6), b.whole(4, 6), 3),
            (1, b.whole(2, 3), b.whole(3, 4), b.whole(3, 4)),
        ]
    )
    if b.form == "none" and len(shape) == 1:
        shape = (3, *shape)
    dims = (*([b.count] if b.form != "none" else []), *shape)
    batch = b.form != "none"
    if b.chance(0.06):  # a picture of bytes
        x = b.input(b.rng.integers(0, 256, dims).astype(np.uint8), moves=True, batch=batch, name="x")
        number = b.emit("Cast", x, to=type_of(np.zeros(0, b.dtype)))
        b.keep(b.emit("Mul", number, b.scalar(1 / 255)))
    else:
        x = b.input(b.rng.standard_normal(dims).astype(b.dtype), moves=True, batch=batch, name="x")
    v = b.values[-1]
    if shape[-1] == 3 and len(shape) == 3 and batch and b.chance(0.8):
        b.keep(b.emit("Transpose", v, perm=[0, 3, 1, 2]))
    if b.chance(0.15) and batch:
        other = b.input(b.rng.standard_normal((b.count, 4)).astype(b.dtype), batch=True, name="other")
        like = b.data(2)
        seen = b.emit("MatMul", other, b.weights(4, like.shape[1]))
        b.keep(b.emit(b.any(["Add", "Mul"]), like, seen))
    if b.chance(0.06) and batch:
        tokens = b.input(b.rng.integers(0, 5, (b.count, 3)).astype(np.int64), batch=True, name="tokens")
        table = b.weights(5, 4)
        like = b.data(2)
        looked = b.emit("Gather", table, tokens, axis=0)
        mean = b.emit("MatMul", like, b.weights(like.shape[1], 4))
        b.keep(b.emit("Mul", looked, b.emit("Unsqueeze", mean, b.ints(1))))
    return x


def _outputs(b: Builder) -> tuple[list[Value], str]:
    """Join loose ends, now and then end in probabilities; return the outputs and the head to explain."""
    read = {name for n in b.nodes for name in n.input}
    moving = [v for v in b.values if v.moves and v.dtype == b.dtype and v.rank and v.batch == (b.form != "none")]
    moving = [v for v in moving if not b.count or v.shape[0] == b.count]
    if not moving:
        raise Undrawn("no output")
    last = moving[-1]
    loose = [v for v in moving[:-1] if v.name not in read and v.name not in {i.name for i in b.inputs}]
    if loose and b.chance(0.85) and b.form != "none":
        k = b.whole(2, 5)
        rows = [_row(b, v, k) for v in [*loose[-4:], last]]
        last = rows[0]
        for row in rows[1:]:
            last = b.emit(b.any(["Add", "Add", "Sub", "Mul"]), last, row)
    elif b.chance(0.5) and b.form != "none":
        last = _row(b, last, b.whole(1, 5))
    if last.name in {i.name for i in b.inputs}:
        last = b.emit("Neg", last)
    head = "output"
    if last.rank == 2 and b.chance(0.2):
        last = b.emit(b.any(["Softmax", "Sigmoid"]), last)
        head = b.any(["output", "logits"])
    made = {o for n in b.nodes for o in n.output}
    others = [v for v in b.values if v.name in made and v is not last and v.dtype != np.float16]
    more = [b.any(others) for _ in range(b.whole(1, 2))] if others and b.chance(0.25) else []
    return list({v.name: v for v in [last, *more]}.values()), head


def _row(b: Builder, v: Value, k: int) -> Value:
    flat = v if v.rank == 2 else b.reshape(v, [v.shape[0], int(np.prod(v.shape[1:], initial=1))])
    return b.emit("MatMul", flat, b.weights(flat.shape[1], k))


def _declared(b: Builder, v: Value, whole: bool = True) -> onnx.ValueInfoProto:
    """Return the declaration of an input or output; shapes of other outputs may be left out."""
    if not whole and b.chance(0.5):
        return helper.make_tensor_value_info(v.name, type_of(v.array), None)
    dims: list[Any] = list(v.shape)
    if b.form == "free" and v.batch and v.rank and v.shape[0] == b.count:
        dims[0] = "N"
    return helper.make_tensor_value_info(v.name, type_of(v.array), dims)


def with_model(drawn: Drawn, model: onnx.ModelProto) -> Drawn:
    """Return the same case with another graph."""
    inputs = {i.name for i in model.graph.input}
    return replace(drawn, model=model, feeds={k: v for k, v in drawn.feeds.items() if k in inputs})
