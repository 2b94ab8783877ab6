"""What models of texts take beside ids: masks of each meaning, padding, types, targets of each text, files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import fgonnx
from fgonnx.errors import FgonnxError, InputError, ModelError, OptionError
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.options import Texts
from fgonnx.text.read import texts
from tests import skips

torch = skips.without("torch")
tokenizers = skips.without("tokenizers")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *["the", "film", "was", "good", "bad", "not", "never", "very", "lovely"])
WIDTH = 8


class Network(torch.nn.Module):
    """Attention whose mask has one of several meanings, read at the last place, as a mean, or at every place."""

    def __init__(self, meaning: str = "shown", read: str = "mean", places: int = 64) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.meaning, self.read = meaning, read
        self.rows, self.places = torch.nn.Embedding(len(WORDS), WIDTH), torch.nn.Embedding(places, WIDTH)
        self.query, self.head = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        m = mask.float()
        added = {"shown": (1 - m) * -1e4, "hidden": m * -1e4, "added": m}[self.meaning]
        x = self.rows(ids) + self.places(torch.cumsum(torch.ones_like(ids), 1) - 1)
        x = x + torch.softmax(self.query(x) @ x.transpose(1, 2) + added[:, None], -1) @ x
        if self.read == "each":
            return self.head(x)
        if self.read == "last":
            return self.head(x[:, -1])
        if self.read == "sum":
            return self.head(x.sum(1))
        shown = (added > -1).float()[..., None]
        return self.head((x * shown).sum(1) / shown.sum(1))


def written(folder: Path, network: Network, name: str = "attention_mask", kind: Any = None, **padding: Any) -> Path:
    """Write a model and its tokenizer."""
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    own.enable_padding(pad_id=0, pad_token="[PAD]", **padding)
    own.save(str(folder / "tokenizer.json"))
    ids = torch.ones(2, 5, dtype=torch.long)
    mask = torch.full((2, 5), 0 if network.meaning == "hidden" else 1).to(kind or torch.long)
    names = ["ids", name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (ids, mask),
            str(folder / "m.onnx"),
            dynamo=False,
            input_names=names,
            output_names=["y"],
            dynamic_axes={n: {0: "n", 1: "t"} for n in names},
        )
    return folder / "m.onnx"


def truth(network: Network, text: str) -> np.ndarray:
    """Return what the network says of a text without padding."""
    ids = torch.tensor([[2, *(WORDS.index(w) for w in text.split()), 3]])
    shown = torch.zeros_like(ids) if network.meaning in ("hidden", "added") else torch.ones_like(ids)
    return network(ids, shown).detach().numpy()[0]


MASKS = {
    "whole numbers": ("shown", "attention_mask", torch.long, ""),
    "whole numbers, hidden": ("hidden", "attention_mask", torch.long, "1 marks what is hidden"),
    "booleans": ("shown", "attention_mask", torch.bool, ""),
    "booleans, hidden": ("hidden", "src_key_padding_mask", torch.bool, "1 marks what is hidden"),
    "padding in the name, shown": ("shown", "padding_mask", torch.long, ""),
    "numbers": ("shown", "input_mask", torch.float, ""),
    "numbers that are added": ("added", "attention_mask", torch.float, "0 shows a token"),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_hide_what_they_are_meant_to(tmp_path: Path, case: str) -> None:
    meaning, name, kind, said = MASKS[case]
    network = Network(meaning)
    found = TextExplainer(written(tmp_path, network, name, kind))("the film was good")[0]
    assert found.score == pytest.approx(truth(network, "the film was good").max(), abs=1e-4)
    assert found.padding == pytest.approx(0, abs=1e-5)
    assert said in "".join(found.notes)
    assert bool(found.notes) == bool(said)


def test_an_input_whose_meaning_is_not_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="also takes 'prototype'"):
        TextExplainer(written(tmp_path, Network(), "prototype"))("the film")
    with pytest.raises(OptionError, match="shows or hides"):  # what is hidden is read all the same
        TextExplainer(written(tmp_path, Network("shown", "sum"), "padding_mask"))("the film")


@pytest.mark.parametrize("read", ["mean", "last"])
@pytest.mark.parametrize("direction", ["right", "left"])
def test_padding_changes_nothing_where_the_length_is_free(tmp_path: Path, read: str, direction: str) -> None:
    network = Network(read=read)
    for text in ("good", "the film was never very good", " ".join(["film"] * 16)):
        found = TextExplainer(written(tmp_path, network, direction=direction))(text)[0]
        assert found.score == pytest.approx(truth(network, text).max(), abs=1e-4)


def test_a_text_that_fits_is_not_padded_beyond_the_places_of_the_model(tmp_path: Path) -> None:
    network, text = Network(places=20), " ".join(["film"] * 16)
    explainer = TextExplainer(written(tmp_path, network))
    assert explainer(text)[0].score == pytest.approx(truth(network, text).max(), abs=1e-4)
    with pytest.raises(InputError, match="on 20 at most; say so"):
        explainer(" ".join(["film"] * 30))


def test_labels_of_tokens_are_those_of_the_text(tmp_path: Path) -> None:
    network = Network(read="each")
    explainer = TextExplainer(written(tmp_path, network), labels=("x", "y", "z"))
    found = explainer("the good film")[0]
    assert found.score == pytest.approx(truth(network, "the good film").max(), abs=1e-4)
    expected = truth(network, "the good film")[2]
    assert explainer("the good film", "token=2:z")[0].score == pytest.approx(expected[2], abs=1e-4)
    assert explainer("the good film", "token=2")[0].score == pytest.approx(expected.max(), abs=1e-4)


def test_padding_among_given_ids_is_hidden(tmp_path: Path) -> None:
    network = Network()
    path = written(tmp_path, network)
    found = TextExplainer(path)(np.array([[2, 5, 7, 3, 0, 0]]))[0]
    assert found.score == pytest.approx(truth(network, "film good").max(), abs=1e-4)
    assert "2 tokens with the id 0" in found.notes[0]
    (tmp_path / "tokenizer.json").unlink()
    assert "all tokens are shown" in TextExplainer(path)([2, 5, 7, 3, 0, 0])[0].notes[0]
    named = TextExplainer(path, texts=Texts(pad_id=0))([2, 5, 7, 3, 0, 0])[0]
    assert named.score == pytest.approx(found.score)
    assert sum(named.shares.values()) == pytest.approx(1)


def test_what_is_given_stays(tmp_path: Path) -> None:
    path = written(tmp_path, Network())
    assert TextExplainer(path).explainer.options.psi == "signed"
    given = TextExplainer(path, changes={"psi": "abs", "backward": "gradient"}).explainer.options
    assert (given.psi, given.backward) == ("abs", "gradient")


LISTS = {
    "a list": ([1, 2, 0], None),
    "an array": (np.array([1, 2, 0]), None),
    "contrasts": ([1, 2, 0], [0, 1, 2]),
}


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("long", ["cut", "windows"])
def test_targets_of_each_text(tmp_path: Path, case: str, long: str) -> None:
    targets, contrasts = LISTS[case]
    explainer = TextExplainer(written(tmp_path, Network()), texts=Texts(long=long, tokens=6))
    found = explainer(["good", "the film was never very good", "bad film"], targets, contrast=contrasts)
    assert found[0].described[0] == "1"
    assert found[1].described[0] == "2"
    assert found[-1].described[0] == "0"
    with pytest.raises(FgonnxError, match="for 2 texts"):
        explainer(["good", "bad"], targets)


@pytest.mark.parametrize(
    "given", [None, 5, [None], [], [[]], [2**70], [[2**70]], "a \ud83d film", [1.5], np.full((2, 2), 0.5)], ids=repr
)
def test_what_is_no_text_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InputError):
        TextExplainer(written(tmp_path, Network()))(given)


def test_tensors_are_ids(tmp_path: Path) -> None:
    explainer = TextExplainer(written(tmp_path, Network()))
    assert explainer(torch.tensor([[2, 5, 3]]))[0].score == pytest.approx(explainer([2, 5, 3])[0].score)


def test_what_was_cut_off_a_pair(tmp_path: Path) -> None:
    path = written(tmp_path, Network())
    made = json.loads((tmp_path / "tokenizer.json").read_text())
    made["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "OnlySecond", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    found = TextExplainer(path)(("the film", "was never very good the film was bad"))[0]
    assert [t.part for t in found.tokens.tokens if not t.special] == [0, 0, 1, 1, 1, 1]
    assert "of the 8 of the second 4" in found.notes[0]


FILES = {
    "lines.jsonl": ('{"text": "very\u2028good\x85film"}\n{"text": "bad"}\n', ["very\u2028good\x85film", "bad"]),
    "long.csv": (f"text\n{'good ' * 40_000}\nbad\n", ["good " * 40_000, "bad"]),
    "plain.csv": ("good film\nbad film\n", ["good film", "bad film"]),
    "named.csv": ("review\ngood film\nbad\n", ["good film", "bad"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_whole(tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert [t.content for t in texts([tmp_path / name], [], None, as_bytes=False)] == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.jsonl", '{"text": 5}', "'text' holds 5, which is no text"), ("a.csv", "good\nbad film\n", "names the column")],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FgonnxError, match=said):
        texts([tmp_path / name], [], None, as_bytes=False)


def turned(shape: str) -> onnx.ModelProto:
    """Return a bag of words whose ids have time first; its words are worth their ids, and a sum of two biases."""
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> bag (int64[{shape}] ids) => (float[N,2] y)
        <float[5,2] table = {{0,0, 1,0, 2,0, 3,0, 4,0}}, int64[1] axis = {{0}}, float[2] b = {{1, 2}}> {{
            rows = Gather(table, ids) s = ReduceSum<keepdims=0>(rows, axis) y = Add(s, b) }}"""
    )


