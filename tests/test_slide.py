"""Long recordings window by window: one map on one time axis, and states that are carried on."""

from __future__ import annotations

import json
import wave

import numpy as np
import onnx
import onnxruntime
import pytest

import fgonnx
from tests.cli_support import good, refused, written
from tests.support import model
from tests.test_columns import CHANNELS, series, table


def detector(path, length="8"):
    """The energy of a window beside a state that fades: state' = state / 2 + mean |x|, y = state' - 0.3."""
    text = f"""(float[N,{length}] x, float[1,1] state) => (float[N,1] y, float[1,1] after)
      <int64[1] at = {{1}}, float half = {{0.5}}, float low = {{0.3}}> {{
        e = Abs(x) m = ReduceMean(e, at) s = Mul(state, half) after = Add(m, s) y = Sub(after, low)
    }}"""
    onnx.save(model(text), path)
    return path


def sound(path, steps=32, seed=0):
    samples = (np.random.default_rng(seed).normal(size=steps) * 5000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path, samples / 2**15


def record(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_a_state_is_what_the_window_before_has_left(tmp_path):
    source, (path, samples) = detector(tmp_path / "m.onnx"), sound(tmp_path / "a.wav")
    good("explain", source, path, "-o", tmp_path / "out", "--slide", 8, "--carry", "state=after")
    session, state, expected = onnxruntime.InferenceSession(str(source)), np.zeros((1, 1), np.float32), []
    for start in range(0, 32, 8):
        x = samples[None, start : start + 8].astype(np.float32)
        y, state = session.run(["y", "after"], {"x": x, "state": state})
        expected.append(float(y[0, 0]))
    found = record(tmp_path / "out", "a")["slide"]
    assert (found["window"], found["hop"], found["carried"]) == (8, 8, {"state": "after"})
    np.testing.assert_allclose([w["score"] for w in found["windows"]], expected, rtol=1e-5)
    assert max(w["rounding"] for w in found["windows"]) < 1e-6


@pytest.mark.parametrize(
    ("value", "first", "shape"),
    [("zeros", 0, ()), ("0.75", 0.75, ()), ("zeros", 0, ("--input-shape", "state=1,1")), ("file", 0.5, ())],
)
def test_the_first_state_is_what_its_input_is_bound_to(value, first, shape, tmp_path):
    source, (path, _) = detector(tmp_path / "m.onnx"), sound(tmp_path / "a.wav", 8)
    if value == "file":
        np.save(tmp_path / "state.npy", np.full((1, 1), first, np.float32))
        value = tmp_path / "state.npy"
    scores = []
    for bound in ((), ("--bind", f"state={value}", *shape)):
        good("explain", source, path, "-o", tmp_path / "out", "--slide", 8, "--carry", "state=after", *bound)
        made = record(tmp_path / "out", "a")
        scores.append(made["slide"]["windows"][0]["score"])
    np.testing.assert_allclose(scores[1] - scores[0], first / 2, rtol=1e-5, atol=1e-7)
    assert made["settings"]["bind"]["state"].startswith("float32 [1, 1], all")


def test_side_by_side_the_map_is_the_sum_of_all_scores(tmp_path):
    values = np.random.default_rng(0).normal(size=(48, 3)).round(3)
    source, path = series(tmp_path / "m.onnx"), table(tmp_path / "a.csv", CHANNELS, values)
    good("explain", source, path, "-o", tmp_path / "out", "--slide", 12, "--target", 1)
    made = record(tmp_path / "out", "a")
    map_ = np.load(tmp_path / "out" / "a.npy")
    assert map_.shape == (48,)
    np.testing.assert_allclose(map_.sum(), sum(w["score"] for w in made["slide"]["windows"]), rtol=1e-4)


@pytest.mark.parametrize("last", [False, True])
def test_every_step_has_the_mean_over_the_windows_that_cover_it(last, tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 3)).round(3)
    source = series(tmp_path / "m.onnx", last=last)
    good(
        "explain",
        source,
        table(tmp_path / "a.csv", CHANNELS, values),
        "-o",
        tmp_path / "out",
        "--slide",
        6,
        "--target",
        0,
    )
    explainer, total, count = fgonnx.Explainer(source, psi="signed"), np.zeros(30), np.zeros(30)
    for start in range(0, 19, 6):
        x = values[start : start + 12].astype(np.float32)[None]
        e = explainer(x if last else x.transpose(0, 2, 1), 0)
        spread = (e.score[0] - e.localised()[0]) / 12
        total[start : start + 12] += e.saliency[0] + spread
        count[start : start + 12] += 1
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), total / count, rtol=1e-3, atol=1e-5)


