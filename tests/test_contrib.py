"""Operators that onnxruntime's optimiser and quantiser write: values as they are, slopes as those of differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError
from tests import skips
from tests.integer_networks import network, pictures, slope

MICROSOFT = "com.microsoft"
Inputs = dict[str, np.ndarray | None]
Case = tuple[str, Inputs, dict[str, Any]]

HEADS, SIZE, STEPS, KEYS = 3, 12, 5, 7


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale).astype(np.float32)


def some(*shape: int, seed: int = 0) -> np.ndarray:
    """Ones, and some zeros, but never a whole row of them."""
    found = (np.random.default_rng([seed, *shape]).random(shape) > 0.4).astype(np.int32)
    found[..., 0] = 1
    return found


X = random(2, STEPS, SIZE)
PROJECTED: Inputs = {"x": X, "w": random(SIZE, 3 * SIZE, scale=0.4), "b": random(3 * SIZE)}
PAST = random(2, 2, HEADS, 4, SIZE // HEADS)
CROSS: Inputs = {"x": X, "k": random(2, KEYS, SIZE), "v": random(2, KEYS, SIZE, seed=1)}
BIASED: Inputs = {**CROSS, "b": random(3 * SIZE)}


def attention(more: Inputs | None = None, inputs: Inputs = PROJECTED, **attributes: Any) -> Case:
    return "Attention", {**inputs, **(more or {})}, {"num_heads": HEADS, **attributes}


def multi_head(inputs: Inputs, **attributes: Any) -> Case:
    return "MultiHeadAttention", inputs, {"num_heads": HEADS, **attributes}


def few_bits(bits: int, zeros: str = "", *, reordered: bool = False, bias: bool = False, **attributes: Any) -> Case:
    """40 columns in blocks of 16: the last block is not full, and neither is the last byte of zero points."""
    rng = np.random.default_rng(bits)
    rows, columns, block = 6, 40, 16
    blocks = -(-columns // block)
    inputs: Inputs = {
        "x": random(3, columns),
        "w": rng.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8),
        "s": np.abs(random(rows, blocks)) + 0.1,
        "z": None,
        "g": None,
    }
    if zeros == "packed":
        inputs["z"] = rng.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8)
    elif zeros:
        inputs["z"] = 3 * np.abs(random(rows, blocks, seed=1))
    if reordered:
        inputs["g"] = rng.integers(0, blocks, columns).astype(np.int32)
    if bias:
        inputs["b"] = random(rows)
    return "MatMulNBits", inputs, {"K": columns, "N": rows, "bits": bits, "block_size": block, **attributes}


ROTARY: Inputs = {
    "places": np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]], np.int64),
    "cos": random(9, 4),
    "sin": random(9, 4, seed=1),
}

CASES: dict[str, Case] = {
    "Attention": attention(),
    "Attention, no bias": attention(inputs={"x": X, "w": PROJECTED["w"]}),
    "Attention, causal": attention(unidirectional=1),
    "Attention, scale": attention(scale=0.3),
    "Attention, values of their own size": attention(
        inputs={"x": X, "w": random(SIZE, 30, scale=0.4), "b": random(30)}, qkv_hidden_sizes=[12, 12, 6]
    ),
    "Attention, mask of keys": attention({"m": some(2, STEPS)}),
    "Attention, mask of keys, causal": attention({"m": some(2, STEPS)}, unidirectional=1),
    "Attention, mask that is weak": attention({"m": some(2, STEPS)}, mask_filter_value=-1.0),
    "Attention, lengths": attention({"m": np.array([3, 5], np.int32)}),
    "Attention, ends and starts": attention({"m": np.array([4, 5, 1, 2], np.int32)}),
    "Attention, mask of pairs": attention({"m": some(2, STEPS, STEPS)}),
    "Attention, past": attention({"m": None, "p": PAST}),
    "Attention, past, mask, causal": attention({"m": some(2, STEPS + 4), "p": PAST}, unidirectional=1),
    "Attention, bias of scores": attention({"m": None, "p": None, "e": random(1, HEADS, STEPS, STEPS)}),
    "MultiHeadAttention": multi_head({**CROSS, "v": random(2, KEYS, 6)}),
    "MultiHeadAttention, bias, scale": multi_head(BIASED, scale=0.3),
    "MultiHeadAttention, mask of keys": multi_head({**BIASED, "m": some(2, KEYS)}),
    "MultiHeadAttention, lengths": multi_head({**BIASED, "m": np.array([3, 5], np.int32)}),
    "MultiHeadAttention, mask of pairs": multi_head({**CROSS, "b": None, "m": some(2, STEPS, KEYS)}),
    "MultiHeadAttention, bias of scores": multi_head({**BIASED, "m": None, "e": random(1, HEADS, STEPS, KEYS)}),
    "MultiHeadAttention, past, causal": multi_head(
        {
            "x": X,
            "k": random(2, STEPS, SIZE),
            "v": random(2, STEPS, SIZE, seed=1),
            **dict.fromkeys("bme"),
            "pk": PAST[0],
            "pv": PAST[1],
        },
        unidirectional=1,
    ),
    "MultiHeadAttention, keys by heads": multi_head(
        {"x": X, "k": random(2, HEADS, KEYS, SIZE // HEADS), "v": random(2, HEADS, KEYS, SIZE // HEADS, seed=1)}
    ),
    "MatMulNBits, 4 bits": few_bits(4),
    "MatMulNBits, 4 bits, zero points": few_bits(4, "packed"),
    "MatMulNBits, 4 bits, real zero points": few_bits(4, "real"),
    "MatMulNBits, 4 bits, in an order of its own": few_bits(4, reordered=True),
    "MatMulNBits, 4 bits, bias": few_bits(4, "packed", bias=True),
    "MatMulNBits, 2 bits": few_bits(2, "packed"),
    "MatMulNBits, 8 bits": few_bits(8, "packed"),
    "FusedMatMul, rows before the batch": (
        "FusedMatMul",
        {"x": random(4, 2, 3, 5), "b": random(2, 3, 5, 6)},
        {"transBatchA": 1, "alpha": 0.5},
    ),
    "FusedMatMul, columns before the batch": (
        "FusedMatMul",
        {"x": random(5, 2, 3, 4), "b": random(6, 2, 3, 5)},
        {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1},
    ),
    "Trilu": ("Trilu", {"x": random(2, 4, 5), "k": np.array(1, np.int64)}, {"upper": 0}),
    "GatherND": ("GatherND", {"x": random(2, 4, 5), "i": np.array([[0, 3], [1, 2]], np.int32)}, {}),
    "Pad": ("Pad", {"x": random(2, 4), "pads": np.array([[0, 1, 2, 0]], np.int64), "v": np.float32([1.5])}, {}),
    "ExpandDims": ("ExpandDims", {"x": random(2, 4), "a": np.array(-1, np.int32)}, {}),
    "GridSample": (
        "GridSample",
        {"x": random(1, 2, 5, 5), "g": np.clip(random(1, 3, 4, 2), -0.9, 0.9)},
        {"mode": "bilinear", "align_corners": 1},
    ),
    "RotaryEmbedding": ("RotaryEmbedding", {"x": random(2, 5, 24), **ROTARY}, {}),
    "RotaryEmbedding, by heads": ("RotaryEmbedding", {"x": random(2, 3, 5, 8), **ROTARY}, {}),
    "RotaryEmbedding, interleaved": ("RotaryEmbedding", {"x": random(2, 5, 24), **ROTARY}, {"interleaved": 1}),
    "RotaryEmbedding, of a part of every head": (
        "RotaryEmbedding",
        {"x": random(2, 5, 30), **ROTARY},
        {"num_heads": 3, "rotary_embedding_dim": 8},
    ),
}


def one(op_type: str, inputs: Inputs, attributes: dict[str, Any]) -> onnx.ModelProto:
    """A model of one node, of which x is the input."""
    x = inputs["x"]
    assert x is not None
    names = [n if a is not None else "" for n, a in inputs.items()]
    presents = {"p": ["present"], "pk": ["present_key", "present_value"]}  # a past asks for them
    outputs = ["y", *(name for n, given in presents.items() if n in inputs and inputs[n] is not None for name in given)]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, outputs, name="fused", domain=MICROSOFT, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in inputs.items() if n != "x" and a is not None],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("name", CASES)
def test_what_the_optimiser_fused_is_written_out_with_its_value_and_gradient(name: str) -> None:
    op_type, inputs, attributes = CASES[name]
    model, x = one(op_type, inputs, attributes), inputs["x"]
    assert x is not None
    gradient = fgonnx.grad(model)
    assert {n.domain for n in gradient.graph.node} == {""}
    plain = Session(model)
    expected = plain.run({"x": x})["y"]
    seed, direction, step = random(*expected.shape, seed=5), random(*x.shape, seed=6), 5e-3
    results = Session(gradient).run({"x": x, "y_grad": seed})
    np.testing.assert_allclose(results["y"], expected, rtol=1e-5, atol=1e-5)
    ends = [plain.run({"x": x + s * step * direction})["y"].astype(np.float64) for s in (1, -1)]
    measured = float(((ends[0] - ends[1]) * seed).sum() / (2 * step))
    assert float((results["x_grad"] * direction).sum()) == pytest.approx(measured, rel=1e-2, abs=2e-2)


def test_what_rounds_its_activations_is_explained_without_their_rounding() -> None:
    op_type, inputs, attributes = few_bits(4, "packed", accuracy_level=4)
    x = inputs["x"]
    assert x is not None
    explanation = fgonnx.Explainer(one(op_type, {**inputs, "x": x[:1]}, attributes))(x[:1], 2)
    assert explanation.rounding_residual().max() < 1e-6


REFUSED: dict[str, tuple[Case, str]] = {
    "a bias beside keys by heads": (
        multi_head({**CASES["MultiHeadAttention, keys by heads"][1], "b": random(3 * SIZE)}),
        "a bias beside keys that are cut into heads",
    ),
    "zero points and an order of its own": (few_bits(4, "packed", reordered=True), "zero points beside an order"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_are_not_built_are_refused_by_name(name: str) -> None:
    case, why = REFUSED[name]
    Session(one(*case)).run({"x": case[1]["x"]})  # it is a model that runs
    with pytest.raises(UnsupportedError, match=rf"'fused' \(com.microsoft.{case[0]}.*{why}"):
        fgonnx.grad(one(*case))


def quantised(branch: str) -> onnx.ModelProto:
    """A network with a branch in which the operators of com.microsoft begin with "Ms"."""
    source = network(branch, opset=18)
    for node in source.graph.node:
        if node.op_type.startswith("Ms"):
            node.op_type, node.domain = node.op_type[2:], MICROSOFT
    source.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return source


Q = "q = QuantizeLinear(y, s, z3)\n"
D = "\nd = DequantizeLinear(q2, s2, z0)\nt = Add(y, d)"
R = "h = Sigmoid(y)\nr = QuantizeLinear(h, s2, z0)\n"
LINEAR = {
    "QLinearAdd": Q + R + "q2 = MsQLinearAdd(q, s, z3, r, s2, z0, s2, z0)" + D,
    "QLinearMul": Q + R + "q2 = MsQLinearMul(q, s, z3, r, s2, z0, s2, z0)" + D,
    "QLinearConcat": Q
    + R
    + "q2 = MsQLinearConcat<axis=2>(s2, z0, q, s, z3, r, s2, z0)\nt = DequantizeLinear(q2, s2, z0)",
    "QLinearWhere": Q + R + "q2 = MsQLinearWhere(mask, q, s, z3, r, s2, z0, s2, z0)" + D,
    "QLinearLeakyRelu": Q + "q2 = MsQLinearLeakyRelu<alpha=0.3>(q, s, z3, s2, z0)" + D,
    "QLinearSigmoid": Q
    + "q2 = MsQLinearSigmoid(q, s, z3, hundredths, low)\nd = DequantizeLinear(q2, hundredths, low)\nt = Add(y, d)",
    "QLinearSoftmax": Q
    + """q2 = MsQLinearSoftmax<axis=1,opset=13>(q, s, z3, hundredths, low)
        d = DequantizeLinear(q2, hundredths, low)
        t = Add(y, d)""",
    "QLinearAveragePool": Q + "q2 = MsQLinearAveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(q, s, z3, s2, z0)" + D,
    "QLinearAveragePool, padding counted": Q
    + "q2 = MsQLinearAveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(q, s, z3, s2, z0)"
    + D,
    "QLinearGlobalAveragePool": Q
    + """q2 = MsQLinearGlobalAveragePool(q, s, z3, hundredths, z0)
        d = DequantizeLinear(q2, hundredths, z0)
        t = Add(y, d)""",
    "NhwcMaxPool": Q
    + """q0 = Transpose<perm=[0,2,3,1]>(q)
        q1 = MsNhwcMaxPool<kernel_shape=[2,2]>(q0)
        q2 = Transpose<perm=[0,3,1,2]>(q1)
        t = DequantizeLinear(q2, s, z3)""",
    "quantisers of their own": """q = MsQuantizeLinear(y, s, z3)
        q2 = Relu(q)
        d = MsDequantizeLinear(q2, s, z3)
        t = Add(y, d)""",
    "quantisers of 16 bits": "q = MsQuantizeLinear(y, fine, z16)\nd = MsDequantizeLinear(q, fine, z16)\nt = Add(y, d)",
    "quantisers of 16 bits, entries moved": """q = MsQuantizeLinear(y, fine, z16)
        q2 = Transpose<perm=[0,1,3,2]>(q)
        t = MsDequantizeLinear(q2, fine, z16)""",
    "16 bits, dequantised by hand": """q = MsQuantizeLinear(y, fine, z16)
        c = Cast<to=1>(q)
        d = Mul(c, fine)
        t = Add(y, d)""",
    "DynamicQuantizeMatMul": "d = MsDynamicQuantizeMatMul(y, w8, s)\nt = Add(y, d)",
    "MatMulIntegerToFloat": Q + "d = MsMatMulIntegerToFloat(q, w8, s, s2, z3)\nt = Add(y, d)",
    "MatMulInteger, a zero point of every column": Q
    + "c = MatMulInteger(q, w8, z3, columns)\ne = Cast<to=1>(c)\nd = Mul(e, fine)\nt = Add(y, d)",
    "ConvInteger": Q + "c = ConvInteger(q, k8, z3)\ne = Cast<to=1>(c)\nt = Mul(e, fine)",
}


@pytest.mark.parametrize("case", LINEAR)
def test_slopes_through_quantised_operators_are_those_of_differences(case: str) -> None:
    regression, correlation = slope(quantised(LINEAR[case]), pictures(), 0.04)
    assert regression == pytest.approx(1, abs=0.05)
    assert correlation > 0.98


def transformer() -> onnx.ModelProto:
    """Patches, two layers as onnxruntime's optimiser fuses them, the mean of the tokens, and a head."""
    rng = np.random.default_rng(4)
    size = 16
    arrays = {
        "patch": rng.normal(size=(size, 3, 8, 8)) * 0.1,
        "flat": np.array([0, size, 16], np.int64),
        "axis": np.array([1], np.int64),
        "head": rng.normal(size=(size, 5)),
        "ones": np.ones(size),
        "zeros": np.zeros(size),
    }
    lines = ["p = Conv<strides=[8,8]>(x, patch)", "f = Reshape(p, flat)", "t0 = Transpose<perm=[0,2,1]>(f)"]
    for i in range(2):
        arrays |= {
            f"w{i}": rng.normal(size=(size, 3 * size)) * 0.3,
            f"b{i}": rng.normal(size=3 * size) * 0.1,
            f"u{i}": rng.normal(size=(size, 32)) * 0.3,
            f"c{i}": rng.normal(size=32) * 0.1,
            f"v{i}": rng.normal(size=(32, size)) * 0.3,
        }
        lines += [
            f"a{i} = MsAttention<num_heads=4>(t{i}, w{i}, b{i})",
            f"n{i} = MsSkipLayerNormalization<epsilon=0.00001>(t{i}, a{i}, ones, zeros)",
            f"m{i} = MatMul(n{i}, u{i})",
            f"g{i} = MsBiasGelu(m{i}, c{i})",
            f"o{i} = MatMul(g{i}, v{i})",
            f"t{i + 1} = MsSkipLayerNormalization<epsilon=0.00001>(n{i}, o{i}, ones, zeros)",
        ]
    lines += ["r = ReduceMean<keepdims=0>(t2, axis)", "logits = MatMul(r, head)"]
    body = "\n".join(lines)
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 18]> g (float[N,3,32,32] x) => (float[N,5] logits) {{ {body} }}'
    )
    for node in proto.graph.node:
        if node.op_type.startswith("Ms"):
            node.op_type, node.domain = node.op_type[2:], MICROSOFT
    proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    for name, array in arrays.items():
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(kept, name))
    return proto