@pytest.mark.parametrize("method", ["fullgrad", "gradient-x-input", "occlusion", "integrated-gradients"])
@pytest.mark.parametrize("shape", ["T,N", "3,N"])
def test_ids_may_have_time_first(shape: str, method: str) -> None:
    found = fgonnx.explain(turned(shape), text=[[1, 2, 4], [3, 3, 1]], target=0, method=method, psi="signed")
    assert [f.values.tolist() for f in found] == [pytest.approx([1, 2, 4]), pytest.approx([3, 3, 1])]
    assert [f.score for f in found] == [8, 8]


def test_models_with_time_first_are_compared() -> None:
    found = fgonnx.compare(turned("T,N"), turned("T,N"), text=[[1, 2, 4], [3, 3]], target=0)
    assert [one.b.values.tolist() for one in found] == [pytest.approx([1, 2, 4]), pytest.approx([3, 3])]


def test_ids_without_an_axis_of_samples_are_refused() -> None:
    with pytest.raises(ModelError, match="no axis holds samples"):
        fgonnx.explain(turned("T,1"), text=[[1, 2, 4]])


def test_a_bag_in_a_loop_is_refused_by_what_it_is(tmp_path: Path) -> None:
    bag = torch.nn.EmbeddingBag(11, 4, mode="mean").eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = torch.tensor([[1, 2, 3, 4], [4, 5, 6, 7]])
        torch.onnx.export(bag, (ids,), str(tmp_path / "bag.onnx"), dynamo=False, input_names=["ids"])
    with pytest.raises(ModelError, match="EmbeddingBag"):
        fgonnx.explain(tmp_path / "bag.onnx", text=[[1, 2, 3, 4]])


class Traced(torch.nn.Module):
    """Places of one length, which tracing stores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.places = torch.nn.Embedding(len(WORDS), WIDTH), torch.nn.Parameter(torch.randn(12, WIDTH))
        self.head = torch.nn.Linear(WIDTH, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.rows(ids) + self.places).mean(1))


def test_a_model_that_was_traced_at_one_length_is_padded_to_it_with_a_note(tmp_path: Path) -> None:
    written(tmp_path, Network())  # its tokenizer
    network, path = Traced().eval(), tmp_path / "traced.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids, axes = torch.ones(1, 12, dtype=torch.long), {"ids": {0: "n", 1: "t"}}
        torch.onnx.export(network, (ids,), str(path), dynamo=False, input_names=["ids"], dynamic_axes=axes)
    found = TextExplainer(path)("the good film")[0]
    expected = network(torch.tensor([[2, 4, 7, 5, 3, *[0] * 7]]))[0].max().detach()
    assert found.score == pytest.approx(float(expected), abs=1e-4)
    assert "padded to 12 tokens" in found.notes[0]
    with pytest.raises(InputError, match="the model runs on 12 alone; say so"):
        TextExplainer(path)(" ".join(["film"] * 20))
