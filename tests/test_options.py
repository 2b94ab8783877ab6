"""Options in objects: one reading of them everywhere, each stated once, none lost on the way."""

from dataclasses import fields, replace

import numpy as np
import pytest

import fgonnx
from fgonnx import Options, Running
from fgonnx.audit.check import Thoroughness, check
from fgonnx.engine.graph.running import Running as RunningClass
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.cache import Cache
from fgonnx.engine.rewrite.options import FILE
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.errors import OptionError
from fgonnx.fields import spellings
from fgonnx.jobs.audit.options import Auditing, Drift, Runner
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import Reading
from tests.cli_support import SHAPES, run
from tests.support import pictures, small_cnn

X = pictures(2)
CLASSES = (Options, RunningClass, Reading, Limits, Plan, Thoroughness, Auditing, Drift, Runner)


class TestReading:
    def test_an_object_and_keywords_are_the_same(self):
        by_object = fgonnx.Explainer(small_cnn(), Options(psi="signed", profile="paper"), Running(batch_size=1))(X)
        by_keyword = fgonnx.Explainer(small_cnn(), psi="signed", profile="paper", batch_size=1)(X)
        np.testing.assert_array_equal(by_object.saliency, by_keyword.saliency)

    def test_keywords_change_an_object(self):
        explainer = fgonnx.Explainer(small_cnn(), Options(psi="signed"), profile="paper")
        assert (explainer.options.psi, explainer.options.profile) == ("signed", "paper")

    def test_the_methods_settings_stand_among_them(self):
        explainer = fgonnx.Explainer(small_cnn(), Options(method="smoothgrad", settings={"samples": 3}), sigma=0.5)
        assert (explainer.options.settings.samples, explainer.options.settings.sigma) == (3, 0.5)

    def test_another_method_starts_with_its_own_settings(self):
        explainer = fgonnx.Explainer(small_cnn(), Options(method="smoothgrad", settings={"samples": 3}), method="rise")
        assert explainer.options.settings == Options(method="rise").settings

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: fgonnx.Explainer(small_cnn(), threds=2), "no option 'threds' .did you mean 'threads'"),
            (lambda: fgonnx.Explainer(small_cnn(), "grad-cam"), "write method='grad-cam'"),
            (lambda: fgonnx.rewrite(small_cnn(), threads=2), "'threads' says how a model runs"),
            (
                lambda: fgonnx.grad(small_cnn(), psi="signed"),
                "psi='signed' has no effect: a plain gradient takes input, input_shape, bind, form alone",
            ),
            (lambda: check(small_cnn(), samples=0), "samples=0 is out of range; give 1 or more"),
            (lambda: fgonnx.Explainer(small_cnn(), steps=3), "fullgrad has no setting 'steps'"),
            (lambda: Running(threads="2"), "threads='2' is of the type str; give a whole number or None"),
            (lambda: Running(batch_size=2.5), "batch_size=2.5 is of the type float; give a whole number"),
            (lambda: Running(threads=-1), "threads=-1 is out of range; give 1 or more"),
            (lambda: Running(providers="cpu"), "providers='cpu' is of the type str"),
            (lambda: Options(outputs="saliency"), "outputs='saliency' is of the type str"),
            (lambda: Options(input_shape=3), "input_shape=3 is of the type int"),
            (lambda: Options(bind=["x=1"]), "is of the type list; give"),
            (lambda: Options(psi=None), "psi=None is of the type NoneType; give a text"),
            (lambda: Options(settings=3), "settings=3 are none of fullgrad"),
            (lambda: fgonnx.Explainer(small_cnn(), {"psi": "abs"}), "is no fgonnx.Options"),
            (lambda: fgonnx.Explainer(small_cnn(), running={"threads": 1}), "is no fgonnx.Running"),
            (lambda: Limits(min_top1=2), "min_top1=2 is out of range; give 1 or less"),
            (lambda: Limits(judge="best"), "judge='best' does not exist; choose one of: worst, mean"),
        ],
    )
    def test_what_does_not_exist_is_refused(self, call, message):
        with pytest.raises(OptionError, match=message):
            call()

    def test_all_entry_points_take_the_same_objects(self):
        options, source = Options(head="output"), small_cnn()
        assert fgonnx.Explainer(source, options)(X).settings["head"] == "output"
        assert fgonnx.inspect(source, options=options)["explanation"]["head"] == "y"
        assert fgonnx.check(source, X, options=options).explanation.settings["head"] == "output"
        assert fgonnx.compare(source, source, X, options=options).a.settings["head"] == "output"
        assert fgonnx.rewrite(source, options=options).graph.output[0].name == "y"

    def test_inputs_are_bound_wherever_options_are_taken(self):
        source = small_cnn()
        for call in (fgonnx.rewrite, fgonnx.inspect, fgonnx.grad, fgonnx.Explainer, fgonnx.check):
            with pytest.raises(OptionError, match="has no input 'rate' that could be bound"):
                call(source, bind={"rate": 1})


