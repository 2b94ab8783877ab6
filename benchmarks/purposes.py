"""What the kernels of an explanation are for."""

from __future__ import annotations

#: What kernels are for, which operators do it, and why it is not less.
PURPOSES = (
    (
        "products",
        ("Conv", "ConvTranspose", "Gemm"),
        "convolutions of inference, and as many for the gradient; depthwise ones pick cells of pools and subtract",
    ),
    (
        "elementwise, pools",
        [
            "Add",
            "AveragePool",
            "Clip",
            "Div",
            "Erf",
            "GlobalAveragePool",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "MaxPool",
            "Mul",
            "Neg",
            "QuickGelu",
            "Relu",
            "Sigmoid",
            "Sub",
            "Sum",
            "Tanh",
            "Where",
        ],
        "masks and gates: a read and a write each, as onnxruntime fuses none into another or into a convolution",
    ),
    (
        "layout",
        [
            "Concat",
            "Expand",
            "Gather",
            "Identity",
            "Pad",
            "ReorderInput",
            "ReorderOutput",
            "Reshape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
            "Upsample",
        ],
        "sites leave the blocked layout to be reduced; phases of strided convolutions and pools are interleaved",
    ),
    (
        "map",
        ["Abs", "MatMul", "Reciprocal", "ReduceMax", "ReduceMin", "ReduceSum", "Resize"],
        "psi reads every site four times: no operator gives absolute value, extrema and sum at once",
    ),
)
OTHER = "other"


def purpose(operator: str) -> str:
    """Return what an operator is for."""
    return next((name for name, operators, _ in PURPOSES if operator in operators), OTHER)
