"""Files beside a model, of any shape: each is read, or refused with an error of fgonnx; none reaches a terminal raw."""

from __future__ import annotations

import json
import re
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import labels
from fgonnx.cli.escaped import as_json, printable
from fgonnx.errors import FgonnxError, InputError, PreprocessingError
from fgonnx.pictures.read import audio, images
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.show.sheet import Sheet
from tests.cli_support import CIRCLE, SHAPES, good, refused, run

DEEP = "[" * 100_000 + "]" * 100_000
JSON = (
    *("5", "null", '"a"', "{}", "[]", "[1]", "[[1]]", "[null]", '["a", NaN]', '["a"] more', "1e999", "", "\x00", DEEP),
    *('{"0": 1}', '{"x": "a"}', '{"-1": "a"}', '{"1": "a"}', '{"\u00b2": "a"}', '{"99999999999999999999": "a"}'),
    *(f'{{"{"9" * 5000}": "a"}}', f"[{'9' * 5000}]", '{"a": ' * 3000),
)
CSV = ("a,0\nb,1,2\n", 'a"b,c\n"', "a," + "9" * 5000, "x" * 200_000 + ",0", ",\n,\n", "a\n", "a,\u00b2\n")
PREPROCESSING = (
    *('{"size": [-1, 2]}', '{"size": []}', '{"size": 1e308}', '{"mean": [[1]]}', '{"mean": null, "std": 0}'),
    *('{"scale": NaN}', '{"scale": [1, 2]}', '{"std": [0, 0, 0]}', '{"layout": ["NCHW"]}', '{"channels": 5}'),
    *(f'{{"size": {"9" * 5000}}}', f'{{"resize_to": {"9" * 5000}}}', '{"scale": -1e400}', '{"background": "x"}'),
)


@pytest.mark.parametrize("text", JSON)
def test_labels_of_any_json(text: str) -> None:
    with pytest.raises(InputError, match=r"^labels:? "):
        labels.from_json(text, "labels")


@pytest.mark.parametrize("text", CSV)
def test_labels_of_any_csv(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"label file '.*a\.csv'"):
        labels.load(tmp_path / "a.csv")


@pytest.mark.parametrize("text", [*PREPROCESSING, *(t for t in JSON if t != "{}")])
def test_preprocessing_of_any_json(text: str) -> None:
    with pytest.raises(PreprocessingError):
        Preprocessing.from_json(text)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv", "a.json"):
        (tmp_path / name).write_bytes(b"caf\xe9,0\n")
        with pytest.raises(InputError, match="is not UTF-8 text"):
            labels.load(tmp_path / name)


def wav(rate: int = 8000, channels: int = 1, bits: int = 16, kind: int = 1, content: bytes = bytes(64)) -> bytes:
    form = struct.pack("<HHIIHH", kind, channels, rate, 0, 2, bits)
    return b"RIFF....WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(content)) + content


RECORDINGS = {
    "rate 0": wav(rate=0),
    "no channels": wav(channels=0),
    "more channels than samples": wav(channels=65535),
    "no bits": wav(bits=0),
    "NaN": wav(kind=3, bits=32, content=struct.pack("<f", float("nan")) * 4),
    "cut off": wav()[:60],
    "nothing": wav(content=b""),
}


