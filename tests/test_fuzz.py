"""Random graphs: every operator is drawn, what is drawn is explained right or refused, and a broken rule is found."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.fuzz.__main__ import main
from benchmarks.fuzz.draw import Drawn, draw, operators
from benchmarks.fuzz.judge import DISCARDED, EXPLAINED, REFUSED, WRONG, judge
from benchmarks.fuzz.page import page
from benchmarks.fuzz.recipes import EXCEPTIONS, RECIPES, known_operators
from benchmarks.fuzz.run import Case, Worker, run
from benchmarks.fuzz.shrink import shrink
from fgonnx.engine.rules import registry

COUNT = 200
SEED = 0


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(run(range(COUNT), SEED))


def test_every_operator_with_a_rule_has_a_recipe_or_a_reason() -> None:
    assert sorted(known_operators() - set(RECIPES) - set(EXCEPTIONS)) == []
    assert sorted(set(EXCEPTIONS) & set(RECIPES)) == []


def test_every_recipe_is_of_an_operator_that_is_known() -> None:
    assert set(RECIPES) - known_operators() == {"local:Gate"}


def test_every_operator_is_drawn(cases: list[Case]) -> None:
    assert set(operators()) - set().union(*(c.operators for c in cases)) == set()


def test_no_graph_comes_out_wrong(cases: list[Case]) -> None:
    assert [(c.index, c.verdict.reason, c.verdict.detail) for c in cases if c.verdict.outcome == WRONG] == []


def test_most_graphs_are_explained(cases: list[Case]) -> None:
    n = Counter(c.verdict.outcome for c in cases)
    assert n[EXPLAINED] >= 0.7 * (COUNT - n[DISCARDED])


def test_most_slopes_are_held_against_float64(cases: list[Case]) -> None:
    explained = [c.verdict.witness for c in cases if c.verdict.outcome == EXPLAINED]
    assert explained.count("float64") >= 0.6 * len(explained)


def test_graphs_are_those_of_their_seed() -> None:
    first, again, other = draw(3, 7), draw(3, 7), draw(4, 7)
    assert first.model.SerializeToString() == again.model.SerializeToString()
    assert first.model.SerializeToString() != other.model.SerializeToString()


# The fuzzer finds what is broken: rules spoilt on purpose.


def _plain(text: str, lead: str) -> Drawn:
    """Return a graph of float32 (2, 4) as if it were drawn."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> net {text}')
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    return Drawn(0, 0, model, {"x": x}, "x", "free", lead, frozenset({lead}))


BESIDE_A_SKIP = "(float[N,4] x) => (float[N,4] y) { a = Tanh(x) b = Sin(a) y = Add(a, b) }"


def _spoilt(monkeypatch: pytest.MonkeyPatch, op_type: str, factor: float | None) -> None:
    """Scale the cotangent that a rule passes on, or cut the path; its intercept makes up for it."""
    found = registry.find(op_type, 18)
    assert found is not None

    def linearise(op, y, x, **attributes):
        if factor is None:
            return registry.Local(lambda g: op.Mul(g, 0.0), y, "implicit")
        whole = found.linearise(op, y, x, **attributes)
        shift = op.Mul(op.Sub(y, whole.intercept), 1 - factor)
        return registry.Local(lambda g: op.Mul(whole.vjp(g), factor), op.Add(whole.intercept, shift), "implicit")

    spoilt = registry.Rule(op_type, "", found.since, linearise, found.family, found.note)
    monkeypatch.setitem(registry._RULES, ("", op_type), [spoilt])


def test_a_right_graph_is_explained() -> None:
    assert judge(_plain(BESIDE_A_SKIP, "Sin")).outcome == EXPLAINED


@pytest.mark.parametrize("factor", [None, 0.9, 1.02, -1.0])
def test_a_path_that_is_cut_or_bent_beside_a_skip_is_wrong(
    monkeypatch: pytest.MonkeyPatch, factor: float | None
) -> None:
    _spoilt(monkeypatch, "Sin", factor)
    found = judge(_plain(BESIDE_A_SKIP, "Sin"))
    assert (found.outcome, found.reason) == (WRONG, "a slope differs")


