"""What mutations begin with: small models of many kinds, and one file of each kind that is read beside them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from fgonnx import rewrite
from tests.support import draw, model

ROOT = Path(__file__).resolve().parents[2]
_TEXTS = {
    "cnn": """(float[N,3,8,8] x) => (float[N,4] y) {
      c = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(c) p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r)
      g = GlobalAveragePool(p) f = Flatten(g) l = Gemm(f, v) y = Softmax(l) }""",
    "mlp": "(float[N,6] x) => (float[N,4] y) { h = MatMul(x, a) s = Sigmoid(h) t = Tanh(s) y = MatMul(t, v) }",
    "norm": """(float[N,3,8,8] x) => (float[N,4] y) {
      c = Conv(x, w, b) n = BatchNormalization(c, b, b, b, q) u = Clip(n, lo, hi)
      m = ReduceMean<axes=[2,3],keepdims=0>(u)
      y = MatMul(m, v) }""",
    "skip": """(float[2,3,8,8] x) => (float[2,4] y) {
      c = Conv<pads=[1,1,1,1]>(x, w, b) d = Conv<pads=[1,1,1,1]>(x, w) e = Add(c, d) r = LeakyRelu(e)
      s = Shape(r) t = Slice(s, zero, two) k = Concat<axis=0>(t, minus) f = Reshape(r, k)
      m = ReduceMean<axes=[2],keepdims=0>(f)
      y = MatMul(m, v) }""",
    "attention": """(float[N,5,4] x) => (float[N,4] y) {
      q1 = MatMul(x, v) k1 = MatMul(x, v) kt = Transpose<perm=[0,2,1]>(k1) s1 = MatMul(q1, kt) p = Softmax(s1)
      o = MatMul(p, x) y = ReduceMean<axes=[1],keepdims=0>(o) }""",
}
_WEIGHTS = {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 4), "a": (6, 4), "q": (4,)}
_CONSTANTS = {
    "zero": np.array([0]),
    "two": np.array([2]),
    "minus": np.array([-1]),
    "lo": np.array(0.0, np.float32),
    "hi": np.array(6.0, np.float32),
}


def models() -> dict[str, bytes]:
    """Return small models by name: written by hand, with a loop, quantised, with a function, and one fgonnx wrote."""
    found = {}
    weights = {k: np.abs(w) if k == "q" else w for k, w in draw(**_WEIGHTS).items()}
    for name, text in _TEXTS.items():
        used = {k: w for k, w in {**weights, **_CONSTANTS}.items() if _names(text, k)}
        found[name] = model(text, 17, weights=used).SerializeToString()
    found["written"] = rewrite(found["cnn"]).SerializeToString()
    found["shapes"] = (ROOT / "examples/shapes.onnx").read_bytes()
    found["function"] = _with_function(found["mlp"])
    found["branch"] = _with_branch()
    return found


def _names(text: str, name: str) -> bool:
    return any(part.strip() == name for part in text.replace("(", ",").replace(")", ",").split(","))


def _with_function(source: bytes) -> bytes:
    proto = onnx.load_from_string(source)
    node = next(n for n in proto.graph.node if n.op_type == "Tanh")
    node.op_type, node.domain = "Twice", "own"
    imports = [onnx.helper.make_opsetid("", 17)]
    inner = [onnx.helper.make_node("Tanh", ["X"], ["t"]), onnx.helper.make_node("Add", ["t", "t"], ["Y"])]
    proto.functions.append(onnx.helper.make_function("own", "Twice", ["X"], ["Y"], inner, imports))
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    return proto.SerializeToString()


def _with_branch() -> bytes:
    h, kind = onnx.helper, onnx.TensorProto
    branches = [
        h.make_graph([h.make_node(op, ["x"], [op])], op, [], [h.make_tensor_value_info(op, kind.FLOAT, None)])
        for op in ("Relu", "Neg")
    ]
    step = h.make_graph(
        [h.make_node("Identity", ["go_in"], ["go_out"]), h.make_node("Relu", ["v_in"], ["v_out"])],
        "step",
        [
            h.make_tensor_value_info("i", kind.INT64, []),
            h.make_tensor_value_info("go_in", kind.BOOL, []),
            h.make_tensor_value_info("v_in", kind.FLOAT, None),
        ],
        [h.make_tensor_value_info("go_out", kind.BOOL, []), h.make_tensor_value_info("v_out", kind.FLOAT, None)],
    )
    nodes = [
        h.make_node("If", ["yes"], ["z"], then_branch=branches[0], else_branch=branches[1]),
        h.make_node("Loop", ["n", "yes", "z"], ["u"], body=step),
        h.make_node("MatMul", ["u", "a"], ["y"]),
    ]
    weights = [
        onnx.numpy_helper.from_array(v, k)
        for k, v in {"yes": np.array(True), "n": np.array(3), **draw(a=(6, 4))}.items()
    ]
    ends = [h.make_tensor_value_info(n, kind.FLOAT, ["N", s]) for n, s in (("x", 6), ("y", 4))]
    graph = h.make_graph(nodes, "branch", ends[:1], ends[1:], weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9).SerializeToString()


def inputs() -> dict[str, bytes]:
    """Return the content of files that are read beside a model, by a name whose ending says what they are."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    found = {}
    for kind in ("png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        found[f"picture.{kind}"] = stream.getvalue()
    x = rng.normal(size=(1, 3, 64, 64)).astype(np.float32)
    found["array.npy"] = _saved(x)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as parts:
        parts.writestr("x.npy", _saved(x))
        parts.writestr("y.npy", _saved(np.array([3])))
    found["data.npz"] = archive.getvalue()
    sound = rng.integers(-(2**15), 2**15, 1600).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    found["sound.wav"] = (
        b"RIFF" + struct.pack("<I", 36 + len(sound)) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data"
    ) + (struct.pack("<I", len(sound)) + sound)
    names = ["circle", "square", "triangle", "star", "cross", "ring"]
    found["labels.txt"] = "\n".join(names).encode()
    found["labels.json"] = json.dumps(names).encode()
    found["labels.csv"] = "".join(f"{name},{i}\n" for i, name in enumerate(names)).encode()
    found["preprocess.json"] = b'{"size": [64, 64], "scale": 0.0039, "mean": [0.5, 0.5, 0.5], "std": 0.5}'
    return found


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
