"""Values of options: another type, out of range, empty or of numpy; each is taken as what it means, or refused."""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import Options, Running, evaluate, targets, training
from fgonnx.audit.check import Thoroughness
from fgonnx.errors import FgonnxError, InputError, OptionError, TargetError
from fgonnx.fields import checked, option
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import Reading
from fgonnx.targets import Cotangent, Detection, Region, Similarity
from fgonnx.wording import closest, near
from tests.cli_support import refused
from tests.support import model, small_cnn

REFERENCES = np.zeros((2, 3, 8, 6), np.float32)

SETTINGS = [
    ("smoothgrad", {"samples": "a"}, "samples='a' is of the type str; give a whole number"),
    ("smoothgrad", {"samples": 0}, "samples=0 is out of range; give 1 or more"),
    ("smoothgrad", {"samples": True}, "samples=True is of the type bool; give a whole number"),
    ("smoothgrad", {"samples": 2.0}, "samples=2.0 is of the type float; give a whole number"),
    ("smoothgrad", {"samples": None}, "samples=None is of the type NoneType"),
    ("smoothgrad", {"sigma": math.nan}, "sigma=nan is out of range; give a finite number"),
    ("smoothgrad", {"sigma": math.inf}, "sigma=inf is out of range; give a finite number"),
    ("smoothgrad", {"sigma": -0.1}, "sigma=-0.1 is out of range; give 0 or more"),
    ("smoothgrad", {"sigma": "0.1"}, "sigma='0.1' is of the type str; give a number"),
    ("smoothgrad", {"sigma": True}, "sigma=True is of the type bool; give a number"),
    ("smoothgrad", {"random_state": -1}, "random_state=-1 is out of range; give 0 or more"),
    ("smoothgrad", {"sample": 3}, r"has no setting 'sample'; it has: .* \(did you mean 'samples'\?\)"),
    ("integrated-gradients", {"steps": -1}, "steps=-1 is out of range; give 1 or more"),
    ("integrated-gradients", {"steps": 10**6}, "steps=1000000 is out of range; give 4096 or less"),
    ("integrated-gradients", {"baseline": "black"}, "baseline='black' is of the type str; give a number or an array"),
    ("integrated-gradients", {"baseline": np.array([np.nan])}, "baseline=array of shape"),
    ("integrated-gradients", {"baseline": np.array(["a"])}, "baseline=array of shape"),
    ("integrated-gradients", {"baseline": [[1.0], [1.0, 2.0]]}, "give a number or an array of finite numbers"),
    ("expected-gradients", {}, "needs references="),
    ("expected-gradients", {"references": 3}, "references=3 is of the type int; give an array of finite numbers"),
    ("expected-gradients", {"references": "x.npy"}, "references='x.npy' is of the type str"),
    ("expected-gradients", {"references": np.zeros((0, 3, 8, 6))}, "needs references="),
    ("occlusion", {"window": 0}, "window=0 is out of range; give 1 or more"),
    ("occlusion", {"stride": 1.5}, "stride=1.5 is of the type float"),
    ("rise", {"cells": 0}, "cells=0 is out of range; give 1 or more"),
    ("rise", {"cells": 10**6}, "cells=1000000 is out of range; give 256 or less"),
    ("rise", {"keep": 0}, "keep=0 is out of range; give a number above 0"),
    ("rise", {"keep": 1.5}, "keep=1.5 is out of range; give 1 or less"),
    ("lrp-epsilon", {"epsilon": 0}, "epsilon=0 is out of range; give a number above 0"),
    ("grad-cam", {"layer": 3}, "layer=3 is of the type int; give a text or None"),
    ("grad-cam", {"layer": ""}, "layer='' is empty; give a text, or leave it out"),
    ("random", {"random_state": "0"}, "random_state='0' is of the type str"),
]

