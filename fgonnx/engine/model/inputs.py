"""Choose the input to explain, and its shape for one sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import onnx_ir as ir

from fgonnx.engine.graph.lookups import holds_ids
from fgonnx.engine.graph.values import dims_of
from fgonnx.errors import ModelError, OptionError
from fgonnx.wording import near, parameter

T = TypeVar("T")


def free_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Return the inputs that have no default value."""
    return [v for v in graph.inputs if v.name not in graph.initializers]


_BESIDE = ("mask", "type", "segment", "position", "length", "language", "lang")
"""What names of inputs hold that belong to tokens, and are not their ids."""


def choose_input(model: ir.Model, name: str | None, where: str, *, per_sample: bool = True) -> ir.Value:
    """Return the input to explain: the one named, or the only possible one.

    Ids of tokens are explained where no array of numbers is; masks, types and positions of tokens are not chosen.
    """
    inputs = free_inputs(model.graph)
    if not per_sample:
        floating = [v for v in inputs if v.dtype is not None and v.dtype.is_floating_point() and v.shape is not None]
        for v in floating:
            if name in (None, v.name):
                return v
    candidates = [v for v in inputs if _explainable(v, 2)] or [v for v in inputs if _explainable(v)]
    if name is not None:
        chosen = next((v for v in inputs if v.name == name), None)
        if chosen is None:
            like = near(name, [str(v.name) for v in inputs])
            raise OptionError(f"{where}: has no input '{name}'; it has: {described(inputs)}{like}")
        if not _explainable(chosen) and not _ids(model, chosen):
            raise OptionError(
                f"{where}: its input '{name}' is not an array of floats or of uint8, nor of ids that select rows of a "
                f"table: {described([chosen])}"
            )
        return chosen
    tokens = [v for v in inputs if _ids(model, v)] if any(_whole(v) for v in inputs) else []
    if tokens:
        candidates = [v for v in candidates if "mask" not in str(v.name).lower()]
    if len(candidates) > 1:
        candidates = [v for v in candidates if v.shape is not None and v.shape.rank() >= 4] or candidates
    if not candidates:
        own = [v for v in tokens if not any(word in str(v.name).lower() for word in _BESIDE)]
        candidates = own or tokens
    if not candidates and any(_whole(v) for v in inputs) and any(n.op_type == "Loop" for n in model.graph):
        raise ModelError(
            f"{where}: its whole numbers select rows in a Loop, if any, as an EmbeddingBag is exported, and are not "
            f"explained there; export it as an embedding and a sum or mean over tokens. It has: {described(inputs)}"
        )
    if not candidates:
        raise ModelError(
            f"{where}: no input is an array of floats or of uint8 that could be explained, nor of ids that select rows "
            f"of a table; it has: {described(inputs)}"
        )
    if len(candidates) > 1:
        raise ModelError(
            f"{where}: several inputs could be explained; name one ({parameter('input')}), or fix the others "
            f"({parameter('bind')}): {described(candidates)}"
        )
    return candidates[0]


def _explainable(v: ir.Value, rank: int = 1) -> bool:
    dtype = v.dtype
    right = dtype is not None and (dtype.is_floating_point() or dtype == ir.DataType.UINT8)
    return right and v.shape is not None and v.shape.rank() >= rank


def _whole(v: ir.Value) -> bool:
    return v.dtype is not None and v.dtype.is_integer() and v.shape is not None and v.shape.rank() >= 1


def _ids(model: ir.Model, v: ir.Value) -> bool:
    return _whole(v) and holds_ids(model, v)


def described(values: Sequence[ir.Value]) -> str:
    """Format names, types and shapes of values for messages."""

    def one(v: ir.Value) -> str:
        dims = (
            "?"
            if v.shape is None
            else ", ".join(str(d if isinstance(d, int) else d.value or "?") for d in v.shape.dims)
        )
        return f"{v.name} ({v.dtype.name.lower() if v.dtype is not None else '?'} [{dims}])"

    return "; ".join(one(v) for v in values) or "none"