@pytest.mark.parametrize("kind", RECORDINGS)
def test_hostile_recordings(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(RECORDINGS[kind])
    with pytest.raises(InputError, match=r"a\.wav'"):
        audio.read(tmp_path / "a.wav")


def bitmap(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head + bytes(100)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PICTURES = {
    "bmp": bitmap(30000, 30000),
    "ppm": b"P6\n40000 40000\n255\n" + bytes(100),
    "png": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", b"x"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_that_announce_too_many_pixels_are_not_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a.{kind}").write_bytes(PICTURES[kind])
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(InputError, match=rf"a\.{kind}' has .* pixels, more than the bound"):
        images.read(tmp_path / f"a.{kind}")


NAMES = ("\udc80", "\ud800 cat", "\x1b[2J\x07", "\u202egnp", "x" * 9000, "\u732b" * 9000, "e" + "\u0301" * 9000)


@pytest.mark.parametrize("name", NAMES)
def test_any_label_is_drawn_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps([f"{name}{i}" for i in range(6)]), encoding="utf-8")
    begin = time.process_time()
    sheet = Sheet(360, 100)
    sheet.write(sheet.fitted(name, 430, 15), 0, 30, 15)
    assert time.process_time() - begin < 10
    given = ("--labels", tmp_path / "labels.json", "--preprocess", "unit", "--no-cache")
    said = good("explain", SHAPES, CIRCLE, "-o", tmp_path / "out", *given)
    assert not re.search("[\x1b\x07\u202e\ud800-\udfff]", said)


def test_short_texts_are_drawn_as_before() -> None:
    sheet = Sheet(360, 100)
    text = "abc " * 200
    assert sheet.fitted(text, 100, 11, head=0).endswith("abc")
    assert sheet.fitted("abc", 100, 11) == "abc"


@pytest.mark.parametrize("sign", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\r", "\u061c", "\u200e", "\u202e", "\u2069"])
def test_what_a_terminal_would_obey_is_written_out(sign: str) -> None:
    assert sign not in printable(f"a{sign}b")
    shown = as_json({"name": f"a{sign}b", "more": "\u00e9"}, "utf-8")
    assert sign not in shown
    assert json.loads(shown) == {"name": f"a{sign}b", "more": "\u00e9"}
    assert as_json("\u00e9", "ascii").isascii()


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--json"), ("explain", CIRCLE, "--preprocess", "unit")])
@pytest.mark.parametrize("place", ["labels", "node", "producer", "file"])
def test_escape_sequences_of_a_model_do_not_reach_the_terminal(
    command: tuple[str, ...], place: str, tmp_path: Path
) -> None:
    proto, text = onnx.load(SHAPES), "\x1b]0;title\x07\u202e"
    if place == "labels":
        entry = next(p for p in proto.metadata_props if p.key == labels.METADATA_KEY)
        entry.value = json.dumps([f"{text}{i}" for i in range(6)])
    elif place == "node":
        proto.graph.node[0].name = text
        proto.graph.node[0].op_type = f"Conv{text}"
    elif place == "producer":
        proto.producer_name = text
    path = tmp_path / (f"{text}.onnx" if place == "file" else "m.onnx")
    path.write_bytes(proto.SerializeToString())
    name, *rest = command
    more = ("-o", tmp_path / "out", "--no-cache") if name == "explain" else ()
    result = run(name, path, *rest, *more)
    assert result.exit_code in (0, 2)
    assert not re.search("[\x1b\x07\u202e]", result.output)


@pytest.mark.parametrize("value", ["5", "null", "[", DEEP, '{"a": 1}', "\x1b[2J", '["x"]', "[[]]", "9" * 5000])
def test_metadata_of_a_written_file_may_hold_anything(value: str) -> None:
    written = fgonnx.rewrite(SHAPES)
    for i in range(len(written.metadata_props)):
        proto = onnx.ModelProto()
        proto.CopyFrom(written)
        proto.metadata_props[i].value = value
        try:
            explanation = fgonnx.Explainer(proto)(np.zeros((1, 3, 64, 64), np.float32))
        except FgonnxError as error:
            assert str(error)  # noqa: PT017
        else:
            assert explanation.saliency.shape == (1, 64, 64)


def test_an_inspection_shows_names_that_are_not_utf8(tmp_path: Path) -> None:
    proto = onnx.load(SHAPES)
    proto.producer_name = "QQQQ"
    content = proto.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xfd\xfc")
    (tmp_path / "m.onnx").write_bytes(content)
    assert run("inspect", tmp_path / "m.onnx").exit_code in (0, 2)
    assert run("rewrite", tmp_path / "m.onnx", "-o", tmp_path / "out.onnx").exit_code in (0, 2)


ODD = {
    "target": (
        "9" * 5000,
        "\u00b2",
        "",
        "\udcff",
        "region=nan:nan:nan:nan,class=1",
        "first=-1",
        "1" * 30,
        "class=1e309",
    ),
    "contrast": ("\u00b2", "9" * 5000, ""),
    "input-shape": ("9" * 5000, "1,3,\u00b2,3", "", "1,3,99999999999,9", "-1", "1,,3"),
    "span": ("\u00b2:\u00b3", "1", ":", "0:" + "9" * 40, "5:1"),
    "bind": ("==", "image=1e999", "image=nan", "x=" + "9" * 5000),
    "set": ("=", "steps=0", "\udc80=1", "samples=nan"),
    "threads": ("0", "-1", "x", "1000000", "9" * 40),
    "batch-size": ("0", "9" * 40),
    "samples": ("0", "1000000000", "nan"),
    "sigma": ("nan", "inf", "-1"),
    "layout": ("\udc80", "N" * 10_000, "NN"),
    "preprocess": ("size=0", "scale=1/0", "mean=nan", "std=0", "\udcff", "x" * 5000, "a\x00b", "scale=" + "9" * 5000),
    "providers": (",", "\x1b"),
    "bound": ("pixels=1", "pixels=nan", "pixels"),
}


@pytest.mark.parametrize(("flag", "value"), [(f, v) for f, values in ODD.items() for v in values])
def test_odd_values_of_options_are_refused(flag: str, value: str, tmp_path: Path) -> None:
    given = ("--preprocess", "unit") if flag != "preprocess" else ()
    said = refused("explain", SHAPES, CIRCLE, "-o", tmp_path / "out", *given, f"--{flag}", value)
    assert not re.search("[\x1b\x07\udc80-\udcff]", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flag", "value"), [("tolerance", "nan"), ("tolerance", "-1"), ("samples", "0")])
def test_odd_values_of_a_check_are_refused(flag: str, value: str) -> None:
    refused("check", SHAPES, f"--{flag}", value)
