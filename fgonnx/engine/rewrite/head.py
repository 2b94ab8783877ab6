"""The head, the value that is explained: found from the output, and seeded with a cotangent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Entry, Recipe
from fgonnx.engine.graph.probe import batch_factor
from fgonnx.engine.graph.values import content_of, dims_of, dtype_of, shaped
from fgonnx.engine.maps import sites
from fgonnx.engine.maps.sites import BatchLostError
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.expand.classical import SUM_OF_ONE
from fgonnx.engine.normal.guards import PREFIX as GUARDS
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.rewrite.logits import logits_of
from fgonnx.engine.rewrite.options import ARGMAX, NEXT, Options
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.walk import backward
from fgonnx.errors import OptionError, TargetError, UnsupportedError
from fgonnx.wording import near, parameter

_HEAD_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid"}
_SEE_THROUGH = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout", "StraightThrough"}
_MOVES = ("Cast", "Expand", "Identity", "Max", "Reshape", "Squeeze", "Unsqueeze")
_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}


def find_head(normal: Normal, options: Options, loaded: LoadedModel) -> tuple[ir.Value, str]:
    """Return the value to explain, and the activation after it that is not explained ("" for none)."""
    where = loaded.name
    named = {str(v.name): v for v in normal.outputs}
    if options.output is not None:
        inner = {v.name: v for node in normal.model.graph for v in node.outputs}
        if options.output not in named and options.output not in inner:
            raise OptionError(
                f"{where}: has no output '{options.output}'; it has: {', '.join(named)}{near(options.output, named)}"
            )
        output = named.get(options.output) or inner[options.output]
    else:
        output = next((v for v in normal.outputs if backward.differentiable(v)), normal.outputs[0])
    output = normal.twins.get(output, output)
    if not backward.differentiable(output):
        raise _no_derivative(normal, output, where)
    if options.head == "output":
        return output, ""
    value = output
    while (node := value.producer()) is not None:
        source = node.inputs[0]
        if source is None or not backward.differentiable(source):
            break
        if node.op_type in _HEAD_ACTIVATIONS and not node.domain:
            return _step_back(source, {v.name for n in loaded.ir.graph for v in n.outputs}), node.op_type
        if (logits := _before_softmax(node)) is not None and backward.differentiable(logits):
            return _step_back(logits, {v.name for n in loaded.ir.graph for v in n.outputs}), "Softmax"
        if node.op_type not in _SEE_THROUGH and not _of_one(node) and not _divides_by_one(node):
            break
        value = source
    logits = logits_of(normal.model.graph, output)
    return (output, "") if logits is None else (logits, "Sigmoid")


def own_name(loaded: LoadedModel, normal: Normal, head: ir.Value) -> str:
    """Return the name of the model's own value that a value is, or stands for."""
    own = {str(v.name): v for node in loaded.ir.graph for v in node.outputs}
    outputs = {twin: v for v, twin in normal.twins.items()}
    nodes = {str(n.name): n for n in normal.model.graph}
    node = nodes.get(normal.origin.get(head, ""))
    if str(head.name) not in own:
        if head in outputs:
            return str(outputs[head].name)
        if node is not None and len(node.outputs) == 1:
            result = node.outputs[0]
            if backward.differentiable(result):
                return str(result.name)
            if str(result.name) in own:  # an integer one, whose real numbers are what the model makes of it
                read = [n for n in own[str(result.name)].consumers() if n.op_type in ("Cast", "DequantizeLinear")]
                return str(read[0].outputs[0].name) if read else str(result.name)
    return str(head.name)


def _before_softmax(node: ir.Node) -> ir.Value | None:
    """Return what a Softmax written out is of: exp(x - max x) / sum exp(x - max x); None for any other node."""
    exp = _made_by(node.inputs[0], "Exp") if node.op_type == "Div" and not node.domain else None
    total = _made_by(node.inputs[1], "ReduceSum", *_MOVES) if exp is not None else None
    if exp is None or total is None or total.inputs[0] is not exp.outputs[0]:
        return None
    given = exp.inputs[0]
    bound = given.producer() if given is not None else None
    if bound is not None and str(bound.name).startswith(GUARDS):  # so that its slope is finite
        given = bound.inputs[0]
    least = _made_by(given, "Sub")
    if least is None:
        return given
    largest = _made_by(least.inputs[1], "ReduceMax", *_MOVES)
    return least.inputs[0] if largest is not None and largest.inputs[0] is least.inputs[0] else None


