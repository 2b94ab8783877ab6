"""Question answering by position: the start and end of an answer, by its text, by places, or the best one."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fgonnx
from fgonnx.errors import TargetError
from fgonnx.text.explainer import TextExplainer
from tests import skips
from tests.cli_support import run

torch = skips.without("torch")
tokenizers = skips.without("tokenizers")

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "wrote", "where", "is", "ada", "lived", "in", "the", "notes", "of"),
    *("par", "##is", "lon", "##don", "and", ",", "."),
)
QUESTION, PASSAGE = "where lived ada", "ada lived in London , and Paris . ada wrote the notes ."
TWO = ("start_logits", "end_logits")


class Reader(torch.nn.Module):
    """Attention over the words of a question and a passage, and a start and an end for each token."""

    def __init__(self, outputs: str = "two") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.outputs = outputs
        self.rows, self.types = torch.nn.Embedding(len(WORDS), 12), torch.nn.Embedding(2, 12)
        self.query, self.head = torch.nn.Linear(12, 12), torch.nn.Linear(12, 2)

    def rest(self, rows: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        x = rows + self.types(types)
        hidden = (1 - mask.float()) * -1e4
        x = x + torch.softmax(self.query(x) @ x.transpose(1, 2) + hidden[:, None], -1) @ torch.tanh(x)
        return self.head(x)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> object:
        both = self.rest(self.rows(ids), mask, types)
        if self.outputs == "one":
            return both
        start, end = both.unbind(-1)
        if self.outputs == "probabilities":
            return start.softmax(1), end.softmax(1)
        return (end, start) if self.outputs == "swapped" else (start, end)


NAMES = {
    "two": TWO,
    "probabilities": ("start_probability", "end_probability"),
    "one": ("logits",),
    "swapped": ("unstack_1", "unstack_0"),
}


Written = Callable[..., tuple[Path, Reader]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What writes a reader and its tokenizer, once for each kind of outputs."""
    return functools.cache(lambda outputs="two": _written(tmp_path_factory.mktemp(outputs), outputs))


