"""The checks pass what is right, and fail what is wrong: a derivative, an intercept, an output."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import fgonnx.audit.check as checks
from fgonnx.audit.check import check
from fgonnx.audit.complete import completeness
from fgonnx.audit.unchanged import relative_difference
from fgonnx.engine.model.bind import bind
from fgonnx.engine.model.load import load
from fgonnx.errors import NumericError, OptionError, TargetError
from tests.cli_support import run
from tests.support import draw, model

SHAPES = Path(__file__).resolve().parent.parent / "examples" / "shapes.onnx"
WEIGHTS = ",".join(f"{w:.3f}" for w in np.random.default_rng(1).normal(size=18))
SMOOTH = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,1,8,8] x) => (float[N,4] y)
<float[4,1,3,3] w = {%s}, float[4] b = {0.3,-0.2,0.1,0.4}>
{ c = Conv<pads=[1,1,1,1]>(x, w, b)  s = Sigmoid(c)  m = Mul(c, s)  p = GlobalAveragePool(m)  y = Flatten(p) }"""


def smooth():
    weights = np.random.default_rng(5).normal(size=36)
    return onnx.parser.parse_model(SMOOTH % ",".join(f"{w:.4f}" for w in weights))


def spoil(monkeypatch, change):
    """Let every gradient that is checked be another: a fault of all rules at once."""
    right, function = checks._derivative, checks.function_of

    def derivative(f, x, explanation, *rest):
        wrong = replace(explanation, input_gradient=change(explanation.input_gradient))
        return right(f, x, wrong, *rest)

    def spoilt(*given):
        f = function(*given)

        def gradient(x):
            score, g = f.gradient(x)
            return score, change(g)

        return replace(f, gradient=gradient)

    monkeypatch.setattr(checks, "_derivative", derivative)
    monkeypatch.setattr(checks, "function_of", spoilt)


def wrong_by(factor, monkeypatch):
    spoil(monkeypatch, lambda g: g * factor)


def verdicts(result):
    return [c.verdict for c in result.checks]


@pytest.mark.parametrize("model", [SHAPES, smooth()], ids=["shapes", "smooth"])
def test_a_right_explanation_passes(model):
    result = check(model, threads=1)
    assert result.passed
    assert verdicts(result) == ["passed"] * 4
    assert [c.name for c in result.checks][:2] == ["outputs unchanged", "completeness"]


@pytest.mark.parametrize("factor", [0.9, 1.1, 0.5, -1.0, 0.0])
@pytest.mark.parametrize("model", [SHAPES, smooth()], ids=["shapes", "smooth"])
def test_a_wrong_derivative_fails(model, factor, monkeypatch):
    wrong_by(factor, monkeypatch)
    result = check(model, threads=1)
    assert not result.passed
    assert verdicts(result)[:2] == ["passed", "passed"]
    assert verdicts(result)[2] == "failed"


def test_a_derivative_wrong_in_one_corner_of_the_picture_fails(monkeypatch):
    def corner(gradient):
        gradient = gradient.copy()
        gradient[..., :4, :4] *= 1.5
        return gradient

    spoil(monkeypatch, corner)
    assert check(smooth(), threads=1).verdict == "failed"


def test_a_missing_contribution_fails():
    result = check(SHAPES, threads=1, directions=1)
    e = result.explanation
    assert completeness(e, 1e-4).verdict == "passed"
    off = replace(e, completeness=e.completeness + 1e-3 * e.score)
    wrong = completeness(off, 1e-4)
    assert wrong.verdict == "failed"
    assert wrong.value == pytest.approx(1e-3, rel=0.01)


def test_a_small_score_is_held_against_what_was_summed():
    e = check(SHAPES, threads=1, directions=1).explanation
    large = np.zeros_like(e.contributions)
    large[:, :2] = 1e4, -1e4
    rounding = replace(e, contributions=e.contributions + large, completeness=np.full_like(e.score, 1e-3))
    found = completeness(rounding, 1e-4)
    assert found.verdict == "passed"
    assert "sum of |contributions|" in found.detail
    missing = replace(rounding, completeness=np.full_like(e.score, 1.0))
    assert completeness(missing, 1e-4).verdict == "failed"