def _made_by(v: ir.Value | None, op_type: str, *through: str) -> ir.Node | None:
    """Return the node of that operator that makes a value, seen through others that move it or bound it."""
    node = v.producer() if v is not None else None
    while node is not None and node.op_type in through and not node.domain:
        moving = [u for u in node.inputs if u is not None and content_of(u) is None and not _whole(u)]
        node = moving[0].producer() if len(moving) == 1 else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _whole(v: ir.Value) -> bool:
    return v.dtype is not None and not v.dtype.is_floating_point()


def _of_one(node: ir.Node) -> bool:
    """Tell whether a mean, sum or extremum reduces axes of size 1 only, and changes nothing."""
    before, after = (v.shape for v in (node.inputs[0], node.outputs[0]) if v is not None)
    if node.op_type not in _REDUCTIONS or before is None or after is None:
        return False
    return [d for d in before.dims if d != 1] == [d for d in after.dims if d != 1]


def _divides_by_one(node: ir.Node) -> bool:
    """Tell whether probabilities are divided by their sum, as exporters of classical models write it: it is one."""
    if node.op_type != "Div" or node.domain or node.inputs[0] is None or node.inputs[1] is None:
        return False
    source, total = node.inputs[0].producer(), node.inputs[1].producer()
    if source is None or total is None or total.op_type not in ("ReduceL1", "ReduceSum"):
        return False
    return total.inputs[0] is node.inputs[0] and (source.op_type == "Softmax" or SUM_OF_ONE in source.meta)


def _no_derivative(normal: Normal, output: ir.Value, where: str) -> UnsupportedError | OptionError:
    """Return the error for an output that is not differentiable, with what to explain instead."""
    opset = normal.model.opset_imports[""]
    if found := backward.obstacles(list(normal.model.graph), normal.x, output, opset):
        return UnsupportedError(found)
    return OptionError(
        f"{where}: its output '{output.name}' is not floating-point, it has no derivative; choose another "
        f"({parameter('output')})"
    )


def _step_back(value: ir.Value, known: set[str | None]) -> ir.Value:
    """Step back to a value of the source, over reshapes that the opset conversion inserted before a Softmax.

    A Softmax of an old opset works on a matrix; the reshape to it may fold other axes into the batch. What is rounded
    or saturated is stepped over to a value that the source has in front of it, which keeps its gradient where the
    result is at the end of its range; where the source has none, it is the result that the model computes.
    """
    result = None
    while value.name not in known:
        node = value.producer()
        if node is None or node.op_type not in _SEE_THROUGH or node.inputs[0] is None:
            return value if result is None else result
        if node.op_type == "StraightThrough" and result is None:
            result = value
        value = node.inputs[0]
    return value


def per_sample_shape(head: ir.Value, batched: bool, where: str) -> tuple[int, ...]:
    """Return the head's shape for one sample, without the batch axis."""
    dims = dims_of(head)
    if dims and (batch_factor(dims[0]) == 1 or dims[0] == 1):
        dims = dims[1:]
    elif batched:
        raise BatchLostError(str(head.name))
    if not all(isinstance(d, int) for d in dims):
        raise BatchLostError(str(head.name))
    return tuple(int(d) for d in dims)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Explained:
    """What is explained of the head.

    Attributes
    ----------
    seed : ir.Value
        Its cotangent.
    score : ir.Value
        The score, (N,).
    target, contrast : ir.Value, optional
        Flat indices of the entry explained and of the one it is compared with, (N,); None for a user's seed, and
        without a contrast.
    """

    seed: ir.Value
    score: ir.Value
    target: ir.Value | None = None
    contrast: ir.Value | None = None