OPTIONS = [
    ({"psii": "abs"}, r"Options has no option 'psii' \(did you mean 'psi'\?\)"),
    ({"method": 3}, "method=3 is of the type int; give a text"),
    ({"method": "gradcam"}, r"method='gradcam' does not exist; choose one of: .* \(did you mean 'grad-cam'\?\)"),
    ({"method": "Grad_CAM"}, r"\(did you mean 'grad-cam'\?\)"),
    ({"psi": "absolute"}, r"psi='absolute' does not exist; choose one of: .* \(did you mean 'abs'\?\)"),
    ({"profile": ["full"]}, r"profile=\['full'\] is of the type list; give a text"),
    ({"head": Path("output")}, "head=.output. is of the type PosixPath; give a text"),
    ({"output": ""}, "output='' is empty"),
    ({"input": "  "}, "input='  ' is empty"),
    ({"input_shape": (1, "a")}, r"input_shape=\(1, 'a'\) is of the type tuple; give whole numbers as a tuple or list"),
    ({"input_shape": (1, 2.5)}, "give whole numbers as a tuple or list"),
    ({"input_shape": (1, True)}, "give whole numbers as a tuple or list"),
    ({"input_shape": (1, 0, 8)}, r"input_shape=\(1, 0, 8\) is out of range; give 1 or more"),
    ({"input_shape": ()}, r"input_shape=\(\) is empty"),
    ({"outputs": ()}, r"outputs=\(\) is empty"),
    ({"outputs": ("saliency", 3)}, "give texts as a tuple or list"),
    ({"outputs": ("salliency",)}, r"no output 'salliency'; .*\(did you mean 'saliency'\?\)"),
    ({"expose": "r"}, "expose='r' is of the type str; give texts as a tuple or list"),
    ({"expose": ("",)}, "is empty"),
    ({"bind": {3: 1}}, "give a mapping of names to values"),
    ({"seed": 1}, "seed=1 is of the type int; give True or False"),
    ({"certificate": "no"}, "certificate='no' is of the type str; give True or False"),
    ({"target": True}, "target=True is of the type bool"),
]

