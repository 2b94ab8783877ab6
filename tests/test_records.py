"""A record is enough to do its run again: the command that it holds gives the same results."""

import json
import shlex

import numpy as np
import pytest

import fgonnx
from fgonnx import Options, Running
from fgonnx.fields import arguments
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import Reading
from tests.cli_support import CIRCLE, HEADER, IMAGES, SHAPES, good, model, run

STATEFUL = (
    HEADER
    + """
g (float[N,3,8,8] x, float[1,3,8,8] s, float k) => (float[N,4] y) <float[4,3,3,3] w = {WEIGHTS}>
{ a = Add(x, s)  t = Mul(a, k)  c = Conv<pads=[1,1,1,1]>(t, w)  r = Relu(c)
  p = GlobalAveragePool(r)  y = Flatten(p) }"""
)


def again(record, folder):
    """Do a run again from its record, into another folder."""
    command = list(record["command"])
    assert command[0] == "fgonnx"
    command[command.index("-o") + 1] = str(folder)
    result = run(*command[1:])
    assert result.exit_code == 0, f"{shlex.join(command)}\n{result.output}"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class TestExplain:
    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--psi", "signed", "--profile", "paper", "--head", "output", "--target", "star", "--picture", "heat"),
            ("--method", "smoothgrad", "--samples", "2", "--set", "sigma=0.05", "--random-state", "7"),
            ("--method", "grad-cam", "--batch-size", "2", "--threads", "1", "--no-cache", "--no-verify"),
            ("--method", "integrated-gradients", "--set", "steps=4", "--set", "baseline=grey.npy"),
            ("--method", "expected-gradients", "--set", "references=refs.npy", "--set", "samples=3"),
            ("--preprocess", "unit,resize=crop", "--providers", "cpu", "--contrast", "next"),
        ],
        ids=lambda o: " ".join(o[:2]) or "defaults",
    )
    def test_a_picture(self, options, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        np.save("grey.npy", np.full((3, 64, 64), 0.5, np.float32))
        np.save("refs.npy", np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32))
        good("explain", SHAPES, CIRCLE, "-o", "first", *options)
        first = read(tmp_path / "first" / "circle.json")
        again(first, "second")
        second = read(tmp_path / "second" / "circle.json")
        changing = ("command", "time")
        assert {k: v for k, v in second.items() if k not in changing} == {
            k: v for k, v in first.items() if k not in changing
        }
        np.testing.assert_array_equal(np.load("second/circle.npy"), np.load("first/circle.npy"))

    def test_bound_inputs_and_a_row_of_an_array(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model(STATEFUL, "m.onnx")
        np.save("s.npy", np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32))
        np.save("x.npy", np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32))
        good("explain", "m.onnx", "x.npy", "-o", "first", "--bind", "s=s.npy", "--bind", "k=2.5", "--input", "x")
        first = read(tmp_path / "first" / "x-0001.json")
        again(first, "second")
        np.testing.assert_array_equal(np.load("second/x-0001.npy"), np.load("first/x-0001.npy"))
        assert read(tmp_path / "second" / "x-0001.json")["score"] == first["score"]

    def test_what_the_method_chose_is_among_the_settings(self, tmp_path):
        good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "grad-cam")
        record = read(tmp_path / "circle.json")
        assert record["chosen"] == ["layer"]
        layer = record["settings"]["layer"]
        assert f"layer: {layer}" in record["notes"]
        by_name = fgonnx.Explainer(str(SHAPES), method="grad-cam", layer=layer)
        assert by_name.engine().rewritten.facts["layer"] == layer

    def test_resuming_tells_a_chosen_layer_from_a_named_one(self, tmp_path):
        def times(*options):
            good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "grad-cam", "--resume", *options)
            return (tmp_path / "circle.json").stat().st_mtime_ns

        first = times()
        assert times() == first
        layer = read(tmp_path / "circle.json")["settings"]["layer"]
        named = times("--set", f"layer={layer}")
        assert named != first
        assert read(tmp_path / "circle.json")["chosen"] == []
        assert times() != named

    def test_how_far_a_path_method_is_from_complete(self, tmp_path):
        good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "integrated-gradients", "--set", "steps=8")
        record = read(tmp_path / "circle.json")
        assert record["completeness"] is None
        assert 0 < abs(record["delta"]) < abs(record["score"])
        good("explain", SHAPES, CIRCLE, "-o", tmp_path)
        assert read(tmp_path / "circle.json")["delta"] is None


