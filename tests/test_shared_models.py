"""Trained models of many producers on real pictures: decisions, certificates, derivatives and where they look."""

import gc
import wave
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import onnx
import pytest

from fgonnx import Explainer
from fgonnx.errors import ModelError
from fgonnx.pictures.read import images, presets
from fgonnx.pictures.read.complete import complete
from tests import skips
from tests.conftest import SHARED
from tests.support import run

pytestmark = pytest.mark.usefixtures("shared")

FACE = 43 * 256 + 113  # a pixel of the astronaut's face in the mask of 144 x 256


@dataclass(frozen=True)
class Case:
    """A model, a picture with the model's preprocessing, the expected class, the entry explained (the largest)."""

    model: str
    preprocessing: str
    picture: str
    decision: int | str | None = None
    target: int | None = None

    def __str__(self):
        return f"{self.model}-{self.picture.split('.')[0]}"


CASES = [
    Case("cifar10_resnet2b", "cifar", "burn_bridge.jpg"),
    Case("fer_mini_xception", "gray,scale=1/127.5,mean=1", "astronaut_face_crop.png", 3),  # happy
    Case("geometric_shapes_dianna", "gray", "sk_coffee.png"),
    Case("gtsrb_tf2onnx", "unit", "sk_coffee.png"),
    Case("jetbot_steering_cnn", "imagenet,resize=stretch", "burn_bridge.jpg"),
    Case("leafsnap_dianna", "unit", "dianna_leaf_acer_rubrum.jpg", 3),  # acer_rubrum
    Case("mesonet_deepfake_tf2onnx", "unit", "astronaut_face_crop.png"),
    Case("mnist8_cntk", "gray,scale=1", "dianna_leaf_acer_rubrum.jpg"),
    Case("mnist_bn_burn", "mnist", "dianna_leaf_acer_rubrum.jpg"),
    Case("mnist_selfattention_a", "gray", "dianna_leaf_acer_rubrum.jpg"),
    Case("mobilenet_v2_tf_fp32", "tf", "sk_chelsea.png", "tiger cat"),
    Case("mobilenet_v2_tf_fp32", "tf", "sk_coffee.png", "espresso"),
    Case("mobilenet_v2_tf_fp32", "tf", "wonnx_pelican.jpg", "pelican"),
    Case("resnet20_cifar10_bn", "imagenet,resize=stretch", "burn_cat.jpg", 3),  # cat
    Case("resnet8_cifar10_mlperf", "raw", "burn_cat.jpg", 3),
    Case("selfie_segmentation_tf2onnx", "unit", "sk_astronaut.png", target=FACE),
    Case("squeezenet1_0_fp32", "caffe", "sk_chelsea.png", "Egyptian cat"),
    Case("squeezenet1_0_fp32", "caffe", "sk_coffee.png", "espresso"),
    Case("squeezenet1_0_fp32", "caffe", "wonnx_pelican.jpg", "pelican"),
    Case("ultraface_rfb_320", "raw,channels=RGB,scale=1/128,mean=127/128", "sk_astronaut.png"),
    Case("vww_mobilenetv1_025_mlperf", "unit", "sk_astronaut.png", 1),  # person
    Case("yolox_nano", "raw,resize=letterbox,channels=BGR", "burn_dog_bike_man.jpg"),
]

# int8 inside, and a staircase as a function of the input: it has no slope, but a certificate.
QUANTISED = [
    Case("mobilenet_v2_tf_qdq_uint8io", "raw,resize=crop", "sk_chelsea.png", "tiger cat"),
    Case("mobilenet_v2_tf_qdq_uint8io", "raw,resize=crop", "sk_coffee.png", "espresso"),
    Case("shufflenet_v2_int8_qlinear", "imagenet", "sk_chelsea.png", "Egyptian cat"),
    Case("shufflenet_v2_int8_qlinear", "imagenet", "sk_coffee.png", "espresso"),
    Case("squeezenet1_1_qdq_int8", "imagenet", "sk_chelsea.png"),
    Case("squeezenet1_1_qdq_int8", "imagenet", "sk_coffee.png", "espresso"),
]

# Where the object is, by eye: top, left, bottom, right as shares of the picture.
OBJECTS = {
    "sk_chelsea.png": (0.25, 0.27, 0.92, 0.8),
    "sk_coffee.png": (0.03, 0.27, 0.6, 0.7),
    "wonnx_pelican.jpg": (0.4, 0.15, 0.78, 0.6),
}

#: Small models, each of another kind: a classifier with the channels last, one with the channels first, int8.
FAST = {"resnet8_cifar10_mlperf", "mnist8_cntk", "squeezenet1_1_qdq_int8"}


def each(cases):
    """Parametrise a test by cases, those of few models in the fast run; all tests of a case run before the next."""
    marked = [c if c.model in FAST else pytest.param(c, marks=pytest.mark.slow) for c in cases]
    return pytest.mark.parametrize("case", marked, ids=str, scope="module")


every_case = each(CASES)
quantised_too = each(CASES + QUANTISED)


@lru_cache(2)
def explainer(model):
    gc.collect()  # of the models before, whose graphs refer to themselves
    return Explainer(SHARED / "models" / f"{model}.onnx", input_gradient=True)


@cache
def prepared(case):
    """The picture as read, its preprocessing, and the array the model takes."""
    normal = explainer(case.model).engine().rewritten.normal
    dtype = next(v.dtype for v in normal.model.graph.inputs if v.name == normal.input_name).numpy()
    pre = complete(presets.parse(case.preprocessing), normal.input_shape, dtype)
    picture = images.read(SHARED / "images" / case.picture).rgb
    return picture, pre, pre.apply(picture).reshape(normal.input_shape)


