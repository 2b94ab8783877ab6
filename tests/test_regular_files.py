"""Nothing but regular files is replaced or read; a link is followed, names of 255 bytes are written."""

from __future__ import annotations

import os
import pickle
import socket
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgonnx import bounds, files, labels
from fgonnx.bounds import Bounds, bounded
from fgonnx.engine.model.load import load
from fgonnx.errors import FgonnxError, InputError, ModelError, OptionError
from fgonnx.jobs.samples import find
from fgonnx.pictures.read import audio, images, presets
from tests.cli_support import CIRCLE, SHAPES, good, refused


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def terminal(path: Path) -> None:
    path.symlink_to(os.ttyname(os.openpty()[1]))


KINDS = {
    "a named pipe": pipe,
    "a folder": folder,
    "a socket": listening,
    "a symbolic link that leads back to itself": circle,
    "a device": terminal,
}
WRITERS: dict[str, Callable[[Path], object]] = {
    "json": lambda path: files.write_json(path, {}),
    "array": lambda path: files.write_array(path, np.zeros(3)),
    "text": lambda path: files.write_text(path, "a"),
    "picture": lambda path: images.write_png(path, np.zeros((2, 2, 3), np.uint8)),
}
READERS: dict[str, Callable[[Path], object]] = {
    "model": load,
    "picture": images.read,
    "sound": audio.read,
    "array": files.read_array,
    "arrays": lambda path: files.read_arrays(path, ("x",), InputError),
    "labels": labels.load,
    "preprocessing": lambda path: presets.parse(str(path)),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the names of sockets are short


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_regular_file_is_not_replaced(kind: str, writer: str, tmp_path: Path) -> None:
    path = tmp_path / "result"
    KINDS[kind](path)
    before = os.lstat(path)
    with pytest.raises(FgonnxError, match=kind):
        WRITERS[writer](path)
    assert (os.lstat(path).st_ino, stat.S_IFMT(os.lstat(path).st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("kind", [k for k in KINDS if "link" not in k])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_not_read(kind: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / f"given{'.json' if reader == 'preprocessing' else ''}"
    KINDS[kind](path)
    with pytest.raises(FgonnxError, match=r"is (a folder|a device|a named pipe|a socket)|such device"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "a\x00b", "\udcff", "none"])
def test_names_of_no_file_are_refused(name: str, reader: str) -> None:
    path = Path(f"{name}.json") if reader == "preprocessing" else Path(name)
    with pytest.raises(FgonnxError, match=r"exist|such|cannot be read"):
        READERS[reader](path)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_is_followed(writer: str, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link"
    link.symlink_to("../real")
    WRITERS[writer](link)
    assert link.is_symlink()
    assert (tmp_path / "real").read_bytes() != b"before"


def test_rewrite_keeps_what_it_cannot_replace(tmp_path: Path) -> None:
    pipe(tmp_path / "out.onnx")
    assert "is a named pipe, which is not replaced" in refused("rewrite", SHAPES, "-o", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").is_fifo()


@pytest.mark.parametrize("name", ["a" * 250, "\u00fc" * 120, "\U0001f600" * 60])
def test_names_of_the_longest_kind_are_explained(name: str, tmp_path: Path) -> None:
    picture = tmp_path / f"{name}.png"
    picture.write_bytes(Path(CIRCLE).read_bytes())
    (source,) = find([picture], 4)
    assert len(os.fsencode(f"{source.name}.json")) <= 255
    good("explain", SHAPES, picture, "-o", tmp_path / "out", "--preprocess", "unit", "--no-cache")
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_name_that_is_not_utf8_is_written_as_json_does(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"file": "p\udcff.png"})
    assert files.parsed((tmp_path / "a.json").read_text(encoding="utf-8"), "", InputError) == {"file": "p\udcff.png"}


def header(text: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode("latin1") + content


def array(shape: str, descr: str = "'<f4'", content: bytes = bytes(48)) -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", content)


ARRAYS = {
    "negative": array("(-1, 3)"),
    "more than the file": array("(1000, 3)"),
    "more than memory": array("(1000000, 3, 64000, 64)"),
    "overflow": array("(4294967296, 4294967296)"),
    "a pickle": array("(1,)", "'|O'", b"cos\nsystem\n(S'touch PWNED'\ntR."),
    "records": array("(3,)", "[('a', '<f4')]"),
    "texts": array("(3,)", "'<U4'"),
    "void": array("(3,)", "'|V4'"),
    "dates": array("(3,)", "'<M8[s]'"),
    "nothing": array("(1000000000000,)", "'<U0'"),
    "switches": array("(True, 3)"),
    "many axes": array(f"({'1, ' * 3000})"),
    "no shape": array("'a'"),
    "no literal": header("hello"),
    "open brackets": header("(" * 9000),
    "cut off": b"\x93NUM",
    "no version": b"\x93NUMPY\x09\x00" + bytes(40),
    "long header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
    "empty": b"",
    "pickle alone": b"\x80\x04cos\nsystem\n",
    "archive": b"PK\x03\x04" + bytes(30),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_hostile_arrays_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(ARRAYS[kind])
    with pytest.raises(InputError, match=r"'.*a\.npy' (cannot be read|is cut off|announces)"):
        files.read_array(tmp_path / "a.npy", InputError)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", ARRAYS[kind])
    with pytest.raises(InputError, match=r"a\.npz"):
        files.read_arrays(tmp_path / "a.npz", ("x",), InputError)
    (tmp_path / "b.npz").write_bytes(ARRAYS[kind])
    with pytest.raises(InputError, match=r"b\.npz"):
        files.read_arrays(tmp_path / "b.npz", ("x",), InputError)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "|u1", "|b1", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(dtype: str, order: str, tmp_path: Path) -> None:
    wanted = np.asarray(np.arange(24).reshape(2, 3, 4).astype(dtype), order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", wanted)
    found = files.read_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, np.load(tmp_path / "a.npy"))
    assert found.dtype == wanted.dtype
    np.savez_compressed(tmp_path / "a.npz", x=wanted, other=wanted)
    np.testing.assert_array_equal(files.read_arrays(tmp_path / "a.npz", ("x", "y"), OptionError)["x"], wanted)


def test_bounds_are_options_that_errors_name(tmp_path: Path) -> None:
    said = refused("inspect", SHAPES, "--bound", "nodes=3")
    assert "has 32 nodes, more than the bound of 3; if you trust it, raise the bound: --bound nodes=32" in said
    with bounded(Bounds(nodes=3)), pytest.raises(ModelError, match=r"raise the bound: nodes=32"):
        load(SHAPES)
    assert bounds.current() == Bounds()


@pytest.mark.parametrize(
    ("bound", "read"),
    [
        ({"pixels": 100}, lambda: images.read(CIRCLE)),
        ({"data_bytes": 10}, lambda: images.read(CIRCLE)),
        ({"model_bytes": 10}, lambda: load(SHAPES)),
        ({"metadata_bytes": 10}, lambda: load(SHAPES)),
        ({"label_count": 3}, lambda: load(SHAPES).labels()),
        ({"label_length": 3}, lambda: load(SHAPES).labels()),
        ({"nesting": 1}, lambda: labels.from_json('[["a"]]')),
        ({"sample_count": 1}, lambda: find([Path(CIRCLE).parent], 4)),
    ],
)
def test_each_bound_is_looked_at(bound: dict[str, int], read: Callable[[], object]) -> None:
    with bounded(Bounds(**bound)), pytest.raises(FgonnxError, match=f"raise the bound: {next(iter(bound))}="):
        read()


@pytest.mark.parametrize("text", ["x", "nodes", "nodes=a", "nodes=-1", "nodes=nan", "nodes=0", "nothing=3", "nodes="])
def test_odd_bounds_are_refused(text: str) -> None:
    refused("inspect", SHAPES, "--bound", text)


def test_bounds_stay_as_they_were(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(Bounds(pixels=5))) == Bounds(pixels=5)
    assert bounds.parse(["pixels=5e8", "nodes=7"]) == Bounds(pixels=500_000_000, nodes=7)
