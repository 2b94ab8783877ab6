"""Integer arithmetic between quantisers and the head, beside a skip connection and in a chain.

Slopes are held against differences of ONNX Runtime on the source, over steps far above the quantum.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.integer_networks import D3, DYNAMIC, Q3, D, Q, network, pictures, slope

C = "c = Cast<to=6>(q)\n"
E = "\ne = Cast<to=1>(c2)\nu = Mul(e, s)\nt = Add(y, u)"
U = "q = QuantizeLinear(y, s, zu)\n"
BY_CHANNEL = "q = QuantizeLinear<axis=1>(y, sc, zc)\n"
FINE = "q = QuantizeLinear(y, fine, z16)\n"

BIAS = """q, sx, zx = DynamicQuantizeLinear(y)
    c = ConvInteger<pads=[1,1,1,1]>(q, k8, zx)
    unit = Mul(sx, hundredths)
    steps = Div(b, unit)
    whole = Floor(steps)
    flat1 = Cast<to=6>(whole)
    j = Reshape(flat1, by4)
"""

#: What is computed on quantised values between QuantizeLinear and the head, beside a skip connection and without one.
RIGHT = {
    "Relu beside a skip": Q + "q2 = Relu(q)" + D,
    "Relu with a zero point": Q3 + "q2 = Relu(q)" + D3,
    "Relu, scale by channel": """q = QuantizeLinear<axis=1>(y, sc, zc)
        q2 = Relu(q)
        t = DequantizeLinear<axis=1>(q2, sc, zc)""",
    "Clip to fewer bits": Q + "q2 = Clip(q, low, high)\nt = DequantizeLinear(q2, s, z0)",
    "Clip with a zero point, beside a skip": Q3
    + "q2 = Clip(q, low, high)\nd = DequantizeLinear(q2, s, z3)\nt = Add(y, d)",
    "Clip, scale by channel": """q = QuantizeLinear<axis=1>(y, sc, zc)
        q2 = Clip(q, low, high)
        t = DequantizeLinear<axis=1>(q2, sc, zc)""",
    "Clip from below alone": Q + "q2 = Clip(q, low)" + D,
    "Clip, then Max": Q + "q1 = Clip(q, low, high)\nq2 = Max(q1, row)" + D,
    "Max with constants, beside a skip": Q + "q2 = Max(q, row)" + D,
    "Min with constants": Q3 + "q2 = Min(q, row)" + D3,
    "Max of two branches": Q + "h = Neg(y)\nr = QuantizeLinear(h, s, z0)\nq2 = Max(q, r)" + D,
    "Min of two scales, read in the first": Q + "h = Neg(y)\nr = QuantizeLinear(h, s2, z3)\nq2 = Min(q, r)" + D,
    "MaxPool, then Relu": Q + "q1 = MaxPool<kernel_shape=[2,2]>(q)\nq2 = Relu(q1)\nt = DequantizeLinear(q2, s, z0)",
    "ScatterND beside a skip": Q
    + """h = Neg(y)
        r = QuantizeLinear(h, s2, z0)
        m = Transpose<perm=[1,0,2,3]>(q)
        n = Transpose<perm=[1,0,2,3]>(r)
        u = Gather<axis=0>(n, pick)
        v = ScatterND(m, at, u)
        q2 = Transpose<perm=[1,0,2,3]>(v)"""
    + D,
    "Where with constants": Q + "q2 = Where(mask, q, row)" + D,
    "elements in another order": Q3 + "q1 = Gather<axis=1>(q, order)\nq2 = Relu(q1)" + D3,
    "dequantised by hand": Q3 + "c = Cast<to=1>(q)\nc1 = Sub(c, f3)\nt = Mul(c1, s)",
    "dequantised by hand, by channel": """q = QuantizeLinear<axis=1>(y, sc, zc)
        c = Cast<to=1>(q)
        c1 = Sub(c, zc4)
        d = Mul(c1, sc4)
        t = Add(d, y)""",
    "uint8, dequantised by hand in integers": """q = QuantizeLinear(y, s, zu)
        c = Cast<to=6>(q)
        c1 = Sub(c, i128)
        c2 = Cast<to=1>(c1)
        d = Mul(c2, s)
        t = Add(d, y)""",
    "integer bias and factor": Q
    + "c = Cast<to=6>(q)\nc1 = Add(c, i5)\nc2 = Mul(c1, i7)\ne = Cast<to=1>(c2)\nt = Mul(e, s)",
    "a residual sum in integers": """h = Sigmoid(y)
        q = QuantizeLinear(y, s, z3)
        r = QuantizeLinear(h, s2, z0)
        c = Cast<to=6>(q)
        e = Cast<to=6>(r)
        a = Add(c, e)
        a1 = Sub(a, i3)
        a2 = Cast<to=1>(a1)
        t = Mul(a2, s)""",
    "a product of integers": """h = Sigmoid(y)
        q = QuantizeLinear(y, s, z0)
        r = QuantizeLinear(h, s2, z0)
        c = Cast<to=6>(q)
        e = Cast<to=6>(r)
        a = Mul(c, e)
        a2 = Cast<to=1>(a)
        a3 = Mul(a2, s)
        t = Mul(a3, s2)""",
    "quantised dynamically, dequantised by hand": DYNAMIC,
    "Neg and Abs": Q + "c = Cast<to=6>(q)\nc1 = Abs(c)\nc2 = Neg(c1)\ne = Cast<to=1>(c2)\nt = Mul(e, s)",
    "saturated, then narrowed": Q
    + "c = Cast<to=6>(q)\nc1 = Mul(c, i2)\nc2 = Clip(c1, l32, h32)\nq2 = Cast<to=3>(c2)"
    + D,
    # quotients, means and bits moved out are rounded
    "Div": Q + C + "c2 = Div(c, i3)" + E,
    "Div by a negative number, in a chain": FINE + C + "c2 = Div(c, minus4)\ne = Cast<to=1>(c2)\nt = Mul(e, fine)",
    "a scale of fixed-point numbers": Q
    + C
    + "c1 = Mul(c, i5)\nc2 = Div(c1, i7)\nc3 = Clip(c2, l32, h32)\nq2 = Cast<to=3>(c3)"
    + D,
    "halved by BitShift": U
    + 'q2 = BitShift<direction="RIGHT">(q, shift)\nd = Cast<to=1>(q2)\nu = Mul(d, s)\nt = Add(y, u)',
    "multiplied by BitShift": U
    + 'c = Cast<to=12>(q)\nc1 = BitShift<direction="LEFT">(c, shift32)\nd = Cast<to=1>(c1)\nt = Mul(d, s)',
    "ReduceMean": FINE
    + C
    + "c2 = ReduceMean<keepdims=1>(c, ax23)\ne = Cast<to=1>(c2)\nu = Mul(e, fine)\nt = Add(y, u)",
    # reductions
    "ReduceMax beside a skip": Q + C + "c2 = ReduceMax<keepdims=1>(c, ax1)" + E,
    "ReduceMax of int8, axis dropped": Q3
    + "m = ReduceMax<keepdims=0>(q, ax3)\nd = DequantizeLinear(m, s, z3)\nt = Unsqueeze(d, ax3)",
    "ReduceMin of uint8": U + "q2 = ReduceMin<keepdims=1>(q, ax23)\nd = DequantizeLinear(q2, s, zu)\nt = Add(y, d)",
    "ReduceMax over channels of their own scales": BY_CHANNEL + "c2 = ReduceMax<keepdims=1>(q, ax1)" + E,
    "ReduceSum": Q3 + C + "c2 = ReduceSum<keepdims=1>(c, ax23)" + E,
    "ReduceL1": Q + C + "c2 = ReduceL1<keepdims=1>(c, ax1)" + E,
    "ReduceSumSquare": Q
    + C
    + "c1 = ReduceSumSquare<keepdims=1>(c, ax1)\ne1 = Cast<to=1>(c1)\nd1 = Mul(e1, s)\nd2 = Mul(d1, s)\nt = Add(y, d2)",
    "Pow": Q + C + "c1 = Pow(c, square)\ne1 = Cast<to=1>(c1)\nd = Mul(e1, s)\nd1 = Mul(d, s)\nt = Add(y, d1)",
    "CumSum": Q + C + "c1 = CumSum(c, last)\ne = Cast<to=1>(c1)\nt = Mul(e, s)",
    "MatMul with a constant": Q + C + "c1 = MatMul(c, w32)\ne = Cast<to=1>(c1)\nt = Mul(e, s)",
    "TopK": FINE + "q2, i = TopK<axis=3>(q, ax3)\nt = DequantizeLinear(q2, fine, z16)",
    # what 32 bits are not proved to hold
    "a bias in steps that the data decide": BIAS + "c1 = Add(c, j)\ne = Cast<to=1>(c1)\nt = Mul(e, unit)",
    "a bias taken away": BIAS + "h = Neg(j)\nc1 = Sub(c, h)\ne = Cast<to=1>(c1)\nd = Mul(e, unit)\nt = Add(y, d)",
    "a bias added in 64 bits": BIAS
    + "g = Cast<to=7>(c)\nh = Cast<to=7>(j)\nc1 = Add(g, h)\ne = Cast<to=1>(c1)\nt = Mul(e, unit)",
    "a bias, then a factor": BIAS
    + "c1 = Add(c, j)\nc3 = Mul(c1, i7)\ne = Cast<to=1>(c3)\nd = Mul(e, unit)\nt = Add(y, d)",
    # entries moved
    "Pad with the number 0, which is not the zero point": Q3 + "q2 = Pad(q, pads)" + D3,
    "Pad with a number": Q3 + "q2 = Pad(q, pads, pad8)" + D3,
    "Pad with the edge": Q3 + 'q2 = Pad<mode="edge">(q, pads)' + D3,
    "Trilu": Q3 + C + "c1 = Trilu<upper=0>(c)\ne = Cast<to=1>(c1)\nd = Sub(e, f3)\nt = Mul(d, s)",
    "Tile": Q3 + "q2 = Tile(q, twice)" + D3,
    "Expand": Q3 + "q2 = Expand(q, same)" + D3,
    "Compress": Q3 + "q2 = Compress<axis=1>(q, some)\nq3 = Gather<axis=1>(q2, some4)\nt = DequantizeLinear(q3, s, z3)",
    "Split and Concat": Q3 + "q0, q1 = Split<axis=1,num_outputs=2>(q)\nq2 = Concat<axis=1>(q1, q0)" + D3,
    "Concat of two scales, in int32": Q3
    + C
    + """h = Sigmoid(y)
        r = QuantizeLinear(h, s2, z0)
        c1 = Cast<to=6>(r)
        c2 = Concat<axis=2>(c, c1)
        e = Cast<to=1>(c2)
        d = Sub(e, f3)
        t = Mul(d, s)""",
    "Where of int32": Q3 + C + "c1 = Where(mask, c, rows32)\ne = Cast<to=1>(c1)\nd = Sub(e, f3)\nt = Mul(d, s)",
    "Where by what the input is": Q3 + "above = Greater(y, f0)\nq2 = Where(above, q, pad8)" + D3,
    "Resize, interpolated": Q3 + 'q2 = Resize<mode="linear">(q,,larger)' + D3,
    "Resize, nearest": Q3 + 'q2 = Resize<mode="nearest">(q,,larger)' + D3,
    "CastLike": Q3 + "c = CastLike(q, f3)\nd = Sub(c, f3)\nt = Mul(d, s)",
    # scales by channel
    "ReduceMax, scale by channel": BY_CHANNEL
    + "m = ReduceMax<keepdims=1>(q, ax3)\nd = DequantizeLinear<axis=1>(m, sc, zc)\nt = Add(y, d)",
    "channels reversed, scales too": BY_CHANNEL
    + "q2 = Slice(q, first, end, ax1, back)\nt = DequantizeLinear<axis=1>(q2, sr, zr)",
    "channels reversed, scales not": BY_CHANNEL
    + "q2 = Slice(q, first, end, ax1, back)\nt = DequantizeLinear<axis=1>(q2, sc, zc)",
    "channels gathered, scales not": BY_CHANNEL
    + "q2 = Gather<axis=1>(q, order)\nt = DequantizeLinear<axis=1>(q2, sc, zc)",
    "Reshape, scale by channel": BY_CHANNEL
    + "q1 = Reshape(q, flat)\nd = DequantizeLinear<axis=1>(q1, sc, zc)\nt = Unsqueeze(d, ax3)",
    # read in another scale
    "read in another scale": Q3 + "d = DequantizeLinear(q, s2, z0)\nt = Add(d, y)",
    "quantised twice": Q3
    + C
    + "c1 = Mul(c, i7)\ne = Cast<to=1>(c1)\nr = QuantizeLinear(e, f3, z3)\nt = DequantizeLinear(r, s, z0)",
    # tables
    "a table beside a skip": U + "c = Cast<to=6>(q)\nd = Gather(silu, c)\nt = Add(y, d)",
    "a table in a chain": U + "c = Cast<to=7>(q)\nt = Gather(silu, c)",
    "a table of signed numbers, counted from its end": Q + "c = Cast<to=7>(q)\nt = Gather(silu8, c)",
    "a table of signed numbers, moved to its start": Q + C + "c1 = Add(c, i128)\nt = Gather(silu, c1)",
    "a table of bytes": U
    + "c = Cast<to=6>(q)\nq2 = Gather(logistic, c)\nd = DequantizeLinear(q2, hundredths, z0u)\nt = Add(y, d)",
    "a table of bytes looked up by a table": U
    + """c = Cast<to=6>(q)
        q2 = Gather(logistic, c)
        c1 = Cast<to=6>(q2)
        t = Gather(silu, c1)""",
}


@pytest.mark.parametrize("case", RIGHT)
def test_slopes_through_integer_values_are_those_of_differences(case: str) -> None:
    regression, correlation = slope(network(RIGHT[case], opset=21 if "fine" in RIGHT[case] else 18), pictures(), 0.04)
    assert regression == pytest.approx(1, abs=0.05)
    assert correlation > 0.98


#: An integer picture, centred and scaled in integers, and what a step of grey levels must be.
PICTURES = {
    "centred": "c = Cast<to=6>(x)\nc1 = Sub(c, i128)\nc2 = Cast<to=1>(c1)",
    "centred, scaled and narrowed": """c = Cast<to=6>(x)
        c1 = Sub(c, i128)
        c3 = Mul(c1, i3)
        c4 = Div(c3, i4)
        c5 = Cast<to=3>(c4)
        c2 = Cast<to=1>(c5)""",
    "brightened by a table": "c = Cast<to=6>(x)\nq = Gather(logistic, c)\nc2 = Cast<to=1>(q)",
    "enlarged": 'u = Resize<mode="linear">(x,,larger)\nc2 = Cast<to=1>(u)',
    "without the mean of a row": """c = Cast<to=6>(x)
        c1 = Mul(c, i7)
        m = ReduceMean<keepdims=1>(c1, ax3)
        c3 = Sub(c1, m)
        c4 = Div(c3, i4)
        c2 = Cast<to=1>(c4)""",
}


@pytest.mark.parametrize("case", PICTURES)
def test_an_integer_picture_is_carried_through_integer_arithmetic(case: str) -> None:
    branch = PICTURES[case] + "\ne = Mul(c2, grey)\ny = Conv(e, w, b)\nt = Sigmoid(y)"
    x = np.random.default_rng(3).integers(20, 230, (3, 3, 10, 10)).astype(np.uint8)
    regression, correlation = slope(network(branch, dtype="uint8"), x, 3.0)
    assert regression == pytest.approx(1, abs=0.03)
    assert correlation > 0.98
