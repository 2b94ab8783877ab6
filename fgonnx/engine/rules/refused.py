"""Operators of the standard that are not differentiated, with the reason: for refusals and the table of operators."""

from __future__ import annotations

_INSTEAD = "Explain an output before it, or rewrite the model without it"
_SEQUENCE = (
    "the sequence or optional value has a length, or is read at a place, that follows from the input",
    _INSTEAD,
)
_RANDOM = ("what it draws is not a function of its input", _INSTEAD)
_STEPS = "Fix the size of its sequence when exporting"

_TREES = (
    "between the thresholds of its trees the score is constant: it has no gradient",
    "Explain the model it was made from by a method for trees, such as TreeSHAP",
)
#: The same for operators of classical machine learning, ai.onnx.ml.
OF_CLASSICAL = dict.fromkeys(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), _TREES)

#: Why, and what to do. Operators with an expansion are here for what the expansion does not take.
REASONS: dict[str, tuple[str, str]] = {
    "BitCast": ("it reads the bits of a number as another one", _INSTEAD),
    "Bernoulli": _RANDOM,
    "ConcatFromSequence": _SEQUENCE,
    "CumProd": ("its axis is not constant, or longer than 512", _INSTEAD),
    "DeformConv": ("it works on images alone", _INSTEAD),
    "GridSample": ("its sizes are not fixed", "Give the size of the input (input_shape=)"),
    "GRU": ("its number of steps depends on the batch size, or is above 512 in half precision", _STEPS),
    "If": ("its condition follows from the input, and its branches may differ in shape", _INSTEAD),
    "Loop": (
        "its number of steps is not constant or above 512, or its condition may end it before",
        "Export the model unrolled",
    ),
    "LSTM": ("its number of steps depends on the batch size, or is above 512 in half precision", _STEPS),
    "Multinomial": _RANDOM,
    "OneHot": ("its values follow from the input", "Replace it by Where"),
    "Optional": _SEQUENCE,
    "OptionalGetElement": _SEQUENCE,
    "RNN": ("its number of steps depends on the batch size, or is above 512 in half precision", _STEPS),
    "RoiAlign": ("it takes as many samples as the size of a box says", "Export it with a sampling_ratio above 0"),
    "Scan": ("its number of steps depends on the batch size, or is above 512", _STEPS),
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "SplitToSequence": _SEQUENCE,
    "TensorScatter": ("its sizes are not fixed", _INSTEAD),
    "Unique": ("which elements it keeps follows from the input", _INSTEAD),
}
