"""Operators of old opsets that onnxruntime still runs, and onnx's converter does not raise: held against the file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError
from tests.support import model

SCAN = """i = ReduceMean<axes=[1], keepdims=0>(x)
    [steps] last, all = Scan<num_scan_inputs=1{more},
        body = one (float[4] s, float[4] xi) => (float[4] so, float[4] oo) {{
        a = Add(s, xi) so = Tanh(a) oo = Mul(so, xi)
    }}>({lengths}, i, x)"""
WEIGHTS = {
    "table": np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32),
    "spread": np.array(np.random.default_rng(3).uniform(0.5, 2, (3, 4)), np.float32),
    "lengths": np.array([3, 2], np.int64),
    **{f"by{i}": np.array(by, np.float32) for i, by in enumerate([[1, 1, 0.6], [1, 1, 1.7], [1, 1, 0.5], [1, 2, 0.7]])},
}

#: The opset, and what is computed from x of the shape (N, 3, 4).
CASES: dict[str, tuple[int, str]] = {
    **{
        f"{op} of opset {opset}, {axis or 'no axis'}": (opset, f"h = {op}{axis}(x) u = Mul(h, x)")
        for op, opset, axis in [
            ("Hardmax", 7, ""),
            ("Hardmax", 9, "<axis=1>"),
            ("Hardmax", 11, "<axis=2>"),
            ("Hardmax", 11, "<axis=-1>"),
            ("Hardmax", 12, "<axis=-2>"),
            ("Softmax", 7, ""),
            ("Softmax", 11, "<axis=-2>"),
            ("Softmax", 12, "<axis=1>"),
            ("LogSoftmax", 9, "<axis=1>"),
            ("LogSoftmax", 11, "<axis=2>"),
        ]
    },
    **{
        f"Resize of opset 10, {mode} {i}": (10, f'u = Resize<mode="{mode}">(x, by{i})')
        for mode in ("nearest", "linear")
        for i in range(4)
        if (mode, i) != ("linear", 3)
    },
    "Resize by computed scales": (
        10,
        'd = Shape(x) c = Cast<to=1>(d) e = Div(c, c) f = Mul(e, by3) u = Resize<mode="nearest">(x, f)',
    ),
    "Upsample of opset 9": (9, 'u = Upsample<mode="nearest">(x, by1)'),
    "Upsample of opset 7": (7, 'u = Upsample<mode="linear", scales=[1.0, 1.0, 1.7]>(x)'),
    "Scan": (8, SCAN.format(more="", lengths="") + " u = Mul(all, x)"),
    "Scan, its last state": (8, SCAN.format(more="", lengths="") + " u = Unsqueeze<axes=[1]>(last)"),
    "Scan from the end": (8, SCAN.format(more=", directions=[1]", lengths="") + " u = Mul(all, x)"),
    "BatchNormalization for every entry": (
        7,
        "u = BatchNormalization<spatial=0, epsilon=0.1>(x, table, table, table, spread)",
    ),
    "Dropout and its mask": (7, "h, k = Dropout(x) u = Add(h, k)"),
    "Dropout and its mask of bits": (10, "h, k = Dropout(x) c = Cast<to=1>(k) u = Add(h, c)"),
    "Pad by attributes": (2 + 5, 'u = Pad<pads=[0, 0, 1, 0, 0, 2], mode="reflect">(x)'),
    "Slice by attributes": (9, "u = Slice<starts=[-3], ends=[9], axes=[2]>(x)"),
    "TopK by attributes": (9, "u, i = TopK<k=2, axis=1>(x)"),
    "Unsqueeze and Squeeze by attributes": (11, "a = Unsqueeze<axes=[-1]>(x) u = Squeeze<axes=[-1]>(a)"),
    "a reduction by attributes": (7, "u = ReduceLogSumExp<axes=[2], keepdims=1>(x)"),
}


def network(opset: int, body: str) -> onnx.ModelProto:
    used = {k: v for k, v in WEIGHTS.items() if k in body}
    return model(f"(float[N,3,4] x) => (float[N,a,b] y) {{ {body} y = Tanh(u) }}", opset, 4, weights=used)


@pytest.mark.parametrize("case", CASES)
def test_old_operators_are_those_of_onnxruntime_on_the_file(case: str) -> None:
    source = network(*CASES[case])
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    found = fgonnx.Explainer(source, input_gradient=True, cache=False)(x)
    session, step = Session(source), np.float32(3e-3)
    y = session.run({"x": x})["y"]
    np.testing.assert_allclose(found.outputs["y"], y, atol=1e-6)
    assert found.relative_residual().max() < 1e-4
    for i, target in enumerate(np.asarray(found.target).reshape(2, -1)[:, 0]):
        points = [x + t * step * e.reshape(1, 3, 4) for t in (1, -1) for e in np.eye(12, dtype=np.float32)]
        ends = np.array([session.run({"x": p})["y"][i].reshape(-1)[int(target)] for p in points]).reshape(2, -1)
        slopes = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found.input_gradient[i].reshape(-1), slopes, rtol=0.02, atol=2e-3)


def test_what_no_later_opset_has_is_refused_by_name() -> None:
    source = network(8, SCAN.format(more="", lengths="lengths") + " u = Mul(all, x)")
    with pytest.raises(UnsupportedError, match=r"node 'steps' \(Scan, opset 8\): it takes sequence lengths"):
        fgonnx.rewrite(source)


def test_notes_name_the_files_own_node() -> None:
    found = fgonnx.Explainer(network(11, "[most] h = Hardmax(x) u = Mul(h, x)"), cache=False)(
        np.ones((1, 3, 4), np.float32)
    )
    assert "`Hardmax` 'most' is constant between its steps; its derivative is 0" in found.notes
