"""Snippets of docs/embed: those that can be run here explain a picture as fgonnx does, up to how it is resized."""

import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from PIL import Image

import fgonnx
from tests import skips
from tests.cli_support import IMAGES, ROOT, SHAPES
from tests.view_support import ORT_WEB, ort_web

EMBED = ROOT / "docs" / "embed"
PICTURE = IMAGES / "star.png"


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "explained.onnx"
    onnx.save(fgonnx.rewrite(SHAPES, form="portable", target="argmax"), path)
    return path


def check(command, explained, picture, out, correlation):
    done = subprocess.run([*command, explained, picture, out], capture_output=True, text=True, check=True)
    expected = fgonnx.Explainer(SHAPES)([picture])
    said = re.match(r"class (\d+), score ([\d.]+), residual ([\d.e+-]+)$", done.stdout.strip())
    assert int(said[1]) == expected.target[0]
    assert float(said[2]) == pytest.approx(float(expected.score[0]), rel=0.1)
    assert abs(float(said[3])) < 1e-4
    with Image.open(out) as image:
        found = np.asarray(image.convert("L"), float)
    assert np.corrcoef(found.ravel(), expected.saliency[0].ravel())[0, 1] > correlation


KINDS = ["as it is", "turned", "16 bits", "alpha", "grey with alpha"]


def picture(kind, folder):
    """Write the picture as a file of another kind."""
    if kind == "as it is":
        return PICTURE
    path, exif = folder / f"{kind}.png", Image.Exif()
    with Image.open(PICTURE) as image:
        rgb = np.asarray(image.convert("RGB"))
    clear = np.tile(np.linspace(0, 255, rgb.shape[1]).astype(np.uint8), (rgb.shape[0], 1))
    pixels = {
        "turned": rgb,
        "16 bits": rgb[:, :, 1].astype(np.uint16) * 257,
        "alpha": np.dstack([rgb, clear]),
        "grey with alpha": np.dstack([rgb[:, :, 1], clear]),
    }[kind]
    if kind == "turned":
        exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_python(explained, tmp_path, kind):
    given = picture(kind, tmp_path)
    check([sys.executable, EMBED / "explain.py"], explained, given, tmp_path / "map.png", 0.99)


@pytest.mark.parametrize("kind", KINDS)
def test_node(explained, tmp_path, kind):
    modules = ort_web() / "node_modules"
    if shutil.which("node") is None or not (modules / "sharp").is_dir():
        skips.now(skips.ENVIRONMENT, f"node, or its package sharp in {ORT_WEB}, is not there")
    text = (EMBED / "explain.mjs").read_text(encoding="utf-8")
    script = tmp_path / "explain.mjs"
    script.write_text(text.replace('"onnxruntime-node"', '"onnxruntime-web"'), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(modules)
    check(["node", script], explained, picture(kind, tmp_path), tmp_path / "map.png", 0.95)


def test_every_snippet_is_listed():
    listed = set(re.findall(r"\| \[(.+?)\]", (EMBED / "README.md").read_text(encoding="utf-8")))
    assert listed == {p.name for p in EMBED.iterdir() if p.name != "README.md"}
