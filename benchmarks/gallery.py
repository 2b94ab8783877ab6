"""Pictures of the documentation, of drawn pictures alone: `python -m benchmarks.gallery`.

docs/images/maps.png has maps of several methods, each for the class that the network decides for and for another one:
a map that depends on the class differs. docs/gallery.md and docs/images/gallery/ have one picture for every kind of
model, with the command that makes it.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import fgonnx
from benchmarks.evaluation import ROOT, SEED
from fgonnx.audit.evaluate import figures
from fgonnx.engine.model.load import load
from fgonnx.jobs.reading import Reading

PICTURES = ROOT / "docs" / "images" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
_WIDEST = 1000  # of a picture of the gallery, in pixels


@dataclass(frozen=True)
class Shown:
    """One picture of the gallery.

    Attributes
    ----------
    name : str
        Of its file.
    title, said : str
        What it is of; what to see in it.
    command : str
        What makes it; the results go to out/.
    picture : str
        Which of the results it is.
    """

    name: str
    title: str
    said: str
    command: str
    picture: str


GALLERY = (
    Shown(
        "classifier",
        "A classifier",
        "A picture, its map, and how much of the score each layer accounts for.",
        "fgonnx explain examples/shapes.onnx examples/images/star.png -o out",
        "star.png",
    ),
    Shown(
        "signed",
        "What speaks for and against",
        "Red speaks for the ring, blue against it.",
        "fgonnx explain examples/shapes.onnx examples/images/ring.png -o out --psi signed",
        "ring.png",
    ),
    Shown(
        "misclassification",
        "Why this and not that",
        "A circle with a mark in the corner is called a star: the mark speaks for it.",
        "fgonnx explain examples/marked.onnx stamped.png -o out --psi signed --target star --contrast circle",
        "stamped.png",
    ),
    Shown(
        "detector",
        "A detector",
        "The best detection by default: a star, and nothing but the star.",
        "fgonnx explain scene/detector.onnx scene/scene.png -o out",
        "scene.png",
    ),
    Shown(
        "segmentation",
        "A segmentation",
        "The mean score of a class in a box.",
        "fgonnx explain scene/segmenter.onnx scene/scene.png -o out --target region=0.63:0.25:0.82:0.44,class=ring",
        "scene.png",
    ),
    Shown(
        "audio",
        "A recording",
        "The high tone lies where the map says, on the axis of time.",
        "fgonnx explain sound/tones.onnx sound/tones.wav -o out --target high",
        "tones.png",
    ),
    Shown(
        "attention",
        "A vision transformer",
        "Psi of values times gradients at every block, with attention held: the badges that spell the class.",
        "fgonnx explain examples/parts_vit.onnx badges.png -o out --method fullgrad+ --backward libra",
        "badges.png",
    ),
    Shown(
        "convnext",
        "A ConvNeXt",
        "The same picture, another architecture: layer normalisation and GELU have terms of their own.",
        "fgonnx explain examples/parts_convnext.onnx badges.png -o out --method net-fullgrad",
        "badges.png",
    ),
    Shown(
        "int8",
        "An int8 model",
        "Rounding and saturation are terms of the certificate.",
        "fgonnx explain int8.onnx examples/images/cross.png -o out",
        "cross.png",
    ),
    Shown(
        "compare",
        "Two models",
        "The approved float model beside the deployed int8 one: maps, their difference, and the layers' parts in it.",
        "fgonnx compare examples/shapes.onnx int8.onnx examples/images/triangle.png -o out",
        "triangle.png",
    ),
    Shown(
        "grad-cam",
        "Another method",
        "Any of two dozen methods, here Grad-CAM, in the same picture.",
        "fgonnx explain examples/shapes.onnx examples/images/square.png -o out --method grad-cam",
        "square.png",
    ),
    Shown(
        "overlay",
        "The map alone",
        "On the whole picture, for slides.",
        "fgonnx explain examples/shapes.onnx examples/images/triangle.png -o out --picture overlay",
        "triangle.png",
    ),
)

HEAD = """# Gallery

One picture for every kind of model, each with the command that makes it. All pictures, recordings and networks are
drawn or made by the project (`examples/`); `python -m benchmarks.gallery` writes this page. The badges come from
`examples/parts.py`, the stamped circle from the tutorial on [a wrong decision](tutorials/misclassification.md), the
int8 model from that on [an int8 model](tutorials/int8.md); `python examples/scene.py scene` and
`python examples/tones.py sound` make the others.

"""


def page() -> str:
    """Return the page."""
    parts = [
        f"## {one.title}\n\n{one.said}\n\n![{one.title}: {one.said}](images/gallery/{one.name}.png)\n\n"
        f"```text\n{one.command}\n```\n"
        for one in GALLERY
    ]
    return HEAD + "\n".join(parts)


def draw() -> None:
    """Run every command, and keep its picture."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder, "examples"))
        for made in (["examples/scene.py", "scene"], ["examples/tones.py", "sound"], ["-c", _MADE]):
            subprocess.run([sys.executable, *made], cwd=folder, env=environment, check=True)
        for one in GALLERY:
            command = [sys.executable, "-m", *shlex.split(one.command), "--quiet"]
            subprocess.run(command, cwd=folder, env=environment, check=True)
            drawn = cv2.imread(str(Path(folder, "out", one.picture)))
            scale = min(1.0, _WIDEST / drawn.shape[1])
            small = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(PICTURES / f"{one.name}.png"), small, [cv2.IMWRITE_PNG_COMPRESSION, 9])


_MADE = f"""
import numpy as np, marked, parts
from PIL import Image
Image.fromarray(marked.mark(np.array(Image.open("examples/images/circle.png")))).save("stamped.png")
Image.fromarray(parts.draw(np.random.default_rng(4), 2, size=256).image).save("badges.png")
int8 = open({str(ROOT / "docs" / "tutorials" / "int8.md")!r}).read().split("```python\\n")[1].split("```")[0]
exec(int8)
"""

METHODS = {
    "fullgrad": {},
    "net-fullgrad": {"method": "net-fullgrad"},
    "focus=0.9": {"method": "net-fullgrad", "focus": 0.9},
    "grad-cam": {"method": "grad-cam"},
}
DRAWN = {"shapes": (1, 4), "parts": (0,)}
"""Which of the pictures of a seed are shown."""

_SHORT = 10  # letters of a label that fit beside a picture


def maps() -> None:
    """Draw docs/images/maps.png."""
    sys.path.insert(0, str(ROOT / "examples"))
    rows = []
    for name, chosen in DRAWN.items():
        loaded = load(ROOT / "examples" / f"{name}.onnx")
        preprocessing, _ = Reading().preprocessing(loaded, None, required=True)
        pictures = importlib.import_module(name).dataset(max(chosen) + 1, SEED)[0][list(chosen)]
        x = np.stack([preprocessing.apply(picture) for picture in pictures])
        explainers = [fgonnx.Explainer(loaded.path, threads=1, **options) for options in METHODS.values()]
        labels, scores = loaded.labels(), explainers[0].head(x)
        for i, order in enumerate(np.argsort(-scores, axis=1)):
            for what, target in zip(("decision", "runner-up"), order[:2].tolist(), strict=True):
                maps = [explainer(x[i : i + 1], target).saliency[0] for explainer in explainers]
                label = labels[target] if labels else str(target)
                rows.append((what if len(label) > _SHORT else f"{what}: {label}", pictures[i], maps))
    drawn = figures.grid(rows, list(METHODS))
    (ROOT / "docs" / "images" / "maps.png").write_bytes(drawn["png"])


def main() -> None:
    """Draw all, and write the page."""
    maps()
    draw()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
