"""Options that would have no effect are refused, by name and with the reason, from Python and on the command line."""

import wave
from functools import partial

import numpy as np
import pytest

import fgonnx
from fgonnx import Explainer, Options, evaluate, labels
from fgonnx.errors import FgonnxError, OptionError, TargetError
from fgonnx.jobs.limits import Limits
from tests.cli_support import CIRCLE, HEADER, IMAGES, SHAPES, good, model, refused, written
from tests.support import pictures, small_cnn

X = pictures(2)
CALLED = "an Explainer is told what to explain when it is called"

PYTHON = [
    (lambda m: Explainer(m, target=1), f"target=1 has no effect: {CALLED}"),
    (lambda m: Explainer(m, Options(seed=True)), f"seed=True has no effect: {CALLED}"),
    (lambda m: Explainer(m, outputs=("score",)), r"outputs=\('score',\) has no effect: an Explainer returns the map"),
    (lambda m: Explainer(m, method="rise", psi="positive"), "psi='positive' has no effect: the map of rise is made"),
    (lambda m: Explainer(m, method="gradient", profile="paper"), "profile='paper' has no effect: gradient shows no"),
    (
        lambda m: Explainer(m, method="edge", engine="ort-training"),
        "engine='ort-training' has no effect: edge",
    ),
    (lambda m: Explainer(m, method="gradient", certificate=False), "certificate=False has no effect: gradient has no"),
    (lambda m: fgonnx.rewrite(m, seed=True, target=1), "target=1 has no effect: the cotangent says what is explained"),
    (
        lambda m: fgonnx.rewrite(m, outputs=("score",), psi="signed"),
        "psi='signed' has no effect: there is no map among",
    ),
    (lambda m: fgonnx.rewrite(m, outputs=("score",), certificate=False), "certificate=False has no effect: outputs="),
    (lambda m: fgonnx.rewrite(m, batch_size=2), "'batch_size' says how a model runs"),
    (lambda m: fgonnx.inspect(m, outputs=("score",)), "has no effect: inspect writes no file"),
    (lambda m: fgonnx.inspect(m, form="portable"), "form='portable' has no effect: inspect writes no file"),
    (lambda m: fgonnx.grad(m, options=Options(psi="signed")), "psi='signed' has no effect: a plain gradient takes"),
    (lambda m: fgonnx.grad(m, options=Options(head="output")), "head='output' has no effect: a plain gradient takes"),
    (lambda m: fgonnx.grad(m, options=Options(method="gradient")), "method='gradient' has no effect"),
    (lambda m: fgonnx.grad(m, method="rise", samples=3), "method='rise' has no effect"),
    (lambda m: fgonnx.grad(m, scores=True), "scores=True has no effect"),
    (lambda m: fgonnx.check(m, X, samples=5), "samples=5 has no effect: samples to check on are given"),
    (lambda m: fgonnx.check(m, X, method="grad-cam"), "check needs contributions .* which method='grad-cam' does not"),
    (lambda m: fgonnx.check(m, X, certificate=False), "certificate=False has no effect: check needs contributions"),
    (lambda m: fgonnx.check(m, X, outputs=("score",)), "outputs=.* has no effect"),
    (lambda m: fgonnx.compare(m, m, X, method="gradient"), "compare needs contributions .* method='gradient' does not"),
    (lambda m: fgonnx.compare(m, m, X, certificate=False), "certificate=False has no effect: compare needs"),
    (lambda m: fgonnx.compare(m, m, X, target=1, seed=True), "seed=True has no effect"),
    (lambda m: evaluate.Subject(m, outputs=("score",)), "outputs=.* has no effect"),
    (lambda m: Limits(judge="mean"), "judge='mean' has no effect: it judges limits, and none is set"),
    (lambda m: Limits(judge="mean", min_top1=0.5), "judge='mean' has no effect"),
]

LABELS = [
    (("a", "b"), TargetError, "2 labels do not fit a model with 5 classes"),
    (("a", "b", "c", "d", "e", "f"), TargetError, "6 labels do not fit a model with 5 classes"),
    ((1, 2, 3, 4), OptionError, "the labels= hold 1; give a name for each class"),
    (("a", "b", "c", ""), OptionError, "the labels= hold ''"),
    ((), OptionError, "the labels= hold none"),
    (3, OptionError, "the labels= hold none"),
]


@pytest.mark.parametrize(("call", "message"), PYTHON, ids=[message for _, message in PYTHON])
def test_from_python(call, message):
    with pytest.raises(OptionError, match=message):
        call(small_cnn())


def test_those_with_an_effect_are_taken():
    assert Limits(judge="mean", min_ssim=0.5).judge == "mean"
    assert Explainer(small_cnn(), method="grad-cam", psi="signed")(X).settings["psi"] == "signed"
    assert fgonnx.rewrite(small_cnn(), outputs=("saliency",), psi="signed").graph.output[1].name == "saliency"
    assert evaluate.Subject(small_cnn(), options=Options(method="gradient")).method == "gradient"


