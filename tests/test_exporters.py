"""What exporters write of labels and preprocessing is read, each in its own form."""

from __future__ import annotations

import json

import onnx
import pytest

from fgonnx.engine.model.load import load
from fgonnx.errors import PreprocessingError
from fgonnx.jobs.reading import Reading
from fgonnx.pictures.read.preprocess import Preprocessing
from tests.cli_support import SMALL, model, run

HF = {"do_resize": True, "size": {"height": 8, "width": 8}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}
COMPLETE = {"layout": "NCHW", "channels": "RGB", "dtype": "float32", "size": (8, 8)}


def network(path, **metadata):
    proto = onnx.load(model(SMALL, path))
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, path)
    return load(path)


def read(loaded):
    return Reading().preprocessing(loaded, None, required=True)


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        (
            {"imgsz": "[8, 8]", "task": "detect"},
            {"resize": "letterbox", "scale": 1 / 255, "name": "ultralytics"},
        ),
        (
            {"imgsz": "[8, 8]", "task": "classify"},
            {"resize": "crop", "resize_to": 8, "scale": 1 / 255, "name": "ultralytics"},
        ),
        (
            {"hf_preprocessor_config": json.dumps(HF)},
            {"scale": 1 / 255, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "name": "hugging face"},
        ),
        (
            {
                "hf_preprocessor_config": json.dumps(
                    {
                        **HF,
                        "size": {"shortest_edge": 10},
                        "do_center_crop": True,
                        "crop_size": 8,
                    }
                )
            },
            {
                "resize": "crop",
                "resize_to": 10,
                "scale": 1 / 255,
                "mean": (0.5, 0.4, 0.3),
                "std": (0.2, 0.2, 0.2),
                "name": "hugging face",
            },
        ),
        (
            {"hf_preprocessor_config": json.dumps({**HF, "do_normalize": False, "rescale_factor": 0.5, "resample": 3})},
            {"scale": 0.5, "interpolation": "auto", "name": "hugging face"},
        ),
    ],
    ids=["detector", "classifier", "processor", "cropped", "not normalised"],
)
def test_the_metadata_are_read(tmp_path, metadata, wanted):
    found, origin = read(network(tmp_path / "m.onnx", **metadata))
    assert found == Preprocessing(**{**COMPLETE, **wanted})
    assert "metadata" in origin


