"""Any picture file becomes 8-bit RGB, and what was done to it is said in words."""

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image, ImageOps, features

from fgonnx.errors import InputError
from fgonnx.jobs.samples import Reader, Source
from fgonnx.pictures.read.images import Picture, expand, read, write_png
from fgonnx.pictures.read.preprocess import Preprocessing
from tests import skips

RED_BLUE = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(shape, depth, colour_type, scanlines, *extra):
    """A PNG file by hand, for the kinds that OpenCV reads but does not write."""
    height, width = shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    )


def encoded(suffix, array):
    """The bytes of a file; colours are given red first."""
    order = {2: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2] if array.ndim == 3 else 2]
    return cv2.imencode(suffix, np.ascontiguousarray(array[..., order]))[1].tobytes()


def with_exif(jpeg, orientation):
    """A JPEG file with an orientation tag, as cameras write it."""
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + b"MM\0*" + struct.pack(">IH", 8, 1) + tag + struct.pack(">I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
HALF = np.dstack([RED_BLUE, np.array([[255, 0]], np.uint8)])

CASES = {
    "8-bit colour": (encoded(".png", RED_BLUE), [[[255, 0, 0], [0, 0, 255]]], ()),
    "grey": (
        encoded(".png", np.array([[7, 200]], np.uint8)),
        [[[7] * 3, [200] * 3]],
        ("grey repeated to three channels",),
    ),
    "1-bit grey": (png((1, 2), 1, 0, b"\0\x40"), [[[0] * 3, [255] * 3]], ("grey repeated to three channels",)),
    "16-bit colour": (encoded(".png", RED_BLUE.astype(np.uint16) * 257), RED_BLUE, ("16-bit reduced to 8",)),
    "16-bit is rounded": (
        encoded(".png", np.array([[128, 129, 65535]], np.uint16)),
        [[[0] * 3, [1] * 3, [255] * 3]],
        ("16-bit reduced to 8", "grey repeated to three channels"),
    ),
    "floating point": (
        encoded(".tiff", np.array([[0.0, 0.2, 1.0]], np.float32)),
        [[[0] * 3, [51] * 3, [255] * 3]],
        ("floating-point 0..1 stretched to 0..255", "grey repeated to three channels"),
    ),
    "alpha": (encoded(".png", HALF), [[[255, 0, 0], [255, 255, 255]]], ("alpha blended over white",)),
    "half alpha": (png((1, 1), 8, 6, b"\0\0\0\0\x80"), [[[127] * 3]], ("alpha blended over white",)),
    "opaque alpha": (png((1, 1), 8, 6, b"\0\1\2\3\xff"), [[[1, 2, 3]]], ("opaque alpha dropped",)),
    "palette": (png((1, 2), 8, 3, b"\0\0\1", PALETTE), RED_BLUE, ("palette expanded to colours",)),
    "palette with alpha": (
        png((1, 2), 8, 3, b"\0\0\1", PALETTE, chunk(b"tRNS", b"\0\xff")),
        [[[255, 255, 255], [0, 0, 255]]],
        ("palette expanded to colours", "alpha blended over white"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_becomes_rgb_and_the_notes_say_how(tmp_path, name):
    content, rgb, notes = CASES[name]
    path = tmp_path / "picture"  # the content decides, not the suffix
    path.write_bytes(content)
    picture = read(path)
    np.testing.assert_array_equal(picture.rgb, rgb)
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.flags.c_contiguous
    assert (picture.path, picture.notes) == (path, notes)


@pytest.mark.parametrize(
    ("orientation", "where"),
    [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))],
)
def test_the_exif_orientation_is_honoured(tmp_path, orientation, where):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255  # one white corner
    path = tmp_path / "camera.jpg"
    path.write_bytes(with_exif(encoded(".jpg", stored), orientation))
    picture = read(path)
    assert picture.rgb[where].min() > 240
    turned = orientation != 1
    assert picture.rgb.shape[:2] == ((32, 16) if orientation in (6, 8) else (16, 32))
    assert picture.notes == (("turned upright as its EXIF orientation says",) if turned else ())


@skips.when(not features.check("avif"), skips.PACKAGE, "Pillow without AVIF")
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_picture_is_turned_as_pillow_turns_it(tmp_path, orientation, alpha):
    stored = np.full((16, 32, 4 if alpha else 3), 255, np.uint8)
    stored[:4, :8, :3] = 0  # one dark corner
    stored[:, 24:, 0] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "camera.avif"
    Image.fromarray(stored).save(path, exif=exif, quality=100)
    with Image.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    picture = read(path)
    assert np.abs(picture.levels.astype(int) - upright).max() <= 1
    assert ("turned upright as its file says" in picture.notes) == (orientation != 1)


@pytest.mark.parametrize("suffix", [".gif", ".tiff"])
@pytest.mark.parametrize("frames", [1, 2])
def test_of_several_frames_the_first_is_read(tmp_path, suffix, frames):
    path = tmp_path / f"film{suffix}"
    stack = [np.full((8, 8, 3), 255 * i, np.uint8) for i in range(frames)]
    path.write_bytes(cv2.imencodemulti(suffix, stack)[1].tobytes())
    picture = read(path)
    assert picture.rgb.max() == 0
    assert ("first frame of several" in picture.notes) == (frames > 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: check the spelling"),
        (b"", "is empty (0 bytes)"),
        (b"not a picture at all", "cannot be decoded as a picture: give a PNG"),
        (encoded(".tiff", np.full((2, 2), 3.0, np.float32)), "outside 0..1 (or NaN): tone-map it"),
        (encoded(".tiff", np.full((2, 2), np.nan, np.float32)), "outside 0..1 (or NaN): tone-map it"),
        (encoded(".tiff", np.ones((2, 2), np.int16)), "holds int16 pixels: save it with 8 or 16 bits"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, content, message):
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_not_a_picture(tmp_path):
    with pytest.raises(InputError, match="is a folder: name a picture file inside it"):
        read(tmp_path)


@pytest.fixture
def album(tmp_path):
    for name in ("b.JPG", "a.png", "c [1].png", "notes.txt", "sub/d.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["."], ["a.png", "b.JPG", "c [1].png"]),  # by suffix, sorted, no subfolders
        (["b.JPG", "a.png"], ["b.JPG", "a.png"]),  # in the order given
        (["notes.txt"], ["notes.txt"]),  # named outright: taken whatever its suffix
        (["?.*"], ["a.png", "b.JPG"]),
        (["**/*.png"], ["a.png", "c [1].png", "sub/d.png"]),
        (["c [1].png"], ["c [1].png"]),  # exists, so it is no pattern
        (["a.png", "*.png", "sub"], ["a.png", "c [1].png", "sub/d.png"]),  # each once
    ],
)
def test_files_folders_and_patterns_expand(album, monkeypatch, given, expected):
    monkeypatch.chdir(album)
    assert expand(given) == [Path(name) for name in expected]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no picture was given: name files, folders or patterns"),
        (["missing.png"], "'missing.png' does not exist"),
        (["*.webp"], "pattern '*.webp' matches no file"),
        (["empty"], "folder 'empty' holds no picture: looked for .bmp"),
    ],
)
def test_nothing_found_is_an_error(album, monkeypatch, given, message):
    (album / "empty").mkdir()
    monkeypatch.chdir(album)
    with pytest.raises(InputError, match=re.escape(message)):
        expand(given)


