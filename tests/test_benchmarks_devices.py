"""benchmarks.gpu and benchmarks.threads, on the processor and the smallest network."""

import json

import numpy as np
import onnxruntime as ort
import pytest

from tests import skips

skips.without("torch")

import fgonnx  # noqa: E402
from benchmarks import threads  # noqa: E402
from benchmarks.gpu import __main__ as gpu  # noqa: E402
from benchmarks.gpu import device, measure, report  # noqa: E402
from benchmarks.networks import SMALLEST  # noqa: E402
from fgonnx.errors import ProviderError  # noqa: E402


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FGONNX_BENCHMARKS", str(tmp_path / "networks"))
    monkeypatch.setenv("FGONNX_CACHE", str(tmp_path / "cache"))


class TestGpu:
    def test_measures_a_network(self):
        (found,) = measure.batches("smallest", [2], "cpu", 0.001, False)
        assert set(found["onnxruntime"]) == {"infer", "explain_fast", "explain_portable", "certificate"}
        assert set(found["torch"]) == {"forward", "gradient", "fullgrad"}
        assert found["failures"] == found["torch_failures"] == {}
        assert all(e["seconds"] > 0 for e in (*found["onnxruntime"].values(), *found["torch"].values()))
        assert found["agreement"]["map"] == 0.0
        assert found["agreement"]["residual"] < 1e-5

    def test_counts_where_nodes_run(self):
        model = fgonnx.rewrite(SMALLEST.path())
        found = device.Bound(model, SMALLEST.inputs(1), "cpu", profile=True).placement()
        assert found["cpu"] > 50
        assert found["memcpy"] == 0

    def test_bound_results_are_those_of_an_explainer(self):
        x = SMALLEST.inputs(2)
        found = device.Bound(fgonnx.rewrite(SMALLEST.path()), x, "cpu").results()
        expected = fgonnx.Explainer(SMALLEST.path(), threads=1)(x)
        np.testing.assert_allclose(found["saliency"], expected.saliency, rtol=0, atol=1e-6 * expected.saliency.max())

    @pytest.mark.slow
    def test_writes_its_results(self, tmp_path, capsys):
        out = tmp_path / "gpu.json"
        assert gpu.main(["--device", "cpu", "--quick", "-o", str(out)]) == 0
        found = json.loads(out.read_text())
        assert [(r["network"], r["batch"]) for r in found["results"]] == [("smallest", 1), ("smallest", 2)]
        assert not any("failure" in r for r in found["results"])
        assert "| smallest | 2 |" in capsys.readouterr().out

    def test_says_what_is_missing(self):
        if "CUDAExecutionProvider" in ort.get_available_providers():
            skips.now(skips.SYSTEM, "this build has CUDA")
        with pytest.raises(ProviderError, match="CUDA"):
            gpu.main(["--device", "cuda"])

    def test_the_tables(self):
        entry = {"seconds": 0.002, "bytes": 1}
        result = {"network": "net", "batch": 8, "compiled": False, "onnxruntime": {"infer": entry}, "torch": {}}
        result["onnxruntime"]["explain_fast"] = {"seconds": 0.005, "bytes": 1}
        found = {
            "device": {"name": "Card"},
            "date": "today",
            "seconds": 1.0,
            "versions": {"onnxruntime": "1"},
            "results": [result, {"network": "other", "batch": 1, "compiled": False, "failure": "out of memory"}],
            "left_out": [{"network": "net", "compiled": True}],
        }
        text = report.section(found)
        assert "| net | 8 | 2.00 | 5.00 (2.50 x) | – |" in text
        assert "- other, batch 1: out of memory" in text
        assert "- net, torch.compile: left out for the lack of time" in text


class TestThreads:
    @pytest.mark.parametrize("runtime", threads.RUNTIMES)
    def test_measures_both(self, runtime):
        if runtime == "openvino":
            skips.without("openvino")
        found = threads._one("smallest", 1, runtime, 1, rounds=1)
        assert found["infer"] > 0
        assert found["explain"] > 0

    def test_counts_sessions_side_by_side(self, monkeypatch):
        monkeypatch.setattr(threads, "SECONDS", 0.05)
        assert threads._one("smallest", 2, "onnxruntime", 1, sessions=2)["per_second"] > 0

    def test_a_ratio_that_grows_is_named(self):
        def cost(count, explain):
            case = {"network": "net", "batch": 1, "runtime": "onnxruntime", "threads": count}
            return {**case, "infer": 0.01, "explain": explain}

        machine = {"processor": "P", "cores": 8}
        found = {"machine": machine, "date": "today", "costs": [cost(2, 0.03), cost(8, 0.05)], "rates": []}
        text = threads.section(found)
        assert (
            "| net | 1 | onnxruntime | 30.0 (3.00 x) | 50.0 (5.00 x) | over 1.3 times the ratio of two at 8 |" in text
        )

    @pytest.mark.slow
    def test_writes_its_results(self, tmp_path):
        out = tmp_path / "threads.json"
        arguments = ["--models", "smallest", "--batch", "1", "--threads", "1", "--runtimes", "onnxruntime"]
        assert threads.main([*arguments, "--rounds", "1", "-o", str(out)]) == 0
        assert "failure" not in json.loads(out.read_text())["costs"][0]
