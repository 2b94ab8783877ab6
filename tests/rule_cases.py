"""The table of cases: a row is a node, its inputs, and which of them are active. A new rule needs a new row here.

`x(2, 3)` is an active input of that shape, `w(2, 3)` a constant one, both drawn at random; `within` keeps them away
from kinks and poles. `ints` are constant integers, `given` any content, `None` an input left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tests.linearisation import Case, Draw, Given

FLOAT, DOUBLE, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16
CASES: list[Case] = []


def x(*shape: int, within: tuple[float, float] | None = None, apart: bool = False) -> Draw:
    return Draw(shape, within, active=True, apart=apart)


def w(*shape: int, within: tuple[float, float] | None = None) -> Draw:
    return Draw(shape, within)


def given(content: Any, dtype: npt.DTypeLike = np.float64, *, active: bool = False, constant: bool = True) -> Given:
    return Given(np.asarray(content, dtype), active, constant)


def ints(*values: int) -> Given:
    return given(values, np.int64)


def singles(*values: float) -> Given:
    """Float32 in every precision: Resize's scales."""
    return given(values, np.float32)


def row(op_type: str, *inputs: Draw | Given | None, **fields: Any) -> None:
    """Add a case; keywords that are not fields of Case are attributes of the node."""
    own = {k: fields.pop(k) for k in list(fields) if k in Case.__dataclass_fields__}
    CASES.append(Case(op_type, inputs, fields, **own))


# Convolutions.

IMAGE = x(2, 4, 6, 5)
NO_HALF = "the operator has no float16"
GROUPED = "onnx.reference mixes up the groups of ConvTranspose"
for bias in ((), (w(6),)):
    row("Conv", IMAGE, w(6, 4, 3, 3), *bias)
row("Conv", x(2, 3, 7), w(4, 3, 3), w(4), pads=[1, 2], strides=[2])
row("Conv", x(1, 2, 4, 5, 4), w(3, 2, 2, 3, 2), w(3), pads=[0, 1, 1, 1, 0, 2], strides=[1, 2, 1], dilations=[1, 1, 2])
row("Conv", IMAGE, w(6, 2, 3, 3), group=2)
row("Conv", IMAGE, w(6, 2, 3, 2), w(6), group=2, strides=[2, 2], pads=[1, 0, 1, 1], reference=GROUPED)
row("Conv", IMAGE, w(4, 1, 3, 3), w(4), group=4, pads=[1, 1, 1, 1])
row("Conv", IMAGE, w(8, 1, 3, 3), w(8), group=4, pads=[1, 1, 1, 1], note="two filters a channel")
row("Conv", IMAGE, w(4, 1, 3, 3), group=4, pads=[1, 1, 1, 1], strides=[2, 2])
row("Conv", x(1, 3, 9, 8), w(2, 3, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3])
row("Conv", x(1, 3, 9, 8), w(2, 3, 3, 3), dilations=[2, 2], strides=[2, 3])
row("Conv", x(1, 2, 8, 9), w(3, 2, 3, 3), strides=[3, 4], note="the last rows are not reached")
row("Conv", x(1, 2, 8, 9), w(3, 2, 1, 1), w(3), strides=[2, 2])
row("Conv", x(1, 2, 8, 9), w(3, 2, 2, 2), strides=[3, 3], note="strides beyond the kernel")
row("Conv", IMAGE, w(3, 4, 2, 3), w(3), pads=[0, 2, 1, 0], note="asymmetric pads")
row("Conv", IMAGE, w(3, 4, 2, 2), pads=[3, 2, 2, 4], note="pads beyond the kernel")
row("Conv", IMAGE, w(3, 4, 2, 2), pads=[3, 2, 2, 4], strides=[2, 3], note="pads beyond the kernel")
row("Conv", IMAGE, w(3, 4, 1, 1), pads=[1, 1, 1, 1])
for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    row("Conv", IMAGE, w(3, 4, 3, 2), w(3), auto_pad=auto_pad)
    row("Conv", IMAGE, w(3, 4, 4, 3), auto_pad=auto_pad, strides=[2, 2], kernel_shape=[4, 3])
row("Conv", IMAGE, w(3, 4, 1, 1), auto_pad="SAME_UPPER", strides=[3, 3], note="nothing to pad")
row("Conv", w(2, 4, 6, 5), w(3, 4, 3, 3), x(3))
row("Conv", IMAGE, w(3, 4, 3, 3), x(3))
row("Conv", w(2, 4, 6, 5), x(3, 4, 3, 3), w(3))
row("Conv", w(2, 4, 6, 5), x(3, 4, 3, 3), x(3), pads=[1, 0, 2, 1])
row("Conv", w(2, 2, 8, 9), x(3, 2, 3, 2), strides=[2, 3], dilations=[1, 2], pads=[1, 0, 0, 1])
row("Conv", w(2, 2, 8, 9), x(3, 2, 2, 2), strides=[3, 4], note="weight gradient, rows not reached")
row("Conv", w(1, 2, 9), x(3, 2, 3), auto_pad="SAME_UPPER", strides=[2])
row("Conv", w(2, 4, 6, 5), x(6, 2, 3, 3), group=2)
row("Conv", w(2, 4, 6, 5), x(4, 1, 3, 3), w(4), group=4, strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 2])
row("Conv", x(2, 3, 5, 5), x(4, 3, 3, 3))
row("Conv", x(2, 3, 5, 5), x(4, 3, 2, 3), w(4), strides=[2, 1], pads=[1, 0, 0, 1])
row("Conv", x(2, 3, 5, 5), x(4, 3, 2, 3), x(4))