def test_changed_outputs_fail(monkeypatch):
    class Off(checks.Explainer):
        def __call__(self, *args, **kwargs):
            e = super().__call__(*args, **kwargs)
            return replace(e, outputs={n: a * np.float32(1.01) for n, a in e.outputs.items()})

    monkeypatch.setattr(checks, "Explainer", Off)
    first = check(smooth(), threads=1, directions=1).checks[0]
    assert first.verdict == "failed"
    assert first.value == pytest.approx(0.01, rel=0.02)


def test_a_sample_on_a_kink_is_judged_beside_it():
    # At 0 the slope of |x| differs left and right; the central difference is neither.
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N,1,4,4] x) => (float[N,1] y) <float k = {1.0}>
        { a = Relu(x)  b = Sum(a, x)  c = GlobalAveragePool(b)  y = Flatten(c) }"""
    )
    x = np.ones((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0] = 1e-7
    assert check(model, x, threads=1).passed


class TestSlopesNearRounding:
    """A score of 1000 in float32 has a unit in the last place of 6e-5; the slope is a thousandth of it, or less."""

    @staticmethod
    def network(slope):
        weights = ",".join(f"{slope * w:.3e}" for w in np.random.default_rng(5).normal(size=36))
        return onnx.parser.parse_model(
            (SMOOTH % weights)
            .replace("y = Flatten(p)", "f = Flatten(p)  y = Add(f, large)")
            .replace("float[4] b =", "float large = {1000}, float[4] b =")
        )

    @pytest.mark.parametrize("slope", [1.0, 0.1, 0.01, 1e-3, 1e-5])
    def test_a_right_gradient_does_not_fail(self, slope):
        assert "failed" not in verdicts(check(self.network(slope), threads=1))

    @pytest.mark.parametrize("factor", [0.5, 2.0, -1.0])
    def test_a_wrong_one_does_as_long_as_the_score_moves(self, factor, monkeypatch):
        wrong_by(factor, monkeypatch)
        assert verdicts(check(self.network(1.0), threads=1))[2] == "failed"

    def test_a_large_promise_that_the_score_does_not_keep_fails(self, monkeypatch):
        wrong_by(1e5, monkeypatch)
        assert verdicts(check(self.network(1e-5), threads=1))[2] == "failed"

    def test_where_only_rounding_is_seen_slopes_are_taken_forwards(self):
        result = check(self.network(1e-5), threads=1)
        assert result.passed
        assert all("taken forwards" in c.detail for c in result.checks[2:])

    @pytest.mark.parametrize("factor", [0.5, -1.0])
    def test_where_only_rounding_is_seen_a_wrong_one_fails(self, factor, monkeypatch):
        wrong_by(factor, monkeypatch)
        assert [c.verdict for c in check(self.network(1e-5), threads=1).checks[2:]] == ["failed"] * 2

    @staticmethod
    def wrapped(slope):
        """The same behind an operator through which no slope is taken forwards."""
        found = TestSlopesNearRounding.network(slope)
        found.graph.node[-1].output[0] = "z"
        found.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["z"], ["sequence"]))
        found.graph.node.append(onnx.helper.make_node("SequenceAt", ["sequence", "first"], ["y"]))
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(0), "first"))
        return found

    def test_where_nothing_else_is_seen_nothing_is_decided(self):
        slopes = check(self.wrapped(1e-5), threads=1).checks[2:]
        assert [c.verdict for c in slopes] == ["undecided"] * 2
        assert all("other targets" in c.decides for c in slopes)
        assert all("cannot be taken forwards" in c.detail and "SequenceAt" in c.detail for c in slopes)

    def test_a_score_that_depends_on_nothing_passes(self):
        assert verdicts(check(self.network(0.0), threads=1)) == ["passed"] * 4


class TestStates:
    """A state of two layers is not a batch of two samples."""

    @pytest.mark.parametrize("samples", [1, 2, 3])
    def test_a_state_goes_whole_into_every_run(self, samples):
        source = model(
            """(float[batch,16] x, float[2,batch,3] state) => (float[batch,3] y, float[2,batch,3] next) {
                h = Gemm(x, w, b)
                i = Constant<value_int=1>()
                s = Gather<axis=0>(state, i)
                z = Add(h, s)
                y = Sigmoid(z)
                axes = Constant<value_ints=[0]>()
                u = Unsqueeze(y, axes)
                next = Concat<axis=0>(u, u)
            }""",
            weights=draw(w=(16, 3), b=(3,)),
        )
        result = check(source, input="x", samples=samples, threads=1)
        assert verdicts(result) == ["passed"] * 4
        assert result.explanation.outputs["y"].shape == (samples, 3)

    @pytest.mark.parametrize("samples", [1, 2])
    def test_a_trained_network_with_a_state(self, samples, shared):
        loaded = bind(load(shared / "models" / "silero_vad_16k_op15.onnx"), {"sr": 16000})
        result = check(loaded, input="input", input_shape=(1, 512), samples=samples, threads=1)
        assert verdicts(result)[:2] == ["passed", "passed"]
        assert "failed" not in verdicts(result)

    @pytest.mark.slow
    @pytest.mark.parametrize("samples", [1, 2])
    def test_a_larger_one(self, samples, shared):
        loaded = bind(load(shared / "models" / "silero_vad_v5.onnx"), {"sr": 16000, "state": 0})
        result = check(loaded, input_shape=(1, 576), samples=samples, directions=4, threads=1)
        assert verdicts(result)[:2] == ["passed", "passed"]
        assert "failed" not in verdicts(result)


class TestInputsWithoutCopy:
    """The score is computed from the input as it is, and its floating-point copy leads to the gradient alone."""

    def test_half_precision_is_moved_by_steps_that_it_has(self):
        source = model(
            """(float16[N,1,8,8] x) => (float16[N,4] y) {
                c = Conv<pads=[1,1,1,1]>(x, w, b)
                s = Sigmoid(c)
                p = GlobalAveragePool(s)
                y = Flatten(p)
            }""",
            weights={name: array.astype(np.float16) for name, array in draw(w=(4, 1, 3, 3), b=(4,)).items()},
        )
        result = check(source, threads=1)
        assert verdicts(result)[:2] == ["passed", "passed"]
        assert result.passed

    def test_integers_that_integers_are_computed_from_are_moved_by_whole_numbers(self):
        weights = {"w": np.random.default_rng(1).integers(1, 255, (2, 1, 3, 3), np.uint8)}
        source = model(
            """(uint8[N,1,8,8] x) => (float[N,2] y)
            <float s = {0.02}, uint8 z = {128}, float t = {0.5}> {
                q = QLinearConv(x, s, z, w, s, z, t, z)
                c = DequantizeLinear(q, t, z)
                p = GlobalAveragePool(c)
                y = Flatten(p)
            }""",
            weights=weights,
        )
        result = check(source, threads=1)
        assert verdicts(result)[:2] == ["passed", "passed"]
        assert result.passed


def test_integer_pictures_are_moved_by_less_than_one():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (uint8[N,1,8,8] x) => (float[N,2] y)
        <float[2,1,3,3] w = {WEIGHTS}>
        { f = Cast<to=1>(x)  c = Conv(f, w)  r = Relu(c)  p = GlobalAveragePool(r)  y = Flatten(p) }""".replace(
            "WEIGHTS", WEIGHTS
        )
    )
    result = check(model, threads=1)
    assert verdicts(result) == ["passed"] * 4