def test_what_is_written_reads_back(tmp_path):
    path = tmp_path / "out.png"
    path.write_bytes(b"an older file")
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(path, rgb)
    assert read(path).notes == ()
    np.testing.assert_array_equal(read(path).rgb, rgb)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"an older file")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"out.png' cannot be written: No space left on device; choose another place"):
        write_png(path, RED_BLUE)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"an older file"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file or directory; choose another place"):
        write_png(tmp_path / "nowhere" / "out.png", RED_BLUE)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)])
def test_only_rgb_bytes_are_written(tmp_path, array):
    with pytest.raises(InputError, match=r"must be uint8 of shape \(H, W, 3\), got .*: convert it first"):
        write_png(tmp_path / "out.png", array)


def test_a_picture_is_frozen():
    picture = Picture(RED_BLUE, Path("x.png"))
    with pytest.raises(AttributeError):
        picture.notes = ("changed",)


GREY_12 = np.array([[0, 1, 255, 4095]], np.uint16)
SIXTEEN = np.array([[[65535, 257, 0, 32768], [1, 2, 3, 65535]]], np.uint16)
KEPT = "16 bits kept: 0..65535 read as 0..255, in steps of 1/257"


class TestFit:
    """What a model can use of a file: fractions if it takes floats, alpha if it has a channel for it."""

    @pytest.mark.parametrize(
        ("content", "channels", "dtype", "pixels", "notes"),
        [
            (GREY_12, "GRAY", "float32", [[[v / 257] * 3 for v in GREY_12[0]]], (f"{KEPT}; the largest is 4095",)),
            (GREY_12, "GRAY", "uint8", [[[0] * 3, [0] * 3, [1] * 3, [16] * 3]], ("16-bit reduced to 8",)),
            (GREY_12 * 16, "GRAY", "float16", [[[v * 16 / 257] * 3 for v in GREY_12[0]]], (KEPT,)),
            (
                GREY_12 * 16,
                "RGB",
                "float32",
                [[[v * 16 / 257] * 3 for v in GREY_12[0]]],
                (KEPT, "grey repeated to three channels"),
            ),
            (np.array([[7, 200]], np.uint8), "GRAY", "float32", [[[7] * 3, [200] * 3]], ()),
            (HALF, "RGBA", "float32", HALF, ()),
            (HALF, "BGRA", "uint8", HALF, ()),
            (HALF, "RGB", "float32", [[[255, 0, 0], [255, 255, 255]]], ("alpha blended over white",)),
            (SIXTEEN, "RGBA", "float32", SIXTEEN / 257, (KEPT,)),
            (RED_BLUE, "RGBA", "float32", RED_BLUE, ("no alpha: opaque",)),
        ],
    )
    def test_keeps_what_counts(self, content, channels, dtype, pixels, notes, tmp_path):
        for suffix in (".png", ".tiff"):
            (tmp_path / f"p{suffix}").write_bytes(encoded(suffix, content))
            found, said = read(tmp_path / f"p{suffix}").fit(channels, dtype)
            np.testing.assert_allclose(found, pixels, rtol=1e-6)
            assert said == notes

    def test_grey_with_alpha(self, tmp_path):
        (tmp_path / "p.png").write_bytes(png((1, 2), 8, 4, b"\0\x64\xff\xc8\x80"))
        picture = read(tmp_path / "p.png")
        np.testing.assert_array_equal(picture.fit("RGBA", "float32")[0], [[[100] * 3 + [255], [200] * 3 + [128]]])
        np.testing.assert_array_equal(picture.fit("GRAY", "float32")[0], [[[100] * 3, [227] * 3]])

    def test_every_level_of_12_bits_stays_apart(self, tmp_path):
        (tmp_path / "p.png").write_bytes(encoded(".png", np.arange(4096, dtype=np.uint16).reshape(64, 64)))
        pre = Preprocessing(layout="NCHW", channels="GRAY", dtype="float32", scale=257 / 4095)
        x = pre.apply(read(tmp_path / "p.png").fit("GRAY", "float32")[0])
        assert len(np.unique(x)) == 4096
        np.testing.assert_allclose(x.ravel(), np.arange(4096) / 4095, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((4, 6, 9), (6, 9)),
        ((6, 9, 4), (6, 9)),
        ((3, 6, 9), (6, 9)),
        ((1, 6, 9), (6, 9)),
        ((6, 9, 1), (6, 9)),
        ((5, 16, 12), (16, 12)),
        ((16, 12, 5), (16, 12)),
        ((12, 12, 12), (12, 12)),
    ],
)
def test_arrays_are_drawn_over_rows_and_columns(shape, drawn):
    value = ir.Value(name="x", shape=ir.Shape(["N", *shape]), type=ir.TensorType(ir.DataType.FLOAT))
    array = np.random.default_rng(0).random(shape, np.float32)
    sample = Reader(value, None).prepared(array, Source(Path("x.npy"), None, "x"))
    assert sample.shown.shape == (*drawn, 3)