def test_the_strongest_window_is_named_in_the_time_of_the_file(tmp_path):
    values = np.zeros((60, 3))
    values[36:48] = np.random.default_rng(0).normal(size=(12, 3))
    rows = [[t / 50, *v] for t, v in enumerate(values)]
    source, path = series(tmp_path / "m.onnx"), table(tmp_path / "a.csv", ["time", *CHANNELS], rows)
    good("explain", source, path, "-o", tmp_path / "out", "--slide", 12, "--span", "12:60")
    made = record(tmp_path / "out", "a")
    best = max(made["slide"]["windows"], key=lambda w: w["score"])
    assert made["slide"]["strongest"] == best["start"]
    assert [w["start"] for w in made["slide"]["windows"]] == [12, 24, 36, 48]
    assert (made["series"]["start"], made["series"]["rate"]) == (12, 50.0)


@pytest.mark.parametrize(
    ("steps", "options", "windows", "said"),
    [
        (30, (), 3, "the last 6 steps fill no window and are left out"),
        (30, ("--pad", "zero"), 4, "the last window is padded by 2 steps"),
        (6, ("--pad", "edge"), 1, "the last window is padded by 2 steps"),
    ],
)
def test_what_fills_no_window_is_left_out_or_padded(steps, options, windows, said, tmp_path):
    path = sound(tmp_path / "a.wav", steps)[0]
    told = ("--slide", 8, "--carry", "state=after", *options)
    assert said in good("explain", detector(tmp_path / "m.onnx"), path, "-o", tmp_path / "out", *told)
    assert len(record(tmp_path / "out", "a")["slide"]["windows"]) == windows
    assert np.load(tmp_path / "out" / "a.npy").shape == (steps,)


def test_over_an_array(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32))
    good(
        "explain",
        series(tmp_path / "m.onnx"),
        tmp_path / "a.npy",
        "-o",
        tmp_path / "out",
        "--slide",
        12,
        "--pad",
        "zero",
    )
    assert np.load(tmp_path / "out" / "a.npy").shape == (40,)


@pytest.mark.parametrize(
    ("length", "steps", "options", "said"),
    [
        ("8", 32, ("--slide", 9, "--carry", "state=after"), "--slide 9 leaves gaps between windows of 8 steps"),
        ("8", 32, ("--slide", 0, "--carry", "state=after"), "--slide"),
        (
            "8",
            32,
            ("--slide", 8, "--carry", "stat=after"),
            "the model has no input 'stat' to carry (did you mean 'state'?)",
        ),
        ("8", 32, ("--slide", 8, "--carry", "state=left"), "the model has no output 'left' to carry"),
        ("8", 32, ("--carry", "state=after", "--bind", "state=0"), "only windows that slide carry a state"),
        ("8", 4, ("--slide", 8, "--carry", "state=after"), "has 4 steps, and a window 8"),
        (
            "T",
            32,
            ("--slide", 8, "--carry", "state=after"),
            "the length of a window is free in the model; give it (--input-shape",
        ),
        ("8", 32, ("--bind", "state=0"), "(--span 0:8), slide over all of them (--slide 8)"),
    ],
)
def test_what_does_not_fit_is_refused(length, steps, options, said, tmp_path):
    path = sound(tmp_path / "a.wav", steps)[0]
    message = refused("explain", detector(tmp_path / "m.onnx", length), path, "-o", tmp_path / "out", *options)
    assert said in message
    assert written(tmp_path / "out") == []