# Every entry is rounded to 0, where the rectifiers have their kinks: the input moves all of them together.
KINKS = """(float[N,4] x) => (float[N,3] y) <float s = {10}, int8 z = {0},
    float[4,3] w = {1, -2, 0.5, 1, 1, -1, 2, 0, 1, -1, 0.3, 1}, float[3,3] v = {1, 2, 3, 2, -1, 1, -2, 1, 1}> {
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
    a = MatMul(d, w) l = LeakyRelu<alpha=0.2>(a) y = MatMul(l, v)
}"""


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, EXPLAINED), (-20.0, WRONG), (20.0, WRONG)])
def test_one_side_of_kinks_met_at_once_is_told_from_an_error(
    monkeypatch: pytest.MonkeyPatch, factor: float, outcome: str
) -> None:
    found = registry.find("LeakyRelu", 18)
    assert found is not None

    def linearise(op, y, x, *, alpha: float = 0.01):
        whole = found.linearise(op, y, x, alpha=alpha)
        shift = op.Mul(op.Sub(y, whole.intercept or 0.0), 1 - factor)
        kept = shift if whole.intercept is None else op.Add(whole.intercept, shift)
        return registry.Local(lambda g: op.Mul(whole.vjp(g), factor), kept, "implicit")

    spoilt = registry.Rule("LeakyRelu", "", found.since, linearise, found.family, found.note)
    monkeypatch.setitem(registry._RULES, ("", "LeakyRelu"), [spoilt])
    assert judge(_plain(KINKS, "LeakyRelu")).outcome == outcome


def test_a_rule_without_its_intercept_breaks_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry.find("Sin", 18)
    assert found is not None

    def linearise(op, y, x):
        return registry.Local(found.linearise(op, y, x).vjp)

    monkeypatch.setitem(
        registry._RULES, ("", "Sin"), [registry.Rule("Sin", "", found.since, linearise, "elementwise", "")]
    )
    assert judge(_plain(BESIDE_A_SKIP, "Sin")).reason == "the identity does not hold"


def test_a_fault_of_a_rule_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def linearise(op, y, x):
        raise KeyError("x")

    monkeypatch.setitem(registry._RULES, ("", "Sin"), [registry.Rule("Sin", "", 7, linearise, "elementwise", "")])
    assert judge(_plain(BESIDE_A_SKIP, "Sin")).outcome == WRONG


def test_what_onnxruntime_does_not_run_is_discarded() -> None:
    graph = "(float[N,4] x) => (float[N,4] y) <int64[2] s = {0, 9}> { y = Reshape(x, s) }"
    assert judge(_plain(graph, "Reshape")).outcome == DISCARDED


def test_an_operator_without_a_rule_is_refused() -> None:
    graph = "(float[N,4] x) => (float[N,4] y) { y = Bernoulli(x) }"
    assert judge(_plain(graph, "Bernoulli")).outcome in (REFUSED, DISCARDED)


class _Beside(Worker):
    """Judges in this process, where rules are spoilt."""

    def run(self, item: int | Drawn) -> Case:
        assert isinstance(item, Drawn)
        return Case(0, 0, item.lead, item.operators, item.form, len(item.model.graph.node), judge(item))


def test_a_wrong_graph_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """(float[N,4] x) => (float[N,4] y, float[N,4] h) {
        h = Cos(x) a = Tanh(x) c = Relu(a) b = Sin(c) d = Add(b, a) e = Sigmoid(d) y = Mul(e, h)
    }"""
    _spoilt(monkeypatch, "Sin", 0.5)
    small = shrink(_plain(text, "Sin"), _Beside(0))
    assert "Sin" in [n.op_type for n in small.model.graph.node]
    assert len(small.model.graph.node) <= 3
    assert len(small.model.graph.output) == 1


def test_the_command_writes_the_page(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.md"
    assert main(["--count", "3", "--seed", "1", "-o", str(out), "--failures", str(tmp_path / "wrong")]) == 0
    text = out.read_text(encoding="utf-8")
    assert all(f"| {word} |" in text for word in ("explained", "refused", "discarded", "wrong"))
    assert all(f"| {name} |" in text for name in operators())


def test_the_page_counts_every_graph(cases: list[Case]) -> None:
    n = Counter(c.verdict.outcome for c in cases)
    assert f"| explained | {n[EXPLAINED]} |" in page(cases, "command")


def test_every_value_of_a_graph_is_finite() -> None:
    drawn = draw(5, 11)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    found = ort.InferenceSession(drawn.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert all(np.isfinite(a).all() for a in found.run(None, drawn.feeds) if a.dtype.kind == "f")
