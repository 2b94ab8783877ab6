"""Recordings and tables in explain, check and compare: the same options, and messages that name what a command has."""

import json
import wave

import numpy as np
import onnx
import pytest

from fgonnx.cli import cells
from fgonnx.pictures.show import waterfall
from fgonnx.pictures.show.sheet import Certificate
from tests.cli_support import HEADER, good, model, refused, run

WEIGHTS = ",".join(f"{0.1 * (i % 7) - 0.25:.2f}" for i in range(32))
SERIES = (
    f"{HEADER} g (float[N,2,8] x) => (float[N,2] y) <float[16,2] w = {{{WEIGHTS}}}> "
    "{ f = Flatten(x) t = Tanh(f) y = MatMul(t, w) }"
)
SOUND = (
    f"{HEADER} g (float[N,8] x) => (float[N,2] y) <float[8,2] w = {{{','.join(['0.5', '-0.25'] * 8)}}}> "
    "{ y = MatMul(x, w) }"
)


@pytest.fixture
def files(tmp_path):
    model(SERIES, tmp_path / "series.onnx")
    model(SOUND, tmp_path / "sound.onnx")
    values = np.sin(np.arange(60).reshape(20, 3))
    for name, rows in (("long", 20), ("right", 8), ("short", 5)):
        text = "\n".join(",".join(f"{v:.4f}" for v in row) for row in values[:rows])
        (tmp_path / f"{name}.csv").write_text(f"a,b,c\n{text}\n")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 20, "NONE", ""))
        file.writeframes((100 * np.arange(20)).astype("<i2").tobytes())
    return tmp_path


def arguments(command, files, net, name, *options):
    models = [files / f"{net}.onnx"] * (2 if command == "compare" else 1)
    out = () if command == "check" else ("-o", files / "out")
    return command, *models, files / name, *out, *options


COMMANDS = ("explain", "check", "compare")
GIVEN = {
    "part of a table": ("series", "long.csv", "--channels", "a,b", "--span", "3:11"),
    "a short table": ("series", "short.csv", "--channels", "a,b", "--pad", "zero"),
    "a rate with a fraction": ("series", "right.csv", "--channels", "c,a", "--rate", "12.5"),
    "part of a recording": ("sound", "a.wav", "--span", "4:12", "--rate", "8000"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_options_of_recordings(command, given, files):
    assert run(*arguments(command, files, *given)).exit_code in ((0, 3) if command == "check" else (0,))


REFUSED = {
    "too long": (("series", "long.csv", "--channels", "a,b"), "--span 0:8"),
    "too short": (("series", "short.csv", "--channels", "a,b"), "--pad zero"),
    "other columns": (
        (
            "series",
            "right.csv",
        ),
        "--channels a,b",
    ),
    "an empty part": (("sound", "a.wav", "--span", "16:0"), "--span 16:0 holds no sample"),
    "no rate": (("sound", "a.wav", "--rate", "0"), "--rate"),
    "another rate": (("sound", "a.wav", "--span", "0:8", "--rate", "44100"), "ffmpeg -i IN.wav -ar 44100 OUT.wav"),
    "a rate of no recording": (("sound", "a.wav", "--span", "0:8", "--rate", "12.5"), "no .wav file has that"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_messages_name_options_of_the_command(command, given, message, files):
    said = refused(*arguments(command, files, *given))
    assert message in said
    assert "span=" not in said


@pytest.mark.parametrize("command", ["check", "compare"])
def test_sliding_is_left_to_explain(command, files):
    said = refused(*arguments(command, files, "series", "long.csv", "--channels", "a,b"))
    assert "'fgonnx explain' with --slide 8" in said


@pytest.mark.parametrize(("rate", "kept"), [("12.5", 12.5), ("100", 100), ("100.0", 100), ("0.2", 0.2)])
def test_a_rate_may_have_a_fraction(rate, kept, files):
    good(*arguments("explain", files, "series", "right.csv", "--channels", "a,b", "--rate", rate))
    record = json.loads((files / "out" / "right.json").read_text())
    assert (record["series"]["rate"], record["settings"]["rate"]) == (kept, kept)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("rate", ["8000", "8000.0"])
def test_the_rate_of_the_metadata_counts(command, rate, files):
    proto = onnx.load(files / "sound.onnx")
    onnx.helper.set_model_props(proto, {"fgonnx.rate": rate})
    onnx.save(proto, files / "sound.onnx")
    good(*arguments(command, files, "sound", "a.wav", "--span", "0:8"))
    onnx.helper.set_model_props(proto, {"fgonnx.rate": "16000.5"})
    onnx.save(proto, files / "sound.onnx")
    assert "the model takes 16000.5" in refused(*arguments(command, files, "sound", "a.wav", "--span", "0:8"))


def test_a_comparison_says_how_its_files_were_read(files):
    good(*arguments("compare", files, "series", "long.csv", "--channels", "a,b", "--span", "3:11"))
    summary = json.loads((files / "out" / "summary.json").read_text())
    assert summary["settings"]["span"] == [3, 11]
    assert summary["command"][summary["command"].index("--span") + 1] == "3:11"


def test_options_of_recordings_need_one(files):
    np.save(files / "x.npy", np.zeros((2, 8), np.float32))
    for command in ("check", "compare"):
        said = refused(*arguments(command, files, "sound", "x.npy", "--span", "0:4"))
        assert "--span 0:4 has no effect: no recording is among the inputs" in said
    assert "no recording" in refused("check", files / "sound.onnx", "--rate", "8000")


@pytest.mark.parametrize("command", COMMANDS)
def test_text_is_no_picture(command, files):
    (files / "long.txt").write_text((files / "long.csv").read_text())
    assert "'fgonnx explain'" in (said := refused(*arguments(command, files, "series", "long.txt")))
    assert "is text: tables are read from .csv and .tsv files" in said


@pytest.mark.parametrize("value", [-0.0, 0.0, -1e-9])
@pytest.mark.parametrize(("form", "shown"), [("+.3f", "0.000"), (".1%", "0.0%")])
def test_zero_has_no_sign(value, form, shown):
    assert cells.number(value, form) == shown


@pytest.mark.parametrize(
    ("paths", "rows", "name"),
    [
        (["a.png", "b.jpg"], False, "picture"),
        (["a.csv"], True, "row"),
        (["a.csv", "b.wav"], False, "recording"),
        (["a.npy"], False, "sample"),
        (["a.npy", "b.png"], False, "sample"),
    ],
)
def test_tables_call_samples_what_they_are(paths, rows, name):
    assert cells.called(paths, rows=rows) == name


def test_few_bars_need_a_low_picture():
    few = waterfall.rows(["a", "b"], ["1", "2"], [0.5, -0.25], 0.1)
    assert waterfall.draw(few, 0.35, Certificate("t")).shape[0] < 300
