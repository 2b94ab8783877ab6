"""The files that every runtime is given: a model, and its explained files in the portable form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

import fgonnx
from benchmarks.fingerprints import ROOT

Array = npt.NDArray[np.generic]

SHARED = ROOT.parent / "shared" / "models"
SAMPLES = 2
#: Files of a case: how they are written.
FILES = {
    "input": {"form": "portable", "target": "input"},
    "argmax": {"form": "portable", "target": "argmax"},
    "optional": {"form": "portable"},
}


@dataclass(frozen=True)
class Case:
    """A model.

    Attributes
    ----------
    name : str
        In the table.
    what : str
        What it has that a runtime may stumble over.
    model : callable
        Returns it, None where it is missing.
    heavy : bool
        Whether an explanation takes more than some hundredths of a second in ONNX Runtime: not for evaluators.
    """

    name: str
    what: str
    model: Callable[[], onnx.ModelProto | None]
    heavy: bool = False


def _shared(stem: str) -> Callable[[], onnx.ModelProto | None]:
    path = SHARED / f"{stem}.onnx"
    return lambda: onnx.load(path) if path.exists() else None


class _Builder:
    """Writes a network with random weights, layer by layer."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        spread = scale if scale is not None else (2.0 / fan) ** 0.5
        name = f"w{len(self.weights)}"
        drawn = self.rng.standard_normal(shape) * spread
        self.weights.append(numpy_helper.from_array(drawn.astype(np.float32), name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, shape: tuple[int, int, int], stride: int = 1, gain: float = 1.0) -> str:
        out, into, kernel = shape
        w = self.weight(out, into, kernel, kernel, scale=gain * (2.0 / (into * kernel * kernel)) ** 0.5)
        p = kernel // 2
        return self.node("Conv", x, w, self.weight(out, scale=0.1), strides=[stride] * 2, pads=[p, p, p, p])

    def model(self, y: str, shape: tuple[int, ...], classes: int) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "logits"
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", *shape])
        out = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(self.nodes, "net", [x], [out], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet50() -> onnx.ModelProto:
    """Return a ResNet-50 with random weights, its normalisation folded: square strided convolutions."""
    b = _Builder()
    v = b.node("Relu", b.conv("x", (64, 3, 7), 2))
    v = b.node("MaxPool", v, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            r = b.node("Relu", b.conv(v, (width, channels, 1)))
            r = b.node("Relu", b.conv(r, (width, width, 3), stride))
            r = b.conv(r, (4 * width, width, 1), gain=0.3)
            if not block:
                v = b.conv(v, (4 * width, channels, 1), stride, gain=0.7)
            channels = 4 * width
            v = b.node("Relu", b.node("Add", r, v))
    v = b.node("Flatten", b.node("GlobalAveragePool", v))
    return b.model(b.node("Gemm", v, b.weight(channels, 100, scale=0.02), b.weight(100, scale=0.1)), (3, 224, 224), 100)


def vit() -> onnx.ModelProto:
    """Return a vision transformer of two blocks with a class token, as exporters write one."""
    b, width, heads, tokens = _Builder(), 64, 4, 65

    def vector(*values: int) -> str:
        b.weights.append(numpy_helper.from_array(np.array(values, np.int64), f"w{len(b.weights)}"))
        return b.weights[-1].name

    def dense(x: str, into: int, out: int) -> str:
        return b.node("Add", b.node("MatMul", x, b.weight(into, out, scale=into**-0.5)), b.weight(out, scale=0.1))

    def norm(x: str) -> str:
        return b.node("LayerNormalization", x, b.weight(width, scale=1.0), b.weight(width, scale=0.1), axis=-1)

    p = b.node("Conv", "x", b.weight(width, 3, 8, 8), b.weight(width, scale=0.1), strides=[8, 8])
    p = b.node("Transpose", b.node("Reshape", p, vector(0, width, -1)), perm=[0, 2, 1])
    first = b.node("Slice", b.node("Shape", "x"), vector(0), vector(1))
    shape = b.node("Concat", first, vector(1, width), axis=0)
    token = b.node("Expand", b.weight(1, 1, width, scale=1.0), shape)
    v = b.node("Add", b.node("Concat", token, p, axis=1), b.weight(1, tokens, width, scale=0.3))
    for _ in range(2):
        n = norm(v)
        q, k, w = (
            b.node(
                "Transpose",
                b.node("Reshape", dense(n, width, width), vector(0, tokens, heads, width // heads)),
                perm=perm,
            )
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scaled = b.node("Mul", b.node("MatMul", q, k), b.weight(1, scale=0.1))
        mixed = b.node("MatMul", b.node("Softmax", scaled, axis=-1), w)
        joined = b.node("Reshape", b.node("Transpose", mixed, perm=[0, 2, 1, 3]), vector(0, tokens, width))
        v = b.node("Add", v, dense(joined, width, width))
        h = dense(norm(v), width, 2 * width)
        erf = b.node("Erf", b.node("Mul", h, _number(b, 0.5**0.5)))
        gelu = b.node("Mul", b.node("Mul", h, b.node("Add", erf, _number(b, 1.0))), _number(b, 0.5))
        v = b.node("Add", v, dense(gelu, 2 * width, width))
    v = b.node("Gather", norm(v), _scalar(b, 0), axis=1)
    return b.model(b.node("Gemm", v, b.weight(width, 10, scale=0.1), b.weight(10, scale=0.1)), (3, 64, 64), 10)


def _number(b: _Builder, value: float) -> str:
    b.weights.append(numpy_helper.from_array(np.float32(value), f"w{len(b.weights)}"))
    return b.weights[-1].name


def _scalar(b: _Builder, value: int) -> str:
    b.weights.append(numpy_helper.from_array(np.int64(value), f"w{len(b.weights)}"))
    return b.weights[-1].name


CASES = (
    Case("shapes", "the shipped example", lambda: onnx.load(ROOT / "examples" / "shapes.onnx")),
    Case("resnet20", "skip connections, normalisation", _shared("resnet20_cifar10_bn")),
    Case("kws_dscnn", "keyword spotting, one channel", _shared("kws_dscnn_mlperf")),
    Case("vit", "attention, a class token", vit),
    Case("parts_vit", "nodes transpose weights", lambda: onnx.load(ROOT / "examples" / "parts_vit.onnx")),
    Case("squeezenet", "wide joins, pools", _shared("squeezenet1_0_fp32"), heavy=True),
    Case("squeezenet_qdq", "int8", _shared("squeezenet1_1_qdq_int8"), heavy=True),
    Case("mobilenet_v2", "depthwise, bounds", _shared("mobilenet_v2_tf_fp32"), heavy=True),
    Case("ultraface", "a detector", _shared("ultraface_rfb_320"), heavy=True),
    Case("resnet50", "square strided convolutions", resnet50, heavy=True),
)


def write(case: Case, folder: Path) -> bool:
    """Write the files of a case and the inputs; return whether the model is there."""
    model = case.model()
    if model is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "plain.onnx")
    for stem, options in FILES.items():
        onnx.save(fgonnx.rewrite(model, **options), folder / f"{stem}.onnx")
    for stem in ("plain", *FILES):
        names = [v.name for v in onnx.load(folder / f"{stem}.onnx", load_external_data=False).graph.output]
        (folder / f"{stem}.outputs.json").write_text(json.dumps(names))
    weights = {t.name for t in model.graph.initializer}
    (x,) = (v for v in model.graph.input if v.name not in weights)
    dims = [d.dim_value for d in x.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    count = dims[0] or (SAMPLES if _takes_batch(folder / "input.onnx") else 1)
    drawn = rng.standard_normal((count, *dims[1:])).astype(np.float32)
    # Not the largest entry: a runtime that ignores the input would explain that one.
    ranks = np.argsort(fgonnx.Explainer(model).head(drawn).reshape(count, -1), axis=1)
    put(folder, {x.name: drawn, "target_index": ranks[:, -2].astype(np.int64)})
    return True


def _takes_batch(path: Path) -> bool:
    known = {p.key: p.value for p in onnx.load(path).metadata_props}
    return known["fgonnx.batch"] == "any"


def put(folder: Path, feeds: dict[str, Array]) -> None:
    """Write inputs for the runners."""
    described = {}
    for name, array in feeds.items():
        file = f"{'target' if name == 'target_index' else 'x'}.bin"
        array.tofile(folder / file)
        described[name] = {"file": file, "dtype": str(array.dtype), "shape": list(array.shape)}
    (folder / "feeds.json").write_text(json.dumps(described))


def get(folder: Path, stem: str, key: str) -> dict[str, Array]:
    """Read outputs that a runner wrote."""
    found = json.loads((folder / f"{stem}.{key}.json").read_text())["outputs"]
    return {n: np.fromfile(folder / f["file"], f["dtype"]).reshape(f["shape"]) for n, f in found.items()}
