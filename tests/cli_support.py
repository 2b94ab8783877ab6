"""Running the command line inside of a test, and small models for it."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper
from typer.testing import CliRunner

from fgonnx.cli import app as cli

ROOT = Path(__file__).resolve().parent.parent
SHAPES, IMAGES = ROOT / "examples" / "shapes.onnx", ROOT / "examples" / "images"
CIRCLE = IMAGES / "circle.png"

WEIGHTS = ",".join(f"{w:.3f}" for w in np.random.default_rng(0).normal(size=108))
HEADER = '<ir_version: 8, opset_import: ["": 18]>'
CUSTOM = '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]>'
SMALL = (
    HEADER
    + """
g (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w = {WEIGHTS}, float[4] b = {0.1, 0.2, -0.3, 0.4}>
{ c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Softmax(f) }"""
)


def model(text, path, **weights):
    """Save a model of that text, with some weights replaced."""
    proto = onnx.parser.parse_model(text.replace("WEIGHTS", WEIGHTS))
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(proto, path)
    return path


def run(*args):
    return CliRunner().invoke(cli.app, [str(a) for a in args])


def good(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def refused(*args):
    """Return the message of a run that must end with exit code 2, without a traceback."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def written(folder):
    return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []
