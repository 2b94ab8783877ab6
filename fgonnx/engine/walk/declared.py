"""The cuts that are declared: inputs and outputs that hold no data but a choice, and are held fixed."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from fgonnx.engine.normal.levels import HOLDS
from fgonnx.engine.normal.tie import DOMAIN

INDEX = "index"
CONDITION = "condition"
COMPARISON = "comparison"
SHAPE = "shape"
SCALE = "scale"
STEP = "step"
ROUNDED = "rounded"
TABLE = "table"
IDS = "ids"

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

#: Inputs of standard operators that say which elements are taken or how many there are, and hold no data.
INPUTS: dict[str, dict[int, str]] = {
    **{
        name: {1: INDEX}
        for name in ("Gather", "GatherElements", "GatherND", "ReverseSequence", "Scatter", "ScatterElements")
    },
    **{name: {1: SHAPE} for name in ("CumSum", "Expand", "Reshape", "Split", "Squeeze", "Tile", "Trilu", "Unsqueeze")},
    **{f"Reduce{name}": {1: SHAPE} for name in _REDUCTIONS},
    **{name: {4: SHAPE} for name in ("GRU", "LSTM", "RNN")},
    "AffineGrid": {1: SHAPE},
    "CenterCropPad": {1: SHAPE},
    "Col2Im": {1: SHAPE, 2: SHAPE},
    "Compress": {1: CONDITION},
    "ConstantOfShape": {0: SHAPE},
    "DFT": {1: SHAPE, 2: SHAPE},
    "Dropout": {1: SHAPE, 2: CONDITION},
    "If": {0: CONDITION},
    "Loop": {0: SHAPE, 1: CONDITION},
    "MaxUnpool": {1: INDEX, 2: SHAPE},
    "OneHot": {0: INDEX, 1: SHAPE},
    "Pad": {1: SHAPE, 3: SHAPE},
    "Range": {1: SHAPE},
    "Resize": {1: SHAPE, 2: SHAPE, 3: SHAPE},
    "RoiAlign": {2: INDEX},
    "STFT": {1: SHAPE, 3: SHAPE},
    "ScatterND": {1: INDEX},
    "Slice": {1: INDEX, 2: INDEX, 3: SHAPE, 4: SHAPE},
    "TensorScatter": {2: INDEX},
    "TopK": {1: SHAPE},
    "Where": {0: CONDITION},
}

#: Operators that are constant between steps.
STEPS = ("Ceil", "Floor", "Hardmax", "Round", "Sign")

_ALL = range(8)
#: Outputs of standard operators that are choices: which element, or whether something holds.
OUTPUTS: dict[str, tuple[Collection[int], str]] = {
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"), (_ALL, COMPARISON)),
    **dict.fromkeys(("Less", "LessOrEqual"), (_ALL, COMPARISON)),
    **dict.fromkeys(("ArgMax", "ArgMin", "NonMaxSuppression", "NonZero"), (_ALL, INDEX)),
    "Dropout": ((1,), CONDITION),
    "DynamicQuantizeLinear": ((1, 2), SCALE),
    "MaxPool": ((1,), INDEX),
    "TopK": ((1,), INDEX),
}


def declared_input(node: ir.Node, slot: int) -> str | None:
    """Return what kind of cut an input is, "" for one that is accounted for elsewhere, or None for data."""
    if node.domain == DOMAIN and node.op_type == "StraightThrough":
        return {0: None, 1: ""}.get(slot, SCALE)
    if node.domain == DOMAIN and node.op_type in ("Recurrence", "Feedback"):
        # states; what else a step takes, it takes in the nodes that compute all steps at once
        return None if 0 <= slot < _states(node) else ""
    if node.domain == DOMAIN and node.op_type == "LookUp":
        return "" if slot else None
    return None if node.domain else INPUTS.get(node.op_type, {}).get(slot)


def _states(node: ir.Node) -> int:
    return len(node.outputs) // 2 if node.op_type == "Recurrence" else len(node.outputs)


def choices(node: ir.Node) -> tuple[Collection[int], str]:
    """Return which outputs of a node are choices, and of which kind."""
    if node.op_type == "Cast" and not node.domain and node.attributes["to"].as_int() == ir.DataType.BOOL.value:
        return _ALL, COMPARISON
    return ((), "") if node.domain else OUTPUTS.get(node.op_type, ((), ""))


#: Operators that round what they compute, beside those called QLinear...
_QUANTISERS = {
    *("BitShift", "Ceil", "Div", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "Floor", "MatMulNBits"),
    *("QAttention", "QGemm", "QuantizeLinear", "ReduceMean", "Resize", "Round"),
}


def passed_through(node: ir.Node, op_type: str) -> str | None:
    """Return how a node passes on a slope that its function does not have, None where it does not.

    Parameters
    ----------
    node : ir.Node
        A node of fgonnx's own domain.
    op_type : str
        The operator of the model that it stands for.
    """
    if node.op_type == "LookUp":
        return TABLE
    kind = op_type.rpartition(".")[2]
    if node.op_type != "StraightThrough" or not (kind in (*_QUANTISERS, *HOLDS) or kind.startswith("QLinear")):
        return None
    real = node.inputs[1].producer() if node.inputs[1] is not None else None
    read = real.inputs[0].dtype if real is not None and real.op_type == "Cast" and real.inputs[0] is not None else None
    return None if read is not None and read.is_floating_point() else ROUNDED  # half precision has its slopes