OTHERS = [
    (lambda: Options("grad-cam"), "Options takes its options by name"),
    (lambda: Running(providers=[3]), r"providers=\[3\] is of the type list; give texts as a tuple or list or None"),
    (lambda: Running(providers=[]), r"providers=\[\] is empty"),
    (lambda: Running(threads=10**9), "threads=1000000000 is out of range; give 1024 or less"),
    (lambda: Running(cache=3), "cache=3 is of the type int; give True or False or a text or a path"),
    (lambda: Running(cache=""), "cache='' is empty"),
    (lambda: Running(thread=1), r"Running has no option 'thread' \(did you mean 'threads'\?\)"),
    (lambda: Thoroughness(tolerance=math.nan), "tolerance=nan is out of range; give a finite number"),
    (lambda: Thoroughness(tolerance=0), "tolerance=0 is out of range; give a number above 0"),
    (lambda: Thoroughness(samples=False), "samples=False is of the type bool"),
    (lambda: Limits(min_ssim="0.5"), "min_ssim='0.5' is of the type str; give a number or None"),
    (lambda: Limits(max_layer_error=math.inf), "give a finite number"),
    (lambda: Reading(rate=0), "rate=0 is out of range; give a number above 0"),
    (lambda: Reading(span=(5, 2)), r"span=\(5, 2\) holds no sample"),
    (lambda: Reading(span=(0, 1, 2)), "give 2 whole numbers as a tuple or list"),
    (lambda: Reading(labels=""), "labels='' is of the type str; give a path or None"),
    (lambda: Plan(methods=()), r"methods=\(\) is empty"),
    (lambda: Plan(measures=()), r"measures=\(\) is empty"),
    (lambda: Plan(methods=("fullgrad", "gradcam")), r"did you mean 'grad-cam'\?"),
    (lambda: Plan(methods=("rise:samples=0",)), "samples=0 is out of range"),
    (lambda: Plan(measures=("deletion:fill=pink",)), "fill='pink' does not exist; choose one of: black, mean, blur"),
    (lambda: Plan(limit=0), "limit=0 is out of range"),
    (lambda: fgonnx.rewrite(small_cnn(), options=3), "3 is no fgonnx.Options"),
    (lambda: fgonnx.inspect(small_cnn(), options="grad-cam"), "write method='grad-cam'"),
    (lambda: fgonnx.check(small_cnn(), thoroughness=3), "3 is no fgonnx.Thoroughness"),
    (lambda: fgonnx.check(small_cnn(), running="cpu"), "'cpu' is no fgonnx.Running"),
    (lambda: fgonnx.compare(small_cnn(), small_cnn(), REFERENCES, options={"psi": "abs"}), "is no fgonnx.Options"),
    (lambda: fgonnx.grad(small_cnn(), wrt=3), "wrt=3 is of the type int; give texts as a tuple or list"),
    (lambda: fgonnx.grad(small_cnn(), wrt=["x", 3]), "give texts as a tuple or list"),
    (lambda: fgonnx.grad(small_cnn(), wrt=[]), r"wrt=\[\] names nothing"),
    (lambda: fgonnx.grad(small_cnn(), of=3), "of=3 is of the type int; give a text or None"),
    (lambda: fgonnx.grad(small_cnn(), of="yy"), "no value 'yy' in the graph"),
    (lambda: fgonnx.methods.find(["grad-cam"]), "does not exist"),
    (lambda: evaluate.get(3), "3 is no measure"),
    (lambda: evaluate.get("deletion:steps=0"), "steps=0 is out of range; give 1 or more"),
    (lambda: evaluate.get("deletion:of=loss"), "of='loss' does not exist; choose one of: logit, probability"),
    (lambda: evaluate.get("pixel-perturbation:order=lest"), r"did you mean 'least'\?"),
    (lambda: evaluate.get("road:noise=nan"), "noise=nan is out of range; give a finite number"),
    (lambda: evaluate.get("max-sensitivity:samples=-2"), "samples=-2 is out of range"),
    (lambda: evaluate.get("deletion:stepz=4"), r"has no option 'stepz'; .*\(did you mean 'steps'\?\)"),
]


class TestRefused:
    @pytest.mark.parametrize(("method", "settings", "message"), SETTINGS, ids=str)
    def test_settings_of_methods(self, method, settings, message):
        with pytest.raises(OptionError, match=message):
            Options(method=method, settings=settings)

    @pytest.mark.parametrize(("values", "message"), OPTIONS, ids=str)
    def test_options(self, values, message):
        with pytest.raises(OptionError, match=message):
            Options(**values)

    @pytest.mark.parametrize(("call", "message"), OTHERS, ids=[message for _, message in OTHERS])
    def test_others(self, call, message):
        with pytest.raises(FgonnxError, match=message):
            call()

    def test_settings_of_a_method_of_ones_own(self):
        @dataclass(frozen=True)
        class Mine:
            count: int
            share: float = option(0.5, "A share.", above=0, most=1)

        method = fgonnx.methods.Method("mine", "", "", "", lambda view: {}, settings=Mine)
        assert method.set({"count": np.int64(3)}) == Mine(3, 0.5)
        for given, message in (({}, "mine needs count="), ({"count": 1, "share": 2}, "share=2 is out of range")):
            with pytest.raises(OptionError, match=message):
                method.set(given)


