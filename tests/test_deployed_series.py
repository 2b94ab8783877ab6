"""Deployed models of electroencephalograms, as their package ships them: a spectrogram's seizures, spindles."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.graph.session import Session
from tests import skips

PACKAGE = "brainmaze_eeg_models"


def shipped(name):
    """Return a file of the package, which need not be imported for it."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        skips.now(skips.PACKAGE, "brainmaze-eeg-models")
    return Path(next(iter(found.submodule_search_locations))) / name


def slopes(session, feeds, name, e, scores, rng):
    """Return slopes along random directions: by differences of the model, and by the gradient."""
    found = []
    for _ in range(3):
        v = rng.normal(size=feeds[name].shape).astype(np.float32)
        ends = [scores(session.run({**feeds, name: feeds[name] + np.float32(s * 1e-3) * v})) for s in (1, -1)]
        found.append(((ends[0] - ends[1]) / 2e-3, float((e.input_gradient.astype(np.float64) * v).sum())))
    return np.array(found).T


@pytest.mark.slow
def test_a_recurrent_network_over_a_spectrogram_of_five_minutes():
    """600 steps of a bidirectional LSTM of two layers: all of the score has a place in time."""
    source = shipped("seizure/_models/modelA_paper.onnx")
    x = np.random.default_rng(0).normal(size=(1, 100, 600)).astype(np.float32)
    e = fgonnx.Explainer(source, input_gradient=True)(x, (slice(100, 120), 3))
    assert e.localised_share()[0] > 0.99
    assert e.rounding_residual().max() < 1e-6
    session = Session(onnx.load(source))
    expected, got = slopes(
        session,
        {"x": x},
        "x",
        e,
        lambda r: float(r["logits"][100:120, 0, 3].sum(dtype=np.float64)),
        np.random.default_rng(1),
    )
    np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_of_a_few_steps_written_out_one_by_one_all_have_a_place_too():
    source = shipped("seizure/_models/modelA_paper.onnx")
    x = np.random.default_rng(0).normal(size=(1, 100, 24)).astype(np.float32)
    e = fgonnx.Explainer(source, psi="signed")(x, (5, 3))
    assert e.localised_share()[0] > 0.99
    np.testing.assert_allclose(e.saliency.sum(), e.localised()[0], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw_signal", "spectrogram"])
def test_spindles_of_half_a_minute(name):
    source = shipped("spindles/_models/spindle-detector-eeg.onnx")
    rng = np.random.default_rng(0)
    feeds = {"raw_signal": rng.normal(size=(1, 1, 7500)), "spectrogram": rng.uniform(0, 1, (1, 15, 7500))}
    feeds = {k: v.astype(np.float32) for k, v in feeds.items()}
    e = fgonnx.Explainer(source, input=name, output="detection", input_gradient=True)(feeds, (20, 0))
    assert e.saliency.shape == (1, 7500)
    assert e.rounding_residual().max() < 1e-6
    assert e.localised_share()[0] > 0.99
    expected, got = slopes(
        Session(onnx.load(source)), feeds, name, e, lambda r: float(r["detection"][0, 20, 0]), np.random.default_rng(1)
    )
    np.testing.assert_allclose(got, expected, rtol=5e-2, atol=5e-2)
