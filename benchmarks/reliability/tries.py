"""One try: what is drawn for a number, run in a process of its own, and judged."""

from __future__ import annotations

import importlib
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime

from benchmarks.reliability import mutate, seeds
from benchmarks.reliability.child import Ended, all_of, command, shown, tried

RIGHT, REFUSED, OTHERS = "right", "refused", "onnxruntime alone fails"
UNEXPECTED, FAULT, CRASH, HANG, WRONG = "unexpected error", "named a fault of fgonnx", "crash", "hang", "wrong output"
RAW, LEFT = "raw escape sequence", "file left behind"
GOOD = (RIGHT, REFUSED, OTHERS)
BAD = (UNEXPECTED, FAULT, CRASH, HANG, WRONG, RAW, LEFT)

FIELDS, BYTES, INPUTS, OPTIONS = "model, field by field", "model, bytes", "other files, bytes", "options"
KINDS = (FIELDS, FIELDS, BYTES, INPUTS, OPTIONS)

SECONDS = 40.0
"""Processor time of a try; the wall clock may show more on a busy machine."""

_APART = 90
_COMMANDS = ("explain", "inspect", "check", "rewrite", "compare", "evaluate")
_ODD = (
    *(
        "-1",
        "0",
        "1",
        "2",
        "3",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "1e-320",
        "9" * 30,
        "9" * 5000,
        "\u00b2",
        "",
        " ",
    ),
    *("x", ",", "=", "a=b", "a=1", "image=1", "image=zeros", "x=none.npy", "image=array.npy", "1,3,64,64", "1x3x64x64"),
    *("abs", "signed", "full", "logits", "output", "saliency", "argmax", "next", "star", "grad-cam", "occlusion"),
    *("\x1b[2J\x07", "\u202eabc", "\udcff", "a\x00b", "a" * 300, "a" * 5000, "none.json", "labels.csv", "fifo", "."),
    *("imagenet", "imagenet,size=8", "scale=1/0", "mean=nan", "size=0", "0:1", "5:2", "region=0:0:1:1,class=1"),
    *(
        "seed=array.npy",
        "best=x",
        "pixels=1",
        "nodes=1",
        "bound=1",
        "cpu",
        "cuda",
        "NCHW",
        "NHWC",
        "layer=x",
        "steps=0",
    ),
)


@dataclass(frozen=True)
class Try:
    """One try and its outcome.

    Attributes
    ----------
    number : int
        What it was drawn from, with the seed.
    kind : str
        What was mutated.
    about : str
        What was run.
    outcome : str
        One of GOOD or BAD.
    detail : str
        The last line that was written.
    seconds : float
        How long it ran.
    peak : int
        Largest memory in bytes.
    """

    number: int
    kind: str
    about: str
    outcome: str
    detail: str
    seconds: float
    peak: int


@cache
def _models() -> dict[str, bytes]:
    return seeds.models()


@cache
def _inputs() -> dict[str, bytes]:
    return seeds.inputs()


def prepare() -> None:
    """Make what all tries share, before the first fork, and import what a command imports when it is called."""
    for name in ("cli.terminal", *(f"cli.{what}" for what in _COMMANDS)):
        importlib.import_module(f"fgonnx.{name}")
    _models()
    _inputs()


def run(number: int, seed: int, keep: Path | None = None) -> Try:
    """Draw a try, run it and judge it; what came out badly is kept in a folder."""
    rng = random.Random(f"{seed}-{number}")
    kind = KINDS[number % len(KINDS)]
    with tempfile.TemporaryDirectory(prefix="fgonnx-try-") as name:
        folder = Path(name)
        arguments, task = _drawn(rng, kind, folder)
        before = {p.name for p in folder.iterdir()}
        ended = tried(task, SECONDS)
        outcome = judge(ended, folder, before)
        if outcome in (CRASH, HANG) and kind in (FIELDS, BYTES) and _fails_alone(folder / "m.onnx"):
            outcome = OTHERS
        if outcome in BAD and keep is not None:
            shutil.copytree(folder, keep / f"{seed}-{number}", dirs_exist_ok=True, ignore=_no_pipes)
    lines = [line for line in ended.text.splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("error", "unexpected"))), lines[-1] if lines else "")
    return Try(number, kind, shown(arguments), outcome, ascii(said)[:300], ended.seconds, ended.peak)


