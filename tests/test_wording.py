"""Messages name parameters as they are spelled where they were given: in Python, or on the command line."""

import ast
import re
import wave
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.audit.check import Thoroughness
from fgonnx.cli.flags import on_the_command_line
from fgonnx.errors import OptionError
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import Reading
from fgonnx.wording import parameter, shortened
from tests.cli_support import CIRCLE, HEADER, IMAGES, ROOT, SHAPES, SMALL, model, refused

OPTION_CLASSES = (fgonnx.Options, fgonnx.Running, Reading, Limits, Plan, Thoroughness)
OTHERS = {"references", "framework", "example_input"}
OF_TEXTS = {"channels", "by"}  # keys in the text of a preprocessing or a target, too, which are spelled so everywhere
PARAMETERS = {f.name for cls in OPTION_CLASSES for f in fields(cls)} - OF_TEXTS | OTHERS
BARE = re.compile(rf"(?<![\w.,(-])({'|'.join(PARAMETERS)})=(?!\w*\.npy)")

TWO_INPUTS = (
    HEADER
    + """
g (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,4] y) <float[4,3,3,3] w = {WEIGHTS}>
{ a = Add(x, z)  c = Conv<pads=[1,1,1,1]>(a, w)  r = Relu(c)  p = GlobalAveragePool(r)  y = Flatten(p) }"""
)
FREE = SMALL.replace("float[N,3,8,8]", "float[N,3,H,W]")


def test_a_parameter_in_a_message():
    error = OptionError(f"{parameter('psi', 'absolute')} does not exist, nor does {parameter('references')}")
    assert str(error) == "psi='absolute' does not exist, nor does references="
    assert error.spelled(lambda name, value: f"<{name}|{value}>") == (
        "<psi|'absolute'> does not exist, nor does <references|>"
    )


def test_a_long_value_is_cut_and_an_array_told_by_its_shape():
    assert str(OptionError(parameter("a", "x" * 100))).endswith("xxx...")
    assert str(OptionError(parameter("a", np.zeros((2, 3))))) == "a=array of shape (2, 3)"


@pytest.mark.parametrize(
    ("name", "value", "flags", "spelled"),
    [
        ("psi", "'signed'", {"psi": "--psi"}, "--psi signed"),
        ("input_shape", "(1, 3)", {"input_shape": "--input-shape"}, "--input-shape 1,3"),
        ("threads", "2", {"threads": "--threads"}, "--threads 2"),
        ("output", "", {"output": "--output"}, "--output"),
        ("steps", "3", {"settings": "--set"}, "--set steps=3"),
        ("references", "", {"settings": "--set"}, "--set references="),
        ("seed", "", {"target": "--target"}, "--target seed=FILE.npy"),
        ("seed", "True", {"target": "--target", "seed": "--seed"}, "--seed True"),
        ("labels", "'a b.txt'", {"labels": "--labels"}, "--labels a b.txt"),
        ("wrt", "3", {}, "wrt=3"),
    ],
)
def test_on_the_command_line(name, value, flags, spelled):
    assert on_the_command_line(name, value, flags) == spelled