@pytest.mark.parametrize("folder", [".", "onnx"])
def test_files_beside_the_model_are_read(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    found, origin = read(network(tmp_path / folder / "m.onnx"))
    assert found.mean == (0.5, 0.4, 0.3)
    assert origin == "preprocessor_config.json beside the model"


def test_timms_configuration_is_read(tmp_path):
    cfg = {"input_size": [3, 8, 8], "crop_pct": 0.8, "mean": [0.4], "std": [0.3], "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "net", "pretrained_cfg": cfg}))
    found, _ = read(network(tmp_path / "m.onnx"))
    assert (found.resize_to, found.interpolation, found.mean) == (10, "auto", (0.4,))


def test_what_fgonnx_wrote_comes_first(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    found, origin = read(network(tmp_path / "m.onnx", **{"fgonnx.preprocessing": '{"scale": 0.25}'}))
    assert (found.scale, origin) == (0.25, "the model's metadata")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bert"}'])
def test_other_files_of_that_name_say_nothing(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PreprocessingError, match=r"is not JSON|does not say how its pictures"):
        read(network(tmp_path / "m.onnx"))


CLIP = {**HF, "image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "crop_size": 8}
CONVNEXT = {**HF, "image_processor_type": "ConvNextImageProcessor"}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({**HF, "size": 8, "feature_extractor_type": "ViTFeatureExtractor"}, {"resize": "stretch"}),
        (
            {**CLIP, "size": 10, "image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"},
            {"resize_to": 10},
        ),
        ({**CLIP, "size": {"shortest_edge": 9}, "crop_size": {"height": 8, "width": 8}}, {"resize_to": 9}),
        ({**CLIP, "size": {"height": 8, "width": 8}}, {"resize": "stretch"}),
        ({**CONVNEXT, "size": {"shortest_edge": 8}, "crop_pct": 0.8}, {"resize": "crop", "resize_to": 10}),
        ({**CONVNEXT, "size": {"shortest_edge": 8}}, {"resize": "crop", "resize_to": 9}),
        ({**HF, "do_rescale": False}, {"scale": 1.0, "mean": (0.5, 0.4, 0.3)}),
        ({**HF, "rescale_factor": 1 / 127.5, "rescale_offset": True}, {"scale": 1 / 127.5, "mean": (1.5, 1.4, 1.3)}),
        ({**HF, "do_normalize": None, "do_flip_channel_order": True}, {"channels": "BGR", "mean": (0.0,)}),
        ({**HF, "image_mean": None}, {"mean": (0.0,), "std": (1.0,)}),
        ({**HF, "resample": 0}, {"interpolation": "nearest"}),
        ({**CLIP, "size": {"shortest_edge": 8}, "image_processor_type": "LevitImageProcessor"}, {"resize_to": 9}),
        ({**CLIP, "size": {"shortest_edge": 8}, "crop_pct": 0.8}, {"resize_to": 10}),
        (
            {**HF, "do_pad": False, "size_divisor": None, "ensure_multiple_of": 1, "keep_aspect_ratio": False},
            {"size": (8, 8)},
        ),
        ({**HF, "do_pad": True, "pad_size": None}, {"resize": "stretch", "size": (8, 8)}),
        ({**HF, "do_pad": True, "pad_size": {"height": 8, "width": 8}}, {"resize": "stretch", "size": (8, 8)}),
        ({**HF, "include_top": True, "image_std": [0.5, 0.2, 0.1]}, {"std": (0.25, 0.2 * 0.2, 0.1 * 0.1)}),
    ],
    ids=[
        "both sides",
        "shorter side",
        "edge",
        "same",
        "share",
        "share by default",
        "not scaled",
        "offset",
        "blue first",
        "no mean",
        "nearest",
        "larger by 8/7",
        "larger by a share",
        "no step of the sizes",
        "nothing to pad",
        "padded to its own size",
        "divided twice",
    ],
)
def test_image_processors_are_read_as_hugging_face_reads_them(tmp_path, content, wanted):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    found, _ = read(network(tmp_path / "m.onnx"))
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**CLIP, "size": {"height": 10, "width": 10}}, "stretches pictures to 10 x 10 and then crops"),
        ({**HF, "size": {"shortest_edge": 800, "longest_edge": 1333}}, "by their longer side"),
        ({**CLIP, "do_resize": False}, "crops pictures without resizing"),
        ({**CLIP, "size": {"shortest_edge": 6}}, "resizes pictures to 6 and pads them to 8 x 8"),
        (
            {"image_processor_type": "GLPNImageProcessor", "do_resize": True, "size_divisor": 32},
            "multiples of size_divisor=32",
        ),
        ({**HF, "size_divisibility": 16}, "multiples of size_divisibility=16"),
        ({**HF, "ensure_multiple_of": 14, "keep_aspect_ratio": True}, "multiples of ensure_multiple_of=14"),
        ({**HF, "ensure_multiple_of": 1, "keep_aspect_ratio": True}, "keep_aspect_ratio makes the sizes follow"),
        ({**HF, "do_thumbnail": True}, "do_thumbnail makes the sizes follow"),
        ({**HF, "do_pad": True, "pad_size": {"height": 16, "width": 16}}, "pads pictures, do_pad .pad_size="),
        ({**HF, "size": {"shortest_edge": 8}, "do_pad": True}, "pads pictures, do_pad"),
        ({**HF, "do_resize": False, "do_pad": True, "pad_size": 8}, "pads pictures, do_pad .pad_size=8"),
        ({**HF, "do_pad": True, "pad_size_divisor": 32}, "pads pictures, do_pad .pad_size_divisor=32"),
        ({**HF, "size": {"width": 8}}, "does not hold what it should"),
        ({**HF, "size": "large"}, "does not hold what it should"),
        ({**HF, "image_mean": ["a", "b", "c"]}, "does not hold what it should"),
        ({**HF, "image_std": [0.0, 1.0, 1.0]}, "std is"),
        ({**HF, "rescale_factor": -1}, "scale is -1"),
    ],
)
def test_what_is_not_done_is_refused_by_the_name_of_the_file(tmp_path, content, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    loaded = network(tmp_path / "m.onnx")
    with pytest.raises(PreprocessingError, match=rf"preprocessor_config.json.*{message}"):
        read(loaded)
    assert Reading().preprocessing(loaded, None, required=False) == (None, "")


@pytest.mark.parametrize(
    "content", [{"do_normalize": True, "feature_size": 1, "sampling_rate": 16000}, {"tokenizer_class": "BertTokenizer"}]
)
def test_processors_of_other_inputs_say_nothing(tmp_path, content):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(PreprocessingError, match="does not say how its pictures"):
        read(network(tmp_path / "m.onnx"))


TIMM = {"input_size": [3, 8, 8], "crop_pct": 0.8, "mean": [0.4], "std": [0.3], "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"size": (8, 8), "resize_to": 10}),
        ({"test_input_size": [3, 12, 12], "test_crop_pct": 1.0}, {"size": (8, 8), "resize_to": 10}),
        (
            {"input_size": [3, 6, 6], "test_input_size": [3, 8, 8], "test_crop_pct": 1.0},
            {"size": (8, 8), "resize_to": 8},
        ),
        ({"crop_mode": "squash", "crop_pct": 1.0}, {"resize": "stretch"}),
        ({"crop_mode": "center", "crop_pct": 0.9}, {"resize_to": 8}),
        ({"interpolation": "nearest"}, {"interpolation": "nearest"}),
    ],
)
def test_timm_is_read_as_timm_reads_it(tmp_path, changes, wanted):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "net", "pretrained_cfg": {**TIMM, **changes}}))
    found, origin = read(network(tmp_path / "m.onnx"))
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert origin == "config.json beside the model"