def judge(ended: Ended, folder: Path, before: set[str]) -> str:
    """Return the outcome of a process that ran in a folder."""
    if ended.timed_out or ended.signal == 24:  # SIGXCPU
        return HANG
    if ended.signal or ended.code is None:
        return CRASH
    if ended.code == _APART:
        return WRONG
    if ended.code not in (0, 1, 2, 3) or "Traceback (most recent call last)" in ended.text:
        return UNEXPECTED
    if re.search("[\x1b\x07\u202a-\u202e]", ended.text):
        return RAW
    if [p for p in folder.rglob("*") if p.name.startswith(".fgonnx-") and p.name not in before]:
        return LEFT
    if "fault of fgonnx" in ended.text:
        return FAULT
    return RIGHT if ended.code == 0 else REFUSED


def _drawn(rng: random.Random, kind: str, folder: Path) -> tuple[list[str], Callable[[], int]]:
    """Write the files of a try; return the command and the task."""
    if kind in (FIELDS, BYTES):
        return _of_a_model(rng, kind, folder)
    for name, content in _inputs().items():
        (folder / name).write_bytes(content)
    (folder / "shapes.onnx").write_bytes(_models()["shapes"])
    (folder / "mlp.onnx").write_bytes(_models()["mlp"])
    if kind == INPUTS:
        name = rng.choice(list(_inputs()))
        (folder / name).write_bytes(mutate.content(rng, _inputs()[name]))
        arguments = _reading(name)
    else:
        arguments = _odd_options(rng)
    return arguments, command(*arguments, folder=folder)


def _of_a_model(rng: random.Random, kind: str, folder: Path) -> tuple[list[str], Callable[[], int]]:
    source = _models()[rng.choice(list(_models()))]
    (folder / "m.onnx").write_bytes((mutate.model if kind == FIELDS else mutate.content)(rng, source))
    (folder / "picture.png").write_bytes(_inputs()["picture.png"])
    what = rng.choice(("rewrite", "rewrite", "inspect", "check", "explain"))
    if what == "rewrite":
        arguments = ["rewrite", "m.onnx", "-o", "out.onnx"]
        return arguments, all_of(command(*arguments, folder=folder), lambda: _compared(folder))
    more = {"explain": ["picture.png", "-o", "out", "--preprocess", "unit", "--no-cache"], "check": ["--samples", "1"]}
    arguments = [what, "m.onnx", *more.get(what, [])]
    return arguments, command(*arguments, folder=folder)


def _reading(name: str) -> list[str]:
    """Return a command that reads a file of that kind."""
    plain = ["explain", "shapes.onnx", "picture.png", "-o", "out", "--no-cache"]
    if name.startswith("picture") or name == "array.npy":
        return ["explain", "shapes.onnx", name, "-o", "out", "--no-cache", "--preprocess", "unit"]
    if name == "data.npz":
        return ["evaluate", "shapes.onnx", name, "-o", "out", "--measures", "insertion", "--no-cache"]
    if name == "sound.wav":
        return ["explain", "mlp.onnx", name, "-o", "out", "--span", "0:6", "--no-cache"]
    if name == "preprocess.json":
        return [*plain, "--preprocess", name]
    return [*plain, "--preprocess", "unit", "--labels", name]


