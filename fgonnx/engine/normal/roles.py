"""What the axes of an input are, by the operators that read them: batch, channels, rows and columns, time.

Axes are followed from the input through elementwise operators, Transpose, Unsqueeze, Squeeze and Reshape to the first
operators that treat their axes differently: a convolution has a batch, channels and a grid, a recurrent layer time, a
batch and features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.probe import BATCH, batch_factor
from fgonnx.engine.graph.values import optional

BATCH_AXIS, CHANNEL, ROWS, TIME = "batch", "channels", "a row or column", "time"

_BROADCASTING = {"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Where"}
_PASSING = _BROADCASTING.union(
    ("Abs", "Cast", "Ceil", "Clip", "Concat", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    ("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "LpNormalization", "Mish", "Neg", "PRelu", "Pad"),
    ("QuantizeLinear", "QuickGelu", "Reciprocal", "Relu", "Resize", "ReverseSequence", "Round", "Selu", "Sigmoid"),
    ("Slice", "Softplus", "Softsign", "Sqrt", "StraightThrough", "Tanh", "Upsample"),
)
_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "fgonnx")
_CONVOLUTIONS = {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv", "DeformConv"}
_POOLS = {"AveragePool", "MaxPool", "LpPool", "QLinearAveragePool", "DepthToSpace", "SpaceToDepth"}
_GLOBAL = {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool", "InstanceNormalization"}
_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
_PRODUCTS = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3), "FusedMatMul": (0, 1)}


@dataclass(frozen=True)
class Axis:
    """An axis of a value: which axes of the input it is made of, and whether it is one of them, whole."""

    origins: frozenset[int] = frozenset()
    whole: bool = True

    @property
    def single(self) -> int | None:
        """The axis of the input that it is."""
        return next(iter(self.origins)) if self.whole and len(self.origins) == 1 else None


Axes = tuple[Axis, ...]
FRESH = Axis()


@dataclass(frozen=True)
class Reading:
    """How an operator reads one axis of the input.

    Attributes
    ----------
    role : str
        What the axis is to it.
    node : str
        The operator's name and kind, for messages.
    proven : bool
        Whether the operator has no other use for such an axis: a convolution's channels, not a product's last axis.
    """

    role: str
    node: str
    proven: bool


@dataclass
class Roles:
    """All readings of an input.

    Attributes
    ----------
    axes : dict of int to list of Reading
        The readings of every axis of the input.
    batches : list of Axis
        What is the batch axis of the operators that have one for certain.
    readers : list of str
        Those operators, for messages.
    """

    axes: dict[int, list[Reading]] = field(default_factory=dict)
    batches: list[Axis] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)

    def add(self, axis: Axis, role: str, node: ir.Node, *, proven: bool) -> None:
        """Add a reading of an axis of a value."""
        told = f"'{node.name or node.outputs[0].name}' ({node.op_type})"
        if role == BATCH_AXIS and proven:
            self.batches.append(axis)
            self.readers.append(told)
        if axis.single is not None:
            self.axes.setdefault(axis.single, []).append(Reading(role, told, proven))

    def of(self, axis: int, *, proven: bool = False) -> Reading | None:
        """Return how an axis is read, the proven readings first; None if it is not, or in several ways."""
        found = self.axes.get(axis, [])
        chosen = [r for r in found if r.proven] or ([] if proven else found)
        return chosen[0] if len({_kind(r.role) for r in chosen}) == 1 else None


def _kind(role: str) -> str:
    return ROWS if role == TIME else role


def roles(nodes: Iterable[ir.Node], x: ir.Value, rank: int) -> Roles:
    """Follow the axes of an input to the operators that read them.

    Parameters
    ----------
    nodes : iterable of ir.Node
        Nodes in topological order.
    x : ir.Value
        The input.
    rank : int
        Its number of axes.
    """
    found = Roles()
    follow(nodes, beginning(x, rank), {x}, found)
    return found


def beginning(x: ir.Value, rank: int) -> dict[ir.Value, Axes]:
    """Return the axes of the input alone."""
    return {x: tuple(Axis(frozenset([i])) for i in range(rank))}


def follow(nodes: Iterable[ir.Node], followed: dict[ir.Value, Axes], reached: set[ir.Value], found: Roles) -> None:
    """Follow axes through nodes in topological order, and add what they tell.

    Parameters
    ----------
    nodes : iterable of ir.Node
        Nodes in topological order.
    followed : dict of ir.Value to tuple of Axis
        Values whose axes are known; those of the nodes are added.
    reached : set of ir.Value
        Values that depend on the input; those of the nodes are added.
    found : Roles
        Readings are added to it.
    """
    for node in nodes:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
        slots = [i for i, v in enumerate(node.inputs) if v is not None and v in followed]
        if not slots or not node.outputs or node.domain not in _DOMAINS:
            continue
        source = node.inputs[slots[0]]
        assert source is not None
        axes = followed[source]
        weighted = sum(v in reached for v in node.inputs) == 1
        if _reads(found, node, slots, axes, weighted=weighted):
            continue
        after = _after(node, slots, source, axes, followed)
        if after is not None:
            followed[node.outputs[0]] = after


def _reads(found: Roles, node: ir.Node, slots: Sequence[int], axes: Axes, *, weighted: bool) -> bool:
    """Add what a node tells of its axes; return whether it ends the way.

    `weighted` tells whether nothing else that the node takes depends on the input: a product of two such values, as in
    attention, contracts any axis.
    """
    kind = node.op_type
    if kind in _CONVOLUTIONS | _POOLS | _GLOBAL | {"BatchNormalization", "STFT"} and slots[0] == 0 and len(axes) >= 2:
        last = kind in ("NhwcConv",) or (
            "channels_last" in node.attributes and node.attributes["channels_last"].as_int()
        )
        channel = len(axes) - 1 if last else 1
        if kind == "STFT":
            channel = -1
        found.add(axes[0], BATCH_AXIS, node, proven=True)
        for i, axis in enumerate(axes[1:], 1):
            if _is_moment(node):
                break
            if kind != "BatchNormalization" or i == channel:
                found.add(axis, CHANNEL if i == channel else ROWS, node, proven=True)
        return kind != "BatchNormalization"
    if kind in _RECURRENT and slots[0] == 0 and len(axes) == 3:
        first = "layout" in node.attributes and node.attributes["layout"].as_int()
        for axis, role in zip(axes, (BATCH_AXIS, TIME, CHANNEL) if first else (TIME, BATCH_AXIS, CHANNEL), strict=True):
            found.add(axis, role, node, proven=True)
        return True
    if kind in ("Gemm", "QGemm") and slots[0] == 0 and len(axes) == 2:
        turned = "transA" in node.attributes and node.attributes["transA"].as_int()
        found.add(axes[1 if turned else 0], BATCH_AXIS, node, proven=False)
        found.add(axes[0 if turned else 1], CHANNEL, node, proven=False)
        return True
    if kind in _PRODUCTS and slots[0] in _PRODUCTS[kind]:
        left = slots[0] == _PRODUCTS[kind][0]
        contracted = axes[-1] if left else axes[-2 if len(axes) > 1 else -1]
        if weighted:
            found.add(contracted, CHANNEL, node, proven=False)
        return weighted
    if kind in ("LayerNormalization", "SimplifiedLayerNormalization", "Attention") and slots[0] == 0:
        found.add(axes[-1], CHANNEL, node, proven=False)
        return kind == "Attention"
    return False


def _is_moment(node: ir.Node) -> bool:
    """Tell whether a pool is the mean or variance of a normalisation written out: over features, or over a grid."""
    source = node.inputs[0]
    if node.op_type != "GlobalAveragePool" or source is None:
        return False
    if any(user.op_type == "Sub" and source in user.inputs for user in node.outputs[0].consumers()):
        return True
    square = source.producer()
    centred = square.inputs[0] if square is not None and square.op_type in ("Mul", "Pow") else None
    made = centred.producer() if centred is not None else None
    if made is None or made.op_type != "Sub":
        return False
    return any(v is not None and (p := v.producer()) is not None and p.op_type == node.op_type for v in made.inputs)


def _after(
    node: ir.Node, slots: Sequence[int], source: ir.Value, axes: Axes, followed: Mapping[ir.Value, Axes]
) -> Axes | None:
    """Return the axes of a node's first output; None where they are not followed."""
    kind = node.op_type
    if kind == "Transpose":
        perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(axes))[::-1]
        return tuple(axes[p] for p in perm)
    if kind in ("ReorderInput", "ReorderOutput"):  # channels in blocks count as channels
        last = "channels_last" in node.attributes and node.attributes["channels_last"].as_int()
        if not last:
            return axes
        return (axes[0], axes[-1], *axes[1:-1]) if kind == "ReorderInput" else (axes[0], *axes[2:], axes[1])
    if kind == "Unsqueeze":
        return _unsqueezed(axes, _numbers(node, 1, "axes"))
    if kind == "Squeeze":
        gone = _numbers(node, 1, "axes")
        if gone is None:
            return None
        return tuple(a for i, a in enumerate(axes) if i not in {int(g) % len(axes) for g in gone})
    if kind in ("Reshape", "Flatten"):
        return _reshaped(node, source, axes)
    if kind in ("LayerNormalization", "SimplifiedLayerNormalization", "BatchNormalization", "Softmax", "LogSoftmax"):
        return axes
    if kind in _PRODUCTS:
        return _product(node, followed)
    if kind.startswith("Reduce") and slots[0] == 0:
        return _reduced(node, axes)
    if kind == "Gather" and slots[0] == 0:
        return _gathered(node, axes)
    if kind == "Gather" and slots == [1]:
        return _looked_up(node, axes)
    if kind not in _PASSING:
        return None
    if kind == "Where" and slots[0] == 0:
        return None
    ranks = [len(followed[v]) if v in followed else _rank(v) for v in node.inputs if v is not None]
    if kind in _BROADCASTING:
        known = max((r for r in ranks if r is not None), default=len(axes))
        return (*[FRESH] * (known - len(axes)), *axes)
    return axes


