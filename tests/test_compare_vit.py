"""A vision transformer, optimised and dynamically quantised by onnxruntime: compare names the layer that is spoilt."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import fgonnx
from tests import skips
from tests.support import draw, model

WIDTH, HEADS, BLOCKS, TOKENS = 32, 4, 2, 16
X = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
LAYERS = [f"{kind}{i}" for i in range(BLOCKS) for kind in ("qkv", "out", "up", "down")]


def block(i, x):
    """Attention and a perceptron, each behind a normalisation and beside a skip connection."""
    return f"""
        n{i} = LayerNormalization({x}, g, z)
        m{i} = MatMul(n{i}, wqkv{i})
        a{i} = Add(m{i}, bqkv{i})
        s{i} = Reshape(a{i}, split)
        t{i} = Transpose<perm=[2,0,3,1,4]>(s{i})
        q{i}, k{i}, v{i} = Split<axis=0, num_outputs=3>(t{i})
        qs{i} = Squeeze(q{i}, first)
        ks{i} = Squeeze(k{i}, first)
        vs{i} = Squeeze(v{i}, first)
        kt{i} = Transpose<perm=[0,1,3,2]>(ks{i})
        d{i} = MatMul(qs{i}, kt{i})
        e{i} = Mul(d{i}, scale)
        p{i} = Softmax(e{i})
        c{i} = MatMul(p{i}, vs{i})
        ct{i} = Transpose<perm=[0,2,1,3]>(c{i})
        cr{i} = Reshape(ct{i}, joined)
        o{i} = MatMul(cr{i}, wout{i})
        ob{i} = Add(o{i}, bout{i})
        r{i} = Add({x}, ob{i})
        n2{i} = LayerNormalization(r{i}, g, z)
        u{i} = MatMul(n2{i}, wup{i})
        ub{i} = Add(u{i}, bup{i})
        h{i} = Relu(ub{i})
        w{i} = MatMul(h{i}, wdown{i})
        wb{i} = Add(w{i}, bdown{i})
        x{i} = Add(r{i}, wb{i})"""


def transformer():
    sizes = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    shapes = {f"w{k}{i}": s for i in range(BLOCKS) for k, s in sizes.items()}
    shapes |= {f"b{k}{i}": s[1:] for i in range(BLOCKS) for k, s in sizes.items()}
    weights = draw(7, patch=(WIDTH, 3, 4, 4), place=(1, TOKENS, WIDTH), head=(WIDTH, 5), **shapes)
    weights |= {k: v * np.sqrt(3).astype(np.float32) for k, v in weights.items() if k.startswith("wqkv")}
    weights |= {"g": np.ones(WIDTH, np.float32), "z": np.zeros(WIDTH, np.float32)}
    weights |= {"scale": np.float32(1 / np.sqrt(WIDTH // HEADS)), "first": np.array([0]), "last": np.array([1])}
    weights |= {"split": np.array([0, TOKENS, 3, HEADS, WIDTH // HEADS]), "joined": np.array([0, TOKENS, WIDTH])}
    weights |= {"tokens": np.array([0, WIDTH, TOKENS])}
    blocks = "".join(block(i, f"x{i - 1}" if i else "t") for i in range(BLOCKS))
    net = model(
        f"""(float[N,3,16,16] x) => (float[N,5] y) {{
            conv = Conv<strides=[4,4]>(x, patch)
            flat = Reshape(conv, tokens)
            turned = Transpose<perm=[0,2,1]>(flat)
            t = Add(turned, place)
            {blocks}
            n = LayerNormalization(x{BLOCKS - 1}, g, z)
            pooled = ReduceMean<keepdims=0>(n, last)
            y = MatMul(pooled, head)
        }}""",
        weights=weights,
    )
    for node in net.graph.node:
        node.name = node.output[0]
    return net


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """Return a function: the transformer optimised and dynamically quantised, with one layer spoilt or none."""
    quantization = skips.without("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("vit")
    onnx.save(transformer(), folder / "source.onnx")

    def make(spoilt=""):
        source = transformer()
        for tensor in source.graph.initializer:
            if tensor.name == f"w{spoilt}":
                w = numpy_helper.to_array(tensor)
                step = np.abs(w).max() / 2  # as coarse as two bits
                tensor.CopyFrom(numpy_helper.from_array((np.rint(w / step) * step).astype(np.float32), tensor.name))
        raw, optimised, done = (folder / f"{kind}{spoilt}.onnx" for kind in ("raw", "optimised", "int8"))
        onnx.save(source, raw)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 4
        ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        # Operators outside the standard have types that onnx's inference does not know.
        typed = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantization.quantize_dynamic(optimised, done, weight_type=quantization.QuantType.QInt8, extra_options=typed)
        return done

    return folder / "source.onnx", make


def test_a_good_int8_transformer_looks_at_the_same_thing(quantised):
    source, make = quantised
    found = fgonnx.compare(source, make(), X, threads=1)
    assert found.measures["top1"].min() == 1
    assert found.measures["rank_correlation"].min() > 0.9
    assert found.parted() == []


@pytest.mark.parametrize("layer", LAYERS)
def test_the_layer_named_is_the_spoilt_one(quantised, layer):
    source, make = quantised
    found = fgonnx.compare(source, make(layer), X, threads=1)
    first, _ = found.parted()[0]
    assert first.layer == next(n.name for n in onnx.load(source).graph.node if f"w{layer}" in n.input)
    assert first.where == "gives"
