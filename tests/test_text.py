"""Texts: which words decided, of classifiers whose evidence is known; tokenizers, files, pictures, bad input."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.errors import FgonnxError, InputError, ModelError, OptionError
from fgonnx.pictures.show import words as drawing
from fgonnx.pictures.show.words import Gap, Shaded
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.measures import faithfulness
from fgonnx.text.options import Texts
from fgonnx.text.tokenizer import OfBytes
from fgonnx.text.tokens import Token, Tokens
from tests import skips
from tests.cli_support import run

torch = skips.without("torch")
captum = skips.without("captum.attr")
tokenizers = skips.without("tokenizers")

from tests import text_models  # noqa: E402  # it imports torch
from tests.text_models import LABELS, LENGTH, WORDS, Classifier, Sentence, draw, trained  # noqa: E402

KINDS = {"attention": 250, "convolution": 300, "recurrent": 200}


@dataclass(frozen=True)
class Trained:
    """A classifier, and the folder of its ONNX file and its tokenizer."""

    network: Classifier
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "model.onnx"


def tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> None:
    """Write a tokenizer.json of whole words and of pieces of some."""
    own = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]", max_input_chars_per_word=40)
    )
    own.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    own.normalizer = tokenizers.normalizers.Lowercase()
    own.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))],
    )
    own.enable_padding(pad_id=0, pad_token="[PAD]")
    own.save(str(path))


def exported(network: torch.nn.Module, path: Path, *, dynamo: bool = False, length: int = LENGTH) -> None:
    ids = torch.tensor([[1] * length, [2] * length])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            free = {"ids": {0: torch.export.Dim("n", min=1, max=1024)}}
            torch.onnx.export(network, (ids,), str(path), dynamo=True, input_names=["ids"], dynamic_shapes=free)
        else:
            axes = {"ids": {0: "n"}, "logits": {0: "n"}}
            names = {"input_names": ["ids"], "output_names": ["logits"]}
            torch.onnx.export(network, (ids,), str(path), dynamo=False, dynamic_axes=axes, **names)


@pytest.fixture(scope="module", params=KINDS)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _made(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _made("attention", tmp_path_factory)


_MADE: dict[str, Trained] = {}


def _made(kind: str, factory: pytest.TempPathFactory) -> Trained:
    if kind not in _MADE:
        folder = factory.mktemp(kind)
        network = trained(kind, steps=KINDS[kind])
        exported(network, folder / "model.onnx")
        tokenizer(folder / "tokenizer.json")
        (folder / "labels.txt").write_text("\n".join(LABELS))
        _MADE[kind] = Trained(network, folder)
    return _MADE[kind]


def on_top(model: Trained, sentences: list[Sentence], **changes: object) -> np.ndarray:
    """Return for each sentence whether the word that adds most is one of its evidence."""
    explainer = TextExplainer(model.path, labels=LABELS, changes={"verify": False, **changes})
    found = explainer([" ".join(s.words) for s in sentences], [s.label for s in sentences])
    right = []
    for one, sentence in zip(found, sentences, strict=True):
        values = [value for word, value in one.words if not word.special]
        right.append(int(np.argmax(values)) in sentence.evidence)
    return np.array(right)


def test_the_evidence_is_on_top_in_sentences_that_were_held_out(classifier: Trained) -> None:
    sentences = draw(150, 99)
    x = torch.tensor([s.ids() for s in sentences])
    assert (classifier.network(x).argmax(1).numpy() == [s.label for s in sentences]).mean() > 0.97
    assert on_top(classifier, sentences).mean() >= 0.95


def test_negated_evidence_is_on_top(classifier: Trained) -> None:
    assert on_top(classifier, draw(100, 98, negated=True)).mean() >= 0.95


def test_occlusion_of_words_and_paths_from_padding_agree(attention: Trained) -> None:
    sentences = draw(20, 97)
    assert on_top(attention, sentences, method="occlusion").mean() == 1
    assert on_top(attention, sentences, method="integrated-gradients", steps=8).mean() == 1


@pytest.mark.parametrize("dynamo", [False, True], ids=["tracing", "dynamo"])
def test_gradients_are_those_of_torch_and_captum(attention: Trained, tmp_path: Path, dynamo: bool) -> None:
    network, path = attention.network, tmp_path / "model.onnx"
    exported(network, path, dynamo=dynamo)
    ids = torch.tensor([s.ids() for s in draw(4, 5)])
    rows = network.words(ids).detach().requires_grad_()
    scores, target = network.rest(rows, ids).max(1)
    gradient = torch.autograd.grad(scores.sum(), rows)[0].numpy()
    e = fgonnx.Explainer(path, method="gradient-x-input", psi="signed", input_gradient=True)(ids.numpy())
    np.testing.assert_allclose(e.input_gradient, gradient, atol=1e-5)
    theirs = captum.LayerGradientXActivation(network, network.words).attribute(ids, target).detach().numpy()
    np.testing.assert_allclose(e.attribution, theirs, atol=1e-5)
    path_of_theirs = captum.LayerIntegratedGradients(network, network.words)
    baseline = torch.zeros_like(ids)
    own = fgonnx.Explainer(
        path, method="integrated-gradients", steps=50, baseline=network.words(baseline)[0].detach().numpy()
    )(ids.numpy())
    expected = path_of_theirs.attribute(ids, baseline, target, n_steps=50, method="gausslegendre").detach().numpy()
    np.testing.assert_allclose(own.attribution, expected, atol=2e-5)
    full = fgonnx.Explainer(path)(ids.numpy())
    assert full.rounding_residual().max() < 1e-5


def test_what_the_tokens_add_is_what_the_certificate_places(attention: Trained) -> None:
    found = TextExplainer(attention.path)("we saw a lovely film today")[0]
    assert found.values.sum() + found.padding == pytest.approx(float(found.arrays.localised()[0]), abs=1e-4)
    assert found.arrays.rounding_residual()[0] < 1e-5
    assert found.padding == pytest.approx(0, abs=1e-5)


class TestTokens:
    def test_pieces_are_joined_to_words(self, tmp_path: Path) -> None:
        tokenizer(tmp_path / "tokenizer.json", (*WORDS, "un", "##love", "##ly", "love"))
        exported(Classifier(), tmp_path / "model.onnx")
        own = fgonnx_tokenizer(tmp_path)
        tokens = own.cut("the unlovely film", None, "cut")[0]
        assert [t.piece for t in tokens.tokens] == ["[CLS]", "the", "un", "##love", "##ly", "film", "[SEP]"]
        assert [w.text for w in tokens.words] == ["[CLS]", "the", "unlovely", "film", "[SEP]"]
        assert tokens.words[2].tokens == (2, 3, 4)

    def test_characters_of_chinese_are_words_and_spaces_part_words(self) -> None:
        def token(i: int, start: int, stop: int) -> Token:
            return Token(i, "?", (start, stop), group=0)

        chinese = Tokens("日本", (token(1, 0, 1), token(2, 1, 2)))
        assert [w.text for w in chinese.words] == ["日", "本"]
        spaced = Tokens("ab c", (token(1, 0, 1), token(2, 1, 2), token(3, 2, 4)))
        assert [w.text for w in spaced.words] == ["ab", "c"]

    def test_two_texts_are_told_apart(self, attention: Trained) -> None:
        tokens = fgonnx_tokenizer(attention.folder).cut(("the film", "was lovely"), None, "cut")[0]
        assert [w.part for w in tokens.words if not w.special] == [0, 0, 1, 1]

    def test_bytes_of_a_file(self) -> None:
        tokens = OfBytes(257).cut(b"P\x00\n", None, "cut")[0]
        assert [(t.id, t.piece) for t in tokens.tokens] == [(80, "P"), (0, "00"), (10, "⏎")]
        assert OfBytes(257).pad == 256

    @pytest.mark.parametrize(
        ("long", "lengths", "said"), [("cut", [16], "the first 16"), ("windows", [16, 16, 15], "part 1 of")]
    )
    def test_long_texts_are_cut_or_explained_in_parts(
        self, attention: Trained, long: str, lengths: list[int], said: str
    ) -> None:
        text = " ".join(["the", "film"] * 14)
        found = TextExplainer(attention.path, texts=Texts(long=long))(text)
        assert len(found[0].tokens) == 16
        assert said in found[0].notes[0]
        assert (len(found) > 1) == (long == "windows")

    def test_ids_need_no_tokenizer(self, attention: Trained, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(attention.path.read_bytes())
        ids = draw(1, 3)[0].ids()
        found = TextExplainer(tmp_path / "model.onnx")(ids)[0]
        assert [w.text for w, _ in found.words] == [str(i) for i in ids]

    def test_texts_of_several_lengths_keep_their_order(self, attention: Trained) -> None:
        texts = ["a lovely film", "the play was dreadful today", "we saw a film"]
        together = TextExplainer(attention.path)(texts)
        for text, one in zip(texts, together, strict=True):
            alone = TextExplainer(attention.path)(text)[0]
            np.testing.assert_allclose(one.values, alone.values, atol=1e-5)


def fgonnx_tokenizer(folder: Path):
    from fgonnx.text.tokenizer import OfFile

    return OfFile(folder / "tokenizer.json")


class TestBadInput:
    def explain(self, attention: Trained, *more: str) -> str:
        result = run("explain", attention.path, *more)
        assert result.exit_code == 2
        return result.output

    def test_an_empty_text(self, attention: Trained) -> None:
        assert "text 1 is empty" in self.explain(attention, "--text", " ")

    def test_a_text_that_is_too_long_where_it_is_to_be_refused(self, attention: Trained) -> None:
        said = self.explain(attention, "--text", "film " * 40, "--long", "refuse")
        assert "text 1: it has 42 tokens, and the model takes 16" in " ".join(said.split())

    def test_no_tokenizer(self, attention: Trained, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(attention.path.read_bytes())
        result = run("explain", tmp_path / "model.onnx", "--text", "a film")
        assert result.exit_code == 2
        assert "there is no tokenizer.json beside the model" in " ".join(result.output.split())

    def test_the_tokenizer_of_another_model(self, attention: Trained, tmp_path: Path) -> None:
        tokenizer(tmp_path / "tokenizer.json", (*WORDS, *(f"w{i}" for i in range(50))))
        said = self.explain(attention, "--text", "a film", "--tokenizer", str(tmp_path))
        assert "it is the tokenizer of another model" in " ".join(said.split())

    def test_what_is_no_tokenizer(self, attention: Trained, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{}")
        said = self.explain(attention, "--text", "a film", "--tokenizer", str(tmp_path / "tokenizer.json"))
        assert "is no tokenizer.json" in " ".join(said.split())

    def test_a_column_that_is_not_there(self, attention: Trained, tmp_path: Path) -> None:
        (tmp_path / "reviews.csv").write_text("id,review\n1,a lovely film\n")
        said = self.explain(attention, str(tmp_path / "reviews.csv"), "--column", "reviews")
        assert "has no column 'reviews'" in " ".join(said.split())

    def test_pictures_for_a_model_of_texts(self, attention: Trained) -> None:
        assert "no effect" in self.explain(attention, "--text", "a film", "--preprocess", "imagenet")

    def test_a_text_for_a_model_of_pictures(self) -> None:
        result = run("explain", "examples/shapes.onnx", "--text", "a film")
        assert result.exit_code == 2
        assert "takes numbers, not ids" in " ".join(result.output.split())

    def test_attention_rollout_has_its_reason(self, attention: Trained) -> None:
        with pytest.raises(OptionError, match="no certificate"):
            TextExplainer(attention.path, changes={"method": "attention-rollout"})


class TestFilesAndPictures:
    def test_texts_in_files(self, attention: Trained, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a lovely film")
        (tmp_path / "b.jsonl").write_text('{"text": "a dreadful play"}\n"the song was dismal"\n')
        (tmp_path / "c.csv").write_text("id,review\n1,a superb story\n2,it is never tedious\n")
        out = tmp_path / "out"
        paths = [str(tmp_path / name) for name in ("a.txt", "b.jsonl", "c.csv")]
        labels = ("--labels", str(attention.folder / "labels.txt"))
        result = run("explain", attention.path, *paths, "-o", str(out), "--column", "review", *labels)
        assert result.exit_code == 2  # the lines of b.jsonl have no key "review"
        result = run("explain", attention.path, paths[0], paths[1], "-o", str(out), *labels)
        assert result.exit_code == 0, result.output
        assert "lovely(" in result.output
        made = json.loads((out / "a.json").read_text())
        assert made["target"]["label"] == "good"
        best = max(made["text"]["words"], key=lambda w: w["value"])
        assert (best["text"], best["span"]) == ("lovely", [2, 8])
        values = np.load(out / "a.npy")
        assert values.shape == (len(made["text"]["tokens"]),)
        page = (out / "a.html").read_text()
        assert 'title="' in page
        assert page.count("<bdi") == len(made["text"]["words"])
        assert {p.suffix for p in out.iterdir()} == {".html", ".png", ".npy", ".json"}

    def test_a_text_on_the_command_line_needs_no_folder(self, attention: Trained) -> None:
        result = run("explain", attention.path, "--text", "a lovely film", "--json")
        assert result.exit_code == 0
        assert [w["text"] for w in json.loads(result.output)["records"][0]["text"]["words"]][1:-1] == [
            *("a", "lovely", "film"),
        ]

    def test_long_texts_are_folded_to_what_matters(self) -> None:
        words = [Shaded(f"w{i}", 0.01) for i in range(300)]
        words[150] = Shaded("here", 1.0)
        shown = drawing.folded(words)
        assert sum(i.count for i in shown if isinstance(i, Gap)) > 200
        assert any(isinstance(i, Shaded) and i.text == "here" for i in shown)
        assert sum(1 if isinstance(i, Shaded) else i.count for i in shown) == 300
        assert "[… " in drawing.as_html(words, "t")

    def test_arabic_is_drawn_from_the_right(self) -> None:
        left = drawing.drawn([Shaded("film", 1.0)], "t")
        right = drawing.drawn([Shaded("فيلم", 1.0)], "t")
        middle = left.shape[1] // 2
        area = slice(60, 85)
        assert (left[area, :middle] < 250).any()
        assert not (left[area, middle:] < 250).any()
        assert (right[area, middle:] < 250).any()
        assert 'dir="rtl"' in drawing.as_html([Shaded("[CLS]", 0.1, special=True), Shaded("فيلم", 1.0)], "t")

    def test_words_longer_than_a_line_stay_within_the_picture(self) -> None:
        words = [Shaded("a", 0.1), Shaded("https://example.org/" + "abcdef/" * 60, 1.0), Shaded("b", -0.5)]
        picture = drawing.drawn(words, "link", width=400)
        assert (picture[:, -15:] == picture[0, 0]).all()
        assert picture[90:130].min() < 200

    def test_letters_without_a_font_are_said_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = drawing.drawn([Shaded("ab", 0.1), Shaded("cd", 1.0)], "t")
        monkeypatch.setattr(drawing.lettering, "readable", lambda text: text.replace("b", "\\u0062"))
        assert drawing.drawn([Shaded("ab", 0.1), Shaded("bb", 1.0)], "t").shape[0] == plain.shape[0] + 20

    def test_hostile_texts_are_escaped(self) -> None:
        page = drawing.as_html([Shaded("<script>alert(1)</script>", 1.0)], "<b>")
        assert "<script>" not in page
        assert "<b>" not in page


def test_similarity_to_a_reference_text(attention: Trained) -> None:
    found = TextExplainer(attention.path)("a lovely film", "similar=a superb film")[0]
    assert found.arrays.rounding_residual()[0] < 1e-5


def test_a_model_of_numbers_takes_no_texts() -> None:
    with pytest.raises(ModelError, match="takes numbers"):
        TextExplainer("examples/shapes.onnx")
    assert issubclass(InputError, FgonnxError)
    assert onnx.__version__
    assert text_models.IDS["[PAD]"] == 0


def test_taking_the_words_on_top_away_changes_the_decision(attention: Trained) -> None:
    sentences = [" ".join(s.words) for s in draw(12, 55)]
    found = faithfulness(TextExplainer(attention.path), sentences, steps=5)
    other = faithfulness(TextExplainer(attention.path, changes={"method": "random", "psi": "abs"}), sentences, steps=5)
    assert found["comprehensiveness"].mean() > 0.5 > other["comprehensiveness"].mean()
    assert found["sufficiency"].mean() < other["sufficiency"].mean()
    assert found["deletion"].mean() < other["deletion"].mean()
    assert found["insertion"].mean() > other["insertion"].mean()


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_pictures_are_no_texts(attention: Trained, tmp_path: Path, command: str) -> None:
    models = [attention.path] * (2 if command == "compare" else 1)
    result = run(command, *models, Path("examples/images").resolve(), "-o", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "holds no files of texts" in " ".join(result.output.split())


def test_notebooks_show_words(attention: Trained, tmp_path: Path) -> None:
    e = fgonnx.explain(attention.path, text=["a lovely film", "a dreadful play"], labels=LABELS)
    assert repr(e).startswith("TextExplanation of 2 texts: 1 'good'")
    assert e._repr_html_().count("<bdi") == 10
    assert e[0].words[2][0].text == "lovely"
    assert e.to_dict(1)["words"][2]["text"] == "dreadful"
    assert e.picture(0).width == 900
    assert e.save(tmp_path / "texts.html").read_text().count("fgonnx-text") >= 2
    assert e[:1].save(tmp_path / "text.png").exists()
    with pytest.raises(InputError, match="a single one also"):
        e.save(tmp_path / "texts.png")
    with pytest.raises(InputError, match="not both"):
        fgonnx.explain(attention.path, np.zeros((1, 3)), text="a film")


def test_why_not_the_runner_up(attention: Trained) -> None:
    e = fgonnx.explain(attention.path, text="a lovely film", contrast="bad", labels=LABELS)
    assert "rather than" in e[0].described
    assert max(e[0].words, key=lambda w: w[1])[0].text == "lovely"


def test_inspect_says_that_it_takes_ids(attention: Trained) -> None:
    found = fgonnx.inspect(attention.path)["explanation"]
    assert found["layout"] == "NT"
    assert f"ids of a vocabulary of {len(WORDS)}" in found["kind"]