def concrete_shape(
    x: ir.Value, given: Sequence[int] | None, where: str, *, per_sample: bool = True, axis: int | None = 0
) -> tuple[int, ...]:
    """Return the input's shape for one sample: 1, then the model's sizes, with the given ones where they are free.

    Messages describe the model's own input, whose samples lie along `axis`: None where it has no such axis.
    """
    declared = list(dims_of(x))
    if given is not None:
        if len(given) != len(declared) or any(
            isinstance(d, int) and d != g for d, g in zip(declared[1:], given[1:], strict=False)
        ):
            raise OptionError(f"{where}: the shape {tuple(given)} does not fit its input {described([x])}")
        declared = [1, *(int(g) for g in given[1:])]
    free = [i for i, d in enumerate(declared) if i > 0 and not isinstance(d, int)]
    if free:
        v = ir.Value(name=x.name, shape=ir.Shape(in_own_order(dims_of(x), axis)), type=x.type)
        raise ModelError(
            f"{where}: its input {described([v])} has free sizes; give them "
            f"({parameter('input_shape', _example(v, axis))})"
        )
    if not per_sample:
        return tuple(d if isinstance(d, int) else 1 for d in declared)
    first = declared[0]
    if isinstance(first, int) and first > 1:
        # A fixed batch runs as it is: one "sample" of that many rows would not be explained per sample.
        raise ModelError(f"{where}: its batch size is fixed to {first}; export it with batch size 1 or a free one")
    return (1, *(int(d) for d in declared[1:]))  # type: ignore[arg-type]


def in_own_order(dims: Sequence[T], axis: int | None) -> list[T]:
    """Return sizes with samples first as the model's own input has them: None where it has no axis of samples."""
    first, *rest = dims
    return rest if axis is None else [*rest[:axis], first, *rest[axis:]]


def _example(x: ir.Value, axis: int | None) -> tuple[int, ...]:
    """Return a shape that the input may have: its own sizes, and usual ones where they are free."""
    usual = 224 if len(dims_of(x)) == 4 else 32
    return tuple(d if isinstance(d, int) else 1 if i == axis else usual for i, d in enumerate(dims_of(x)))


def tie_sizes(graph: ir.Graph, x: ir.Value, shape: Sequence[int]) -> list[str]:
    """Give other inputs the sizes of the axes of the explained input, behind its first, whose names they share.

    Returns notes of the free sizes that are left, which are taken as 1.
    """
    names = _names(x)
    known = {name: size for name, size in zip(names, shape, strict=False) if name not in (None, *names[:1])}
    left = _untied(graph, x)
    for v in free_inputs(graph):
        if v is not x and v.shape is not None:
            v.shape = ir.Shape([d if isinstance(d, int) else known.get(d.value, d) for d in v.shape.dims])
    return [
        f"the free size of axis {' and '.join(map(str, axes))} of the input '{v.name}' is taken as 1"
        for v, axes in left.items()
    ]


def refuse_untied(graph: ir.Graph, x: ir.Value, where: str, own: ir.Graph | None = None) -> None:
    """Refuse free sizes of other inputs that are not those of the explained one, in a file that has to fix them.

    Messages describe the inputs of the model's own graph, where another was written for it.

    Raises
    ------
    ModelError
        There is one.
    """
    if left := list(_untied(graph, x)):
        names = [v.name for v in left]
        left = [v for v in own.inputs if v.name in names] if own is not None else left
        sizes = {str(v.name): tuple(d if isinstance(d, int) else 1 for d in dims_of(v)) for v in left[:1]}
        raise ModelError(
            f"{where}: free sizes of its inputs {described(left)} are fixed in a file, as they are not those of the "
            f"explained input '{x.name}'; give them ({parameter('input_shape', sizes)}), or values "
            f"({parameter('bind')})"
        )


def _untied(graph: ir.Graph, x: ir.Value) -> dict[ir.Value, list[int]]:
    """Return other inputs with free sizes behind the first that are none of the explained input's, and which axes."""
    names = _names(x)
    found = {}
    for v in free_inputs(graph):
        if v is not x and v.shape is not None:
            own = _names(v)
            free = [i for i, d in enumerate(v.shape.dims) if not isinstance(d, int) and i > 0]
            if axes := [i for i in free if own[i] is None or own[i] not in names]:
                found[v] = axes
    return found


def _names(v: ir.Value) -> list[str | None]:
    return [None if isinstance(d, int) else d.value for d in dims_of(v)]