class TestCompare:
    def test_two_models(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        options = ("--psi", "positive", "--preprocess-b", "unit", "--layout-a", "NCHW", "--min-ssim", "-1", "--judge")
        good("compare", SHAPES, SHAPES, CIRCLE, IMAGES / "star.png", "-o", "first", "--target", "1", *options, "mean")
        first = read(tmp_path / "first" / "summary.json")
        again(first, "second")
        second = read(tmp_path / "second" / "summary.json")
        assert {k: v for k, v in second.items() if k != "command"} == {k: v for k, v in first.items() if k != "command"}

    def test_either_model_says_what_of_it_is_explained(self, tmp_path):
        good("compare", SHAPES, SHAPES, CIRCLE, "-o", tmp_path)
        models = read(tmp_path / "summary.json")["models"]
        for side in models.values():
            assert side["explained"]["value"] == "logits"
            assert side["explained"]["layout"] == "NCHW"
            assert side["explained"]["input_shape"] == [1, 3, 64, 64]
            assert side["bind"] == {}


class TestEvaluate:
    def test_a_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        plan = (
            "--methods",
            "fullgrad,smoothgrad:samples=2",
            "--measures",
            "deletion:steps=3,sparseness",
            "--shown",
            "0",
        )
        good("evaluate", SHAPES, IMAGES, "-o", "first", *plan, "--limit", "2", "--seed", "3", "--layout", "NCHW")
        first = read(tmp_path / "first" / "summary.json")
        again(first, "second")
        second = read(tmp_path / "second" / "summary.json")
        assert second["results"] == first["results"]
        assert second["curves"] == first["curves"]
        assert second["settings"] == first["settings"]

    def test_the_summary_says_what_is_explained(self, tmp_path):
        options = ("--methods", "gradient", "--measures", "sparseness", "--shown", "0", "--limit", "1")
        good("evaluate", SHAPES, IMAGES, "-o", tmp_path, *options, "--head", "output")
        summary = read(tmp_path / "summary.json")
        assert summary["explained"]["value"] == "logits"
        assert (summary["explained"]["input"], summary["explained"]["layout"]) == ("image", "NCHW")
        assert summary["settings"]["head"] == "output"
        assert summary["settings"]["bind"] == {}
        assert summary["settings"]["masks"] is None
        assert summary["preprocessing"]["layout"] == "NCHW"


def test_an_inspection_names_the_method():
    found = fgonnx.inspect(str(SHAPES), method="rise", cells=5)["explanation"]
    assert (found["method"], found["cells"], found["psi"]) == ("rise", 5, "abs")


@pytest.mark.parametrize(
    ("made", "typed"),
    [
        (Options(), []),
        (Options(psi="signed", input_shape=(1, 3, 8, 8)), ["--psi", "signed", "--input-shape", "1,3,8,8"]),
        (Options(method="rise", settings={"cells": 5}), ["--method", "rise", "--set", "cells=5"]),
        (Options(bind={"sr": 16000, "state": 0}), ["--bind", "sr=16000", "--bind", "state=0"]),
        (Options(expose=("a", "gradient:b")), ["--expose", "a", "--expose", "gradient:b"]),
        (Options(seed=True, outputs=("score",)), ["--seed", "--outputs", "score"]),
        (Running(verify=False, providers=("cuda", "cpu")), ["--providers", "cuda,cpu", "--no-verify"]),
        (Reading(span=(2, 5), labels="a b.txt"), ["--labels", "a b.txt", "--span", "2:5"]),
        (Limits(min_ssim=0.5, judge="mean"), ["--min-ssim", "0.5", "--judge", "mean"]),
        (Plan(methods=("all",), limit=3), ["--methods", "all", "--limit", "3"]),
    ],
)
def test_options_as_they_are_typed(made, typed):
    assert arguments(made) == typed
