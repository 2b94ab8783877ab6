"""What the pages print runs as it is printed: Python from top to bottom of a page, commands one by one.

Blocks of ``python`` and ``sh`` are run, in a folder with the examples of this repository and with files of the names
that the pages give to the reader's own; blocks of ``text`` are output. The pages of the converters have tests of their
own, as each needs its framework.
"""

import json
import re
import shlex
import shutil
import wave
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import parser

from fgonnx.engine.graph.providers import TRAINING
from tests import skips
from tests.cli_support import HEADER, IMAGES, ROOT, SHAPES, SMALL, good, model
from tests.support import forgetting

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "examples" / "README.md"]
BLOCKS = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_OURS = ("pip", "pytest", "nox", "python", "git", "bash", "curl")
SLOW = ("all",)  # of methods or measures
CLASSES = ("tabby cat", "person", "tiger cat", "dog")
VALIDATION = ("val/0/photo.png", "val/1/other.png")

DETECTOR = (
    HEADER
    + """
g (float[N,3,8,8] x) => (float[N,64,7] y) <float[7,3,1,1] w = {1,0,0, 0,1,0, 0,0,1, 1,1,0, 0,1,1, 1,0,1, 1,1,1},
  int64[3] s = {-1, 64, 7}>
{ c = Conv(x, w)  t = Transpose<perm=[0,2,3,1]>(c)  y = Reshape(t, s) }"""
)
FACES = (
    HEADER
    + """
g (float[N,3,8,8] x) => (float[N,64,2] scores, float[N,64,4] boxes)
  <float[2,3,1,1] w = {1,0,0, 0,1,0}, float[4,3,1,1] v = {1,0,0, 0,1,0, 0,0,1, 1,1,1}, int64[3] s = {-1, 64, 2},
   int64[3] b = {-1, 64, 4}>
{ c = Conv(x, w)  t = Transpose<perm=[0,2,3,1]>(c)  p = Reshape(t, s)  scores = Softmax(p)
  d = Conv(x, v)  u = Transpose<perm=[0,2,3,1]>(d)  boxes = Reshape(u, b) }"""
)
VOICE = (
    HEADER
    + """
g (float[N,T] input, float[1,4] state, int64 sr) => (float[N,1] y) <int64[1] axis = {1}>
{ e = Mul(input, input)  s = ReduceSum(e, axis)  k = Cast<to=1>(sr)  r = Div(s, k)  m = ReduceSum(state, axis)
  y = Add(r, m) }"""
)
SENTIMENT = (
    HEADER
    + """
g (int64[N,T] ids) => (float[N,3] y) <float[9,2] w = {0,0, 0,0, 0,0, 0,0, 1,0, 0,1, 0,0, -1,1, 0,0},
  float[2,3] v = {-1,1,0, 1,-1,0}, int64[1] axis = {1}>
{ e = Gather(w, ids)  s = ReduceSum<keepdims=0>(e, axis)  y = MatMul(s, v) }"""
)
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {
        "type": "WordLevel",
        "vocab": {w: i for i, w in enumerate(["?", "a", "it", "is", "lovely", "tedious", "film", "never"])},
        "unk_token": "?",
    },
}
ECG = (
    HEADER
    + """
g (float[N,3,16] x) => (float[N,2] y) <float[2,3,3] k = {1,0,1, 0,1,0, 1,1,0, 0,0,1, 1,0,0, 0,1,1}, int64[1] t = {2}>
{ c = Conv<pads=[1,1]>(x, k)  r = Relu(c)  y = ReduceMean<keepdims=0>(r, t) }"""
)
RISK = (
    HEADER
    + """
g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 0, 0, 1, 1, 1}, float[2] b = {0.5, 0.1}>
{ l = Gemm(x, w, b)  y = Softmax(l) }"""
)
PIPELINE = (
    HEADER
    + """
g (float[N,1] age, float[N,1] dose, float[N,1] weight) => (float[N,2] y) <float[3,2] w = {1, 0, 0, 1, 1, 1}>
{ all = Concat<axis=1>(age, dose, weight)  l = MatMul(all, w)  y = Softmax(l) }"""
)
WORDS = (
    HEADER
    + """
g (float[N,1,8,12] x) => (float[N,2] y) <float[2,1,3,3] w = {1,0,1, 0,1,0, 1,0,1, 0,1,0, 1,1,1, 0,1,0}>
{ c = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(c)  p = GlobalAveragePool(r)  y = Flatten(p) }"""
)
UINT8 = SMALL.replace("float[N,3,8,8] x", "uint8[N,3,8,8] u").replace("{ c =", "{ x = Cast<to=1>(u)  c =")