class TestTaken:
    @pytest.mark.parametrize(
        ("cls", "name", "given", "kept"),
        [
            (Running, "threads", np.int64(2), 2),
            (Running, "batch_size", np.uint8(4), 4),
            (Running, "spin", np.bool_(False), False),
            (Running, "providers", ["cpu"], ("cpu",)),
            (Running, "cache", np.str_("folder"), "folder"),
            (Limits, "min_ssim", np.float32(0.5), 0.5),
            (Limits, "min_ssim", 1, 1.0),
            (Limits, "min_ssim", Fraction(1, 2), 0.5),
            (Options, "psi", np.str_("signed"), "signed"),
            (Options, "input_shape", [1, np.int32(3), 8, 6], (1, 3, 8, 6)),
            (Options, "input_shape", np.array([1, 3, 8, 6]), (1, 3, 8, 6)),
            (Options, "target", np.int64(2), 2),
            (Options, "outputs", ["saliency"], ("saliency",)),
            (Reading, "labels", "names.txt", Path("names.txt")),
            (Reading, "preprocess", Path("how.json"), "how.json"),
            (Reading, "span", [np.int64(2), 5], (2, 5)),
        ],
    )
    def test_in_the_form_of_python(self, cls, name, given, kept):
        found = getattr(cls(**{name: given}), name)
        assert found == kept
        assert type(found) is type(kept)

    def test_settings(self):
        made = Options(method="smoothgrad", settings={"samples": np.int32(3), "sigma": np.float32(0.5)}).settings
        assert (made.samples, made.sigma) == (3, 0.5)
        assert (type(made.samples), type(made.sigma)) == (int, float)
        assert Options(method="integrated-gradients", settings={"baseline": [[1, 2]]}).settings.baseline.shape == (1, 2)

    def test_decimals_are_no_numbers_of_python(self):
        with pytest.raises(OptionError, match="is of the type Decimal; give a number"):
            checked(Limits, {"min_ssim": Decimal("0.5")})


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("gradcam", ("grad-cam", "gradient"), ["grad-cam"]),
        ("GRAD_CAM", ("grad-cam", "gradient"), ["grad-cam"]),
        ("abso", ("abs", "signed"), ["abs"]),
        ("xyz", ("abs", "signed"), []),
        ("", ("abs",), []),
    ],
)
def test_the_name_that_a_misspelt_one_is_like(word, known, found):
    assert closest(word, known) == found
    assert near(word, known) == (f" (did you mean '{found[0]}'?)" if found else "")


TARGETS = [
    (lambda: Region("left"), "where='left' is of the type str; give numbers as a tuple or list"),
    (lambda: Region((0, 0, 1, "b")), "give numbers as a tuple or list"),
    (lambda: Region(np.array(["a"])), "where=.* give an array of numbers"),
    (lambda: Region((0, 0, 1, 1), 1.5), "entry=1.5 is of the type float; give a whole number or a text or None"),
    (lambda: Region((0, 0, 1, 1), -1), "entry=-1 is out of range; give 0 or more"),
    (lambda: Region((0, 0, 1, 1), True), "entry=True is of the type bool"),
    (lambda: Region((0, 0, 1, 1), reduce="most"), "reduce='most' does not exist"),
    (lambda: Detection(best=2.0), "best=2.0 is of the type float"),
    (lambda: Detection(anchor="12", column=0), "anchor='12' is of the type str; give a whole number or None"),
    (lambda: Detection(anchor=-1, column=0), "anchor=-1 is out of range; give 0 or more"),
    (lambda: Detection("cat", column=(0,)), r"column=\(0,\) is of the type tuple"),
    (lambda: Detection("cat", first=5.5), "first=5.5 is of the type float"),
    (lambda: Detection("cat", by=3, column=0), "by=3 is of the type int; give a text or None"),
    (lambda: Detection("cat", objectness="x"), "objectness='x' is of the type str"),
    (lambda: Similarity("cat.npy"), "reference='cat.npy' is of the type str; give an array of numbers"),
    (lambda: Similarity(None), "reference=None is of the type NoneType"),
    (lambda: Cotangent([[1, 2], [3]]), "weights=.* give an array of numbers"),
    (lambda: targets.parse(7), "7 is no text of a target"),
]


@pytest.mark.parametrize(("make", "message"), TARGETS)
def test_targets_of_another_type_are_refused(make, message):
    with pytest.raises(TargetError, match=message):
        make()