row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 3, 3), w(2))
row("ConvTranspose", x(2, 3, 4), w(3, 2, 3), strides=[2], pads=[1, 0])
row("ConvTranspose", x(1, 2, 3, 3, 2), w(2, 2, 2, 2, 2), w(2), strides=[2, 1, 2])
row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 3, 2), strides=[3, 2], dilations=[2, 2], pads=[1, 0, 2, 1])
row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 3, 3), strides=[2, 3], output_padding=[1, 2])
row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 3, 3), w(2), strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1])
row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 2, 2), strides=[3, 3], note="gaps between the windows")
row("ConvTranspose", x(2, 4, 4, 5), w(4, 3, 3, 3), w(6), group=2, strides=[2, 1], reference=GROUPED)
row("ConvTranspose", x(2, 4, 4, 5), w(4, 1, 3, 3), group=4, pads=[1, 1, 1, 1], reference=GROUPED)
for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 4, 3), strides=[2, 2], auto_pad=auto_pad)
    row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 4, 4), strides=[2, 2], auto_pad=auto_pad, output_padding=[1, 1])
for auto_pad in ("NOTSET", "SAME_UPPER"):
    row(
        "ConvTranspose",
        x(2, 3, 4, 5),
        w(3, 2, 4, 4),
        strides=[2, 2],
        output_shape=[9, 11],
        auto_pad=auto_pad,
        reference="onnx.reference pads wrongly for output_shape",
    )
row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 3, 3), strides=[2, 2], output_shape=[10, 12], note="beyond the windows")
row(
    "ConvTranspose",
    x(2, 3, 4, 5),
    w(3, 2, 3, 3),
    dilations=[3, 3],
    output_padding=[2, 1],
    note="padding beyond the stride",
    refused="not below the stride",
)
row("ConvTranspose", w(2, 3, 4, 5), x(3, 2, 3, 3))
row("ConvTranspose", w(2, 3, 4, 5), x(3, 2, 3, 3), w(2), strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 2])
row("ConvTranspose", w(2, 4, 4, 5), x(4, 3, 3, 2), group=2, strides=[2, 1], dilations=[1, 2], reference=GROUPED)
row("ConvTranspose", x(2, 3, 4, 5), x(3, 2, 3, 3), w(2))
row("ConvTranspose", x(2, 3, 4, 5), x(3, 2, 3, 3), x(2), strides=[2, 2])
row("ConvTranspose", w(2, 3, 4, 5), w(3, 2, 3, 3), x(2))
row("ConvTranspose", x(2, 3, 4, 5), w(3, 2, 3, 3), x(2))

# Dense layers.

for ta in (0, 1):
    for tb in (0, 1):
        sizes = ((4, 2) if ta else (2, 4)), ((3, 4) if tb else (4, 3))
        row("Gemm", x(*sizes[0]), w(*sizes[1]), w(3), transA=ta, transB=tb)
        row("Gemm", w(*sizes[0]), x(*sizes[1]), transA=ta, transB=tb, alpha=0.5)
        row("Gemm", x(*sizes[0]), x(*sizes[1]), w(2, 3), transA=ta, transB=tb, alpha=0.5, beta=2.0)
for c in ((3,), (1, 3), (2, 1), (), (2, 3), (1, 1), (1,)):
    row("Gemm", x(2, 4), w(4, 3), w(*c), alpha=1.5, beta=0.25)
    row("Gemm", w(2, 4), w(4, 3), x(*c), alpha=1.5, beta=0.25)
row("Gemm", x(2, 4), w(4, 3), x(3), beta=0.5)
row("Gemm", x(2, 4), x(4, 3), x(3), beta=0.5)
row("Gemm", x(2, 4), x(4, 3))
row("Gemm", x(2, 4), w(4, 3), w(3), beta=0.0)

row("MatMul", x(2, 3), w(3, 4))
row("MatMul", w(2, 3), x(3, 4))
row("MatMul", x(2, 3), x(3, 4))
row("MatMul", x(3), w(3, 4))
row("MatMul", x(3), x(3, 4))
row("MatMul", x(2, 3), x(3))
row("MatMul", x(3), x(3))
row("MatMul", x(3), x(2, 3, 4))
row("MatMul", x(2, 3, 4), x(4))
row("MatMul", x(2, 5, 3, 4), w(4, 2))
row("MatMul", w(5, 3, 4), x(2, 1, 4, 2))
row("MatMul", x(5, 3, 4), x(2, 1, 4, 2))
row("MatMul", x(2, 3, 4), x(2, 4, 3))
row("MatMul", x(1, 3, 4), x(2, 4, 3))
row("MatMul", x(3, 4), x(2, 4, 3))

row("Einsum", x(2, 3), w(3, 4), equation="ij,jk->ik")
row("Einsum", x(2, 3), x(3, 4), equation="ij,jk->ik")
row("Einsum", w(2, 5, 3), x(2, 4, 3), equation="bqd,bkd->bqk")
row("Einsum", x(2, 3), x(3, 4), equation="ij,jk")
row("Einsum", x(2, 3, 4), equation="bij->bji")
row("Einsum", x(2, 3, 4), equation="bij->b")
row("Einsum", x(2, 3), w(3, 4), equation="ij,kl->jl")
row("Einsum", x(2, 3, 4), x(4, 5), equation="...i,ij->...j")
row("Einsum", x(5, 2, 3), x(1, 3, 4), equation="...ij,...jk->...ik")
row("Einsum", x(5, 2, 3), w(5, 3, 4), equation="...ij,...jk")
row("Einsum", x(2, 3), x(2, 3), x(3), equation="ij,ij,j->i")
row("Einsum", x(3, 3), equation="ii->i", refused="diagonal")