def _odd_options(rng: random.Random) -> list[str]:
    """Return a command on good files, with one to three options at odd values."""
    what = rng.choice(("explain", "explain", "inspect", "check", "rewrite", "compare"))
    arguments = {
        "explain": ["explain", "shapes.onnx", "picture.png", "-o", "out", "--no-cache", "--preprocess", "unit"],
        "inspect": ["inspect", "shapes.onnx"],
        "check": ["check", "shapes.onnx"],
        "rewrite": ["rewrite", "shapes.onnx", "-o", "out.onnx"],
        "compare": ["compare", "shapes.onnx", "shapes.onnx", "picture.png", "--preprocess", "unit", "--no-cache"],
    }[what]
    flags = [f for f in _flags(what) if f not in ("--output-dir", "--output-file", "--help", "--pictures")]
    for flag in rng.sample(flags, rng.choice((1, 1, 2, 3))):
        arguments += [flag] if _is_switch(what, flag) else [flag, rng.choice(_ODD)]
    return arguments


@cache
def _options(what: str) -> dict[str, bool]:
    """Return the flags of a command, and whether each is a switch."""
    found = {}
    function = importlib.import_module(f"fgonnx.cli.{what}").command
    for name, parameter in signature(function).parameters.items():
        kind, *marks = get_args(parameter.annotation) or (parameter.annotation,)
        for mark in marks:
            if type(mark).__name__ == "OptionInfo":
                declared = [d for d in mark.param_decls or () if d.startswith("--")]
                flag = (declared or [f"--{name.replace('_', '-')}"])[0].partition("/")[0]
                found[flag] = kind is bool
    return found


def _flags(what: str) -> Sequence[str]:
    return list(_options(what))


def _is_switch(what: str, flag: str) -> bool:
    return _options(what)[flag]


def _compared(folder: Path) -> int:
    """Compare the outputs of a written file with its source's, in onnxruntime alone; a code where they differ."""
    source, written = (_session(folder / name) for name in ("m.onnx", "out.onnx"))
    if source is None or written is None:
        return 0 if source is None else _APART
    names = [o.name for o in source.get_outputs()]
    if not set(names) <= {o.name for o in written.get_outputs()}:
        return 0  # outputs that are no tensors, or that do not answer to the samples, are set aside, with a note
    for fed in _feeds(source):
        try:
            wanted = source.run(names, fed)
        except Exception:  # another size may run
            continue
        try:
            found = written.run(names, fed)
        except Exception:
            return _APART
        return 0 if all(map(_alike, wanted, found)) else _APART
    return 0


def _session(path: Path) -> onnxruntime.InferenceSession | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions have no common base
        return None


def _feeds(session: onnxruntime.InferenceSession) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    kinds = {"float": np.float32, "double": np.float64, "float16": np.float16, "int64": np.int64, "bool": np.bool_}
    needed = [i for i in session.get_inputs() if i.name not in {o.name for o in session.get_overridable_initializers()}]
    for size in (1, 8, 6):
        fed = {}
        for i in needed:
            shape = [d if isinstance(d, int) else (1 if axis == 0 else size) for axis, d in enumerate(i.shape)]
            dtype = kinds.get(i.type[7:-1], np.uint8)
            if np.prod(shape, dtype=np.float64) > 1e7:
                return
            fed[i.name] = rng.uniform(0, 1 if np.dtype(dtype).kind == "f" else 2, shape).astype(dtype)
        yield fed


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "fiub":
        return bool(np.array_equal(a, b))
    if a.size != b.size:
        return False
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    if not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return False
    finite = np.isfinite(x)
    apart = np.abs(x - y)[finite].max(initial=0)
    return bool(apart <= 2e-3 * max(float(np.abs(x)[finite].max(initial=0)), 1e-3))


def _fails_alone(path: Path) -> bool:
    """Tell whether onnxruntime alone crashes or hangs on a file."""

    def opened() -> int:
        session = _session(path)
        for fed in _feeds(session) if session is not None else ():
            try:
                session.run(None, fed)
            except Exception:  # refused: that is no crash
                continue
        return 0

    ended = tried(opened, SECONDS)
    return ended.timed_out or ended.signal != 0


def _no_pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_fifo()]