def blocks(page):
    return BLOCKS.findall(page.read_text(encoding="utf-8"))


def commands(page):
    """Return the commands of a page, lines that end in a backslash joined."""
    text = "".join(body for language, body in blocks(page) if language == "sh").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder like a reader's: the examples, and files of the reader's own."""
    (tmp_path / "examples").mkdir()
    shutil.copy(SHAPES, tmp_path / "examples")
    shutil.copy(SHAPES.with_name("parts.onnx"), tmp_path / "examples")
    shutil.copy(SHAPES.with_name("marked.onnx"), tmp_path / "examples")
    shutil.copytree(IMAGES, tmp_path / "examples" / "images")
    for name in ("circle", "star"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        shutil.copy(IMAGES / f"{name}.png", tmp_path / "pictures" / name)
    x = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    without = np.stack([np.where(np.arange(64) // 16 == part, 0, x.mT).mT for part in range(4)], axis=1)
    np.savez(tmp_path / "parts.npz", x=x, y=np.array([0, 1]), without=without.astype(np.uint8))
    for name in ("model", "float", "int8", "approved", "release", "old", "new", "mobilenet_fp32"):
        model(SMALL, tmp_path / f"{name}.onnx")
    model(UINT8, tmp_path / "mobilenet_uint8.onnx")
    for name, text in (("yolox", DETECTOR), ("ultraface", FACES), ("vad", VOICE)):
        model(text, tmp_path / f"{name}.onnx")
    for name, text in (("ecg", ECG), ("risk", RISK), ("pipeline", PIPELINE), ("words", WORDS)):
        model(text, tmp_path / f"{name}.onnx")
    for name, header, rows in (("beats", "I,II,V1", 16), ("night", "I,II,V1", 40), ("patients", "age,dose,weight", 3)):
        cells = np.random.default_rng(0).normal(size=(rows, 3)).round(3)
        lines = [header, *(",".join(map(str, row)) for row in cells)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    np.save(tmp_path / "mel.npy", np.ones((1, 8, 12), np.float32))
    for folder in ("photos", "masks", "val/0", "val/1"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("photos/photo.png", "photo.jpg", "street.jpg", "group.jpg", "masks/photo.png", *VALIDATION):
        shutil.copy(IMAGES / "circle.png", tmp_path / file)
    for name in ("sentiment", "sentiment-int8"):
        model(SENTIMENT, tmp_path / f"{name}.onnx")
    (tmp_path / "reviews.csv").write_text("review,label\na lovely film,1\nit is never tedious,1\n")
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (tmp_path / "labels.txt").write_text("bad\ngood\nneither")
    (tmp_path / "synset.txt").write_text("\n".join(CLASSES))
    (tmp_path / "coco.txt").write_text("person\ncar")
    np.save(tmp_path / "state.npy", np.zeros((1, 4), np.float32))
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((1000 * np.sin(np.arange(6000))).astype("<i2").tobytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_block_is_run_or_marked_as_output(page):
    assert {language for language, _ in blocks(page)} <= {"python", "sh", "text"}


WITH_PYTHON = [p for p in PAGES if any(language == "python" for language, _ in blocks(p))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda p: p.stem)
def test_python_runs_from_top_to_bottom(page, reader, monkeypatch):
    forgetting(monkeypatch)
    if page.stem == "training" and not TRAINING:
        skips.now(skips.TRAINING, page.stem)
    namespace = {"__name__": page.stem}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), namespace)


PRINTED = [(p.stem, line) for p in PAGES for line in commands(p)]


@pytest.mark.parametrize(
    ("page", "line"),
    [pytest.param(*c, marks=[pytest.mark.slow] if any(a in SLOW for a in shlex.split(c[1])) else []) for c in PRINTED],
)
def test_commands_run(page, line, reader):
    for command in line.split(" && "):
        program, *arguments = shlex.split(command, comments=True)
        if program in NOT_OURS:
            continue
        assert program == "fgonnx"
        if arguments[0] == "serve" or "--serve" in arguments:  # it would not end: test_serve_page.py, test_view_page.py
            continue
        if arguments[0] == "convert" and find_spec("keras") is None:
            skips.now(skips.PACKAGE, "keras")
        good(*arguments)


def test_the_pages_of_the_api_show_signatures_as_text():
    for page in (ROOT / "docs" / "api").glob("*.md"):
        assert {language for language, _ in blocks(page)} <= {"text", "pycon"}, page.name


def test_models_of_the_reader_are_valid():
    for text in (DETECTOR, FACES, VOICE):
        assert parser.parse_model(text).graph.output