class TestStatedOnce:
    @pytest.mark.parametrize("cls", CLASSES)
    def test_every_field_says_what_it_means(self, cls):
        assert [f.name for f in fields(cls)] == list(spellings(cls))
        assert all(f.name in cls.__doc__ for f in fields(cls))

    @pytest.mark.parametrize(("command", "without"), [("explain", ()), ("inspect", ("contrast",))])
    def test_commands_have_every_option_that_means_something_there(self, command, without):
        text = run(command, "--help").stdout
        typed = [n for n, s in spellings(Options).items() if s.typed and n not in (*FILE, *without)]
        flags = [spellings(Options)[n].flag or f"--{n.replace('_', '-')}" for n in typed]
        assert [flag for flag in flags if flag not in text] == []

    def test_shape_and_layout_are_options_of_every_command_that_reads_a_model(self):
        for command in ("explain", "inspect", "check", "evaluate", "rewrite"):
            text = run(command, "--help").stdout
            assert "--layout" in text, command
            assert "--input-shape" in text, command


class TestNothingIsLost:
    def test_what_a_graph_is_known_by_comes_back_from_the_cache(self, tmp_path):
        loaded, options = load(SHAPES), Options(input_gradient=True)
        fresh = build(loaded, options)
        cache = Cache(tmp_path)
        cache.build(loaded, options)
        kept = cache.build(loaded, options)
        for f in fields(fresh):
            if f.name not in ("model", "normal"):
                assert getattr(kept, f.name) == getattr(fresh, f.name), f.name
        for f in fields(fresh.normal):
            a, b = getattr(kept.normal, f.name), getattr(fresh.normal, f.name)
            if f.name not in ("model", "x", "outputs"):
                assert str(a) == str(b), f.name

    def test_integer_outputs_keep_their_twins(self, tmp_path):
        loaded, options = load(quantised()), Options()
        cache = Cache(tmp_path)
        fresh = cache.build(loaded, options).normal.twins
        kept = cache.build(loaded, options).normal.twins
        assert fresh
        assert {k.name: v.name for k, v in kept.items()} == {k.name: v.name for k, v in fresh.items()}

    def test_a_record_tells_explanations_apart(self):
        plain = Options().to_dict()
        for change in ({"psi": "signed"}, {"layout": "NHWC"}, {"bind": {"a": 1}}, {"input_shape": (1, 3, 8, 8)}):
            assert replace(Options(), **change).to_dict() != plain


def quantised():
    """A convolution between QuantizeLinear and DequantizeLinear whose output is int8."""
    from tests.support import draw, model

    return model(
        """(float[N,3,8,6] x) => (int8[N,4,8,6] q) {
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)
            s = Constant<value = float {0.05}>()
            z = Constant<value = int8 {0}>()
            q = QuantizeLinear(c, s, z)
        }""",
        weights=draw(0, w=(4, 3, 3, 3)),
    )


class TestLayout:
    @pytest.mark.parametrize("layout", ["XYZ", "NHW", "NCDHW", "nchw"])
    def test_one_that_does_not_fit_is_refused(self, layout):
        with pytest.raises(OptionError, match="is none of an input of 4 axes; choose one of: NCHW, NHWC"):
            fgonnx.Explainer(small_cnn(), layout=layout)(X)

    def test_rows_and_columns_without_channels(self):
        from tests.support import draw, model

        source = model(
            """(float[N,8,6] x) => (float[N,4] y) {
                one = Constant<value = int64[1] {1}>()
                u = Unsqueeze(x, one)
                c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(u, w, b)
                r = Relu(c)
                p = GlobalAveragePool(r)
                y = Flatten(p)
            }""",
            weights=draw(0, w=(4, 1, 3, 3), b=(4,)),
        )
        explanation = fgonnx.Explainer(source, layout="NHW")(X[:, 0])
        assert explanation.saliency.shape == (2, 8, 6)
        assert explanation.relative_residual().max() < 1e-5
        assert all(s.grid in ((), (8, 6)) for s in explanation.sites)