def _written(folder: Path, outputs: str) -> tuple[Path, Reader]:
    own = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    own.normalizer, own.pre_tokenizer = tokenizers.normalizers.Lowercase(), tokenizers.pre_tokenizers.BertPreTokenizer()
    own.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    own.save(str(folder / "tokenizer.json"))
    network, names = Reader(outputs).eval(), ["input_ids", "attention_mask", "token_type_ids"]
    given = tuple(torch.ones(2, 7, dtype=torch.long) for _ in names)
    axes = {n: {0: "n", 1: "t"} for n in (*names, *NAMES[outputs])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own_names = {"input_names": names, "output_names": list(NAMES[outputs])}
        torch.onnx.export(network, given, str(folder / "qa.onnx"), dynamo=False, dynamic_axes=axes, **own_names)
    return folder / "qa.onnx", network


def truth(network: Reader, question: str = QUESTION, passage: str = PASSAGE) -> tuple[list[str], np.ndarray]:
    """Return the tokens of a question and a passage, and the starts and ends of each, (T, 2)."""
    pieces: list[str] = []
    for word in passage.lower().split():
        pieces += [word] if word in WORDS else [word[:3], f"##{word[3:]}"]
    tokens = ["[CLS]", *question.split(), "[SEP]", *pieces, "[SEP]"]
    ids = torch.tensor([[WORDS.index(t) for t in tokens]])
    types = torch.tensor([[0] * (len(question.split()) + 2) + [1] * (len(pieces) + 1)])
    return tokens, network.rest(network.rows(ids), torch.ones_like(ids), types)[0].detach().numpy()


def best(both: np.ndarray, first: int, last: int) -> tuple[int, int]:
    return max(
        ((i, j) for i in range(first, last) for j in range(i, last)), key=lambda s: both[s[0], 0] + both[s[1], 1]
    )


@pytest.mark.parametrize("outputs", ["two", "swapped", "probabilities"])
def test_the_best_answer_is_explained_where_a_pair_is_given(written: Written, outputs: str) -> None:
    path, network = written(outputs)
    tokens, both = truth(network)
    first, last = best(both, 5, len(tokens) - 1)
    found = fgonnx.explain(path, text=(QUESTION, PASSAGE))[0]
    assert found.score == pytest.approx(both[first, 0] + both[last, 1], abs=1e-4)
    assert found.described.startswith("answer '")
    assert found.described.endswith("', the best")
    assert float(found.arrays.rounding_residual()[0]) < 1e-5


ASKED = {
    "answer=Paris": [("par", 0), ("##is", 1)],
    "answer=in london": [("in", 0), ("##don", 1)],
    "start=Paris": [("par", 0)],
    "end=Paris": [("##is", 1)],
    "start=6": [(6, 0)],
    "answer=6:8": [(6, 0), (8, 1)],
    "answer = where": [(1, 0), (1, 1)],
}


@pytest.mark.parametrize("outputs", ["two", "one"])
@pytest.mark.parametrize("target", ASKED)
def test_answers_by_their_text_and_by_places(written: Written, target: str, outputs: str) -> None:
    path, network = written(outputs)
    tokens, both = truth(network)
    places = [(tokens.index(p) if isinstance(p, str) else p, column) for p, column in ASKED[target]]
    found = fgonnx.explain(path, text=[(QUESTION, PASSAGE)], target=target)[0]
    assert found.score == pytest.approx(sum(both[p] for p in places), abs=1e-4)
    assert found.described.startswith(target.partition("=")[0].strip())


def test_the_gradient_of_an_answer_is_that_of_torch(written: Written) -> None:
    path, network = written()
    tokens, _ = truth(network)
    ids = torch.tensor([[WORDS.index(t) for t in tokens]])
    types = torch.tensor([[0] * 5 + [1] * (len(tokens) - 5)])
    rows = network.rows(ids).detach().requires_grad_()
    both = network.rest(rows, torch.ones_like(ids), types)[0]
    (both[tokens.index("par"), 0] + both[tokens.index("##is"), 1]).backward()
    explainer = TextExplainer(path, changes={"backward": "gradient", "input_gradient": True})
    found = explainer((QUESTION, PASSAGE), "answer=Paris")[0]
    own = slice(found.start, found.start + len(tokens))
    np.testing.assert_allclose(found.arrays.input_gradient[0, own], rows.grad[0], atol=1e-5)


def test_an_answer_that_is_there_twice_is_the_one_that_the_model_prefers(written: Written) -> None:
    path, network = written()
    tokens, both = truth(network)
    places = [i for i, t in enumerate(tokens) if t == "ada" and i > 4]
    found = fgonnx.explain(path, text=(QUESTION, PASSAGE), target="answer=Ada")
    assert found[0].score == pytest.approx(max(both[i].sum() for i in places), abs=1e-4)
    assert "is there 2 times" in found.html()


REFUSED = {
    "answer=Berlin": "does not hold 'Berlin'",
    "answer=9:70": "the text has the tokens 0 to",
    "answer=9:7": "the first one first",
    "start=": "what starts is missing",
}


@pytest.mark.parametrize("target", REFUSED)
def test_an_answer_that_is_not_there_is_refused(written: Written, target: str) -> None:
    with pytest.raises(TargetError, match=REFUSED[target]):
        fgonnx.explain(written()[0], text=(QUESTION, PASSAGE), target=target)


def test_one_text_and_the_start_of_a_token_stay_what_they_are(written: Written) -> None:
    path, network = written()
    _, both = truth(network)
    found = fgonnx.explain(path, text=(QUESTION, PASSAGE), target="token=6")[0]
    assert found.score == pytest.approx(both[6, 0], abs=1e-4)
    assert "answer" not in fgonnx.explain(path, text=PASSAGE)[0].described


def test_the_command_explains_and_records_an_answer(written: Written, tmp_path: Path) -> None:
    path, network = written()
    tokens, both = truth(network)
    call = ["explain", str(path), "--text", QUESTION, "--context", PASSAGE, "-o", str(tmp_path / "out")]
    result = run(*call, "--target", "answer=Paris")
    assert result.exit_code == 0, result.output
    assert "answer 'Paris'" in result.output
    (record,) = (json.loads(p.read_text()) for p in (tmp_path / "out").glob("*.json"))
    assert record["score"] == pytest.approx(both[tokens.index("par"), 0] + both[tokens.index("##is"), 1], abs=1e-4)
    assert record["explained"]["value"] == "start_logits, end_logits"
    assert run(*call, "--target", "answer=Berlin").exit_code == 2
    assert "the best" in run(*call).output


RATHER = {
    ("answer=Paris", "answer=London"): ([("par", 0), ("##is", 1)], [("lon", 0), ("##don", 1)]),
    ("start=Paris", "start=London"): ([("par", 0)], [("lon", 0)]),
    ("end=6", "end=8"): ([(6, 1)], [(8, 1)]),
    ("answer=6:8", "answer=6:9"): ([(8, 1)], [(9, 1)]),
    ("start=Paris", "end=Paris"): ([("par", 0)], [("##is", 1)]),
}


@pytest.mark.parametrize("outputs", ["two", "one", "probabilities"])
@pytest.mark.parametrize(("target", "contrast"), RATHER)
def test_one_answer_rather_than_another(written: Written, target: str, contrast: str, outputs: str) -> None:
    path, network = written(outputs)
    tokens, both = truth(network)
    sums = [
        sum(both[tokens.index(p) if isinstance(p, str) else p, column] for p, column in places)
        for places in RATHER[target, contrast]
    ]
    for found in (
        fgonnx.explain(path, text=[(QUESTION, PASSAGE)], target=target, contrast=contrast)[0],
        TextExplainer(path, changes={"contrast": contrast})([(QUESTION, PASSAGE)], target)[0],
    ):
        assert found.score == pytest.approx(sums[0] - sums[1], abs=1e-4)
        assert " rather than " in found.described
        assert float(found.arrays.rounding_residual()[0]) < 1e-5


def test_the_difference_of_answers_is_that_of_their_maps(written: Written) -> None:
    path, text = written()[0], [(QUESTION, PASSAGE)]
    one, other = (fgonnx.explain(path, text=text, target=f"answer={a}")[0].values for a in ("Paris", "London"))
    found = fgonnx.explain(path, text=text, target="answer=Paris", contrast="answer=London")[0]
    np.testing.assert_allclose(found.values, one - other, atol=1e-5)


def test_the_best_answer_rather_than_one_that_is_named(written: Written) -> None:
    path, network = written()
    tokens, both = truth(network)
    first, last = best(both, 5, len(tokens) - 1)
    found = fgonnx.explain(path, text=(QUESTION, PASSAGE), contrast="answer=Ada")[0]
    ada = max(both[i, 0] + both[i, 1] for i in range(5, len(tokens)) if tokens[i] == "ada")
    assert found.score == pytest.approx(both[first, 0] + both[last, 1] - ada, abs=1e-4)
    assert "', the best rather than answer 'a" in found.described


UNLIKE = {
    "another kind": (
        "answer=Paris",
        "next",
        r"contrast 'next' is no answer, .* give the other answer \(contrast='answer=",
    ),
    "an entry": ("answer=Paris", 3, "contrast '3' is no answer"),
    "of an entry": (3, "answer=Paris", r"contrast 'answer=Paris' is an answer, .* give an answer as well"),
    "the same": ("answer=Paris", "answer=paris", "target and contrast are the same: answer 'Paris'"),
    "not there": ("answer=Paris", "answer=Rome", "does not hold 'Rome'"),
}


@pytest.mark.parametrize("outputs", ["two", "one"])
@pytest.mark.parametrize("case", UNLIKE)
def test_contrasts_of_answers_that_are_none_are_refused(written: Written, case: str, outputs: str) -> None:
    target, contrast, why = UNLIKE[case]
    with pytest.raises(TargetError, match=why):
        fgonnx.explain(written(outputs)[0], text=[(QUESTION, PASSAGE)], target=target, contrast=contrast)


@pytest.mark.parametrize("target", [("--target", "answer=Paris"), ()])
def test_the_command_contrasts_answers(written: Written, target: tuple[str, ...], tmp_path: Path) -> None:
    asked = ("--text", QUESTION, "--context", PASSAGE, *target, "--contrast", "answer=London", "-o", tmp_path)
    result = run("explain", written()[0], *asked)
    assert result.exit_code == 0, result.output
    assert "rather than answer 'London'" in " ".join(result.output.split())
    made = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert made["completeness"]["rounding"] < 1e-5
