"""A bag of words whose scores are known by hand: what every word adds to two classes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import parser

from tests import skips

WORTH = {"[PAD]": 0.0, "the": 0.0, "film": 0.25, "was": 0.0, "good": 2.0, "superb": 4.0, "bad": -3.0, "not": -1.0}
"""What a word adds to the class good; it adds nothing to the class bad."""
WORDS = tuple(WORTH)
LABELS = ("bad", "good")


def sums(extra: str = "", scale: float = 1.0) -> onnx.ModelProto:
    """Return a model that adds up what the words are worth, behind a Relu that does nothing to a row of 1.

    Parameters
    ----------
    extra : str
        Nodes behind the scores s: they give y.
    scale : float
        What all words are worth, times.
    """
    table = ", ".join(f"0, {scale * v}, 1" for v in WORTH.values())
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        bag (int64[N,T] ids) => (float[N,2] y)
          <float[{len(WORDS)},3] table = {{{table}}}, float[3,2] w = {{1,0, 0,1, 0,0}}, int64[1] axis = {{1}}> {{
            rows = Gather(table, ids) h = ReduceSum<keepdims=0>(rows, axis) s = MatMul(h, w)
            {extra or "y = Identity(s)"} }}"""
    )


def tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> None:
    """Write a tokenizer.json of whole words."""
    tokenizers = skips.without("tokenizers")
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="the"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.enable_padding(pad_id=0, pad_token="[PAD]")
    own.save(str(path))


def written(folder: Path, name: str = "bag.onnx", extra: str = "", scale: float = 1.0) -> Path:
    """Write the model with its tokenizer beside it."""
    folder.mkdir(exist_ok=True)
    onnx.save(sums(extra, scale), folder / name)
    tokenizer(folder / "tokenizer.json")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder / name