X, LABELS = np.zeros((8, 3, 4, 4), np.float32), np.zeros(8, np.int64)
TRAINING = [
    (lambda: training.Batches(X, LABELS, size=2.5), "size=2.5 is of the type float; give a whole number"),
    (lambda: training.Batches(X, LABELS, size=0), "size=0 is out of range; give 1 or more"),
    (lambda: training.Batches(X, LABELS, size=4, seed="0"), "seed='0' is of the type str"),
    (lambda: training.Batches(X, LABELS, size=4, mirror=4), r"mirror=4 is no axis of a sample of shape \(3, 4, 4\)"),
    (lambda: training.Batches(X, LABELS, size=4, mirror=0), "mirror=0 is no axis"),
    (lambda: training.Batches(X, LABELS, size=4, prepare=1), "prepare is of the type int; give a function"),
    (lambda: training.Batches(X.tolist(), LABELS, size=4), "x is of the type list; give a numpy array"),
    (lambda: training.Batches(X, LABELS.astype(float), size=4), "labels are float64"),
    (lambda: training.Batches(X, LABELS[:3], size=4), "8 samples and 3 classes"),
    (lambda: training.Rate("fast"), "rate='fast' is of the type str; give a number"),
    (lambda: training.Rate(0), "rate=0 is out of range; give a number above 0"),
    (lambda: training.Rate(float("nan")), "rate=nan is out of range"),
    (lambda: training.Rate(1e-3, "linear"), "schedule='linear' does not exist"),
    (lambda: training.SGD(momentum="high"), "momentum='high' is of the type str"),
    (lambda: training.SGD(momentum=1.5), "momentum=1.5 is out of range; give 1 or less"),
    (lambda: training.SGD(nesterov=1), "nesterov=1 is of the type int; give True or False"),
    (lambda: training.AdamW(beta2=-1), "beta2=-1 is out of range; give 0 or more"),
    (lambda: training.AdamW(epsilon=0), "epsilon=0 is out of range; give a number above 0"),
    (lambda: training.AdamW(decay=None), "decay=None is of the type NoneType"),
    (lambda: training.Network("net.onnx", threads=0), "threads=0 is out of range; give 1 or more"),
    (lambda: training.Network("net.onnx", input=1), "input=1 is of the type int"),
    (lambda: training.fit(None, training.Batches(X, LABELS, size=4), 1), "network is of the type NoneType"),
    (lambda: training.accuracy(None, None), "network is of the type NoneType"),
    (lambda: training.reinitialise(None, -1), "seed=-1 is out of range"),
]


@pytest.mark.parametrize(("make", "message"), TRAINING)
def test_what_trains_is_checked(make, message):
    with pytest.raises((OptionError, InputError), match=message):
        make()


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("deletion:fill=blur", "NCDHW", "fill='blur' is for pictures and sequences"),
        ("insertion", "NCDHW", "fill='blur' is for pictures and sequences"),
        ("road", "NCW", "imputes pictures"),
        ("road", "NF", "imputes pictures"),
        ("road", "NHW", "imputes pictures"),
        ("deletion:fill=blur", "NCHW", ""),
        ("insertion:fill=mean", "NCDHW", ""),
        ("road", "NHWC", ""),
    ],
)
def test_a_measure_says_what_it_has_no_meaning_for(name, layout, message):
    said = evaluate.get(name).misfit(layout)
    assert message in said
    assert bool(said) is bool(message)


def test_measures_without_meaning_are_refused_before_anything_is_measured(tmp_path):
    source = model(
        "(float[N,1,4,4,4] x) => (float[N,2] y) { f = Flatten(x) y = MatMul(f, w) }",
        weights={"w": np.ones((64, 2), np.float32)},
    )
    path = tmp_path / "net.onnx"
    onnx.save(source, path)
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 1, 4, 4, 4), np.float32), y=np.zeros(2, np.int64))
    given = ("evaluate", path, tmp_path / "data.npz", "-o", tmp_path / "out", "--methods", "gradient")
    said = refused(*given, "--measures", "deletion:fill=blur")
    assert "fill='blur' is for pictures and sequences" in said
    assert not (tmp_path / "out").exists()
