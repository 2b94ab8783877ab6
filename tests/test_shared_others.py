"""Trained models that are no classifiers of photos: detections, regions, steering, keywords, speech over time."""

import gc
import json
import wave
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import Explainer
from fgonnx.labels import load as load_labels
from fgonnx.pictures.read import images, presets
from fgonnx.pictures.read.complete import complete
from tests.cli_support import good, refused, written
from tests.conftest import SHARED
from tests.support import run
from tests.test_shared_models import commands, keyword, wakeword

pytestmark = pytest.mark.usefixtures("shared")

YOLOX = "raw,resize=letterbox,channels=BGR"
ULTRAFACE = "raw,channels=RGB,scale=1/128,mean=127/128"
DOG_BIKE_MAN, ASTRONAUT = "burn_dog_bike_man.jpg", "sk_astronaut.png"


@dataclass(frozen=True)
class Case:
    """A model, a picture with its preprocessing, what is explained, what of it must be said, and where it looks.

    `box` is where most of the densest part of the map must lie: top, left, bottom, right as shares of the input.
    """

    model: str
    picture: str
    preprocessing: str
    target: str
    said: str
    box: tuple[float, ...] = (0, 0, 1, 1)
    options: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self):
        return f"{self.model}-{self.target}"


CASES = [
    Case("yolox_nano", DOG_BIKE_MAN, YOLOX, "best=person", "best 'person' (0.91), column 5", (0.12, 0.3, 0.75, 0.6)),
    Case("yolox_nano", DOG_BIKE_MAN, YOLOX, "best=dog", "best 'dog' (0.802), column 21", (0.55, 0.4, 0.9, 0.7)),
    Case("yolox_nano", DOG_BIKE_MAN, YOLOX, "best=bicycle", "best 'bicycle' (0.932), column 6", (0.35, 0.1, 0.9, 0.9)),
    Case("yolox_nano", DOG_BIKE_MAN, YOLOX, "best=bicycle,column=2", "column 2 of anchor", (0.35, 0.05, 0.9, 0.9)),
    Case("yolox_nano", DOG_BIKE_MAN, YOLOX, "anchor=2975,column=4", "column 4 of anchor 2975", (0.12, 0.25, 0.8, 0.65)),
    Case("ultraface_rfb_320", ASTRONAUT, ULTRAFACE, "best=1", "best class 1 (1), column 1", (0, 0.25, 0.45, 0.6)),
    Case(
        "ultraface_rfb_320",
        ASTRONAUT,
        ULTRAFACE,
        "best=1,by=scores,column=0",
        "column 0 of anchor 3737",
        (0, 0.2, 0.45, 0.65),
        (("output", "boxes"),),
    ),
    Case(
        "selfie_segmentation_tf2onnx", ASTRONAUT, "unit", "region=0.3:0:0.6:0.5", "mean in the box", (0, 0.2, 0.6, 0.7)
    ),
    Case("jetbot_steering_cnn", "burn_bridge.jpg", "imagenet,resize=stretch", "0", "0"),
    Case("jetbot_steering_cnn", "burn_bridge.jpg", "imagenet,resize=stretch", "1", "1"),
]
every_case = pytest.mark.parametrize(
    "case",
    [c if c.model == "jetbot_steering_cnn" else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
    ids=str,
    scope="module",  # all tests of a case run before the next
)


@lru_cache(2)
def explained(case):
    gc.collect()  # of the models before, whose graphs refer to themselves
    labels = load_labels(SHARED / "labels" / "coco_classes.txt") if case.model == "yolox_nano" else None
    explainer = Explainer(SHARED / "models" / f"{case.model}.onnx", labels=labels, **dict(case.options))
    normal = explainer.engine().rewritten.normal
    pre = complete(presets.parse(case.preprocessing), normal.input_shape, np.float32)
    x = pre.apply(images.read(SHARED / "images" / case.picture).rgb)[None]
    return explainer(x, case.target)


@every_case
def test_the_certificate_closes(case):
    assert explained(case).relative_residual().max() < 1e-4


@every_case
def test_what_is_explained_is_said(case):
    assert case.said in explained(case).described[0]


@every_case
def test_it_looks_where_the_thing_is(case):
    saliency = explained(case).saliency[0]
    dense = saliency * (saliency >= np.percentile(saliency, 98))
    height, width = saliency.shape
    top, left, bottom, right = case.box
    inside = dense[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    assert inside.sum() / dense.sum() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.model == "yolox_nano"], ids=str, scope="module")
def test_a_detection_is_an_entry_of_the_models_own_output(case):
    e = explained(case)
    np.testing.assert_allclose(e.score, e.outputs["output"].reshape(1, -1)[0, e.target], rtol=1e-5)


# Sound


