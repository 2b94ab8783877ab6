"""Pictures become the model's input in the page as they do in Python: decoded, resized, cropped, normalised."""

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from fgonnx.pictures.read import images
from fgonnx.pictures.read.preprocess import Preprocessing
from tests.view_support import browser, modules  # noqa: F401

IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
EXACT, ONE_LEVEL = 0.0, 1.0


def picture(height, width, channels=3):
    """Clouds with grain."""
    rng = np.random.default_rng(height * 1000 + width)
    small = rng.uniform(0, 255, (max(2, height // 5), max(2, width // 5), channels))
    clouds = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(clouds + rng.normal(0, 12, clouds.shape), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """A picture's size, a preprocessing, and how far the page may be from Python, in grey levels."""

    size: tuple[int, int]
    how: dict = field(default_factory=dict)
    tolerance: float = EXACT

    def __str__(self):
        return "-".join([f"{self.size[0]}x{self.size[1]}", *(str(v) for v in self.how.values())])


SIZES = [(64, 64), (100, 80), (31, 47), (128, 128), (192, 96), (20, 200), (300, 451), (65, 63), (1, 1), (2, 3)]
RESIZES = ("stretch", "crop", "letterbox")
CASES = [
    *(Case(s, {"resize": r, "interpolation": "auto"}) for s in SIZES for r in RESIZES),
    *(Case(s, {"resize": r, "interpolation": "linear"}) for s in SIZES for r in RESIZES),
    *(Case(s, {"resize": "stretch", "interpolation": i}) for s in SIZES for i in ("nearest", "area", "lanczos")),
    *(Case(s, {"interpolation": "nearest", "size": (61, 89)}) for s in [(130, 97), (100, 122), (1276, 974), (7, 5)]),
    *(Case(s, {"resize": "stretch", "interpolation": "cubic"}, ONE_LEVEL) for s in SIZES),
    *(Case((90, 70), {"channels": c, "layout": y}) for c in ("RGB", "BGR", "GRAY") for y in ("NCHW", "NHWC")),
    *(Case((90, 70), {"dtype": d, "resize": "crop", **IMAGENET}) for d in ("float32", "float16")),
    Case((90, 70), {"channels": "BGR", "layout": "NHWC", "dtype": "float32", "mean": (104.0, 117.0, 123.0)}),
    Case((90, 70), {"channels": "GRAY", "layout": "NHW", "dtype": "float32", "mean": (0.1307,), "std": (0.3081,)}),
    Case((90, 70), {"resize": "crop", "resize_to": 72}),
    Case((70, 90), {"resize": "letterbox", "fill": 0}),
    Case((70, 90), {"channels": "RGBA", "resize": "letterbox"}),
    Case((70, 90), {"channels": "BGRA", "layout": "NHWC"}),
]


def described(case):
    """Return the picture of a case, its preprocessing, and both as the page gets them."""
    rgb = picture(*case.size)
    how = Preprocessing(
        **{"layout": "NCHW", "size": (48, 64), "channels": "RGB", "dtype": "uint8", "interpolation": "auto", **case.how}
    )
    rgba = np.dstack([rgb, np.full(case.size, 255, np.uint8)])
    return rgb, how, [written(rgba), list(case.size), json.loads(how.to_json())]


def written(array):
    return base64.b64encode(array if isinstance(array, bytes) else array.tobytes()).decode()


PREPARE = """async (cases) => {
  const { prepare } = await import("/page/preprocess.js");
  const bytes = (data) => btoa(Array.from(new Uint8Array(data.buffer), (b) => String.fromCharCode(b)).join(""));
  return cases.map(([pixels, size, how]) => {
    const { data, dims, seen } = prepare(Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0)), size, how);
    return [bytes(data), dims, bytes(seen)];
  });
}"""


@pytest.fixture(scope="module")
def prepared(modules):  # noqa: F811
    """What the page makes of all cases, by case."""
    found = modules.evaluate(PREPARE, [described(case)[2] for case in CASES])
    return dict(zip(map(str, CASES), found, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prepared_as_in_python(prepared, case):
    rgb, how, _ = described(case)
    expected = how.apply(rgb)
    data, dims, seen = prepared[str(case)]
    assert dims == [1, *expected.shape]
    found = np.frombuffer(base64.b64decode(data), expected.dtype).reshape(expected.shape)
    unit = how.scale / min(how.std)
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=case.tolerance * unit)
    shown = np.frombuffer(base64.b64decode(seen), np.uint8)
    np.testing.assert_allclose(shown, how.to_display(rgb).ravel().astype(int), rtol=0, atol=case.tolerance)


def encoded(ending, rgb, *parameters):
    return cv2.imencode(ending, rgb[:, :, [2, 1, 0, 3][: rgb.shape[2]]], parameters)[1].tobytes()


def saved(kind, array, mode=None, colours=None, **more):
    out = io.BytesIO()
    image = Image.fromarray(array).convert(mode)
    (image.quantize(colours) if colours else image).save(out, kind, **more)
    return out.getvalue()


def with_chunk(png, name, content, at=33):
    """Insert a chunk into a PNG, behind its header or elsewhere."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return png[:at] + chunk + png[at:]


def tiff(orientation, order="<"):
    """EXIF data with nothing but an orientation."""
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def jpeg(*segments):
    """A JPEG whose application segments (APP1) hold this."""
    plain = saved("JPEG", RGB, quality=90)
    held = [b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content for content in segments]
    return plain[:2] + b"".join(held) + plain[2:]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


RGB = picture(61, 83)
ALPHA = np.dstack([RGB, np.tile(np.linspace(0, 255, 83).astype(np.uint8), (61, 1))])
DEEP = cv2.imencode(".png", RGB.astype(np.uint16) * 257 + 100)[1].tobytes()
SWAPPED = (  # a profile whose red is blue: a picture with it changes wherever colours are managed
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    .tobytes()
    .replace(b"rXYZ", b"????")
    .replace(b"bXYZ", b"rXYZ")
    .replace(b"????", b"bXYZ")
)
FILES = {
    "png": (encoded(".png", RGB), EXACT),
    "grey png": (saved("PNG", RGB[:, :, 0]), EXACT),
    "palette": (saved("PNG", RGB, colours=60), EXACT),
    "gamma": (with_chunk(encoded(".png", RGB), b"gAMA", struct.pack(">I", 100_000)), EXACT),
    "profile": (saved("PNG", RGB, icc_profile=SWAPPED), EXACT),
    "jpeg with a profile": (saved("JPEG", RGB, quality=95, icc_profile=SWAPPED), EXACT),
    "jpeg 4:2:0": (saved("JPEG", RGB, quality=80, subsampling=2), EXACT),
    "jpeg 4:2:2": (saved("JPEG", RGB, quality=80, subsampling=1), EXACT),
    "jpeg 4:4:4": (saved("JPEG", RGB, quality=95, subsampling=0), EXACT),
    "progressive": (saved("JPEG", RGB, quality=85, progressive=True), EXACT),
    "grey jpeg": (saved("JPEG", RGB[:, :, 0]), EXACT),
    **{f"orientation {o}": (saved("JPEG", RGB, quality=90, **turned(o)), EXACT) for o in range(1, 9)},
    **{f"webp {o}": (saved("WEBP", RGB, lossless=True, **turned(o)), EXACT) for o in range(1, 9)},
    **{f"png {o}": (saved("PNG", RGB, **turned(o)), EXACT) for o in (3, 5, 6)},
    "grey jpeg 6": (saved("JPEG", RGB[:, :, 0], **turned(6)), EXACT),
    "webp with losses 6": (saved("WEBP", RGB, quality=90, **turned(6)), ONE_LEVEL),
    "palette 8": (saved("PNG", RGB, colours=60, **turned(8)), EXACT),
    "16 bits 7": (with_chunk(DEEP, b"eXIf", tiff(7)), ONE_LEVEL),
    "orientation of high bytes first": (jpeg(b"Exif\0\0" + tiff(6, ">")), EXACT),
    "orientation behind XMP": (jpeg(b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + tiff(6)), EXACT),
    "the first of two orientations": (jpeg(b"Exif\0\0" + tiff(3), b"Exif\0\0" + tiff(6)), EXACT),
    "orientation behind the pixels": (with_chunk(encoded(".png", RGB), b"eXIf", tiff(6), -12), EXACT),
    "orientation without its name": (jpeg(tiff(6)), EXACT),
    "orientation 9": (jpeg(b"Exif\0\0" + tiff(9)), EXACT),
    "half of an orientation": (jpeg(b"Exif\0\0" + tiff(6)[:19]), EXACT),
    "orientation of another byte order": (jpeg(b"Exif\0\0XX" + tiff(6)[2:]), EXACT),
    "orientation at no place": (jpeg(b"Exif\0\0II*\0\xff\xff\xff\xff\x01\0\0\0"), EXACT),
    "one colour 6": (saved("PNG", np.full((5, 5, 3), 7, np.uint8), **turned(6)), EXACT),
    "alpha": (encoded(".png", ALPHA), ONE_LEVEL),
    "webp with alpha and orientation": (saved("WEBP", ALPHA, lossless=True, **turned(6)), ONE_LEVEL),
    "alpha with orientation": (saved("PNG", ALPHA, **turned(6)), ONE_LEVEL),
    "16 bits": (DEEP, ONE_LEVEL),
    "webp": (saved("WEBP", RGB, lossless=True), EXACT),
    "bmp": (encoded(".bmp", RGB), EXACT),
    "gif": (saved("GIF", RGB, colours=60), EXACT),
}

DECODE = """async (files) => {
  const [{ decode }, { overWhite }] = [await import("/page/decode.js"), await import("/page/preprocess.js")];
  const bytes = (data) => btoa(Array.from(data, (b) => String.fromCharCode(b)).join(""));
  const one = async (content) => {
    try {
      const file = new Blob([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))]);
      const { bitmap, rgba, size, notes } = await decode(file, "it");
      return { pixels: bytes(overWhite(rgba)), size, notes, shown: [bitmap.height, bitmap.width] };
    } catch (error) {
      return { error: error.message };
    }
  };
  const found = [];
  for (const content of files) found.push(await one(content));
  return found;
}"""

REFUSED = {
    "no bytes": (b"", "is empty"),
    "no picture": (b"hello", "cannot be decoded as a picture"),
    "four inks": (saved("JPEG", RGB, mode="CMYK"), "four inks"),
    **{f"avif {o}": (saved("AVIF", RGB, **turned(o)), "AVIF that is to be turned") for o in (2, 3, 6)},
    "avif with EXIF alone": (saved("AVIF", RGB) + b"Exif\0\0" + tiff(6), "AVIF that is to be turned"),
    "heif": (saved("AVIF", RGB).replace(b"avif", b"heic"), "HEIF or a film"),
}


@pytest.fixture(scope="module")
def decoded(modules):  # noqa: F811
    """What the page makes of all files, by name."""
    files = {**FILES, **REFUSED}
    return dict(zip(files, modules.evaluate(DECODE, [written(content) for content, _ in files.values()]), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_decoded_as_in_python(decoded, name):
    content, tolerance = FILES[name]
    expected = images.decode(np.frombuffer(content, np.uint8), Path("it")).rgb
    found = decoded[name]
    assert found.get("size") == found["shown"] == list(expected.shape[:2])
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(expected.shape)
    np.testing.assert_allclose(pixels.astype(int), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", FILES)
def test_noted_as_in_python(decoded, name):
    wanted = images.decode(np.frombuffer(FILES[name][0], np.uint8), Path("it")).notes
    assert decoded[name]["notes"] == [note for note in wanted if note != images._GREY_REPEATED]


def test_a_plain_avif_is_read(modules):  # noqa: F811
    (found,) = modules.evaluate(DECODE, [written(saved("AVIF", RGB, quality=100))])
    assert found["size"] == [*RGB.shape[:2]]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_sentence(decoded, name):
    said = decoded[name]["error"]
    assert REFUSED[name][1] in said
    assert "'it'" in said


def test_half_precision_as_in_numpy(modules):  # noqa: F811
    every = np.arange(65536, dtype=np.uint16)
    values = every.view(np.float16).astype(np.float64)
    rng = np.random.default_rng(0)
    edges = [65519.99, 65520.0, 2.0**-14, 2.0**-24, 2.0**-25, 0.0, -0.0]
    drawn = np.float32([*rng.normal(0, 1000, 500), *rng.normal(0, 1e-6, 500), *edges])
    with np.errstate(over="ignore"):
        expected = drawn.astype(np.float16).view(np.uint16)
    there, back = modules.evaluate(
        """async (drawn) => {
            const { half, unhalf } = await import("/page/preprocess.js");
            const every = Array.from({ length: 65536 }, (_, i) => unhalf(i));
            return [drawn.map(half), every.map((x) => (Number.isNaN(x) ? null : Number.isFinite(x) ? x : String(x)))];
        }""",
        drawn.tolist(),
    )
    np.testing.assert_array_equal(there, expected)
    np.testing.assert_array_equal([np.nan if x is None else float(x) for x in back], values)