@lru_cache(2)
def explained(case):
    return explainer(case.model)(prepared(case)[2], case.target)


@lru_cache(2)
def of_the_source(case):
    """What onnxruntime gives for the file itself.

    A quantised one is not optimised: onnxruntime fuses quantised layers that nothing else reads, and then rounds
    otherwise.
    """
    path, feeds = SHARED / "models" / f"{case.model}.onnx", {_input(case.model): prepared(case)[2]}
    return run(str(path), feeds, optimise=case not in QUANTISED)


def named(case, index):
    """A class as the table of cases has it: a word, or its index."""
    if not isinstance(case.decision, str):
        return int(index)
    words = (SHARED / "labels" / "synset.txt").read_text().splitlines()
    words = ["n00000000 background"] * (np.prod(explainer(case.model).engine().rewritten.head_shape) - 1000) + words
    return words[index].split(" ", 1)[1].split(",")[0]


@quantised_too
def test_the_certificate_closes(case):
    assert explained(case).relative_residual().max() < 1e-4


@quantised_too
def test_outputs_are_the_models(case):
    for name, value in of_the_source(case).items():
        np.testing.assert_allclose(explained(case).outputs[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


@each(c for c in CASES + QUANTISED if c.decision is not None)
def test_the_decision_is_the_known_one(case):
    found = named(case, explained(case).target[0])
    scores = next(iter(of_the_source(case).values()))
    if case in QUANTISED and found == named(case, scores.argmax()) != case.decision:
        skips.now(skips.PROCESSOR, "8-bit kernels decide otherwise for the file itself")
    assert found == case.decision


@every_case
def test_the_gradient_is_the_slope_of_the_plain_model(case):
    _, _, x = prepared(case)
    rng = np.random.default_rng(0)
    # In the flat parts of a picture max pooling ties, and the slope depends on the side: a little noise ends that.
    x = (x + 0.01 * np.abs(x).max() * rng.standard_normal(x.shape)).astype(np.float32)
    e = explainer(case.model)(x, case.target)
    # Up the gradient the slope is steepest, and rounding weighs least.
    direction = e.input_gradient * rng.uniform(0.5, 1.5, x.shape)
    direction *= np.abs(x).max() / np.abs(direction).max()
    slope = float((e.input_gradient.astype(np.float64) * direction).sum())
    score = _plain_score(case, e)
    # A step too long crosses kinks, one too short drowns in float32: one of the ladder's rungs is neither.
    errors = []
    for step in 10.0 ** -np.arange(1.5, 6, 0.5):
        up, down = (score((x + s * step * direction).astype(np.float32)) for s in (1, -1))
        errors.append(abs((up - down) / (2 * step) / slope - 1))
    assert min(errors) < 0.005


def _plain_score(case, explanation):
    """Return the score as a function of the input by the source model alone, its head made an output."""
    model = onnx.load(SHARED / "models" / f"{case.model}.onnx")
    if explanation.head not in {o.name for o in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=explanation.head))
    index, name = int(explanation.target[0]), _input(case.model)
    return lambda x: float(run(model, {name: x}, [explanation.head])[explanation.head].reshape(-1)[index])


def _input(model):
    return explainer(model).engine().rewritten.normal.input_name


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.decision, str)], ids=str, scope="module")
def test_the_map_is_denser_on_the_object(case):
    picture, pre, _ = prepared(case)
    seen = pre.place(np.ones(explained(case).saliency.shape[1:]), picture.shape)
    placed = pre.place(explained(case).saliency[0], picture.shape)
    height, width = seen.shape
    top, left, bottom, right = OBJECTS[case.picture]
    box = np.s_[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    assert placed[box].sum() / placed.sum() > seen[box].sum() / seen.sum()


# Sound


@cache
def spectrogram(recording, *, rate, fft, hop, mels):
    """Return log-mel energies (mels, frames) of a 16 kHz recording; the models need no more than the kind."""
    with wave.open(str(SHARED / "audio" / recording)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: 16000 // rate] / 32768
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, fft // 2), fft)[::hop] * np.hanning(fft)
    power = np.abs(np.fft.rfft(frames)) ** 2
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), mels + 2) / 2595) - 1)
    at = np.arange(power.shape[1]) * rate / fft
    rising, falling = np.diff(corners)[:-1, None], np.diff(corners)[1:, None]
    triangles = np.minimum((at - corners[:-2, None]) / rising, (corners[2:, None] - at) / falling).clip(0)
    return (triangles @ power.T).astype(np.float32)


def keyword():
    with np.load(SHARED / "audio" / "kws_mfcc_49x10.npz") as recordings:
        return np.stack([recordings[k] for k in ("tflm_yes_1000ms", "nns_yes")])[..., None]


def commands():
    mel = spectrogram("tflm_yes_1000ms.wav", rate=8000, fft=400, hop=200, mels=128)[:, :41]
    return np.broadcast_to(mel, (1, 3, 128, 41)).copy()


def wakeword():
    mel = np.log(spectrogram("mlc_marvin.wav", rate=16000, fft=1024, hop=320, mels=40) + 1e-6)
    return mel[:, 10:40].T.reshape(1, 30, 1, 40)


@pytest.mark.parametrize(
    ("model", "sound"),
    [
        ("kws_dscnn_mlperf", keyword),
        ("speech_commands_squeezenet", commands),
        ("streaming_wakeword_mlperf", wakeword),
    ],
)
def test_certificates_of_sound_models_close(model, sound):
    assert explainer(model)(sound()).relative_residual().max() < 1e-4


# Refused


def test_a_model_of_several_inputs_asks_which_is_meant():
    with pytest.raises(ModelError, match=r"several inputs could be explained; name one .*input .*; state"):
        Explainer(SHARED / "models" / "silero_vad_16k_op15.onnx").engine()
