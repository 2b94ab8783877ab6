"""`check` fails a wrong gradient, of models that round inside, too, and passes the right one.

Rules are spoilt before the graph is written, so that the certificate closes over what is missing, as it would over a
fault of fgonnx's own.
"""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from fgonnx.audit.check import check
from fgonnx.engine.walk import backward
from tests import skips
from tests.support import draw, model

QUANTISED = ("QDQ", "QOperator", "dynamic")
SIZE = (3, 12, 12)
SAMPLES = np.random.default_rng(3).random((2, *SIZE), np.float32)

#: What a float32 model may do inside to `a`, making `t`, so that small steps of its score show nothing.
INSIDE = {
    "float": "t = Identity(a)",
    "bfloat16 and back": "u = Cast<to=16>(a)\nt = Cast<to=1>(u)",
    "float16 inside": "u = Cast<to=10>(a)\nv = Sigmoid(u)\nw = Add(u, v)\nt = Cast<to=1>(w)",
    "rounded by a large number": "u = Mul(a, sixteen)\nv = Add(u, magic)\nw = Sub(v, magic)\nt = Div(w, sixteen)",
    "large numbers that cancel": "u = Add(a, large)\nt = Sub(u, large)",
    "squares that cancel": "u = Add(a, hundred)\nv = Mul(u, u)\nw = Sub(v, square)\nt = Div(w, twice)",
    "normalised, of one value": """p = GlobalAveragePool(a)
        n = InstanceNormalization(p, ones, b1)
        l = LayerNormalization(p, one, one)
        q = Add(n, l)
        t = Add(a, q)""",
}
NUMBERS = {
    "sixteen": 16,
    "magic": 1.5 * 2**23,
    "large": 1e5,
    "hundred": 3e3,
    "square": 9e6,
    "twice": 6e3,
    "one": [1],
    "ones": [1] * 6,
}
FORMS = (*INSIDE, "scores that cancel", "float16", *QUANTISED)


