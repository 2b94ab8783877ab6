"""Execution providers: the one asked for runs, or an error says why it does not."""

import pytest

from fgonnx import Explainer, Running
from fgonnx.engine.graph import providers
from fgonnx.engine.graph.providers import CPU, CUDA, choose_providers, ort, with_settings
from fgonnx.errors import ProviderError
from tests import skips
from tests.support import small_cnn

pytestmark = skips.when(providers.TRAINING, skips.INFERENCE)


@pytest.fixture
def listed(monkeypatch):
    """A build that lists CUDA, on a machine that does not have it."""
    if CUDA in ort.get_available_providers():
        skips.now(skips.SYSTEM, "this build has CUDA")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    providers._failure.cache_clear()
    yield
    providers._failure.cache_clear()


@pytest.mark.usefixtures("listed")
class TestAProviderThatIsListedAlone:
    def test_is_refused_where_it_is_asked_for(self):
        with pytest.raises(ProviderError, match=r"'cuda' does not start: this build.*providers='cpu'"):
            Explainer(small_cnn(), providers=["cuda", "cpu"])

    def test_is_not_taken_unasked(self):
        assert choose_providers() == [CPU]

    def test_is_not_recorded(self):
        assert Running().described()["providers"] == [CPU]

    def test_names_the_library_that_is_missing(self, monkeypatch):
        monkeypatch.setattr(providers, "_missing_library", lambda _: "libcudnn.so.9 is missing")
        with pytest.raises(ProviderError, match=r"libcudnn\.so\.9 is missing.*onnxruntime-gpu\[cuda,cudnn\]"):
            choose_providers(["cuda"])


def test_the_library_is_named_as_the_loader_names_it(monkeypatch, tmp_path):
    (tmp_path / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    monkeypatch.setattr(providers.native, "__file__", str(tmp_path / "native.so"))

    def load(_):
        raise OSError("libcublasLt.so.13: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(providers.ctypes, "CDLL", load)
    monkeypatch.setattr(providers.sys, "platform", "linux")
    assert providers._missing_library(CUDA) == "libcublasLt.so.13 is missing"


@pytest.mark.parametrize(("tf32", "said"), [(False, "0"), (True, "1")])
def test_cuda_computes_in_float32_unless_it_is_asked_not_to(tf32, said):
    ((name, settings), other) = with_settings([CUDA, CPU], tf32=tf32)
    assert (name, other) == (CUDA, CPU)
    assert settings == {"use_tf32": said, "cudnn_conv_algo_search": "HEURISTIC"}


def test_tf32_is_recorded(monkeypatch):
    monkeypatch.setattr("fgonnx.engine.graph.running.choose_providers", lambda _: [CUDA, CPU])
    assert Running(tf32=True).described()["precision"] == "tf32"
    assert "precision" not in Running().described()
