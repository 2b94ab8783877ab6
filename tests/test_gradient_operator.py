"""ai.onnx.preview.training.Gradient: onnx's own backend tests, second derivatives, gradients at other points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import ModelError

SIMPLE = Path(onnx.__file__).parent / "backend" / "test" / "data" / "simple"
HEAD = '<ir_version: 8, opset_import: ["": 18, "ai.onnx.preview.training": 1]>'


def lowered(source: str) -> Session:
    return Session(fgonnx.lower_gradients(onnx.parser.parse_model(HEAD + source)))


def tensors(folder: Path, kind: str) -> list[np.ndarray]:
    return [numpy_helper.to_array(onnx.load_tensor(p)) for p in sorted(folder.glob(f"{kind}_*.pb"))]


@pytest.mark.parametrize("name", ["test_gradient_of_add", "test_gradient_of_add_and_mul"])
def test_the_backend_tests_of_onnx_pass(name: str) -> None:
    source = onnx.load(SIMPLE / name / "model.onnx")
    model = fgonnx.lower_gradients(source)
    onnx.checker.check_model(model, full_check=True)
    data = SIMPLE / name / "test_data_set_0"
    feeds = dict(zip([v.name for v in source.graph.input], tensors(data, "input"), strict=True))
    results = Session(model).run(feeds)
    for value, expected in zip(source.graph.output, tensors(data, "output"), strict=True):
        np.testing.assert_allclose(results[value.name], expected, rtol=1e-6)


def test_a_gradient_of_a_gradient_is_the_second_derivative() -> None:
    session = lowered("""g (float[3] x) => (float[3] second) {
        y = Sin (x)
        first = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (x)
        second = ai.onnx.preview.training.Gradient <xs = ["x"], y = "first"> (x)
    }""")
    x = np.array([0.1, 1.0, 2.0], np.float32)
    np.testing.assert_allclose(session.run({"x": x})["second"], -np.sin(x), rtol=1e-5)


def test_the_gradient_is_taken_where_the_inputs_of_the_node_say() -> None:
    session = lowered("""g (float[3] x, float[3] elsewhere) => (float[3] slope) {
        y = Sin (x)
        slope = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (elsewhere)
    }""")
    elsewhere = np.array([0.5, -1.0, 2.0], np.float32)
    result = session.run({"x": np.zeros(3, np.float32), "elsewhere": elsewhere})["slope"]
    np.testing.assert_allclose(result, np.cos(elsewhere), rtol=1e-5)


def test_an_intermediate_value_can_be_the_variable() -> None:
    session = lowered("""g (float[3] x) => (float[3] slope) {
        h = Mul (x, x)
        y = Exp (h)
        slope = ai.onnx.preview.training.Gradient <xs = ["h"], y = "y"> (h)
    }""")
    x = np.array([0.1, 0.5, 1.0], np.float32)
    np.testing.assert_allclose(session.run({"x": x})["slope"], np.exp(x * x), rtol=1e-5)


def test_zs_are_held_fixed() -> None:
    session = lowered("""g (float[3] x, float[3] z) => (float[3] slope) {
        y = Mul (x, z)
        slope = ai.onnx.preview.training.Gradient <xs = ["x"], zs = ["z"], y = "y"> (x, z)
    }""")
    z = np.array([3.0, 4.0, 5.0], np.float32)
    np.testing.assert_allclose(session.run({"x": z, "z": z})["slope"], z)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('g (float[3] x) => (float[3] s) { y = Sin (x) s = DOMAIN.Gradient <xs = ["x"], y = "q"> (x) }', "names q"),
        ('g (float[N] x) => (float[N] s) { y = Sin (x) s = DOMAIN.Gradient <xs = ["x"], y = "y"> (x) }', "free sizes"),
    ],
)
def test_what_cannot_be_lowered_is_said(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        lowered(source.replace("DOMAIN", "ai.onnx.preview.training"))
