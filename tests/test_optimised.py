"""Optimised graphs: fused operators are taken apart and explained as the operators they were."""

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
from fgonnx.engine.rules import registry
from fgonnx.errors import OptionError, UnsupportedError
from tests import skips
from tests.support import draw
from tests.support import model as text_model

MICROSOFT = "com.microsoft"


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


CASES: dict[str, tuple[str, dict[str, np.ndarray], dict[str, Any]]] = {
    "FusedConv, Relu": (
        "FusedConv",
        {"x": random(1, 3, 6, 6), "w": random(4, 3, 3, 3), "b": random(4)},
        {"activation": "Relu", "pads": [1, 1, 1, 1]},
    ),
    "FusedConv, LeakyRelu": (
        "FusedConv",
        {"x": random(1, 3, 6, 6), "w": random(4, 3, 3, 3), "b": random(4)},
        {"activation": "LeakyRelu", "activation_params": [0.2]},
    ),
    "FusedConv, Clip": (
        "FusedConv",
        {"x": random(1, 3, 6, 6), "w": random(4, 3, 3, 3), "b": random(4)},
        {"activation": "Clip", "activation_params": [0.0, 6.0]},
    ),
    "FusedConv, sum": (
        "FusedConv",
        {"x": random(1, 3, 6, 6), "w": random(4, 3, 1, 1), "b": random(4), "z": random(1, 4, 6, 6)},
        {"activation": "Relu"},
    ),
    "FusedGemm": ("FusedGemm", {"x": random(2, 5), "w": random(5, 3), "b": random(3)}, {"activation": "Relu"}),
    "FusedMatMul": ("FusedMatMul", {"x": random(2, 3, 5), "w": random(2, 4, 5)}, {"transB": 1, "alpha": 0.5}),
    "Gelu": ("Gelu", {"x": random(2, 5)}, {}),
    "BiasGelu": ("BiasGelu", {"x": random(2, 5), "b": random(5)}, {}),
    "FastGelu": ("FastGelu", {"x": random(2, 5), "b": random(5)}, {}),
    "QuickGelu": ("QuickGelu", {"x": random(2, 5)}, {"alpha": 1.0}),
    "SkipLayerNormalization": (
        "SkipLayerNormalization",
        {
            "x": random(2, 3, 8),
            "s": random(2, 3, 8, seed=1),
            "g": random(8),
            "b": random(8, seed=1),
            "c": random(8, seed=2),
        },
        {"epsilon": 1e-5},
    ),
}