@pytest.fixture
def files(tmp_path):
    """Models and inputs that give messages, by name."""
    model(TWO_INPUTS, tmp_path / "two.onnx")
    model(FREE, tmp_path / "free.onnx")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 32, "NONE", ""))
        file.writeframes(bytes(64))
    text = "g (float[N,T] x) => (float[N,2] y) <float[8,2] w = {" + ",".join(["0.5"] * 16) + "}> { y = MatMul(x, w) }"
    model(HEADER + text, tmp_path / "sound.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("explain SHAPES CIRCLE -o OUT --method expected-gradients", "needs --set references="),
        (
            "explain SHAPES CIRCLE -o OUT --method grad-cam --set layer=conv",
            "--set layer=conv is no value with",
        ),
        ("explain SHAPES CIRCLE -o OUT --method rise --set cells=0", "--set cells=0 is out of range"),
        (
            "explain SHAPES CIRCLE -o OUT --target region=0:0:1:1",
            "yourself (--target seed=FILE.npy)",
        ),
        ("explain SHAPES CIRCLE -o OUT --layout NHW", "--layout"),
        ("explain two.onnx x.npy -o OUT", "name one (--input), or fix the others (--bind)"),
        ("explain two.onnx x.npy -o OUT --input x", "fix inputs beforehand (--bind)"),
        ("inspect free.onnx --input-shape 1,3", "does not fit its input"),
        ("rewrite free.onnx -o r.onnx", "free sizes; give them (--input-shape 1,3,224,224)"),
        (
            "explain sound.onnx a.wav -o OUT",
            "or of a recording the part that it is made for (--span)",
        ),
        ("explain sound.onnx a.wav -o OUT --span 9:2", "--span 9:2 holds no sample"),
        ("convert nothing.py:x -o r.onnx --framework kerass", "--framework kerass does not exist"),
        ("convert nothing.py:x -o r.onnx --framework torch --exporter dynam", "gives no network"),
        ("evaluate SHAPES IMAGES -o OUT --methods fullgrad,grad-kam", "(did you mean 'grad-cam'?)"),
        ("explain SHAPES CIRCLE -o OUT --output logit", "(did you mean 'logits'?)"),
        ("explain SHAPES CIRCLE -o OUT --input imge", "(did you mean 'image'?)"),
        ("explain two.onnx x.npy -o OUT --bind zz=0", "has no input 'zz' that could be bound; it has: x, z"),
        ("explain SHAPES CIRCLE -o OUT --target best=star,frist=5", "did you mean 'first'"),
    ],
)
def test_messages_name_flags(command, said, files, monkeypatch):
    monkeypatch.chdir(files)
    named = {"SHAPES": SHAPES, "CIRCLE": CIRCLE, "IMAGES": IMAGES, "OUT": "out"}
    message = refused(*(named.get(word, word) for word in command.split()))
    assert said in message
    assert BARE.findall(message.replace("--set ", "--set-").replace("--target ", "--target-")) == [], message


SOURCES = [*(ROOT / "fgonnx").rglob("*.py"), *(ROOT / "converters").rglob("*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_errors_mark_the_parameters_that_they_name(path):
    bare = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if not called.endswith("Error"):
            continue
        texts = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
        bare += [text for text in texts if BARE.search(text)]
    assert bare == [], "write fgonnx.wording.parameter('name'), so that the command line can spell it its own way"


def test_models_are_as_they_are_said_to_be(files):
    assert [i.name for i in onnx.load(files / "two.onnx").graph.input] == ["x", "z"]
    assert Path(files / "a.wav").stat().st_size == 108


LONG = "encoder/stages/2/blocks/{}/attention/self/query/BiasAdd;encoder/stages/2/blocks/attention/self/query/MatMul"
NAMES_OF_SITES = {
    "they differ in the middle": [LONG.format(i) for i in range(12)],
    "they differ at the end": [f"{'model/' * 20}{i}" for i in range(12)],
    "they differ at the beginning": [f"{i}{'/model' * 20}" for i in range(12)],
    "short ones": ["a", "b", "input"],
    "they differ in two places": [f"{'x' * 40}{i}{'y' * 40}{j}{'z' * 40}" for i in range(4) for j in range(4)],
    "one is the beginning of another": ["a" * 90, "a" * 91, "a" * 92],
    "one looks like a shortened other": [
        "a" * 20 + "b" * 80 + "c" * 20,
        "a" * 20 + "d" * 80 + "c" * 20,
        "a" * 20 + "...",
    ],
}


@pytest.mark.parametrize("most", [24, 56, 64])
@pytest.mark.parametrize("names", NAMES_OF_SITES.values(), ids=NAMES_OF_SITES)
def test_names_are_shortened_and_stay_different(names, most):
    found = shortened(names, most)
    assert len(set(found)) == len(names)
    assert max(map(len, found)) <= most
    assert [f for f, name in zip(found, names, strict=True) if len(name) <= most and f != name] == []
