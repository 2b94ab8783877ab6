"""Portable files in the runtimes that are installed: the same map and certificate, of the entry that was asked for.

docs/runtimes.md has trained models, and runtimes that want an environment of their own.
"""

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from benchmarks.runtimes import __main__ as measured
from benchmarks.runtimes import cases, page, runtimes
from tests import skips
from tests.support import run, script
from tests.test_portable import NETWORKS, X, network

RUNNERS = Path(runtimes.__file__).with_name("runners")
BY_KEY = {r.key: r for r in runtimes.RUNTIMES}
TARGET = np.array([1, 0])


@dataclass(frozen=True)
class Installed:
    """A runtime that tests import."""

    package: str
    runner: str
    tolerance: float = 2e-6


RUNTIMES = {
    "ort": Installed("onnxruntime", "run_onnxruntime"),
    "openvino": Installed("openvino", "run_openvino", 5e-6),
    "tract": Installed("tract", "run_tract"),
    "opencv": Installed("cv2", "run_opencv"),
    "reference": Installed("onnx.reference", "run_reference"),
}


@cache
def loader(key):
    skips.without(RUNTIMES[key].package)
    if str(RUNNERS) not in sys.path:
        sys.path.append(str(RUNNERS))
    return script(RUNNERS / f"{RUNTIMES[key].runner}.py").load


def results(key, proto, feeds, folder):
    """Run a model in a runtime, as the benchmark does."""
    onnx.save(proto, folder / "m.onnx")
    (folder / "m.outputs.json").write_text(json.dumps([v.name for v in proto.graph.output]))
    names = [v.name for v in proto.graph.input]
    return loader(key)(folder / "m.onnx", {n: feeds[n] for n in names})()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("key", RUNTIMES)
@pytest.mark.parametrize("target", ["argmax", "input"])
def test_the_explanation_is_that_of_onnxruntime(key, name, target, tmp_path):
    feeds = {"x": X, "target_index": TARGET}
    proto = fgonnx.rewrite(network(name), form="portable", target=target)
    given = {v.name: feeds[v.name] for v in proto.graph.input}
    expected, found = run(proto, given), results(key, proto, feeds, tmp_path)
    assert set(found) == set(expected)
    scale = max(1.0, *(float(np.abs(expected[n]).max()) for n in ("saliency", "contributions", "score")))
    for output, array in expected.items():
        atol = RUNTIMES[key].tolerance * scale
        np.testing.assert_allclose(
            np.asarray(found[output]).reshape(array.shape), array, rtol=0, atol=atol, err_msg=output
        )


#: Of the vision transformer, OpenCV 5.0.0 dies, and the evaluator is slow.
SHIPPED = [("shapes", key) for key in RUNTIMES if key != "ort"] + [("parts_vit", "openvino"), ("parts_vit", "tract")]


@pytest.mark.parametrize(("name", "key"), SHIPPED)
def test_the_shipped_examples(name, key, tmp_path):
    proto = fgonnx.rewrite(f"examples/{name}.onnx", form="portable", target="input")
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    feeds = {"image": x, "target_index": np.array([5, 0])}
    expected, found = run(proto, feeds), results(key, proto, feeds, tmp_path)
    np.testing.assert_array_equal(np.asarray(found["target"]).reshape(-1), [5, 0])
    np.testing.assert_allclose(
        np.asarray(found["saliency"]).reshape(2, 64, 64),
        expected["saliency"],
        rtol=0,
        atol=2e-6 * expected["saliency"].max(),
    )


APART = ("node", "web_wasm")


@pytest.mark.slow
@pytest.mark.parametrize("key", APART)
def test_runtimes_of_another_environment(key, tmp_path):
    runtime, envs = BY_KEY[key], Path(".runtimes")
    if not runtimes.installed(runtime, envs):
        skips.now(
            skips.ENVIRONMENT, f"{runtime.name} is not in {envs}; python -m benchmarks.runtimes --install puts it there"
        )
    proto = fgonnx.rewrite(network("square strided convolutions"), form="portable", target="input")
    onnx.save(proto, tmp_path / "m.onnx")
    (tmp_path / "m.outputs.json").write_text(json.dumps([v.name for v in proto.graph.output]))
    feeds = {"x": X, "target_index": TARGET}
    cases.put(tmp_path, feeds)
    assert runtimes.run(runtime, envs, tmp_path, "m", limit=60) == ""
    found, expected = cases.get(tmp_path, "m", key), run(proto, feeds)
    np.testing.assert_array_equal(found["target"].reshape(-1), TARGET)
    np.testing.assert_allclose(found["saliency"], expected["saliency"], rtol=0, atol=1e-5)


class TestPage:
    STORED = json.loads(measured.STORED.read_text())

    def test_is_what_was_measured(self):
        assert (measured.STORED.with_suffix(".md")).read_text() == page.render(self.STORED)

    def test_names_a_wrong_map_as_refused(self):
        runtime = {"map": 0.1, "certificate": 0.0, "target": True}
        stored = {
            "machine": {"date": "today", "processor": "one"},
            "cases": {"net": {"what": "layers", "bytes": {"plain": 1000, "input": 2000}, "rounding": 1e-6}},
            "runtimes": {"r": {"name": "R", "version": "1", "cases": {"net": {"plain": {}, "input": runtime}}}},
        }
        text = page.render(stored)
        assert "| R | 1 | 0 of 1, **refused** |" in text
        assert "**1e-1 wrong**" in text

    def test_no_runtime_has_a_wrong_map(self):
        table = page.render(self.STORED).split("- *right*")[0]
        assert "**refused**" not in table