def test_the_slope_of_steps_is_not_judged():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N,1,8,8] x) => (float[N,2] y)
        <float[2,1,3,3] w = {WEIGHTS}, float s = {0.05}, uint8 z = {0}>
        { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  c = Conv(d, w)  p = GlobalAveragePool(c)
          y = Flatten(p) }
        """.replace("WEIGHTS", WEIGHTS)
    )
    result = check(model, threads=1)
    assert result.passed
    assert verdicts(result)[:2] == ["passed", "passed"]
    assert any("QuantizeLinear" in note for note in result.notes)


def test_seeds_repeat():
    first, again, other = (check(smooth(), threads=1, random_state=s) for s in (1, 1, 2))
    assert first.checks == again.checks
    assert first.checks != other.checks


def test_free_sizes_are_checked_at_a_given_one():
    model = onnx.parser.parse_model(SMOOTH.replace("N,1,8,8", "N,1,H,W") % ",".join(["0.2"] * 36))
    assert check(model, input_shape=(1, 1, 12, 10), threads=1).passed
    assert check(model, np.random.default_rng(0).random((2, 1, 9, 7), np.float32), threads=1).passed


class TestArraysByName:
    """Sizes are those of the arrays, as they are for an array alone."""

    PICTURE = """(float[N,1,H,W] x) => (float[N,3] y) {
        c = Conv<pads=[1,1,1,1]>(x, w)
        s = Sigmoid(c)
        p = GlobalAveragePool(s)
        f = Flatten(p)
        y = MatMul(f, v)
    }"""
    MASKED = """(float[N,T,8] x, {mask}) => (float[N,3] y) {{
        two = Constant<value_ints=[2]>()
        one = Constant<value_ints=[1]>()
        f = Cast<to=1>(mask)
        m = Unsqueeze(f, two)
        h = Mul(x, m)
        s = ReduceSum<keepdims=0>(h, one)
        n = ReduceSum<keepdims=0>(m, one)
        q = Div(s, n)
        z = MatMul(q, w)
        y = Sigmoid(z)
    }}"""

    def test_of_free_sizes(self):
        source = model(self.PICTURE, weights=draw(w=(4, 1, 3, 3), v=(4, 3)))
        x = np.random.default_rng(0).random((2, 1, 9, 7), np.float32)
        assert check(source, {"x": x}, threads=1).passed

    @pytest.mark.parametrize(
        ("declared", "dtype"),
        [("int64[N,T] mask", np.int64), ("float[N,T] mask", np.float32), ("bool[N,T] mask", bool)],
    )
    def test_with_a_free_mask(self, declared, dtype):
        source = model(self.MASKED.format(mask=declared), weights=draw(w=(8, 3)))
        mask = np.ones((2, 5), dtype)
        mask[1, 3:] = 0
        x = np.random.default_rng(0).random((2, 5, 8), np.float32)
        assert check(source, {"x": x, "mask": mask}, input="x", threads=1).passed

    @pytest.mark.parametrize("declared", ["int64[N,T] mask", "bool[N,T] mask"])
    def test_a_random_mask_hides_nothing(self, declared):
        source = model(self.MASKED.format(mask=declared), weights=draw(w=(8, 3)))
        assert check(source, input_shape=(1, 5, 8), threads=1).passed


class TestSlopesTakenForwards:
    """Of the source, whatever it is made of; what is no slope is not decided."""

    @pytest.mark.parametrize(
        "body",
        [
            "u = Mod<fmod=1>(x, two)\nr = Sin(u)",
            "f = Floor(x)\nr = Sub(x, f)",
            "a = Max(x, half)\nb = Min(a, x)\nr = Exp(b)",
            "k = Constant<value=int64[1] {2}>()\nr, i = TopK(x, k)\n",
            "r = ReduceMax<axes=[1]>(x)",
            "l = LayerNormalization(x, ones, ones)\nr = Gelu(l)",
            "c = Less(x, half)\ne = Exp(x)\nr = Where(c, e, x)",
        ],
    )
    def test_small_graphs(self, body, monkeypatch):
        text = f"(float[N,6] x) => (float[N,1] y) {{ {body}\n s = Mul(r, r)\n y = ReduceSum<axes=[1]>(s) }}"
        text = text.replace("ReduceSum<axes=[1]>(s)", "ReduceSum(s, axis)")
        if "ReduceMax" in body:
            text = text.replace("ReduceMax<axes=[1]>(x)", "ReduceMax(x, axis)")
        given = {
            "two": np.float32(2),
            "half": np.float32(0.5),
            "ones": np.ones(6, np.float32),
            "axis": np.array([1]),
        }
        source = model(text, opset=20, weights={k: v for k, v in given.items() if k in text})
        monkeypatch.setattr("fgonnx.audit.measure.Measured.verdicts", lambda m, *_: ["undecided"] * len(m.error))
        result = check(source, threads=1)
        assert result.passed
        assert all("taken forwards" in c.detail for c in result.checks[2:])

    def test_a_jump_is_no_slope(self, monkeypatch):
        monkeypatch.setattr(checks, "forward_of", lambda *_: None)
        source = model(
            "(float[N,3] x) => (float[N,1] y) { m = Mod<fmod=1>(x, d)\n y = MatMul(m, w) }",
            weights={"d": np.float32(0.5), "w": np.ones((3, 1), np.float32)},
        )
        x = np.array([[0.5 + 1e-5, 0.2, 0.3]], np.float32)
        assert check(source, x, threads=1).verdict != "failed"

    def test_contributions_that_are_rounding_are_not_decided(self):
        # Two equal values, normalised: 0, or what is left of them.
        source = model(
            """(float[N,4] x) => (float[N,1] y) {
                three = Constant<value_ints=[-1,4,1]>()
                u = Reshape(x, three)
                t = Tanh(u)
                d = Concat<axis=2>(t, t, t)
                l = LayerNormalization<epsilon=0.0000001>(d, gamma)
                f = Flatten(l)
                y = MatMul(f, w)
            }""",
            opset=18,
            weights={"gamma": np.ones(3, np.float32), "w": np.full((12, 1), 0.3, np.float32)},
        )
        assert check(source, threads=1).verdict != "failed"


def test_bad_options_are_refused():
    with pytest.raises(OptionError, match="samples=0 is out of range"):
        check(SHAPES, samples=0)
    with pytest.raises(TargetError, match="out of range"):
        check(SHAPES, target=6)


@pytest.mark.parametrize("tolerance", [0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(OptionError, match=r"tolerance=\S+ is out of range"):
        check(SHAPES, tolerance=tolerance)


def test_of_several_runs_one_is_checked():
    result = check(SHAPES, method="smooth-fullgrad", samples=1, directions=2, threads=1)
    assert verdicts(result) == ["passed"] * 4
    assert any("smooth-fullgrad" in note for note in result.notes)


@pytest.mark.parametrize("options", [{"method": "grad-cam"}, {"method": "gradient"}, {"certificate": False}], ids=str)
def test_what_has_no_contributions_is_refused(options):
    with pytest.raises(OptionError, match="contributions"):
        check(SHAPES, **options)


def test_a_graph_that_computes_something_else_fails(monkeypatch):
    right = checks.caches.builder

    def spoilt(given):
        def build(loaded, options):
            made = right(given)(loaded, options)
            value = made.model.graph.initializers["w"]
            value.const_value = ir.tensor(1.1 * value.const_value.numpy(), name="w")
            return made

        return build

    monkeypatch.setattr(checks.caches, "builder", spoilt)
    first = check(smooth(), threads=1, directions=1).checks[0]
    assert first.verdict == "failed"
    assert "not what the model computes" in first.detail


class TestSilence:
    """A magnitude has no slope where it is 0: that is said, not that something overflows."""

    MAGNITUDE = """(float[N,1,16] x) => (float[N,2] y) {
        a = Conv<strides=[4]>(x, w)
        s = Mul(a, a)
        m = Sqrt(s)
        p = GlobalAveragePool(m)
        y = Flatten(p)
    }"""

    def test_the_root_is_named(self):
        source = model(self.MAGNITUDE, weights=draw(w=(2, 1, 4)))
        with pytest.raises(NumericError, match=r"for sample 1, .* \(Sqrt\) takes a root of exactly 0"):
            check(source, np.stack([np.ones((1, 16), np.float32), np.zeros((1, 16), np.float32)]), threads=1)

    @pytest.mark.parametrize("guarded", ["l = Log(x)", "r = Relu(x)\nl = Sqrt(r)"])
    def test_a_branch_that_is_not_chosen_has_no_slope(self, guarded: str):
        text = f"""(float[N,6] x) => (float[N,2] y) {{
            {guarded}
            g = Greater(x, zero)
            [choice] c = Where(g, l, zero)
            y = MatMul(c, w)
        }}"""
        source = model(text, weights=draw(w=(6, 2)) | {"zero": np.float32(0)})
        x = np.array([[1, 2, 3, 4, 5, 6], [-1, 2, 3, 4, 5, 6]], np.float32)
        assert check(source, x, threads=1).verdict == "passed"

    def test_a_trained_network(self, shared):
        loaded = bind(load(shared / "models" / "silero_vad_v5.onnx"), {"sr": 16000, "state": 0})
        with pytest.raises(NumericError, match="takes a root of exactly 0"):
            check(loaded, np.zeros((1, 576), np.float32), threads=1)


class TestExitCodes:
    """0 passed, 1 failed, 2 bad input, 3 not decided."""

    def test_not_decided(self, tmp_path):
        onnx.save(TestSlopesNearRounding.wrapped(1e-5), tmp_path / "model.onnx")
        result = run("check", tmp_path / "model.onnx", "--threads", 1)
        assert result.exit_code == 3
        assert "not decided" in result.output
        assert "what would decide it" in " ".join(result.output.split())

    @pytest.mark.parametrize("tolerance", ["nan", "0", "-1", "inf"])
    def test_a_tolerance_that_is_none(self, tolerance):
        assert run("check", SHAPES, f"--tolerance={tolerance}").exit_code == 2

    def test_the_switch_of_the_source_is_in_the_help(self):
        assert "--no-verify" in run("check", "--help").output


TWO_OUTPUTS = {
    "the same names": (["ill", "well"], ["ill", "well"], 0.0),
    "another name": (["ill", "well"], ["ill", "odd"], 1.0),
    "names as objects": (np.array(["ill", "a longer one"], object), np.array(["ill", "well"], object), 1.0),
    "the same booleans": ([True, False], [True, False], 0.0),
    "another boolean": ([True, False], [True, True], 1.0),
    "the same classes": ([3, 998], [3, 998], 0.0),
    "the class beside it": ([3, 999], [3, 998], 1.0),
    "whole numbers that float64 does not tell apart": ([2**53 + 1], [2**53], 1.0),
    "numbers": ([1.0, 2.02], [1.0, 2.0], 0.01),
    "half precision": (np.array([1, 2], np.float16), np.array([1, 2], np.float16), 0.0),
    "the same that are not finite": ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], 0.0),
    "the other infinity": ([-np.inf, 1.0], [np.inf, 1.0], 1.0),
    "not a number in one alone": ([np.nan, 1.0], [1.0, 1.0], 1.0),
    "another count": ([1.0, 2.0], [1.0], 1.0),
}


@pytest.mark.parametrize("case", TWO_OUTPUTS)
def test_outputs_are_compared_as_what_they_are(case):
    ours, theirs, wanted = TWO_OUTPUTS[case]
    assert relative_difference(np.asarray(ours), np.asarray(theirs)) == pytest.approx(wanted, rel=1e-6)


LABELLED = """<ir_version: 8, opset_import: ["": 18, "ai.onnx.ml": 1]>
g (float[N,2] x) => (%s[N] label, float[N,3] scores) {
  label, scores = ai.onnx.ml.LinearClassifier<coefficients=[1.0,0.5,-1.0,0.2,0.3,-0.7], intercepts=[0.1,0.2,-0.3],
    post_transform="SOFTMAX", %s>(x)
}"""


@pytest.mark.parametrize(
    ("kind", "classes"),
    [("string", 'classlabels_strings=["ill", "odd", "well"]'), ("int64", "classlabels_ints=[4, 8, 15]")],
)
def test_the_class_that_a_classifier_names_is_checked_too(kind, classes):
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    result = check(onnx.parser.parse_model(LABELLED % (kind, classes)), x, threads=1)
    assert verdicts(result)[:2] == ["passed", "passed"]
