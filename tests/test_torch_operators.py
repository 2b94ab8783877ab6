"""Rules against torch autograd, operator by operator, at random points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx
from fgonnx.engine.graph.session import Session
from tests import skips

torch = skips.without("torch")
F = torch.nn.functional

Function = Callable[..., Any]
OPSET = 20

IMAGE, MATRIX = (2, 4, 6, 6), (3, 5)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# operator, shapes of the differentiated inputs, constant inputs behind them, attributes, the same in torch
ROWS: list[tuple[str, list[tuple[int, ...]], list[np.ndarray], dict[str, Any], Function]] = [
    ("Abs", [MATRIX], [], {}, torch.abs),
    ("Add", [MATRIX, (5,)], [], {}, torch.add),
    (
        "AveragePool",
        [IMAGE],
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    ("Celu", [MATRIX], [], {"alpha": 1.5}, lambda x: F.celu(x, 1.5)),
    ("Concat", [MATRIX, (2, 5)], [], {"axis": 0}, lambda a, b: torch.cat([a, b])),
    (
        "Conv",
        [IMAGE, (6, 2, 3, 3), (6,)],
        [],
        {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1], "dilations": [1, 2]},
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), 1, (1, 2), 2),
    ),
    (
        "ConvTranspose",
        [IMAGE, (4, 3, 3, 3)],
        [],
        {"strides": [2, 2], "output_padding": [1, 0]},
        lambda x, w: F.conv_transpose2d(x, w, None, 2, 0, (1, 0)),
    ),
    ("CumSum", [MATRIX], [np.array(1, np.int64)], {}, lambda x: torch.cumsum(x, 1)),
    ("DepthToSpace", [IMAGE], [], {"blocksize": 2, "mode": "CRD"}, lambda x: F.pixel_shuffle(x, 2)),
    ("Div", [MATRIX, MATRIX], [], {}, torch.div),
    (
        "Einsum",
        [(2, 3, 4), (2, 4, 5)],
        [],
        {"equation": "bij,bjk->bik"},
        lambda a, b: torch.einsum("bij,bjk->bik", a, b),
    ),
    ("Elu", [MATRIX], [], {"alpha": 0.7}, lambda x: F.elu(x, 0.7)),
    ("Erf", [MATRIX], [], {}, torch.erf),
    ("Gather", [MATRIX], [ints(2, 0, 2)], {"axis": 1}, lambda x: x[:, [2, 0, 2]]),
    ("Gelu", [MATRIX], [], {}, F.gelu),
    ("Gelu", [MATRIX], [], {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    (
        "Gemm",
        [MATRIX, (4, 5), (4,)],
        [],
        {"transB": 1, "alpha": 0.5, "beta": 2.0},
        lambda a, b, c: 0.5 * a @ b.T + 2.0 * c,
    ),
    ("GlobalAveragePool", [IMAGE], [], {}, lambda x: x.mean((2, 3), keepdim=True)),
    (
        "GridSample",
        [IMAGE, (2, 5, 5, 2)],
        [],
        {"align_corners": 0},
        lambda x, g: F.grid_sample(x, g, align_corners=False),
    ),
    (
        "GroupNormalization",
        [IMAGE],
        [np.full(2, 1.5, np.float32), np.full(2, 0.3, np.float32)],
        {"num_groups": 2},
        lambda x: F.group_norm(x, 2) * 1.5 + 0.3,
    ),
    ("HardSigmoid", [MATRIX], [], {"alpha": 1 / 6, "beta": 0.5}, F.hardsigmoid),
    ("HardSwish", [MATRIX], [], {}, F.hardswish),
    ("InstanceNormalization", [IMAGE, (4,), (4,)], [], {}, lambda x, s, b: F.instance_norm(x, weight=s, bias=b)),
    (
        "LRN",
        [IMAGE],
        [],
        {"size": 3, "alpha": 0.3, "beta": 0.75, "bias": 2.0},
        lambda x: F.local_response_norm(x, 3, 0.3, 0.75, 2.0),
    ),
    ("LayerNormalization", [MATRIX, (5,), (5,)], [], {}, lambda x, s, b: F.layer_norm(x, (5,), s, b)),
    ("LeakyRelu", [MATRIX], [], {"alpha": 0.2}, lambda x: F.leaky_relu(x, 0.2)),
    ("LogSoftmax", [MATRIX], [], {"axis": 0}, lambda x: F.log_softmax(x, 0)),
    ("MatMul", [(2, 3, 4), (4, 5)], [], {}, torch.matmul),
    ("Max", [MATRIX, MATRIX], [], {}, torch.maximum),
    (
        "MaxPool",
        [IMAGE],
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
    ("Mish", [MATRIX], [], {}, F.mish),
    ("Mul", [IMAGE, (2, 4, 1, 1)], [], {}, torch.mul),
    ("PRelu", [IMAGE, (4, 1, 1)], [], {}, lambda x, s: F.prelu(x, s.reshape(4))),
    ("Pad", [IMAGE], [ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}, lambda x: F.pad(x, (2, 1, 1, 2), "reflect")),
    ("ReduceL2", [MATRIX], [ints(1)], {}, lambda x: x.norm(dim=1, keepdim=True)),
    ("ReduceLogSumExp", [MATRIX], [ints(1)], {}, lambda x: x.logsumexp(1, keepdim=True)),
    ("ReduceProd", [MATRIX], [ints(1)], {}, lambda x: x.prod(1, keepdim=True)),
    ("Relu", [MATRIX], [], {}, torch.relu),
    ("Selu", [MATRIX], [], {}, F.selu),
    ("Sigmoid", [MATRIX], [], {}, torch.sigmoid),
    ("Softmax", [MATRIX], [], {}, lambda x: F.softmax(x, -1)),
    ("Softplus", [MATRIX], [], {}, F.softplus),
    ("Softsign", [MATRIX], [], {}, F.softsign),
    ("Tanh", [MATRIX], [], {}, torch.tanh),
    ("Transpose", [IMAGE], [], {"perm": [0, 2, 3, 1]}, lambda x: x.permute(0, 2, 3, 1)),
    ("Trilu", [(4, 4)], [], {"upper": 0}, torch.tril),
]


@pytest.mark.parametrize(("op_type", "shapes", "constants", "attributes", "function"), ROWS, ids=[r[0] for r in ROWS])
def test_a_rule_agrees_with_torch_autograd(
    op_type: str,
    shapes: list[tuple[int, ...]],
    constants: list[np.ndarray],
    attributes: dict[str, Any],
    function: Function,
) -> None:
    draw = np.random.default_rng(7)
    arrays = {f"x{i}": draw.normal(size=s).astype(np.float32) for i, s in enumerate(shapes)}
    leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays.values()]
    y = function(*leaves)
    seed = draw.normal(size=tuple(y.shape)).astype(np.float32)
    truth = torch.autograd.grad(y, leaves, torch.tensor(seed.astype(np.float64)))
    fixed = {f"c{i}": c for i, c in enumerate(constants)}
    graph = helper.make_graph(
        [helper.make_node(op_type, [*arrays, *fixed], ["y"], name="node", **attributes)],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in arrays.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, tuple(y.shape))],
        [numpy_helper.from_array(c, n) for n, c in fixed.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    results = Session(fgonnx.grad(model, of="y", wrt=list(arrays))).run({**arrays, "y_grad": seed})
    for name, expected in zip(arrays, truth, strict=True):
        largest = float(expected.abs().max())
        assert np.abs(results[f"{name}_grad"] - expected.numpy()).max() < 1e-5 * max(largest, 1.0)