@pytest.mark.parametrize(
    "changes", [{"crop_mode": "squash"}, {"crop_mode": "border"}, {"mean": "none"}, {"input_size": 8}]
)
def test_what_timm_does_otherwise_is_refused(tmp_path, changes):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {**TIMM, **changes}}))
    with pytest.raises(PreprocessingError, match=r"config.json'.*(crop_mode is|does not hold)"):
        read(network(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({"Image.NominalPixelRange": "NominalRange_0_255"}, (1.0, 0.0, "RGB")),
        ({"Image.NominalPixelRange": "Normalized_0_1", "Image.BitmapPixelFormat": "Rgb8"}, (1 / 255, 0.0, "RGB")),
        ({"Image.NominalPixelRange": "Normalized_1_1", "Image.BitmapPixelFormat": "Bgr8"}, (1 / 127.5, 1.0, "BGR")),
        (
            {"Image.NominalPixelRange": "NominalRange_16_235", "Image.ColorSpaceGamma": "SRGB"},
            (219 / 255, -16.0, "RGB"),
        ),
    ],
)
def test_onnx_says_range_and_channels_of_images(tmp_path, metadata, wanted):
    found, origin = read(network(tmp_path / "m.onnx", **metadata))
    assert (found.scale, found.mean[0], found.channels) == pytest.approx(wanted)
    assert origin.startswith("ONNX's image metadata")
    assert "stretched" in origin


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"Image.NominalPixelRange": "0-255"}, "is '0-255', none of NominalRange_0_255"),
        ({"Image.NominalPixelRange": "Normalized_0_1", "Image.BitmapPixelFormat": "Nv12"}, "is 'Nv12', none of"),
        ({"Image.NominalPixelRange": "Normalized_0_1", "Image.ColorSpaceGamma": "Linear"}, "asks for Linear colours"),
        ({"Image.NominalPixelRange": "Normalized_0_1", "Image.BitmapPixelFormat": "Gray8"}, "GRAY"),
    ],
)
def test_image_metadata_of_another_kind_are_refused(tmp_path, metadata, message):
    with pytest.raises(PreprocessingError, match=message):
        read(network(tmp_path / "m.onnx", **metadata))


@pytest.mark.parametrize(("imgsz", "size"), [("8", (8, 8)), ("[8, 8]", (8, 8))])
def test_sizes_of_ultralytics_are_one_number_or_two(tmp_path, imgsz, size):
    assert read(network(tmp_path / "m.onnx", imgsz=imgsz, task="detect"))[0].size == size


CONFIG = {"id2label": {"0": "ant", "1": "bee", "2": "cat", "3": "dog"}}
NAMES = ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize("folder", [".", "onnx"])
@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (CONFIG, NAMES),
        ({"label_names": list(NAMES)}, NAMES),
        ({"pretrained_cfg": {"label_names": list(NAMES)}}, NAMES),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, None),
        ({"id2label": {"1": "bee"}}, ("0", "bee")),
        ({"id2label": {"3": "dog", "0": "ant"}}, ("ant", "1", "2", "dog")),
        ({"id2label": {"0": "LABEL_0", "2": "LABEL_2"}}, None),
        ({"id2label": {"0": "ant", "99999999999": "bee"}}, None),
        ({"id2label": {"0": "ant", "-1": "bee"}}, None),
        ({"id2label": "ant"}, None),
        ({"model_type": "vit"}, None),
        ([], None),
    ],
)
def test_labels_of_a_configuration_beside_the_model_are_read(tmp_path, folder, content, labels):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert network(tmp_path / folder / "m.onnx").labels() == labels


def test_labels_of_the_model_itself_come_first(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["x"] * 4}))
    assert network(tmp_path / "m.onnx", names="{0: 'ant', 1: 'bee', 2: 'cat', 3: 'dog'}").labels() == NAMES
    assert network(tmp_path / "m.onnx", id2label=json.dumps(CONFIG["id2label"])).labels() == NAMES


def test_a_configuration_that_is_not_text_says_nothing(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\x00")
    assert network(tmp_path / "m.onnx").labels() is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{0: 'ant', 1: 'bee', 2: 'cat', 3: 'dog'}", ("ant", "bee", "cat", "dog")),
        ("{1: 'bee'}", ("0", "bee")),
        ("{-1: 'bee'}", None),
        ("{0: 'ant', '0': 'bee'}", None),
        ("['ant']", None),
        ("not python", None),
        ("{}", None),
    ],
)
def test_labels_of_ultralytics_are_read(tmp_path, text, labels):
    assert network(tmp_path / "m.onnx", names=text).labels() == labels


def test_a_number_of_random_pictures_may_be_given(tmp_path):
    network(tmp_path / "m.onnx", imgsz="[8, 8]", task="classify")
    result = run("check", tmp_path / "m.onnx", "--samples", "1")
    assert result.exit_code == 0, result.output
    assert "1 random picture(s), seed 0" in result.output


def test_an_inspection_spells_its_advice_as_the_command_does(tmp_path):
    text = '<ir_version: 8, opset_import: ["": 18]> net (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Tanh(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    assert "give them (--input-shape 1,3,224,224)" in run("inspect", tmp_path / "m.onnx").stdout