def model_of(op_type: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> onnx.ModelProto:
    x = inputs["x"]
    graph = helper.make_graph(
        [helper.make_node(op_type, list(inputs), ["y"], name="fused", domain=MICROSOFT, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in inputs.items() if n != "x"],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("name", CASES)
def test_a_fused_operator_is_rewritten_to_standard_ones_with_its_value_and_gradient(name: str) -> None:
    op_type, inputs, attributes = CASES[name]
    model, x = model_of(op_type, inputs, attributes), inputs["x"]
    gradient = fgonnx.grad(model)
    assert {n.domain for n in gradient.graph.node} == {""}
    plain = Session(model)
    expected = plain.run({"x": x})["y"]
    seed, direction, step = random(*expected.shape, seed=5), random(*x.shape, seed=6), 1e-2
    results = Session(gradient).run({"x": x, "y_grad": seed})
    np.testing.assert_allclose(results["y"], expected, rtol=1e-5, atol=1e-6)
    ends = [plain.run({"x": x + s * step * direction})["y"].astype(np.float64) for s in (1, -1)]
    measured = float(((ends[0] - ends[1]) * seed).sum() / (2 * step))
    assert float((results["x_grad"] * direction).sum()) == pytest.approx(measured, rel=2e-2, abs=2e-2)


@pytest.fixture
def optimised(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The shipped example's network, as onnxruntime's optimiser saves it."""
    source = Path(__file__).parents[1] / "examples" / "shapes.onnx"
    target = tmp_path / "optimised.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, request.param)
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return target


@pytest.mark.parametrize("optimised", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"], indirect=True)
def test_an_optimised_model_is_explained_like_its_source(optimised: Path) -> None:
    # The optimiser folds BatchNormalization into convolutions, which moves bias between sites; score and gradient stay.
    x = random(2, 3, 64, 64)
    source = Path(__file__).parents[1] / "examples" / "shapes.onnx"
    before, after = (fgonnx.Explainer(m, input_gradient=True)(x) for m in (source, optimised))
    np.testing.assert_allclose(after.score, before.score, rtol=1e-4)
    assert after.relative_residual().max() < 1e-5
    assert before.input_gradient is not None
    assert after.input_gradient is not None
    assert np.corrcoef(before.input_gradient.ravel(), after.input_gradient.ravel())[0, 1] > 0.999


BLOCKED = """(float[N,3,17,13] x) => (float[N,5] y) {
    a = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w1, b1)
    a1 = Relu(a)
    b = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=32>(a1, w2, b2)
    b1_ = Add(b, a1)
    c = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(b1_)
    d = Conv<kernel_shape=[1,1]>(c, w3, b3)
    d1 = LeakyRelu<alpha=0.2>(d)
    e = MaxPool<kernel_shape=[2,2]>(d1)
    f = Conv<kernel_shape=[3,3], group=2>(e, w4, b4)
    g = Sigmoid(f)
    h = GlobalAveragePool(g)
    i = Flatten(h)
    y = Gemm(i, w5, b5)
}"""


def _for_one_processor(model: onnx.ModelProto, folder: Path) -> Path:
    """Save a model (as source.onnx) and what onnxruntime makes of it for this processor; return the latter."""
    source, target = folder / "source.onnx", folder / "blocked.onnx"
    onnx.save(model, source)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    if not any(n.domain == "com.microsoft.nchwc" for n in onnx.load(target).graph.node):
        skips.now(skips.PROCESSOR, "no blocked layout")
    return target


def test_a_model_saved_for_one_processor_has_the_gradient_of_its_source(tmp_path: Path) -> None:
    """Channels in blocks: of an input of three channels, depthwise, in groups, and of numbers that fill no block."""
    shapes = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (32, 1, 3, 3), "b2": (32,), "w3": (64, 32, 1, 1), "b3": (64,)}
    shapes |= {"w4": (64, 32, 3, 3), "b4": (64,), "w5": (64, 5), "b5": (5,)}
    source = tmp_path / "source.onnx"
    target = _for_one_processor(text_model(BLOCKED, weights=draw(**shapes)), tmp_path)
    x = random(2, 3, 17, 13)
    before, after = (fgonnx.Explainer(m, input_gradient=True)(x) for m in (source, target))
    assert after.rounding_residual().max() < 1e-6
    np.testing.assert_allclose(after.score, before.score, rtol=1e-5)
    np.testing.assert_allclose(after.input_gradient, before.input_gradient, rtol=1e-3, atol=1e-6)


SHAPED: dict[str, tuple[str, str, int, tuple[int, ...]]] = {
    "rows, columns, channels": (
        "float[12,14,3] x",
        "t = Transpose<perm=[2,0,1]>(x)\nu = Unsqueeze(t, z)",
        3,
        (1, 12, 14),
    ),
    "channels first": ("float[3,12,14] x", "u = Unsqueeze(x, z)", 3, (1, 12, 14)),
    "channels last, filled up": ("float[N,12,14,16] x", "u = Transpose<perm=[0,3,1,2]>(x)", 16, (2, 12, 14)),
    "pictures without channels": ("float[N,12,14] x", "u = Unsqueeze(x, one)", 1, (2, 12, 14)),
}


@pytest.mark.parametrize("case", SHAPED)
def test_axes_are_read_by_operators_for_one_processor(case: str, tmp_path: Path) -> None:
    declared, front, channels, shape = SHAPED[case]
    samples = "N" if "[N" in declared else "1"
    text = f"""({declared}) => (float[{samples},5] y) {{
        {front}
        c = Conv<pads=[1,1,1,1]>(u, w, b)
        r = Relu(c)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm(f, g, gb)
    }}"""
    weights = draw(w=(16, channels, 3, 3), b=(16,), g=(16, 5), gb=(5,))
    weights |= {"z": np.array([0], np.int64)} if "z)" in front else {}
    weights |= {"one": np.array([1], np.int64)} if "one" in front else {}
    target = _for_one_processor(text_model(text, weights=weights), tmp_path)
    x = random(*(2 if d == "N" else int(d) for d in declared[6:-3].split(",")))
    assert fgonnx.Explainer(target)(x).saliency.shape == shape


def test_a_layout_that_an_operator_for_one_processor_contradicts_is_refused(tmp_path: Path) -> None:
    text = """(float[12,14,3] x) => (float[1,5] y) {
        t = Transpose<perm=[2,0,1]>(x)
        u = Unsqueeze(t, z)
        c = Conv<pads=[1,1,1,1]>(u, w, b)
        p = GlobalAveragePool(c)
        f = Flatten(p)
        y = Gemm(f, g, gb)
    }"""
    weights = draw(w=(16, 3, 3, 3), b=(16,), g=(16, 5), gb=(5,)) | {"z": np.array([0], np.int64)}
    target = _for_one_processor(text_model(text, weights=weights), tmp_path)
    with pytest.raises(OptionError, match="reads it as a row or column"):
        fgonnx.Explainer(target, layout="CHW")


def test_an_unknown_custom_operator_is_refused_by_name() -> None:
    model = model_of("Inverse", {"x": random(2, 3, 3)}, {})
    with pytest.raises(UnsupportedError, match=r"com\.microsoft\.Inverse"):
        fgonnx.grad(model)


def test_a_rule_of_the_users_own_explains_a_custom_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", {k: list(v) for k, v in registry._RULES.items()})

    @fgonnx.rule("Inverse", domain=MICROSOFT, note="degree -1: c = 2 y")
    def inverse(op: Any, y: Any, x: Any) -> fgonnx.Local:
        # d(x^-1) = -x^-1 dx x^-1
        turned = op.Transpose(y, perm=[0, 2, 1])
        return fgonnx.Local(lambda g: op.Neg(op.MatMul(turned, op.MatMul(g, turned))), op.Add(y, y), "implicit")

    x = random(2, 3, 3) + 3 * np.eye(3, dtype=np.float32)
    explanation = fgonnx.Explainer(model_of("Inverse", {"x": x[:1]}, {}), input_gradient=True)(x, 4)
    assert explanation.rounding_residual().max() < 1e-6
    truth = [-np.outer(np.linalg.inv(m)[1, :], np.linalg.inv(m)[:, 1]) for m in x]
    np.testing.assert_allclose(explanation.input_gradient, truth, rtol=1e-4, atol=1e-6)