for aligned in (0, 1):
    fields = {"align_corners": aligned, "opset": 20, "half": NO_HALF, "reference": "onnx.reference gives float32"}
    for batch in (1, 2):
        row("AffineGrid", x(batch, 2, 3), ints(batch, 3, 4, 5), **fields)
    row("AffineGrid", x(2, 3, 4), ints(2, 1, 3, 2, 4), **fields)
    row("AffineGrid", x(2, 3, 4), ints(2, 1, 1, 2, 4), **fields)

# Pools.

SAME_LOWER = "onnx.reference pads SAME_LOWER wrongly"
UNIT_STRIDES = "onnx.reference gives wrong Indices with strides of 1"
APART = x(2, 4, 6, 5, apart=True)
for op_type in ("MaxPool", "AveragePool"):
    row(op_type, IMAGE, kernel_shape=[2, 2], strides=[2, 2])
    row(op_type, IMAGE, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    row(op_type, x(2, 3, 9), kernel_shape=[3], strides=[2])
    row(op_type, x(1, 2, 5, 4, 4), kernel_shape=[2, 3, 2], strides=[1, 2, 2], pads=[1, 1, 0, 0, 1, 1])
    row(op_type, x(1, 2, 7, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    row(op_type, x(1, 2, 7, 8), kernel_shape=[3, 2], strides=[3, 3], pads=[1, 0, 1, 0], ceil_mode=1)
    row(op_type, x(1, 2, 7, 8), kernel_shape=[2, 2], strides=[3, 4], note="windows apart")
    row(op_type, x(1, 2, 9, 8), kernel_shape=[3, 2], dilations=[2, 3], opset=19)
    row(op_type, x(1, 2, 9, 8), kernel_shape=[3, 2], dilations=[2, 2], strides=[2, 1], pads=[1, 1, 2, 0], opset=19)
    reference = UNIT_STRIDES if op_type == "MaxPool" else ""
    row(op_type, APART, kernel_shape=[2, 3], pads=[1, 2, 0, 0], reference=reference)
    for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        lower = SAME_LOWER if auto_pad == "SAME_LOWER" else ""
        row(op_type, APART, kernel_shape=[3, 2], auto_pad=auto_pad, reference=reference or lower)
        row(op_type, APART, kernel_shape=[2, 4], strides=[2, 3], auto_pad=auto_pad, reference=lower)
    row(op_type, APART, kernel_shape=[6, 5], note="global", reference=reference)
row("MaxPool", APART, kernel_shape=[2, 3], storage_order=1, reference=UNIT_STRIDES)
row("MaxPool", IMAGE, kernel_shape=[2, 3], strides=[2, 1], storage_order=1, outputs=2, used=(0,))
row("MaxPool", x(1, 2, 9, 8), kernel_shape=[3, 2], dilations=[2, 3], strides=[2, 1], pads=[1, 0, 1, 1], storage_order=1)
row("MaxPool", x(1, 2, 7, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, storage_order=1)
row("MaxPool", APART, kernel_shape=[2, 4], strides=[2, 3], auto_pad="SAME_UPPER", storage_order=1)
row("MaxPool", APART, kernel_shape=[2, 3], outputs=2, used=(0,), reference=UNIT_STRIDES)
for pads in ([1, 1, 1, 1], [0, 1, 1, 0]):
    row("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=pads, count_include_pad=1)
    row("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=pads, count_include_pad=1, ceil_mode=1)
row("AveragePool", x(1, 2, 3, 3), kernel_shape=[5, 5], pads=[1, 1, 1, 1], note="one window over everything")
row("AveragePool", x(1, 2, 3, 3), kernel_shape=[5, 5], pads=[1, 1, 1, 1], count_include_pad=1)
row("AveragePool", IMAGE, kernel_shape=[3, 3], auto_pad="SAME_UPPER", count_include_pad=1)
row(
    "AveragePool",
    x(1, 2, 9, 8),
    kernel_shape=[3, 2],
    dilations=[2, 2],
    pads=[1, 1, 1, 1],
    count_include_pad=1,
    opset=19,
)
row("MaxUnpool", x(1, 1, 2, 2), given([[[[5, 7], [13, 15]]]], np.int64), kernel_shape=[2, 2], strides=[2, 2])
row("MaxUnpool", x(2, 1, 2), given([[[1, 2]], [[4, 7]]], np.int64), kernel_shape=[2], strides=[2])
for constant in (True, False):
    overlap = given([[[1, 1, 3]], [[7, 10, 7]]], np.int64, constant=constant)
    row("MaxUnpool", x(2, 1, 3), overlap, kernel_shape=[2], strides=[2], note="overwritten")
row(
    "MaxUnpool",
    x(1, 1, 2),
    given([[[1, 2]]], np.int64),
    ints(1, 1, 5),
    kernel_shape=[2],
    strides=[2],
    refused="output_shape",
)
for p in (1, 2, 3):
    row("LpPool", IMAGE, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], p=p)
    row("GlobalLpPool", APART, p=p, reference="onnx.reference lacks it")
row("LpPool", IMAGE, kernel_shape=[2, 2])
row("LpPool", x(1, 2, 9, 8), kernel_shape=[3, 2], dilations=[2, 2], strides=[2, 2])
row(
    "LpPool",
    x(2, 3, 8, apart=True),
    kernel_shape=[3],
    strides=[2],
    ceil_mode=1,
    reference="onnx.reference pads ceil_mode wrongly",
)
row("LpPool", IMAGE, kernel_shape=[2, 4], strides=[2, 3], auto_pad="SAME_UPPER")
row("GlobalLpPool", x(2, 3, 5, apart=True), reference="onnx.reference lacks it")
for op_type in ("GlobalAveragePool", "GlobalMaxPool"):
    row(op_type, IMAGE)
    for shape in ((2, 3, 5), (2, 3, 2, 3, 2)):
        row(
            op_type,
            x(*shape, apart=True),
            reference="onnx.reference pools images alone" if op_type == "GlobalMaxPool" else "",
        )

# Activations.

for op_type in (
    "Relu",
    "LeakyRelu",
    "Abs",
    "Neg",
    "HardSigmoid",
    "HardSwish",
    "ThresholdedRelu",
    "Shrink",
    "Sigmoid",
    "Tanh",
    "Elu",
    "Selu",
    "Softplus",
    "Softsign",
    "Exp",
    "Sin",
    "Cos",
    "Sinh",
    "Cosh",
    "Atan",
    "Asinh",
    "Identity",
):
    row(op_type, x(3, 7))
    row(op_type, x(2, 2, 3, 3, within=(-4, 4)))
row("Celu", x(3, 7), half=NO_HALF)
row("Erf", x(3, 7))
row("Erf", x(2, 2, 3, 3, within=(-4, 4)))
for op_type in ("Floor", "Ceil", "Round", "Sign"):
    row(op_type, x(3, 7, within=(-3, 3)))
row("Hardmax", x(3, 7))
row("Hardmax", x(3, 7), axis=0)
row("LeakyRelu", x(3, 7), alpha=0.3)
row("LeakyRelu", x(3, 7), alpha=-0.5)
row("LeakyRelu", x(3, 7), alpha=1.5)
row("HardSigmoid", x(3, 7, within=(-3, 3)), alpha=0.5, beta=0.25)
row("HardSigmoid", x(3, 7, within=(-3, 3)), alpha=-0.5, beta=0.25)
row("ThresholdedRelu", x(3, 7), alpha=0.25)
row("ThresholdedRelu", x(3, 7), alpha=-0.5)
row("Shrink", x(3, 7), lambd=0.3, bias=0.2)
row("Elu", x(3, 7), alpha=0.4)
row("Selu", x(3, 7), alpha=1.2, gamma=0.9)
row("Celu", x(3, 7), alpha=0.4, half=NO_HALF)
for mode in ("none", "tanh"):
    row(
        "Gelu",
        x(3, 7, within=(-4, 4)),
        approximate=mode,
        opset=20,
        reference="onnx.reference computes the Erf of its body in float32" if mode == "none" else "",
    )
row("Mish", x(3, 7, within=(-4, 4)))
row("Swish", x(3, 7), opset=24)
row("Swish", x(3, 7), alpha=1.7, opset=24)
for slope in ((1, 1), (4, 1, 1), (1, 4, 1, 1), (1,), (4, 6, 5), ()):
    row("PRelu", IMAGE, w(*slope))
row("PRelu", IMAGE, x(4, 1, 1))
row("PRelu", w(2, 4, 6, 5), x(4, 1, 1))
row("PRelu", IMAGE, x(1))
for op_type, interval in {
    "Log": (0.2, 3),
    "Sqrt": (0.2, 3),
    "Reciprocal": (0.3, 3),
    "Tan": (-1, 1),
    "Asin": (-0.9, 0.9),
    "Acos": (-0.9, 0.9),
    "Acosh": (1.2, 3),
    "Atanh": (-0.9, 0.9),
}.items():
    row(op_type, x(3, 7, within=interval))
row("Reciprocal", x(3, 7, within=(-3, -0.3)))

for low, high in (
    (-0.5, 0.5),
    (0, 6),
    (0, 1),
    (0, None),
    (None, 0),
    (None, 6),
    (None, 0.75),
    (-1, None),
    (-1, 0),
    (-2, -0.5),
    (0.5, 2),
    (None, None),
    (-3.0, 3.0),
    (0.0, 2.0**-70),
    (0.0, 2.0**70),
    (-0.1, 0.1),
):
    bounds = [None if b is None else given(b) for b in (low, high)]
    half = "a bound beyond float16" if high is not None and high > 65504 else ""
    row("Clip", x(3, 7, within=(-7, 7)), *bounds, note=f"{low} to {high}", half=half)
row("Clip", x(3, 7, within=(-7, 7)), given(0.0, constant=False), given(3.0, constant=False), note="bounds are inputs")
row("Clip", x(3, 7), given(0.5, active=True), given(1.0), refused="bounds depend on the input")
row("Clip", x(3, 7), given(-0.5), given(0.5, active=True), refused="bounds depend on the input")

PRECISION = "the precision is what it changes"
row("Cast", x(2, 3), to=DOUBLE, reference=PRECISION, half=PRECISION)
row("Cast", x(2, 3), to=HALF, reference=PRECISION, half=PRECISION, tolerance=1e-2)
row("CastLike", x(2, 3), given([1.0], np.float16), reference=PRECISION, half=PRECISION, tolerance=1e-2)
row("CastLike", x(2, 3), w(1))
row("Dropout", x(2, 3))
row("Dropout", x(2, 3), given(0.3, np.float32), given(False, np.bool_))
row("Dropout", x(2, 3), given(0.3, np.float32), seed=3, outputs=2, used=(0,))
row("Dropout", x(2, 3), given(0.3, np.float32), given(True, np.bool_), refused="training mode")

# Arithmetic with broadcasting.

PAIRS = (
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (3, 1)),
    ((2, 3, 4), (2, 1, 4)),
    ((2, 3, 4), ()),
    ((3, 1), (2, 1, 4)),
    ((1,), (2, 3)),
)
POSITIVE = (0.5, 2.0)
for op_type in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"):
    within = POSITIVE if op_type in ("Div", "Pow") else None
    for one, two in PAIRS:
        grows = op_type == "Mean" and np.broadcast_shapes(one, two) != one
        reference = "onnx.reference adds into the first operand" if grows else ""
        row(op_type, x(*one, within=within), w(*two, within=within), reference=reference)
        row(op_type, w(*one, within=within), x(*two, within=within), reference=reference)
        row(op_type, x(*one, within=within), x(*two, within=within), reference=reference)
for op_type in ("Max", "Min", "Sum", "Mean"):
    row(op_type, x(2, 3))
    row(op_type, x(2, 3), w(3), x(1))
    row(op_type, x(2, 3), w(3), w(2, 1))
    row(op_type, w(2, 3), x(3), w(2, 1), x(2, 3))
row("Add", x(2, 3), given([[0.5, 1, 2]], constant=False), note="an inactive input")
row("Pow", x(2, 3), given(2, np.int64))
row("Pow", x(2, 3), given(3.0))
row("Pow", x(2, 3), given([1.0, 2.0, 0.0]))
row("Pow", given([[0.0, 1.0, 2.0]], active=True), given(2.0), note="at 0")
row("Pow", x(2, 3, within=(0.5, 2)), given(-1.5))
row("Pow", given([[0.0, 1.0, 2.0]], active=True), given([0.0, 0.0, 1.0]), note="power 0 at 0")
row("Pow", given([[0.0, 1.0, 2.0]]), given([2.0, 1.5, 3.0], active=True), note="the exponent over 0")
row("Mod", x(2, 3, within=(-3.9, -3.1)), w(3, within=(1.1, 1.2)), fmod=1)
row("Mod", x(2, 3, within=(3.1, 3.2)), x(3, within=(1.1, 1.2)), fmod=1)
row("Mod", w(2, 3, within=(3.1, 3.2)), x(3, within=(-1.2, -1.1)), fmod=1)
condition = given(np.arange(12).reshape(1, 3, 4) % 2 == 0, np.bool_)
for one, two in PAIRS[:-1]:
    row("Where", condition, x(*one), w(*two))
    row("Where", condition, w(*one), x(*two))
    row("Where", condition, x(*one), x(*two))
row("Where", given([[True], [False]], np.bool_, constant=False), x(2, 3), w(3))

# Reductions.

for op_type in (
    "ReduceSum",
    "ReduceMean",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
):
    inside = (0.3, 2.0) if op_type in ("ReduceLogSum", "ReduceProd") else None
    for keepdims in (0, 1):
        row(op_type, x(2, 3, 4, within=inside), ints(1), keepdims=keepdims)
        row(op_type, x(2, 3, 4, within=inside), ints(-1, 0), keepdims=keepdims)
        row(op_type, x(2, 3, 4, within=inside), keepdims=keepdims)
        row(op_type, x(2, 3, 4, within=inside), ints(), keepdims=keepdims)
    row(op_type, x(2, 3, 4, within=inside), ints(2))
    row(op_type, x(2, 3, within=inside), ints(), noop_with_empty_axes=1, tolerance=1e-6)
    row(op_type, x(2, 3, within=inside), noop_with_empty_axes=1)
    row(op_type, x(2, 3, within=inside), noop_with_empty_axes=1, keepdims=0)
    row(op_type, x(2, 3, 4, within=inside), ints(1), noop_with_empty_axes=1)
for opset in (18, 20):
    at = {"axis": 1} if opset == 18 else {}
    row("DFT", x(2, 5, 1), opset=opset, **at)
    row("DFT", x(2, 5, 2), opset=opset, inverse=1, **at)
    row("DFT", x(2, 6, 1), opset=opset, onesided=1, **at)
    row("DFT", x(2, 5, 1), given(8, np.int64), opset=opset, onesided=1, **at)
    row("DFT", x(2, 5, 2), given(3, np.int64), opset=opset, **at)
row("DFT", x(2, 3, 4, 2), axis=2)
row("DFT", x(2, 3, 4, 2), None, given(1, np.int64), opset=20)
row("DFT", x(2, 4, 2), inverse=1, onesided=1, opset=20, refused="one-sided and inverse")
row("STFT", x(2, 16, 1), given(4, np.int64), w(8))
row("STFT", x(2, 17, 1), given(3, np.int64), None, given(6, np.int64))
row("STFT", x(2, 16, 1), given(4, np.int64), w(8), onesided=0)
row("STFT", x(2, 16, 2), given(4, np.int64), w(8), onesided=0, refused="complex")
row("ReduceProd", given([[2.0, 0.0, 3.0], [0.0, 0.0, 1.0]], active=True), ints(1), note="with zeros")
row("ReduceL1", x(2, 3), ints(1), note="both signs")
row("CumSum", x(2, 3, 4), given(1, np.int64))
for exclusive in (0, 1):
    for reverse in (0, 1):
        row("CumSum", x(2, 3, 4), given(-1, np.int64), exclusive=exclusive, reverse=reverse)
row("CumSum", x(2, 3, 4), given(0, np.int64), reverse=1)
for n in (1, 2, 3):
    row("Det", x(n, n), half=NO_HALF)
row("Det", x(2, 4, 4), half=NO_HALF)
row("Det", given([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 1.0]], active=True), note="singular", half=NO_HALF)

# Normalisations.

NORMALISED = [w(4), w(4), w(4), w(4, within=(0.5, 2))]
row("BatchNormalization", IMAGE, *NORMALISED)
row("BatchNormalization", IMAGE, *NORMALISED, epsilon=0.5, momentum=0.1)
row("BatchNormalization", x(3, 4), *NORMALISED)
row("BatchNormalization", x(3, 4, 5), *NORMALISED)
row("BatchNormalization", IMAGE, x(4), *NORMALISED[1:])
row("BatchNormalization", IMAGE, w(4), x(4), *NORMALISED[2:])
row("BatchNormalization", IMAGE, x(4), x(4), *NORMALISED[2:])
row("BatchNormalization", w(2, 4, 6, 5), x(4), *NORMALISED[1:])
row("BatchNormalization", IMAGE, *NORMALISED[:2], x(4), NORMALISED[3], refused="statistics")
row("BatchNormalization", IMAGE, *NORMALISED, training_mode=1, outputs=3, used=(0,), refused="training mode")
row("InstanceNormalization", IMAGE, w(4), w(4))
row("InstanceNormalization", x(2, 3, 5), w(3), w(3), epsilon=0.3)
row("InstanceNormalization", IMAGE, x(4), x(4))
row("InstanceNormalization", IMAGE, x(4), w(4))
row("InstanceNormalization", w(2, 4, 6, 5), w(4), x(4))
for axis in (-1, 1, 2, 0, -3):
    tail = (2, 3, 4)[axis:]
    row("LayerNormalization", x(2, 3, 4), w(*tail), w(*tail), axis=axis, epsilon=0.2)
row("LayerNormalization", x(2, 3, 4), w(4))
row("LayerNormalization", x(2, 3, 4), w(3, 4), w(4), axis=1, note="a bias that broadcasts")
row("LayerNormalization", x(2, 3, 4), w(4), w(4), stash_type=1, outputs=3, used=(0,))
row("LayerNormalization", x(2, 3, 4), w(4), w(4), outputs=2, used=(0, 1), refused="mean or standard deviation")
row("LayerNormalization", x(2, 3, 4), x(4))
row("LayerNormalization", x(2, 3, 4), x(3, 4), w(4), axis=1)
row("LayerNormalization", x(2, 3, 4), w(3, 4), x(4), axis=1)
row("LayerNormalization", w(2, 3, 4), x(4), x(4))
# onnx.reference takes the batch size for the number of channels, and alpha / size in float32.
for size in (1, 2, 3, 4, 5, 9):
    row(
        "LRN",
        x(5, 5, 3, 2),
        size=size,
        alpha=0.125 * size,
        beta=0.6,
        bias=1.5,
        runtime="" if size % 2 else "onnxruntime takes odd sizes alone",
    )
row("LRN", x(2, 5, 3, 2), size=3, reference="onnx.reference takes the batch size for the number of channels")
for axis in (-1, 0, 1):
    row("LpNormalization", x(2, 3, 4), axis=axis)
    row("LpNormalization", x(2, 3, 4), p=1, axis=axis, reference="onnx.reference forgets the absolute value")
row("LpNormalization", x(2, 3, 4, within=(0.5, 2)), p=1)
for op_type in ("Softmax", "LogSoftmax"):
    for axis in (-1, 0, 1):
        row(op_type, x(2, 3, 4), axis=axis)
    row(op_type, x(3, 5))

# Shapes.

row("Reshape", x(2, 3, 4), ints(4, -1))
row("Reshape", x(2, 3, 4), ints(0, 12))
row("Reshape", x(2, 3, 4), ints(2, 1, 12), allowzero=1)
for axis in (0, 1, 2, 3, -1, -2):
    row("Flatten", x(2, 3, 4), axis=axis)
row("Transpose", x(2, 3, 4))
row("Transpose", x(2, 3, 4), perm=[1, 2, 0])
row("Transpose", x(2, 3, 4, 5), perm=[0, 2, 3, 1])
row("Squeeze", x(2, 1, 3, 1))
row("Squeeze", x(2, 1, 3, 1), ints(1))
row("Squeeze", x(2, 1, 3, 1), ints(-1))
row("Unsqueeze", x(2, 3), ints(0))
row("Unsqueeze", x(2, 3), ints(1, -1))
row("Expand", x(3, 1), ints(2, 3, 4))
row("Expand", x(2, 1, 4), ints(3, 1))
row("Expand", x(2, 3), ints(1))
row("Expand", x(1, 3), ints(2, 3))
row("Tile", x(2, 3), ints(2, 1))
row("Tile", x(2, 3), ints(1, 3))
row("Tile", x(2, 3, 2), ints(3, 1, 2))
row("Concat", x(2, 3), x(2, 1), axis=1)
row("Concat", x(2, 3), x(2, 3), x(2, 3), axis=0)
row("Concat", x(2, 3, 2), w(2, 1, 2), axis=-2)
row("Concat", w(2, 3), x(2, 2), w(2, 1), x(2, 1), axis=-1)
row("Concat", x(2, 3), axis=0)
row("Split", x(2, 5), ints(2, 3), axis=1, outputs=2)
row("Split", x(2, 6), axis=-1, num_outputs=3, outputs=3)
row("Split", x(2, 7), axis=1, num_outputs=3, outputs=3, note="uneven")
row("Split", x(2, 6), ints(1, 2, 3), axis=1, outputs=3, used=(1,))
row("Split", x(4, 3), ints(1, 3), outputs=2, used=(0,))
row("Split", x(4, 3), num_outputs=1, outputs=1)
LOWEST, HIGHEST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
row("Slice", x(5, 6), ints(1), ints(4))
row("Slice", x(5, 6), ints(1, 2), ints(4, 5))
row("Slice", x(5, 6), ints(1), ints(4), ints(1))
row("Slice", x(5, 6), ints(-4), ints(HIGHEST), ints(-1))
row("Slice", x(5, 6), ints(0), ints(HIGHEST), ints(1), ints(2))
row("Slice", x(5, 7), ints(1), ints(HIGHEST), ints(1), ints(3))
row("Slice", x(5, 6), ints(-1), ints(LOWEST), ints(0), ints(-1))
row("Slice", x(5, 8), ints(6), ints(0), ints(1), ints(-2))
row("Slice", x(5, 8), ints(100, -100), ints(-100, 100), ints(-1, 0), ints(-3, 2))
row("Slice", x(5, 6), ints(0, 0), ints(5, 6), note="everything")
row("Slice", x(3, 5, 4), ints(1, 0), ints(3, 4), ints(2, 1), ints(1, 2))
row("Slice", x(5, 6), given([1], np.int64, constant=False), ints(4), refused="not constant")

row("Pad", x(2, 3), ints(0, 1, 2, 0))
row("Pad", x(2, 3), ints(0, 1, 2, 0), given(0.0))
row("Pad", x(2, 3), ints(1, 1, 1, 1), given(0.7))
row("Pad", x(2, 3), ints(1, 1), given(0.7), ints(1))
row("Pad", x(2, 3), ints(1, 1), None, ints(-2))
NEGATIVE = "onnx.reference takes no negative pads"
row("Pad", x(4, 5), ints(-1, 2, 1, -2), given(0.7), reference=NEGATIVE)
row("Pad", x(4, 5), ints(-1, -1, 1, -2), reference=NEGATIVE)
row("Pad", x(2, 3), ints(0, 1, 0, 2), given(0.7, constant=False), note="the value is an input")
row("Pad", x(2, 3), ints(0, 1, 0, 2), given(0.7, active=True), note="the value is active")
for mode in ("reflect", "edge", "wrap"):
    row("Pad", x(4, 5), ints(1, 2, 2, 3), mode=mode, opset=19)
    row("Pad", x(1, 4, 5), ints(2, 1), None, ints(-1), mode=mode, opset=19)
row("Pad", w(2, 3), ints(0, 1, 0, 2), given(0.7, active=True))
row("Pad", x(4, 5), ints(-1, 0, 2, 0), mode="edge", opset=19, reference=NEGATIVE)
row("Pad", x(2, 3), given([0, 1, 0, 2], np.int64, constant=False), refused="not constant")
for mode in ("DCR", "CRD"):
    row("DepthToSpace", x(2, 12, 2, 3), blocksize=2, mode=mode)
    row("DepthToSpace", x(1, 9, 2, 1), blocksize=3, mode=mode)
row("SpaceToDepth", x(2, 3, 4, 6), blocksize=2)
for mode in ("DCR", "CRD"):
    row("SpaceToDepth", x(2, 3, 4, 6), blocksize=2, mode=mode, opset=28, runtime="onnxruntime has opset 26")
row("Col2Im", x(2, 8, 6), ints(3, 4), ints(2, 2))
row("Col2Im", x(1, 6, 6), ints(5, 6), ints(3, 2), strides=[2, 2], pads=[1, 0, 0, 0])
row("Col2Im", x(1, 4, 6), ints(4, 5), ints(2, 2), dilations=[2, 2])
for k in (-1, 0, 1, 2):
    for upper in (0, 1):
        row("Trilu", x(2, 3, 4), given(k, np.int64), upper=upper)
row("Trilu", x(3, 3))

# Selections.

row("Gather", x(4, 3), ints(0, 2, 2))
row("Gather", x(4, 3), given(1, np.int64))
row("Gather", x(4, 3), given(-1, np.int64), axis=1)
row("Gather", x(4, 3), given([[0, -1], [2, 2]], np.int32), axis=0)
row("Gather", x(2, 3, 4), given([[3, -4], [1, 1], [0, 0]], np.int64), axis=2)
row("Gather", x(2, 3, 4), given([2, 0], np.int64, constant=False), axis=-2)
row("GatherElements", x(3, 3), given([[1, 2, 0], [2, 0, 0]], np.int64), axis=0)
row("GatherElements", x(3, 3), given([[0, -1], [2, 2], [-3, 1]], np.int64), axis=1)
row("GatherElements", x(2, 3, 2), given([[[0, 2]], [[-1, 1]]], np.int64), axis=-2)
row("GatherND", x(3, 4), given([[0, 1], [2, 3], [2, 3]], np.int64))
row("GatherND", x(3, 4), given([[1], [-1], [1]], np.int64))
row("GatherND", x(2, 3, 4), given([[[0, 1]], [[1, -1]]], np.int64))
row("GatherND", x(2, 3, 4), given([[1], [0]], np.int64), batch_dims=1)
row("GatherND", x(2, 3, 4), given([[[1], [0], [-1]], [[3], [3], [2]]], np.int64), batch_dims=2)
for reduction in ("none", "add"):
    scatter = {"reduction": reduction, "half": "onnxruntime adds no float16" if reduction == "add" else ""}
    updates = given([[0, 2, 1], [2, 0, 0]], np.int64)
    row("ScatterElements", x(3, 3), updates, x(2, 3), axis=0, **scatter)
    row("ScatterElements", w(3, 3), updates, x(2, 3), axis=0, **scatter)
    row("ScatterElements", x(3, 3), updates, w(2, 3), axis=0, **scatter)
    row(
        "ScatterElements",
        x(3, 4),
        given([[1, -1], [0, 2]], np.int64),
        x(2, 2),
        axis=-1,
        **scatter,
        reference="onnx.reference wants equal sizes of GatherElements",
    )
    places = given([[0, 1], [2, -1]], np.int64)
    row("ScatterND", x(3, 4), places, x(2), **scatter)
    row("ScatterND", w(3, 4), places, x(2), **scatter)
    row("ScatterND", x(3, 4), given([[2], [0]], np.int64), w(2, 4), **scatter)
row("ScatterElements", x(3, 3), given([[0, 2, 1], [0, 0, 0]], np.int64), x(2, 3), axis=0, note="repeated", **scatter)
for constant in (True, False):  # of writes to one place, onnxruntime keeps the last
    along, down = given([[1, 1, -2], [0, 2, 0]], np.int64, constant=constant), {"note": "overwritten"}
    row("ScatterElements", x(2, 3), along, x(2, 3), axis=1, **down)
    row("ScatterElements", w(2, 3), along, x(2, 3), axis=-1, **down)
    row("ScatterElements", x(3, 3), given([[0, 2, 1], [0, -1, 0]], np.int64, constant=constant), x(2, 3), **down)
    row("ScatterElements", x(2, 3), along, w(2, 3), axis=1, **down)
    row("ScatterND", x(3, 4), given([[0, 1], [2, -1], [0, 1], [2, 3]], np.int64, constant=constant), x(4), **down)
    row("ScatterND", w(3, 4), given([[[1], [2]], [[1], [-2]]], np.int64, constant=constant), x(2, 2, 4), **down)
    row("ScatterND", x(3, 4), given([[2], [2], [0]], np.int64, constant=constant), x(3, 4), **down)
for reduction in ("mul", "max", "min"):
    row("ScatterElements", x(3, 3), given([[0, 2, 1]], np.int64), x(1, 3), reduction=reduction, refused="reduction")
    row("ScatterND", x(3, 4), given([[0, 1], [2, -1]], np.int64), x(2), reduction=reduction, refused="reduction")
row("TopK", x(3, 6), ints(2), outputs=2, used=(0,))
row("TopK", x(3, 6, 2), ints(3), axis=1, largest=0, sorted=1, outputs=2, used=(0,))
row("ReverseSequence", x(4, 3, 2), ints(1, 4, 3), time_axis=0, batch_axis=1)
row("ReverseSequence", x(3, 4, 2), ints(1, 4, 2), time_axis=1, batch_axis=0)
row("Compress", x(3, 4), given([True, False, True], np.bool_), axis=0)
row("Compress", x(3, 4), given([False, True, True], np.bool_), axis=-1)
row("Compress", x(3, 4), given([False, True, True, False, True], np.bool_))

# Resize.

DISAGREE = "onnxruntime and onnx.reference disagree about y"
TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
for mode in ("nearest", "linear", "cubic"):
    for transform in TRANSFORMS:
        fields: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform, "opset": 19}
        row("Resize", x(1, 2, 4, 5), None, singles(1, 1, 2, 2), **fields)
        row(
            "Resize",
            x(1, 2, 4, 5),
            None,
            singles(1, 1, 1.5, 0.7),
            **fields,
            reference=DISAGREE if transform == "align_corners" else "",
        )
        row("Resize", x(1, 2, 4, 5), None, None, ints(1, 2, 7, 3), **fields)
for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
    for transform in ("half_pixel", "asymmetric"):
        row(
            "Resize",
            x(1, 2, 4, 5),
            None,
            singles(1, 1, 2, 1.6),
            mode="nearest",
            nearest_mode=rounding,
            coordinate_transformation_mode=transform,
            reference=DISAGREE if (rounding, transform) == ("round_prefer_ceil", "asymmetric") else "",
        )
row("Resize", x(1, 2, 4, 5), None, singles(1, 1, 0.5, 0.6), mode="linear", antialias=1)
row("Resize", x(1, 2, 6, 5), None, singles(1, 1, 0.5, 0.6), mode="cubic", antialias=1)
row("Resize", x(1, 2, 4, 5), None, singles(1, 1, 2, 1.5), mode="cubic", cubic_coeff_a=-0.5)
row("Resize", x(1, 2, 4, 5), None, singles(1, 1, 2, 1.5), mode="cubic", exclude_outside=1)
row("Resize", x(1, 2, 4, 5), None, singles(2, 1.5), mode="linear", axes=[2, 3])
row(
    "Resize",
    x(1, 2, 4, 5),
    None,
    singles(2, 1.5),
    mode="linear",
    axes=[3, -2],
    reference="onnx.reference wants ordered axes",
)
row("Resize", x(1, 2, 4, 5), None, None, ints(6, 9), mode="linear", axes=[2, 3])
for policy in ("not_larger", "not_smaller"):
    row("Resize", x(1, 2, 4, 6), None, None, ints(6, 12), mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy)
    row("Resize", x(1, 2, 4, 6), None, None, ints(2, 6), mode="nearest", axes=[2, 3], keep_aspect_ratio_policy=policy)
    row(
        "Resize",
        x(1, 2, 4, 5),
        None,
        None,
        ints(5, 20 if policy == "not_larger" else 2),
        mode="linear",
        axes=[2, 3],
        keep_aspect_ratio_policy=policy,
    )
    row(
        "Resize",
        x(1, 2, 4, 5),
        None,
        None,
        ints(6, 8) if policy == "not_larger" else ints(2, 3),
        axes=[2, 3],
        keep_aspect_ratio_policy=policy,
        refused="rounding a size up",
    )
row("Resize", x(1, 2, 5), None, singles(1, 1, 2), mode="linear")
row("Resize", x(1, 1, 2, 3, 2), None, singles(1, 1, 2, 2, 1.5), mode="linear")
row("Resize", x(1, 4, 5, 2), None, singles(1, 2, 2, 1), mode="nearest", note="channels last")
row("Resize", x(1, 2, 4, 5), None, singles(1, 1, 1, 1), mode="linear")
for mode in ("linear", "nearest"):
    for value in (0.0, 0.7):
        fields = {"mode": mode, "extrapolation_value": value, "reference": DISAGREE}
        row(
            "Resize",
            x(1, 2, 4, 5),
            singles(0, 0, 0.1, -0.2, 1, 1, 0.8, 1.3),
            singles(1, 1, 2, 1.5),
            coordinate_transformation_mode="tf_crop_and_resize",
            **fields,
        )
row("Resize", x(1, 2, 4, 5), None, given([1, 1, 2, 2], np.float32, constant=False), refused="not constant")