@pytest.mark.parametrize(
    ("model", "sound", "decision", "grid"),
    [
        ("kws_dscnn_mlperf", keyword, [9, 9], (49, 10)),  # yes
        ("speech_commands_squeezenet", commands, [33], (128, 41)),  # yes
        ("streaming_wakeword_mlperf", wakeword, None, (30, 1)),
    ],
)
def test_features_are_explained_over_time_and_frequency(model, sound, decision, grid):
    e = Explainer(SHARED / "models" / f"{model}.onnx")(sound())
    assert e.saliency.shape[1:] == grid
    assert e.relative_residual().max() < 1e-4
    assert decision in (None, list(e.target))


VAD = SHARED / "models" / "silero_vad_16k_op15.onnx"


@cache
def speech():
    """Return the likeliest speech of a recording: 576 samples, the state before them, where they begin, how sure."""
    with wave.open(str(SHARED / "audio" / "nns_yes.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    model = onnx.load(VAD)
    state = np.zeros((2, 1, 128), np.float32)
    found = []
    for start in range(0, 12 * 512, 512):
        x = sound[start : start + 576][None]
        result = run(model, {"input": x, "state": state, "sr": np.array(16000)})
        found.append((float(result["output"][0, 0]), start, x, state))
        state = result["stateN"]
    return max(found, key=lambda f: f[0])


class TestVoiceActivity:
    def test_is_explained_over_time(self):
        sure, _, x, state = speech()
        e = Explainer(VAD, bind={"sr": 16000, "state": state})(x)
        assert (e.saliency.shape, e.head_stripped, sure > 0.9) == ((1, 576), "Sigmoid", True)
        np.testing.assert_allclose(e.outputs["output"][0, 0], sure, rtol=1e-4)
        assert e.relative_residual().max() < 1e-4

    def test_takes_its_state_with_every_call(self):
        _, _, x, state = speech()
        found = Explainer(VAD, input="input")({"input": x, "state": state, "sr": np.array(16000)})
        expected = Explainer(VAD, bind={"sr": 16000, "state": state})(x)
        np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)

    def test_on_the_command_line(self, tmp_path):
        sure, start, _, state = speech()
        np.save(tmp_path / "state.npy", state)
        good(
            "explain",
            VAD,
            SHARED / "audio" / "nns_yes.wav",
            "-o",
            tmp_path / "out",
            "--rate",
            16000,
            "--span",
            f"{start}:{start + 576}",
            "--bind",
            "sr=16000",
            "--bind",
            f"state={tmp_path / 'state.npy'}",
        )
        record = json.loads((tmp_path / "out" / "nns_yes.json").read_text())
        np.testing.assert_allclose(record["target"]["probability"], sure, rtol=1e-4)
        assert record["completeness"]["relative"] < 1e-4
        assert record["settings"]["bind"]["sr"] == "int64 16000"

    def test_of_another_rate_is_refused(self, tmp_path):
        message = refused(
            "explain",
            VAD,
            SHARED / "audio" / "nns_yes.wav",
            "-o",
            tmp_path / "out",
            "--rate",
            8000,
            "--bind",
            "sr=16000",
            "--bind",
            "state=zeros",
        )
        assert "has 16000 samples per second, the model takes 8000" in message
        assert written(tmp_path / "out") == []

    @pytest.mark.slow
    def test_is_inspected_and_checked(self, tmp_path):
        _, _, x, _ = speech()
        np.save(tmp_path / "x.npy", x[0])
        bound = ("--bind", "sr=16000", "--bind", "state=zeros")
        assert "before the final Sigmoid" in good("inspect", VAD, "--input-shape", "1,576", *bound)
        assert "passed" in good("check", VAD, tmp_path / "x.npy", "--input-shape", "1,576", *bound)

    def test_of_every_rate_in_one_file_is_checked_with_its_inputs_bound(self):
        # onnxruntime's folding of its nested branches by constant conditions ends the process
        found = fgonnx.check(
            SHARED / "models" / "silero_vad_v5.onnx",
            bind={"sr": 16000, "state": 0},
            input_shape=(1, 576),
            samples=1,
        )
        assert [c.verdict for c in found.checks[:2]] == ["passed", "passed"]


def test_a_recording_is_explained_window_by_window_with_the_state_carried_on(tmp_path):
    good(
        *("explain", VAD, SHARED / "audio" / "nns_yes.wav", "-o", tmp_path / "out", "--rate", 16000),
        *("--bind", "sr=16000", "--input-shape", "1,576", "--slide", 512, "--carry", "state=stateN"),
    )
    found = json.loads((tmp_path / "out" / "nns_yes.json").read_text())["slide"]["windows"]
    sure, start, _, _ = speech()
    at = next(w for w in found if w["start"] == start)
    np.testing.assert_allclose(1 / (1 + np.exp(-at["score"])), sure, rtol=1e-4)
    assert max(w["rounding"] for w in found) < 1e-5