def _product(node: ir.Node, followed: Mapping[ir.Value, Axes]) -> Axes | None:
    """Return the axes of a product of two values: rows of the left one, columns of the right one."""
    operands = [node.inputs[i] for i in _PRODUCTS[node.op_type]]
    left, right = (followed.get(v) if v is not None else None for v in operands)
    rank = max(len(axes) for axes in (left, right) if axes is not None)
    if rank < 2 or any(axes is not None and len(axes) != rank for axes in (left, right)):
        return None
    outer = (left or right or ())[:-2]
    return (*outer, left[-2] if left else FRESH, right[-1] if right else FRESH)


def _unsqueezed(axes: Axes, added: Sequence[int] | None) -> Axes | None:
    if added is None:
        return None
    rank = len(axes) + len(added)
    places = {int(a) % rank for a in added}
    rest = iter(axes)
    return tuple(FRESH if i in places else next(rest) for i in range(rank))


def _reduced(node: ir.Node, axes: Axes) -> Axes | None:
    numbers = _numbers(node, 1, "axes")
    if numbers is None:
        return None
    gone = {int(a) % len(axes) for a in numbers}
    kept = "keepdims" not in node.attributes or node.attributes["keepdims"].as_int()
    left = [FRESH if i in gone else axis for i, axis in enumerate(axes)]
    return tuple(left if kept else (a for i, a in enumerate(left) if i not in gone))


