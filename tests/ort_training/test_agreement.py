"""Whole models: every gradient, bias-gradient, contribution and map is the same by both engines."""

import json
from pathlib import Path

import numpy as np
import pytest

from fgonnx.audit import agreement, check
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewrite import build
from tests.conftest import SHARED

try:
    import torch  # noqa: F401

    from tests.witness.torchnets import NETS, export
except ImportError:
    NETS, export = {}, None

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "shapes.onnx"
# Grouped transposed convolutions and the like are refused, and so is what is not float32.
REFUSED = {"mobilenet_v2_tf_qdq_uint8io", "shufflenet_v2_int8_qlinear", "squeezenet1_1_qdq_int8"}
NOT_PICTURES = {"selfie_segmentation_tf2onnx", "silero_vad_16k_op15", "silero_vad_v5"}


def differences(model):
    loaded = load(model)
    options = Options(outputs=("target", "score"))
    feeds = check.random_inputs(build(loaded, options), 2)
    return {d.group: d.value for d in agreement.compare(loaded, options, feeds)}


def trained():
    manifest = SHARED / "models" / "manifest.json"
    if not manifest.is_file():
        return ["any"]  # which is skipped
    names = [e["name"] for e in json.loads(manifest.read_text())]
    return sorted(set(names) - REFUSED - NOT_PICTURES)


def test_the_example():
    assert max(differences(EXAMPLE).values()) < agreement.TOLERANCE


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("name", NETS)
def test_networks_of_every_family(name, folded):
    net, shape = NETS[name]
    model = export(net(0), (2, *shape[1:]), folded=folded)
    assert max(differences(model).values()) < agreement.TOLERANCE


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", trained())
def test_trained_models(name):
    assert max(differences(SHARED / "models" / f"{name}.onnx").values()) < agreement.TOLERANCE


def test_a_wrong_rule_is_seen(monkeypatch):
    from fgonnx.engine.rules.fast import masks

    positive = masks.positive
    monkeypatch.setattr(masks, "positive", lambda op, x: op.Mul(positive(op, x), np.float32(0.999)))
    assert differences(EXAMPLE)["input gradient"] > agreement.TOLERANCE