def residual(dtype="float", inside="t = Identity(a)", behind="y = Identity(z)"):
    """A residual network with a normalised skip connection, a pooling and a dense head."""
    weights = draw(2, w1=(6, 3, 3, 3), b1=(6,), w2=(6, 6, 3, 3), b2=(6,), w3=(216, 16), b3=(16,), w4=(16, 4), b4=(4,))
    used = {k: np.array(v, np.float32) for k, v in NUMBERS.items() if k in f"{inside} {behind}"}
    return model(
        f"""({dtype}[N,3,12,12] x) => ({dtype}[N,4] y) {{
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            {inside}
            b = Relu(t)
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(b, w2, b2)
            d = Add(c, b)
            e = Relu(d)
            m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(e)
            f = Flatten(m)
            h = Gemm(f, w3, b3)
            r = Relu(h)
            z = Gemm(r, w4, b4)
            {behind}
        }}""",
        weights=weights | used,
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The network in all forms, as a mapping of their names to models."""
    quantization = skips.without("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("mutants")
    source = folder / "float.onnx"
    onnx.save(residual(), source)

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self):
            self.rest = iter([{"x": x[None]} for x in np.random.default_rng(4).random((8, *SIZE), np.float32)])

        def get_next(self):
            return next(self.rest, None)

    for form in ("QDQ", "QOperator"):
        quantization.quantize_static(
            source, folder / f"{form}.onnx", Calibration(), quant_format=getattr(quantization.QuantFormat, form)
        )
    quantization.quantize_dynamic(source, folder / "dynamic.onnx", weight_type=quantization.QuantType.QUInt8)
    half = residual("float16")
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    return {
        **{form: residual(inside=text) for form, text in INSIDE.items()},
        "scores that cancel": residual(behind="u = Add(z, large)\ny = Sub(u, large)"),
        "float16": half,
        **{form: folder / f"{form}.onnx" for form in QUANTISED},
    }


def halved(op, gradients, dims):
    return [op.Mul(g, 0.5) for g in gradients]


def flipped(op, gradients, dims):
    return [op.Neg(g) for g in gradients]


def cut(op, gradients, dims):
    """The last of several inputs, or every other column of the only one, gets nothing."""
    if len(gradients) > 1:
        return [*gradients[:-1], op.Mul(gradients[-1], 0.0)]
    return [op.Mul(gradients[0], (np.arange(int(dims[0][-1])) % 2).astype(np.float32))]


def neighbours(op, gradients, dims):
    """Channels get what belongs to the next one."""
    return [op.Gather(g, np.roll(np.arange(int(d[1])), 1), axis=1) for g, d in zip(gradients, dims, strict=True)]


def dropped(op, gradients, dims):
    """One channel gets nothing."""
    masks = [(np.arange(int(d[1])) != 1).astype(np.float32).reshape(1, -1, 1, 1) for d in dims]
    return [op.Mul(g, m) for g, m in zip(gradients, masks, strict=True)]


def shifted(op, gradients, dims):
    """Every pixel gets what belongs to the next one."""
    return [op.Gather(g, np.roll(np.arange(int(d[3])), 1), axis=3) for g, d in zip(gradients, dims, strict=True)]


MUTANTS = [
    ("Conv", halved),
    ("Conv", flipped),
    ("Conv", neighbours),
    ("Conv", dropped),
    ("Conv", shifted),
    ("Relu|StraightThrough", halved),  # quantisers fold a Relu into their range
    ("Add", cut),
    ("Add", halved),
    ("MaxPool", flipped),
    ("MaxPool", cut),
    ("Gemm|MatMul", halved),
    ("Gemm|MatMul", neighbours),
]


def spoil(monkeypatch, op_types, change):
    right = backward._linearise
    applied = []

    def linearise(op, node, *rest):
        local = right(op, node, *rest)
        active = [i for i, v in enumerate(node.inputs) if v in op.active]
        if node.op_type not in op_types.split("|") or (change is cut and op_types == "Add" and len(active) < 2):
            return local

        def vjp(g):
            found = local.vjp(g)
            applied.append(node)
            several = found if isinstance(found, (tuple, list)) else [found]
            kept = [i for i, v in enumerate(several) if v is not None]
            spoilt = change(op, [several[i] for i in kept], [op.dims(node.inputs[i]) for i in kept])
            if several is not found:
                return spoilt[0]
            return type(found)(spoilt[kept.index(i)] if i in kept else None for i in range(len(found)))

        return replace(local, vjp=vjp)

    monkeypatch.setattr(backward, "_linearise", linearise)
    return applied


def slopes(result):
    return [c.verdict for c in result.checks if "slope" in c.name]


@pytest.mark.parametrize("form", FORMS)
def test_the_right_gradient_passes(networks, form):
    result = check(networks[form], SAMPLES, threads=1)
    assert [c.verdict for c in result.checks] == ["passed"] * 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("op_types", "change"), MUTANTS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_wrong_gradient_fails(networks, form, op_types, change, monkeypatch):
    applied = spoil(monkeypatch, op_types, change)
    result = check(networks[form], SAMPLES, threads=1)
    assert applied
    assert "failed" in slopes(result)
    assert result.verdict == "failed"


@pytest.mark.parametrize("form", QUANTISED)
@pytest.mark.parametrize(("op_types", "change"), MUTANTS[:3], ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_wrong_gradient_does_not_pass_by_differences(networks, form, op_types, change, monkeypatch):
    monkeypatch.setattr("fgonnx.audit.check.forward_of", lambda *_: None)
    spoil(monkeypatch, op_types, change)
    result = check(networks[form], SAMPLES, threads=1)
    assert set(slopes(result)) != {"passed"}
    assert all(c.decides for c in result.checks if c.verdict == "undecided")


def square(back, front):
    """A square on a flat ground: most poolings tie."""
    x = np.full((2, *SIZE), back, np.float32)
    x[:, :, 4:8, 3:9] = front
    x[1, :, 5, 3:9] = back
    return x


GROUNDS = [(0, 1), (-0.42, 2.8), (1, 0)]


def to_all_ties(op, node, g):
    """The gradient of a pooling of 2 x 2 that gives every largest element the whole, not one of them."""
    x, y = node.inputs[0], node.outputs[0]
    scales = np.array([1, 1, 2, 2], np.float32)
    large, spread = (op.Resize(v, None, scales, mode="nearest") for v in (y, g))
    return op.Mul(spread, op.Cast(op.Equal(x, large), to=TensorProto.FLOAT))


@pytest.mark.parametrize(("back", "front"), GROUNDS)
def test_ties_on_a_flat_ground_are_no_errors(networks, back, front):
    assert check(networks["float"], square(back, front), threads=1).verdict != "failed"


@pytest.mark.parametrize(("back", "front"), GROUNDS[:2])
def test_ties_on_a_flat_ground_are_looked_at_from_beside(networks, back, front, monkeypatch):
    monkeypatch.setattr("fgonnx.audit.check.forward_of", lambda *_: None)
    result = check(networks["float"], square(back, front), threads=1)
    assert result.passed
    assert any("lies on kinks" in c.detail for c in result.checks)


@pytest.mark.parametrize(("back", "front"), GROUNDS)
def test_errors_on_a_flat_ground_are_no_ties(networks, back, front, monkeypatch):
    spoil(monkeypatch, "Conv", halved)
    assert check(networks["float"], square(back, front), threads=1).verdict == "failed"


@pytest.mark.parametrize(("back", "front"), [g for g in GROUNDS if g[0]])  # zeros stay, as the padding does
def test_ties_that_are_counted_twice_do_not_pass(networks, back, front, monkeypatch):
    right = backward._linearise

    def linearise(op, node, *rest):
        local = right(op, node, *rest)
        return replace(local, vjp=lambda g: to_all_ties(op, node, g)) if node.op_type == "MaxPool" else local

    monkeypatch.setattr(backward, "_linearise", linearise)
    result = check(networks["float"], square(back, front), threads=1)
    assert set(slopes(result)) != {"passed"}


@pytest.mark.parametrize("name", ["mnist_gap_torch27", "mnist8_cntk", "cifar10_resnet2b", "resnet20_cifar10_bn"])
def test_trained_networks_on_a_flat_ground(name, shared):
    path = shared / "models" / f"{name}.onnx"
    dims = [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.zeros((2, *dims), np.float32)
    x[0, :, 6:20, 12:15] = x[1, :, 6:9, 8:20] = x[1, :, 6:22, 17:20] = 1
    assert check(path, x, threads=1).passed
