"""Written files: what they take besides the model's inputs, and their explanations when an Explainer opens them."""

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.errors import FgonnxError, OptionError, TargetError
from tests.cli_support import good, refused
from tests.support import model, pictures, run, small_cnn
from tests.test_samples import ALONE, ORDERS, drawn, network, sizes

X = pictures(3)

#: How the file is written; inputs besides the model's own: name, whether it may be left out, dimension.
FILES = {
    "default": ({}, [("target_index", True, "targets")]),
    "argmax": ({"target": "argmax"}, []),
    "largest": ({"target": -1}, []),
    "an entry": ({"target": 2}, []),
    "input": ({"target": "input"}, [("target_index", False, "N")]),
    "seed": ({"seed": True}, [("seed", False, "N")]),
    "an entry, next": ({"target": 2, "contrast": "next"}, []),
    "two entries": ({"target": 2, "contrast": 4}, []),
    "the two largest": ({"target": "argmax", "contrast": "next"}, []),
    "input, next": ({"target": "input", "contrast": "next"}, [("target_index", False, "N")]),
}
every_file = pytest.mark.parametrize("how", FILES)
forms = pytest.mark.parametrize("form", ["fast", "portable"])


@every_file
@forms
def test_inputs(how, form):
    options, expected = FILES[how]
    graph = fgonnx.rewrite(small_cnn(), form=form, **options).graph
    weights = {t.name for t in graph.initializer}
    found = [(v.name, v.name in weights, v.type.tensor_type.shape.dim[0].dim_param) for v in graph.input]
    assert found[0][0] == "x"
    assert found[1:] == expected


@pytest.mark.parametrize("batch", [1, 3])
@forms
def test_a_fixed_entry_is_that_of_every_sample(batch, form):
    found = run(fgonnx.rewrite(small_cnn(), target=3, form=form), {"x": X[:batch]})
    np.testing.assert_array_equal(found["target"], [3] * batch)
    np.testing.assert_array_equal(found["score"], found["y"][:, 3])


@forms
def test_a_required_target_is_one_for_each_sample(form):
    proto = fgonnx.rewrite(small_cnn(), target="input", form=form)
    found = run(proto, {"x": X, "target_index": np.array([4, -1, 0])})
    np.testing.assert_array_equal(found["target"], [4, found["y"][1].argmax(), 0])


def test_a_model_of_one_sample_requires_one_target():
    proto = fgonnx.rewrite(small_cnn(batch=1), target="input", one_by_one=True)
    (size,) = proto.graph.input[1].type.tensor_type.shape.dim
    assert size.dim_value == 1


@pytest.mark.parametrize(("target", "why"), [(5, "out of range"), (-2, "out of range")])
def test_entries_that_do_not_exist(target, why):
    with pytest.raises(TargetError, match=why):
        fgonnx.rewrite(small_cnn(), target=target)


@pytest.mark.parametrize("target", ["cat", "3", "Argmax"])
def test_words_that_mean_nothing(target):
    with pytest.raises(OptionError, match="argmax, input"):
        fgonnx.rewrite(small_cnn(), target=target)


CALLS = {"seed": {"seed": np.eye(5, dtype=np.float32)[1]}, "an entry": {"target": 2}, "an entry, next": {"target": 2}}


@every_file
@forms
@pytest.mark.parametrize("from_disk", [True, False], ids=["file", "proto"])
def test_an_explainer_opens_them(how, form, from_disk, tmp_path):
    proto = fgonnx.rewrite(small_cnn(), form=form, **FILES[how][0])
    onnx.save(proto, tmp_path / "explained.onnx")
    explainer = fgonnx.Explainer(tmp_path / "explained.onnx" if from_disk else proto)
    options = {k: v for k, v in FILES[how][0].items() if k == "contrast"}
    call = CALLS.get(how, {"target": 2, "contrast": 4} if how == "two entries" else {})
    expected = fgonnx.Explainer(small_cnn(), **options)(X, **call)
    found = explainer(X, **{k: v for k, v in call.items() if k == "seed"})
    np.testing.assert_allclose(found.saliency, expected.saliency, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.contributions, expected.contributions, rtol=0, atol=2e-6)
    assert [s.name for s in found.sites] == [s.name for s in expected.sites]
    assert found.described == expected.described
    assert found.head == expected.head