def _gathered(node: ir.Node, axes: Axes) -> Axes | None:
    at = node.attributes.get_int("axis", 0) % len(axes)
    rank = _rank(node.inputs[1])
    if rank is None:
        return None
    kept = (axes[at],) if rank == 1 else (FRESH,) * rank  # a permutation of channels keeps the axis
    return (*axes[:at], *kept, *axes[at + 1 :])


def _looked_up(node: ir.Node, axes: Axes) -> Axes | None:
    """Return the axes of rows that ids select of a table."""
    at = node.attributes.get_int("axis", 0)
    rank = _rank(node.inputs[0])
    return None if rank is None or at else (*axes, *[FRESH] * (rank - 1))


def _numbers(node: ir.Node, slot: int, attribute: str) -> list[int] | None:
    if attribute in node.attributes:
        return list(node.attributes[attribute].as_ints())
    v = optional(node, slot)
    tensor = ir.convenience.get_const_tensor(v) if v is not None else None
    return None if tensor is None else [int(a) for a in np.asarray(tensor.numpy()).reshape(-1)]


def _rank(v: ir.Value | None) -> int | None:
    if v is None:
        return 0
    if v.shape is not None:
        return v.shape.rank()
    tensor = ir.convenience.get_const_tensor(v)
    return None if tensor is None else len(tensor.shape.dims)


