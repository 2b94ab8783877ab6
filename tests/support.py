"""What the integration tests share: small models as text, plain onnxruntime, and the same graph in float64."""

import copy
import importlib.util

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, numpy_helper, parser

from fgonnx.audit.evaluate import registry as measures
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.methods import registry as methods
from fgonnx.engine.rules import registry as rules

CPU = ["CPUExecutionProvider"]


def script(path):
    """Import a Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(graph, opset=18, ir_version=8, weights=None):
    """Parse a graph in ONNX text.

    Parameters
    ----------
    graph : str
        ``(float[N,3] x) => (float[N,2] y) {...}``, its initializers between ``<`` and ``>`` before the braces.
    opset, ir_version : int
        Versions.
    weights : mapping of str to array, optional
        More initializers, too long to be written out.
    """
    proto = parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]> net {graph}')
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def small_cnn(batch="N", opset=18, ir_version=8, seed=0, layout="NCHW"):
    """Two convolutions, a max pooling and a dense head over (3, 8, 6): the model for tests that need just any."""
    shape, first, moved = {
        "NCHW": ("3,8,6", "x", ""),
        "NHWC": ("8,6,3", "t", "t = Transpose<perm=[0,3,1,2]>(x)"),
    }[layout]
    return model(
        f"""(float[{batch},{shape}] x) => (float[{batch},5] y) {{
            {moved}
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>({first}, w1, b1)
            b = Relu(a)
            c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)
            d = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(c, w2, b2)
            e = Relu(d)
            f = Flatten(e)
            y = Gemm(f, w3, b3)
        }}""",
        opset,
        ir_version,
        draw(seed, w1=(4, 3, 3, 3), b1=(4,), w2=(6, 4, 3, 3), b2=(6,), w3=(72, 5), b3=(5,)),
    )


def emitted(make, **shapes):
    """Return a model of float32 inputs; `make` is given an Emitter and their values, and returns outputs by name."""
    values = {
        name: ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(ir.DataType.FLOAT))
        for name, dims in shapes.items()
    }
    graph = ir.Graph(list(values.values()), [], nodes=[], opset_imports={"": 18}, name="net")
    for name, v in make(Emitter(graph), *values.values()).items():
        v.name, v.shape = name, None
        graph.outputs.append(v)
    return ir.to_proto(ir.Model(graph, ir_version=8))


def draw(seed=0, **shapes):
    """Return seeded float32 arrays by name, scaled so that signals neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 4))).astype(np.float32)
        for name, shape in shapes.items()
    }


def pictures(count, shape=(3, 8, 6), seed=1):
    """Return a batch of seeded float32 inputs."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def run(proto, feeds, names=None, *, optimise=True):
    """Run a model with onnxruntime and nothing else; a model is a ModelProto, bytes or a path."""
    source = proto.SerializeToString() if isinstance(proto, onnx.ModelProto) else proto
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(source, options, providers=CPU)
    names = names or [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def in_float64(proto):
    """Return the same graph with float64 in place of float32, for `onnx.reference`.

    In float32 a pre-activation within rounding of zero may fall on the other side of a ReLU, and two correct engines
    then disagree by a whole path; in float64 they do not. Weights keep their float32 values.
    """
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    graph = twin.graph
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.HasField("t"):
            _widen(attribute.t)
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
    return twin


def _widen(tensor):
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def evaluate(proto, feeds):
    """Run a model in float64 with onnx's reference implementation, which shares no code with onnxruntime."""
    from onnx.reference import ReferenceEvaluator

    names = [o.name for o in proto.graph.output]
    feeds = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feeds.items()}
    return dict(zip(names, ReferenceEvaluator(in_float64(proto)).run(names, feeds), strict=True))


VIT = model(
    """(float[N,3,8,8] x) => (float[N,4] y) {
        e = Conv<kernel_shape=[2,2], strides=[2,2]>(x, patch, bias)
        s = Constant<value_ints=[0,6,16]>()
        f = Reshape(e, s)
        t = Transpose<perm=[0,2,1]>(f)
        n = LayerNormalization<axis=-1>(t, gamma, beta)
        k = Transpose<perm=[0,2,1]>(n)
        a = MatMul(n, k)
        p = Softmax<axis=-1>(a)
        o = MatMul(p, n)
        z = Add(o, t)
        g = Gelu(z)
        m = Constant<value_ints=[1]>()
        r = ReduceMean<keepdims=0>(g, m)
        y = MatMul(r, out)
    }""",
    opset=20,
    weights=draw(patch=(6, 3, 2, 2), bias=(6,), gamma=(6,), beta=(6,), out=(6, 4)),
)
"""Patches, one head of attention, a gate, a mean: a vision transformer of (3, 8, 8)."""


def forgetting(monkeypatch):
    """Let rules, methods and measures that are registered from now on be forgotten after the test."""
    for module, name in ((rules, "_RULES"), (methods, "_METHODS"), (measures, "_MEASURES")):
        monkeypatch.setattr(module, name, copy.deepcopy(getattr(module, name)))
