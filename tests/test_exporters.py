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
            {"scale": 0.5, "interpolation": "cubic", "name": "hugging face"},
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
    assert (found.resize_to, found.interpolation, found.mean) == (10, "cubic", (0.4,))


def test_what_fgonnx_wrote_comes_first(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    found, origin = read(network(tmp_path / "m.onnx", **{"fgonnx.preprocessing": '{"scale": 0.25}'}))
    assert (found.scale, origin) == (0.25, "the model's metadata")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bert"}'])
def test_other_files_of_that_name_say_nothing(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PreprocessingError, match=r"is not JSON|does not say how its pictures"):
        read(network(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{0: 'ant', 1: 'bee', 2: 'cat', 3: 'dog'}", ("ant", "bee", "cat", "dog")),
        ("{1: 'bee'}", None),
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