def optimised(source: Path, level: str) -> Path:
    target = source.with_name(f"{source.stem}-{level}.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return target


@pytest.mark.parametrize("level", ["", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["float", "int8"])
def test_a_transformer_as_onnxruntime_writes_it_has_the_gradient_of_its_source(
    tmp_path: Path, level: str, dynamic: bool
) -> None:
    source = path = tmp_path / "source.onnx"
    onnx.save(transformer(), source)
    if dynamic:
        quantization = skips.without("onnxruntime.quantization")
        path = tmp_path / "int8.onnx"
        quantization.quantize_dynamic(source, path, extra_options={"DefaultTensorType": TensorProto.FLOAT})
        assert "QAttention" in {n.op_type for n in onnx.load(path).graph.node}
    path = optimised(path, level) if level else path
    x = random(2, 3, 32, 32)
    found = fgonnx.Explainer(path, input_gradient=True)(x, 2)
    assert found.rounding_residual().max() < 1e-6
    expected = fgonnx.Explainer(source, input_gradient=True)(x, 2).input_gradient
    assert expected is not None
    assert found.input_gradient is not None
    a, b = found.input_gradient.ravel(), expected.ravel()
    assert float(a @ b / (b @ b)) == pytest.approx(1, abs=0.05 if dynamic else 1e-4)
    assert np.corrcoef(a, b)[0, 1] > (0.99 if dynamic else 0.9999)