def seeded(op: Emitter, head: ir.Value, shape: tuple[int, ...], names: tuple[str, str], options: Options) -> Explained:
    """Seed the head; `names` are those of the inputs that say what is explained, and what it is compared with."""
    dtype = dtype_of(head)
    count = int(np.prod(shape, initial=1))
    if options.seed:
        seed = ir.Value(name=names[0], shape=head.shape, type=ir.TensorType(dtype))
        op.graph.inputs.append(seed)
        products = op.Reshape(op.Mul(sites.at_least_float32(op, seed), sites.at_least_float32(op, head)), [-1, count])
        return Explained(seed, op.ReduceSum(products, [1], keepdims=0))
    flat = head  # a reshape to the same shape would be merged, and take the output's name, in some runtimes
    if len(shape) != 1 or op.rank(head) != 2:
        flat = shaped(op.Reshape(head, [-1, count]), [None, count])
    chosen = _target(op, head, flat, names[0], options.target)
    hot, score = masks.one_hot(op, chosen, count, dtype), _value_at(op, flat, chosen)
    if options.contrast is None:
        op.recipes[hot] = Recipe(entry=Entry(chosen, count))
        return Explained(op.reshape_like(hot, head), score, chosen)
    given = _contrast_index(options.contrast, head, count)
    if given >= 0 and given == options.target:
        raise TargetError(f"target and contrast are both {given}, so there is nothing to explain; change one of them")
    lowest = op.constant(np.array(-np.inf, dtype.numpy()))
    runner_up = op.ArgMax(op.Where(op.Greater(hot, 0.0), lowest, flat), axis=1, keepdims=0)
    if options.target is None:
        second = _index_input(op, names[1], given)
        other = op.Where(op.Less(second, 0), runner_up, second)
    else:  # a file without optional inputs
        other = runner_up if given < 0 else _everywhere(op, flat, given)
    seed = op.Sub(hot, masks.one_hot(op, other, count, dtype))
    return Explained(op.reshape_like(seed, head), op.Sub(score, _value_at(op, flat, other)), chosen, other)


def _target(op: Emitter, head: ir.Value, flat: ir.Value, name: str, target: int | str | None) -> ir.Value:
    """Return the flat index explained, (N,): the largest, a fixed one, or that of an input, where -1 is the largest."""
    count = op.size(flat, 1)
    if isinstance(target, int) and not -1 <= target < count:
        raise TargetError(f"target {target} is out of range: '{head.name}' has {count} entries per sample")
    largest = op.ArgMax(flat, axis=1, keepdims=0)
    if target in (ARGMAX, -1):
        return largest
    if isinstance(target, int):
        return _everywhere(op, flat, target)
    if target is None:
        index = _index_input(op, name, -1)
    else:
        first = dims_of(head)[0] if op.rank(head) else 1
        index = ir.Value(name=name, shape=ir.Shape([1 if first == 1 else "N"]), type=ir.TensorType(ir.DataType.INT64))
        op.graph.inputs.append(index)
    return op.Where(op.Less(index, 0), largest, index)


def _everywhere(op: Emitter, flat: ir.Value, index: int) -> ir.Value:
    """Return an index for every sample, (N,)."""
    return op.Expand(op.constant(np.array([index], np.int64)), op.Shape(flat, start=0, end=1))


def _contrast_index(contrast: str | int, head: ir.Value, count: int) -> int:
    """Return the default of the input that says what the target is compared with; -1 for the largest other entry."""
    if count < 2:
        raise TargetError(f"'{head.name}' has one entry per sample: there is nothing to contrast it with")
    if contrast == NEXT:
        return -1
    if isinstance(contrast, str):
        raise OptionError(f"{parameter('contrast', contrast)} is a name; a file takes an index, or '{NEXT}'")
    if not 0 <= contrast < count:
        raise TargetError(f"contrast {contrast} is out of range: '{head.name}' has {count} entries per sample")
    return contrast


def _index_input(op: Emitter, name: str, default: int) -> ir.Value:
    """Add an input of indices, one or one per sample, with a default."""
    index = ir.Value(name=name, shape=ir.Shape(["targets"]), type=ir.TensorType(ir.DataType.INT64))
    index.const_value = ir.tensor(np.array([default], np.int64), name=name)
    op.graph.inputs.append(index)
    op.graph.register_initializer(index)
    return index


def _value_at(op: Emitter, flat: ir.Value, index: ir.Value) -> ir.Value:
    return op.Reshape(op.GatherElements(sites.at_least_float32(op, flat), op.Unsqueeze(index, [1]), axis=1), [-1])