class TestLabels:
    @pytest.mark.parametrize(("given", "error", "message"), LABELS, ids=str)
    def test_that_are_no_names_of_the_classes(self, given, error, message):
        for call in (
            lambda: Explainer(small_cnn(), labels=given)(X),
            lambda: fgonnx.check(small_cnn(), X, labels=given),
            lambda: fgonnx.compare(small_cnn(), small_cnn(), X, labels=given),
        ):
            with pytest.raises(error, match=message):
                call()

    def test_a_text_is_no_list_of_names(self):
        for call in (fgonnx.check, partial(fgonnx.compare, small_cnn())):
            with pytest.raises(OptionError, match=r"labels='names.txt' are no names; .*labels.load\('names.txt'\)"):
                call(small_cnn(), X, labels="names.txt")

    def test_those_of_the_metadata_are_left_aside_where_they_do_not_fit(self):
        source = small_cnn()
        source.metadata_props.add(key=labels.METADATA_KEY, value='["a", "b"]')
        assert Explainer(source)(X, 1).described == ("1", "1")
        assert len(fgonnx.compare(source, source, X)) == 2

    def test_a_head_of_several_axes_has_classes_along_one(self):
        assert labels.check_count(["a"] * 21, (21, 8, 8)) is None
        with pytest.raises(TargetError, match=r"30 labels do not fit a head of shape \(21, 8, 8\)"):
            labels.check_count(["a"] * 30, (21, 8, 8))


@pytest.fixture
def sound(tmp_path):
    """A recording and a model of it."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 8, "NONE", ""))
        file.writeframes(np.arange(8, dtype="<i2").tobytes())
    text = HEADER + "g (float[N,8] x) => (float[N,2] y) <float[8,2] w = {" + ",".join(["0.5"] * 16) + "}> "
    return model(text + "{ y = MatMul(x, w) }", tmp_path / "sound.onnx"), tmp_path / "a.wav"


class TestCommandLine:
    @pytest.mark.parametrize(
        ("command", "options", "message"),
        [
            ("explain", ("--rate", "8000"), "--rate 8000 has no effect: no recording is among the inputs"),
            ("explain", ("--channel", "0"), "--channel 0 has no effect: no recording"),
            ("explain", ("--span", "0:4"), "--span 0:4 has no effect: no recording"),
            ("explain", ("--method", "rise", "--psi", "signed"), "--psi signed has no effect: the map of rise"),
            ("explain", ("--method", "rise", "--samples", "3", "--set", "samples=4"), "'samples' is given twice"),
            ("explain", ("--method", "smoothgrad", "--sigma", "0.1", "--set", "sigma=0.2"), "'sigma' is given twice"),
            ("explain", ("--samples", "3"), "fullgrad has no setting 'samples'"),
            ("check", ("--samples", "3"), "--samples 3 has no effect"),
            ("compare", ("--judge", "mean"), "--judge mean has no effect: it judges limits, and none is set"),
            (
                "compare",
                ("--layout", "NCHW", "--layout-a", "NCHW", "--layout-b", "NCHW"),
                "--layout NCHW has no",
            ),
            (
                "compare",
                ("--preprocess", "tf", "--preprocess-a", "tf", "--preprocess-b", "tf"),
                "--preprocess tf has",
            ),
        ],
    )
    def test_on_pictures(self, command, options, message, tmp_path):
        models = (SHAPES, SHAPES) if command == "compare" else (SHAPES,)
        out = () if command == "check" else ("-o", tmp_path / "out")
        assert message in refused(command, *models, CIRCLE, *out, *options)
        assert written(tmp_path / "out") == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--seed", "--target", "1"), "--target 1 has no effect: the cotangent says what is explained"),
            (("--outputs", ""), "--outputs is empty"),
            (("--outputs", " , "), "--outputs is empty"),
            (
                ("--outputs", "score", "--psi", "signed"),
                "--psi signed has no effect: there is no map among the --out",
            ),
            (("--labels", "names.txt"), "--labels names.txt has no effect: they are for a target or a contrast"),
        ],
    )
    def test_of_rewrite(self, options, message, tmp_path):
        assert message in refused("rewrite", SHAPES, "-o", tmp_path / "out.onnx", *options)
        assert not (tmp_path / "out.onnx").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--methods", ""), "--methods is empty"),
            (("--measures", ","), "--measures is empty"),
            (("--measures", "deletion:fill=pink"), "the measure 'deletion': fill=pink does not exist"),
            (("--measures", "deletion:steps=0"), "the measure 'deletion': steps=0 is out of range; give 1 or more"),
            (("--methods", "rise:samples=0"), "samples=0 is out of range"),
            (("--methods", "rise:sample=3"), "did you mean 'samples'?"),
        ],
    )
    def test_of_evaluate(self, options, message, tmp_path):
        assert message in refused("evaluate", SHAPES, IMAGES, "-o", tmp_path / "out", *options)
        assert written(tmp_path / "out") == []

    def test_masks(self, tmp_path):
        (tmp_path / "masks").mkdir()
        message = refused("evaluate", SHAPES, IMAGES, "-o", tmp_path / "out", "--masks", tmp_path / "masks")
        assert "has no effect: it holds a mask of none of the" in message
        np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 64, 64), np.float32))
        message = refused("evaluate", SHAPES, tmp_path / "x.npz", "-o", tmp_path / "out", "--masks", tmp_path / "masks")
        assert "has no effect: the masks of an .npz are in it" in message

    def test_preprocessing_of_recordings_alone(self, sound, tmp_path):
        message = refused("explain", *sound, "-o", tmp_path / "out", "--preprocess", "imagenet")
        assert "--preprocess imagenet has no effect: all inputs are recordings" in message

    def test_of_recordings_are_recorded_for_those(self, sound, tmp_path):
        source, recording = sound
        np.save(tmp_path / "b.npy", np.ones((1, 8), np.float32))
        good("explain", source, recording, tmp_path / "b.npy", "-o", tmp_path / "out", "--rate", "8000")
        assert '"rate": 8000' in (tmp_path / "out" / "a.json").read_text()
        assert "rate" not in (tmp_path / "out" / "b-0000.json").read_text()


def test_errors_are_one_family():
    with pytest.raises(FgonnxError):
        Explainer(small_cnn(), outputs=("score",))
