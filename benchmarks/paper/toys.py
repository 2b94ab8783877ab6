"""Section 3 in numbers: saturation, biases that other methods do not see, and what no map of the input can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from matplotlib.figure import Figure
from onnx import parser

from benchmarks.paper import record
from fgonnx import Explainer, Explanation
from fgonnx.audit import evaluate

Array = npt.NDArray[Any]

PSIS = ("signed", "abs", "positive")
ATTRIBUTIONS: Mapping[str, Mapping[str, Any]] = {"gradient-x-input": {}, "integrated-gradients": {"steps": 200}}
"""Methods that add up, with settings that make quadrature no matter."""

FULL = "full-gradient"
SWEPT = [0.25 * i for i in range(13)]

_WIDTH = 4
_PIXELS = f"float[N,1,1,{_WIDTH}] x"
_SUM = "s = ReduceSum<keepdims=0>(z, axes)  y = Reshape(s, column)"
_SHAPES = "int64[3] axes = {1,2,3}, int64[2] column = {-1,1}"

SATURATION = f"""<ir_version: 8, opset_import: ["": 18]>
saturation ({_PIXELS}) => (float[N,1] y)
<float[1,1,1,1] minus = {{-1}}, float[1] one = {{1}}, {_SHAPES}> {{
    u = Conv(x, minus, one)  r = Relu(u)  z = Conv(r, minus, one)  {_SUM}
}}"""
"""1 - relu(1 - x) of every pixel, added up: flat where a pixel exceeds 1."""

DARKNESS = f"""<ir_version: 8, opset_import: ["": 18]>
darkness ({_PIXELS}) => (float[N,1] y)
<float[1,1,1,1] minus = {{-1}}, float[1] one = {{1}}, {_SHAPES}> {{
    u = Conv(x, minus, one)  z = Relu(u)  {_SUM}
}}"""
"""relu(1 - x) of every pixel, added up: a black pixel is the evidence, and the bias is all that speaks for it."""

BIAS = f"""<ir_version: 8, opset_import: ["": 18]>
bias ({_PIXELS}) => (float[N,1] y)
<float[1,1,1,1] plus = {{1}}, float[1] b = {{BIAS}}, {_SHAPES}> {{
    u = Conv(x, plus, b)  z = Relu(u)  {_SUM}
}}"""
"""relu(x + BIAS) of every pixel, added up."""

PIECE = """<ir_version: 8, opset_import: ["": 18]>
piece (float[N,2] x) => (float[N,1] y) <float[2,1] w = {WEIGHTS}, float[1] b = {BIAS}> {
    z = Gemm(x, w, b)  y = Relu(z)
}"""
"""relu(<w, x> + b): a linear piece with three parameters, where a map has two numbers."""

TWO_LAYERS = f"""<ir_version: 8, opset_import: ["": 18]>
two_layers (float[N,1,4,4] x) => (float[N,1] y)
<float[2,1,3,3] w = {{0.4, -0.7, 0.2, 0.9, 0.5, -0.3, -0.6, 0.8, 0.1, -0.2, 0.6, 0.7, -0.9, 0.3, 0.5, 0.4, -0.8, 0.2}},
 float[2] b = {{0.3, -0.4}}, float[1,2,1,1] v = {{0.8, -0.6}}, float[1] c = {{0.5}}, {_SHAPES}> {{
    u = Conv<pads = [1,1,1,1]>(x, w, b)  r = Relu(u)  z = Conv(r, v, c)  {_SUM}
}}"""
"""Two convolutions with a Relu between them, added up."""

X = np.array([2.0, 1.0])
FIRST = np.array([1.0, 2.0, 3.0])
"""Where two pieces are compared, and the parameters (w, b) of the first of them."""

MAPS = {
    "w: the gradient": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "w + b / 2: the gradient, with the bias spread evenly": np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]),
    "a matrix drawn at random": np.random.default_rng(0).normal(size=(2, 3)),
}
"""Maps of a piece: matrices that make the two numbers of a map out of (w1, w2, b)."""


def run() -> dict[str, Any]:
    """Return the numbers of all examples."""
    return {
        **record.made_on(),
        "saturation": {
            **_maps(SATURATION, [3.0, 0.5, 0.0, 0.0]),
            "sweep": {"at": SWEPT, **_sums(SATURATION, [[t, 0.0, 0.0, 0.0] for t in SWEPT])},
        },
        "darkness": _maps(DARKNESS, [0.0, 1.0, 1.0, 1.0]),
        "bias": _biases(SWEPT[::4]),
        "pairs": [_pair(name, matrix) for name, matrix in MAPS.items()],
        "axioms": _axioms(),
    }


def _explain(text: str, pixels: list[float], method: str, **options: Any) -> Explanation:
    return Explainer(parser.parse_model(text), method=method, **options)(np.array([[[pixels]]], np.float32))


def _maps(text: str, pixels: list[float]) -> dict[str, Any]:
    """Return the maps of one picture of one row; those of methods that have a sign, with it."""
    signed = {m: _explain(text, pixels, m, **o).attribution for m, o in {"gradient": {}, **ATTRIBUTIONS}.items()}
    full = {psi: _explain(text, pixels, "fullgrad", psi=psi) for psi in PSIS}
    found = signed | {f"fullgrad, {psi}": e.saliency for psi, e in full.items()}
    return {
        "pixels": pixels,
        "score": float(full["signed"].score[0]),
        "maps": {name: np.asarray(values).ravel().tolist() for name, values in found.items()},
    }


def _sums(text: str, rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return for pictures of one row the score, and what every method adds up to."""
    x = np.array(rows, np.float32)[:, None, None]
    proto = parser.parse_model(text)
    full = Explainer(proto)(x)
    contributions = _certificate(full)
    found = {"score": full.score, FULL: contributions.sum(axis=1), "biases": contributions[:, 1:].sum(axis=1)}
    for method, options in ATTRIBUTIONS.items():
        attribution = Explainer(proto, method=method, **options)(x).attribution
        found[method] = np.asarray(attribution).sum(axis=(1, 2, 3))
    return {name: values.tolist() for name, values in found.items()}