# A symbol stands for a size that no product of others makes.
_PRIMES = (100_003, 100_019, 100_043, 100_049, 100_057, 100_069)


def _sizes(v: ir.Value | None, names: dict[str, int]) -> list[int] | None:
    if v is None or v.shape is None:
        return None
    found = []
    for d in v.shape.dims:
        if isinstance(d, int):
            found.append(d)
            continue
        text = str(d.value)
        factor = batch_factor(d) if text == BATCH or text.endswith(f"*{BATCH}") else 1
        name = BATCH if factor > 1 or text == BATCH else text if d.value is not None else f"?{len(names)}"
        if name not in names and len(names) == len(_PRIMES):
            return None
        found.append(factor * names.setdefault(name, _PRIMES[len(names)]))
    return found


def _reshaped(node: ir.Node, source: ir.Value, axes: Axes) -> Axes | None:
    names: dict[str, int] = {}
    before = _sizes(source, names)
    if before is None or len(before) != len(axes):
        return None
    after = _target(node, before)
    if after is None:
        after = _sizes(node.outputs[0], names)
    if after is None or math.prod(before) != math.prod(after):
        return None
    found = regrouped(axes, before, after)
    return None if found is None else _with_first(axes, before, found, after)


def _with_first(axes: Axes, before: Sequence[int], found: Axes, after: Sequence[int]) -> Axes:
    """Merge a first axis of one entry with the next one that takes its place, as an axis of more entries is."""
    if not axes or not found or 0 not in axes[0].origins or (before[0] == 1) == (after[0] == 1):
        return found
    if before[0] == 1:
        return (Axis(found[0].origins | axes[0].origins, False), *found[1:])
    return found if axes[0].whole else (Axis(axes[0].origins, False), *found[1:])


def _target(node: ir.Node, before: Sequence[int]) -> list[int] | None:
    """Return the sizes that a Reshape or Flatten makes of others."""
    if node.op_type == "Flatten":
        at = node.attributes.get_int("axis", 1)
        at = at % (len(before) + 1) if at < 0 else at
        return [math.prod(before[:at]), math.prod(before[at:])]
    target = _numbers(node, 1, "shape")
    if target is None:
        return None
    if any(t == 0 and i >= len(before) for i, t in enumerate(target)):
        return None
    after = [before[i] if t == 0 else t for i, t in enumerate(target)]
    rest = math.prod(t for t in after if t != -1)
    if -1 in after:
        if not rest or math.prod(before) % rest:
            return None
        after[after.index(-1)] = math.prod(before) // rest
    return after


def regrouped(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes | None:
    """Follow axes through a Reshape: groups of neighbours with the same product are split and merged as a whole."""
    result: list[Axis] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and j < len(after) and before[i] == after[j]:
            result.append(axes[i])
            i, j = i + 1, j + 1
            continue
        if i < len(before) and before[i] == 1:
            i += 1
            continue
        if j < len(after) and after[j] == 1:
            result.append(FRESH)
            j += 1
            continue
        if i == len(before) or j == len(after):
            return None
        start, first = i, j
        left, right, i, j = before[i], after[j], i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
            elif left > right and j < len(after):
                right, j = right * after[j], j + 1
            else:
                return None
        group = zip(axes[start:i], before[start:i], strict=True)
        merged = frozenset[int]().union(*(axis.origins for axis, size in group if size > 1))
        result.extend(FRESH if size == 1 else Axis(merged, False) for size in after[first:j])
    return tuple(result)