@pytest.mark.parametrize(
    ("how", "call", "why"),
    [
        ("argmax", {"target": 2}, "written with target='argmax': it explains the largest entry alone"),
        ("largest", {"target": 2}, "explains the largest entry alone"),
        ("an entry", {"target": [2, 2, 1]}, "written with target=2: it explains entry 2 alone"),
        ("an entry", {"seed": np.ones(5, np.float32)}, "no cotangent"),
        ("an entry", {"contrast": 1}, "written without a contrast"),
        ("two entries", {"contrast": 1}, "written with contrast=4"),
        ("input", {"target": "region=0:0:1:1"}, "no cotangent"),
        ("seed", {"target": 1}, "a cotangent of its head"),
    ],
)
def test_what_they_do_not_explain_is_refused(how, call, why):
    explainer = fgonnx.Explainer(fgonnx.rewrite(small_cnn(), **FILES[how][0]))
    with pytest.raises(FgonnxError, match=why):
        explainer(X, **call)


@pytest.mark.parametrize(("how", "call"), [("an entry", {"target": 2}), ("two entries", {"target": 2, "contrast": 4})])
def test_what_they_explain_may_be_named(how, call):
    explainer = fgonnx.Explainer(fgonnx.rewrite(small_cnn(), **FILES[how][0]))
    np.testing.assert_array_equal(explainer(X, **call).target, 2)


def test_they_have_options_of_their_own():
    proto = fgonnx.rewrite(small_cnn(), psi="positive", profile="reference")
    assert fgonnx.Explainer(proto).options.psi == "positive"
    with pytest.raises(OptionError, match="options of its own"):
        fgonnx.Explainer(proto, psi="signed")


def test_they_need_the_outputs_of_an_explanation():
    with pytest.raises(OptionError, match="without the output score"):
        fgonnx.Explainer(fgonnx.rewrite(small_cnn(), outputs=("saliency",)))


@pytest.mark.parametrize("what", [fgonnx.rewrite, fgonnx.grad, fgonnx.check])
def test_they_are_not_written_again(what):
    with pytest.raises(FgonnxError, match=r"fgonnx wrote it|was written by fgonnx"):
        what(fgonnx.rewrite(small_cnn(), target="argmax"))


class TestCommand:
    @pytest.fixture
    def source(self, tmp_path):
        onnx.save(small_cnn(), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    @pytest.mark.parametrize(("target", "inputs"), [("argmax", 1), ("2", 1), ("input", 2), (None, 2)])
    def test_target(self, source, target, inputs, tmp_path):
        text = good("rewrite", source, "-o", tmp_path / "r.onnx", *(() if target is None else ("--target", target)))
        assert len(onnx.load(tmp_path / "r.onnx").graph.input) == inputs
        assert ("other runtimes" in text) == (target is None)

    def test_a_class_that_does_not_exist(self, source, tmp_path):
        assert "out of range" in refused("rewrite", source, "-o", tmp_path / "r.onnx", "--target", "9")


# Files of models whose batch is not the first axis: what they take, and one sample's map.
ELSEWHERE = {name: (*ALONE[name][:3], ALONE[name][-1]) for name in ("CHW", "HWC", "a waveform", "a feature vector")}
ELSEWHERE |= {name: (*ORDERS[name][:3], ORDERS[name][-1]) for name in ("TNF, recurrent", "CHWN")}


@pytest.mark.parametrize(("inputs", "body", "output", "grid"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_file_whose_batch_is_not_the_first_axis(inputs, body, output, grid):
    source, x = network(inputs, body, output), drawn(sizes(inputs, N=2))
    e = fgonnx.Explainer(source, input_gradient=True)(x)
    again = fgonnx.Explainer(fgonnx.rewrite(source, input_gradient=True, target="input"))(x)
    assert again.saliency.shape == (len(e), *grid)
    for name in ("saliency", "score", "input_gradient", "target"):
        np.testing.assert_allclose(getattr(again, name), getattr(e, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again.outputs["y"], e.outputs["y"], rtol=1e-4, atol=1e-6)


def test_a_models_own_input_of_that_name_stays():
    source = model("(float[N,3] target_index) => (float[N,3] y) { r = Relu(target_index)\n y = Mul(r, r) }")
    names = [i.name for i in fgonnx.rewrite(source, target="input", outputs=("score",)).graph.input]
    assert names == ["target_index", "fg_target_index"]