def _biases(values: Sequence[float]) -> dict[str, list[float]]:
    """Return the same by bias, for one picture."""
    found: dict[str, list[float]] = {"at": list(values)}
    for b in values:
        for name, value in _sums(BIAS.replace("BIAS", str(b)), [[1.0, 0.0, 0.0, 0.0]]).items():
            found.setdefault(name, []).extend(value)
    return found


def _certificate(found: Explanation) -> Array:
    assert found.contributions is not None
    return found.contributions.astype(np.float64)


def piece(parameters: Array) -> onnx.ModelProto:
    """Return a network of one unit with the parameters (w1, w2, b)."""
    *weights, bias = (f"{p:.9f}" for p in parameters)
    return parser.parse_model(PIECE.replace("WEIGHTS", ", ".join(weights)).replace("BIAS", bias))


def _pair(name: str, matrix: Array) -> dict[str, Any]:
    """Return two networks that share a map at X, and their scores there.

    What a 2 x 3 matrix loses is its kernel: moving (w, b) along it changes no map, and the score by <dw, x> + db. A
    map that is continuous in (w, b), if not linear, loses something as well: no continuous function from three numbers
    to two is injective.
    """
    lost = np.linalg.svd(matrix)[2][-1]
    lost /= lost[np.abs(lost).argmax()]
    rows = []
    for parameters in (FIRST, FIRST + lost):
        e = Explainer(piece(parameters), input_gradient=True)(X[None].astype(np.float32))
        assert e.input_gradient is not None
        found = np.array([*e.input_gradient[0], _certificate(e)[0, 1:].sum()])  # w and b, as the explanation has them
        rows.append({"parameters": found.tolist(), "map": (matrix @ found).tolist(), "score": float(e.score[0])})
    return {"map": name, "x": X.tolist(), "networks": rows}


class _Biases(evaluate.Subject):
    """The bias-gradients alone, as a map: summed over layers and channels."""

    def __call__(self, x: Array, target: Any = None, /) -> Explanation:
        found = super().__call__(x, target)
        return replace(found, saliency=np.sum([g.sum(axis=1) for g in found.bias_gradients.values()], axis=0))


def _axioms() -> list[dict[str, Any]]:
    """Return weak dependence and completeness of maps of one network, means over eight inputs."""
    proto = parser.parse_model(TWO_LAYERS)
    x = np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)
    data = evaluate.Data.of(Explainer(proto), x, np.zeros(len(x), np.int64))
    full = Explainer(proto, input_gradient=True)(x)
    score = full.score.astype(np.float64)
    origin = float(Explainer(proto)(np.zeros_like(x[:1])).score[0])

    def error(told: Array) -> float:
        return float(np.mean(np.abs(told - score) / np.abs(score)))

    def summed(values: Array | None, factor: Array | float = 1.0) -> Array:
        return (np.asarray(values, np.float64) * factor).reshape(len(x), -1).sum(axis=1)

    def row(name: str, told: str, value: float, subject: evaluate.Subject) -> dict[str, Any]:
        change = evaluate.get("weak-dependence")(subject, data).values["change"]
        return {"map": name, "told": told, "error": value, "change": record.estimate(change)["mean"]}

    def plain(method: str) -> evaluate.Subject:
        return evaluate.Subject(proto, method, **ATTRIBUTIONS.get(method, {}))

    gradient, product, integrated = map(plain, ("gradient", *ATTRIBUTIONS))
    rows = [
        row("gradient", "<S, x>", error(summed(gradient(x).attribution, x)), gradient),
        row("gradient-x-input", "sum of S", error(summed(product(x).attribution)), product),
        row(
            "integrated-gradients", "sum of S, and f(0)", error(summed(integrated(x).attribution) + origin), integrated
        ),
    ]
    for psi in PSIS[:2]:
        subject = evaluate.Subject(proto, "fullgrad", psi=psi)
        rows.append(row(f"fullgrad, {psi}", "sum of S", error(summed(subject(x).saliency)), subject))
    biases = _Biases(proto, "fullgrad", bias_gradients=True)
    told = summed(full.input_gradient, x) + summed(biases(x).saliency)
    rows.append(row(f"{FULL} (gradient and bias-gradients)", "<g, x> + sum of f_b", error(told), biases))
    return rows


def draw(stored: Mapping[str, Any]) -> Figure:
    """Draw the score and what methods add up to, over the brightness of a pixel and over a bias."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    axes = (
        ("saturation: 1 - relu(1 - x)", "brightness x of one pixel", stored["saturation"]["sweep"]),
        ("a bias: sum of relu(x + b)", "bias b", stored["bias"]),
    )
    styles = {"score": "-", FULL: "o", "gradient-x-input": "--", "integrated-gradients": ":", "biases": "-."}
    names = {"score": "score", FULL: "full-gradient, sum", "biases": "of it from biases"}
    for panel, (title, label, found) in zip(panels, axes, strict=True):
        for name, style in styles.items():
            panel.plot(found["at"], found[name], style, label=names.get(name, name), markersize=4, linewidth=1.5)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(label, fontsize=8)
        panel.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure
