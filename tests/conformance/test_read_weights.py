"""Weights in OpenVINO that products make matrices of in several ways, or that are quantised: a table of networks.

OpenVINO looks through views of weights, and makes one node of integers, their scales and what reads them. Each of these
networks either was explained wrongly there, beside right outputs, or is a neighbour of one that was.
"""

import ml_dtypes
import numpy as np
import pytest

import fgonnx
from fgonnx.engine.rewrite.portable import portable_violations
from tests import skips
from tests.support import model, run

_RNG = np.random.default_rng(0)
OUTPUTS = ("score", "input_gradient", "saliency", "contributions")
FRONT = np.array([1])


def f(*shape):
    return (_RNG.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 4))).astype(np.float32)


def b(*shape):
    return _RNG.integers(-90, 90, shape).astype(np.int8)


def steps(*shape):
    return (_RNG.random(shape) * 0.02 + 0.001).astype(np.float32)


def zeros(*shape):
    return _RNG.integers(-5, 6, shape).astype(np.int8)


def swapped(*perm):
    return f"Transpose<perm={list(perm)}>".replace(" ", "")


def einsum(equation):
    return f'Einsum<equation="{equation}">'


#: Shape of a sample, number of results, nodes, weights, operator set.
NETWORKS = {}


def net(name, shape, count, body, weights, opset=18):
    NETWORKS[name] = (shape, count, body, weights, opset)


for k in (3, 4, 5, 8):
    net(
        f"Einsum to heads of {k}",
        (5, 8),
        3,
        f"t=Tanh(x)\nv={einsum('bld,dhk->blhk')}(t,wv)\nu=Tanh(v)\ny={einsum('bihk,hkc->bc')}(u,wo)",
        {"wv": f(8, 2, k), "wo": f(2, k, 3)},
    )
net(
    "Einsum heads first",
    (5, 8),
    3,
    f"t=Tanh(x)\nv={einsum('bld,hdk->bhlk')}(t,wv)\nu=Tanh(v)\ny={einsum('bhik,hkc->bc')}(u,wo)",
    {"wv": f(2, 8, 4), "wo": f(2, 4, 3)},
)
net(
    "Einsum batched square",
    (2, 4),
    3,
    f"t=Tanh(x)\nv={einsum('bhd,hdk->bhk')}(t,wv)\nu=Tanh(v)\ny={einsum('bhk,hkc->bc')}(u,wo)",
    {"wv": f(2, 4, 4), "wo": f(2, 4, 3)},
)
net(
    "Einsum three terms",
    (5, 8),
    3,
    f"t=Tanh(x)\nv={einsum('bld,dhk,k->blhk')}(t,wv,s)\nu=Tanh(v)\ny={einsum('bihk,hkc->bc')}(u,wo)",
    {"wv": f(8, 2, 4), "wo": f(2, 4, 3), "s": f(4)},
)
net(
    "Einsum ellipsis",
    (5, 8),
    3,
    f"t=Tanh(x)\nv={einsum('...d,dk->...k')}(t,wv)\nu=Tanh(v)\ny={einsum('bik,kc->bc')}(u,wo)",
    {"wv": f(8, 8), "wo": f(8, 3)},
)
net(
    "Einsum of swapped letters",
    (5, 8),
    3,
    f"t=Tanh(x)\nv={einsum('bld,khd->blhk')}(t,wv)\nu=Tanh(v)\ny={einsum('bihk,hkc->bc')}(u,wo)",
    {"wv": f(4, 2, 8), "wo": f(2, 4, 3)},
)
net(
    "Einsum over two letters",
    (4, 2),
    3,
    f"t=Tanh(x)\nv={einsum('bhk,hkd->bd')}(t,wv)\nu=Tanh(v)\ny=MatMul(u,wo)",
    {"wv": f(4, 2, 8), "wo": f(8, 3)},
)
net(
    "full MHA",
    (5, 8),
    3,
    f"q={einsum('bld,dhk->blhk')}(x,wq)\nk={einsum('bld,dhk->blhk')}(x,wk)\n"
    f"v={einsum('bld,dhk->blhk')}(x,wv)\ns={einsum('bihk,bjhk->bhij')}(q,k)\na=Softmax(s)\no={einsum('bhij,bjhk->bihk')}(a,v)\np={einsum('bihk,hkd->bid')}(o,wp)\nr=Add(p,x)\nm=ReduceMean<keepdims=0>(r,ax)\ny=MatMul(m,wo)",
    {"wq": f(8, 2, 4), "wk": f(8, 2, 4), "wv": f(8, 2, 4), "wp": f(2, 4, 8), "wo": f(8, 3), "ax": FRONT},
)
net(
    "MHA tied",
    (5, 8),
    3,
    f"q={einsum('bld,dhk->blhk')}(x,wq)\nu=Tanh(q)\np={einsum('bihk,dhk->bid')}(u,wq)\n"
    "m=ReduceMean<keepdims=0>(p,ax)\ny=MatMul(m,wo)",
    {"wq": f(8, 2, 4), "wo": f(8, 3), "ax": FRONT},
)
net(
    "reshaped 3 to 2",
    (8,),
    3,
    "w=Reshape(w0,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"w0": f(8, 2, 4), "s": np.array([8, 8]), "wo": f(8, 3)},
)
net(
    "reshaped, transposed",
    (8,),
    3,
    f"w=Reshape(w0,s)\nw1={swapped(1, 0)}(w)\nh=MatMul(x,w1)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"w0": f(2, 4, 8), "s": np.array([8, 8]), "wo": f(8, 3)},
)
net(
    "transposed, reshaped",
    (8,),
    3,
    f"w={swapped(1, 0, 2)}(w0)\nw1=Reshape(w,s)\nh=MatMul(x,w1)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"w0": f(2, 8, 4), "s": np.array([8, 8]), "wo": f(8, 3)},
)
net(
    "flattened",
    (8,),
    3,
    "w=Flatten<axis=1>(w0)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"w0": f(8, 4, 2), "wo": f(8, 3)},
)
net(
    "squeezed",
    (8,),
    3,
    "w=Squeeze(w0,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"w0": f(8, 1, 8), "s": FRONT, "wo": f(8, 3)},
)
net(
    "cast, reshaped, transposed",
    (8,),
    3,
    f"c=Cast<to=1>(w0)\nw=Reshape(c,s)\nw1={swapped(1, 0)}(w)\nh=MatMul(x,w1)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"w0": f(64).astype(np.float16), "s": np.array([8, 8]), "wo": f(8, 3)},
)
net(
    "reshaped otherwise twice",
    (8,),
    3,
    f"w=Reshape(w0,s)\nh=MatMul(x,w)\nt=Tanh(h)\nv=Reshape(w0,s2)\nv1={swapped(1, 0)}(v)\n"
    "g=MatMul(t,v1)\nr=Tanh(g)\ny=MatMul(r,wo)",
    {"w0": f(48), "s": np.array([8, 6]), "s2": np.array([8, 6]), "wo": f(8, 3)},
)
net(
    "one memory, two matrices",
    (8,),
    3,
    f"h=MatMul(x,w0)\nt=Tanh(h)\nv=Reshape(w0,s2)\nv1={swapped(1, 0)}(v)\ng=MatMul(x,v1)\n"
    "r=Tanh(g)\nq=Add(r,t)\ny=MatMul(q,wo)",
    {"w0": f(8, 6), "s2": np.array([6, 8]), "wo": f(6, 3)},
)
net(
    "MatMul of heads",
    (2, 5, 4),
    3,
    "h=MatMul(x,w)\nt=Tanh(h)\nm=ReduceMean<keepdims=0>(t,ax)\ny=MatMul(m,wo)",
    {"w": f(2, 4, 4), "wo": f(4, 3), "ax": np.array([1, 2])},
)
net(
    "MatMul of 4-d square",
    (2, 5, 4),
    3,
    "u=Unsqueeze(x,a1)\nh=MatMul(u,w)\nt=Tanh(h)\nm=ReduceMean<keepdims=0>(t,ax)\ny=MatMul(m,wo)",
    {"w": f(3, 2, 4, 4), "wo": f(4, 3), "a1": FRONT, "ax": np.array([1, 2, 3])},
)
net(
    "MatMul heads moved",
    (4, 5, 4),
    3,
    f"w1={swapped(2, 1, 0)}(w)\nh=MatMul(x,w)\ng=MatMul(x,w1)\na=Add(h,g)\nt=Tanh(a)\n"
    "m=ReduceMean<keepdims=0>(t,ax)\ny=MatMul(m,wo)",
    {"w": f(4, 4, 4), "wo": f(4, 3), "ax": np.array([1, 2])},
)
net(
    "Gemm chain",
    (8,),
    3,
    "h=Gemm(x,w,bb)\nt=Tanh(h)\ng=Gemm<transB=1>(t,w,bb)\nr=Tanh(g)\ny=Gemm(r,wo)",
    {"w": f(8, 8), "bb": f(8), "wo": f(8, 3)},
)
net(
    "Gemm alpha left",
    (8,),
    3,
    f"xt={swapped(1, 0)}(x)\nh=Gemm<alpha=0.5>(w,xt)\nht={swapped(1, 0)}(h)\nt=Tanh(ht)\ny=Gemm(t,wo)",
    {"w": f(8, 8), "wo": f(8, 3)},
)
net(
    "left MatMul",
    (8, 5),
    3,
    "h=MatMul(w,x)\nt=Tanh(h)\nm=ReduceMean<keepdims=0>(t,ax)\ny=MatMul(m,wo)",
    {"w": f(8, 8), "wo": f(8, 3), "ax": np.array([2])},
)
net(
    "conv 1x1 and MatMul share",
    (8, 5, 5),
    3,
    f"h=Conv(x,w)\nt=Tanh(h)\ns=Squeeze(w,a)\nu={swapped(0, 2, 3, 1)}(t)\ng=MatMul(u,s)\n"
    "m=ReduceMean<keepdims=0>(g,ax)\ny=MatMul(m,wo)",
    {"w": f(8, 8, 1, 1), "a": np.array([2, 3]), "wo": f(8, 3), "ax": np.array([1, 2])},
)
net(
    "conv 1x1 square",
    (8, 5, 5),
    3,
    "h=Conv(x,w)\nt=Tanh(h)\ng=Conv(t,w)\nm=ReduceMean<keepdims=0>(g,ax)\ny=MatMul(m,wo)",
    {"w": f(8, 8, 1, 1), "wo": f(8, 3), "ax": np.array([2, 3])},
)
net(
    "conv tied to ConvTranspose",
    (8, 5, 5),
    3,
    "h=Conv<pads=[1,1,1,1]>(x,w)\nt=Tanh(h)\ng=ConvTranspose<pads=[1,1,1,1]>(t,w)\n"
    "m=ReduceMean<keepdims=0>(g,ax)\ny=MatMul(m,wo)",
    {"w": f(8, 8, 3, 3), "wo": f(8, 3), "ax": np.array([2, 3])},
)
net(
    "conv group square",
    (8, 5, 5),
    3,
    "h=Conv<group=2,pads=[1,1,1,1],strides=[2,2]>(x,w)\nt=Tanh(h)\nm=ReduceMean<keepdims=0>(t,ax)\ny=MatMul(m,wo)",
    {"w": f(8, 4, 3, 3), "wo": f(8, 3), "ax": np.array([2, 3])},
)
net(
    "conv 1d square",
    (8, 9),
    3,
    "h=Conv<strides=[2]>(x,w)\nt=Tanh(h)\nm=ReduceMean<keepdims=0>(t,ax)\ny=MatMul(m,wo)",
    {"w": f(8, 8, 3), "wo": f(8, 3), "ax": np.array([2])},
)
net(
    "LSTM square",
    (6, 8),
    3,
    f"xt={swapped(1, 0, 2)}(x)\no,hh,cc=LSTM<hidden_size=8>(xt,w,r)\nhs=Squeeze(hh,a)\nt=Tanh(hs)\ny=MatMul(t,wo)",
    {"w": f(1, 32, 8), "r": f(1, 32, 8), "a": np.array([0]), "wo": f(8, 3)},
)
net(
    "GRU square",
    (6, 8),
    3,
    f"xt={swapped(1, 0, 2)}(x)\no,hh=GRU<hidden_size=8>(xt,w,r)\nhs=Squeeze(hh,a)\nt=Tanh(hs)\ny=MatMul(t,wo)",
    {"w": f(1, 24, 8), "r": f(1, 24, 8), "a": np.array([0]), "wo": f(8, 3)},
)
net(
    "RNN square",
    (6, 8),
    3,
    f"xt={swapped(1, 0, 2)}(x)\no,hh=RNN<hidden_size=8>(xt,w,r)\nhs=Squeeze(hh,a)\nt=Tanh(hs)\ny=MatMul(t,wo)",
    {"w": f(1, 8, 8), "r": f(1, 8, 8), "a": np.array([0]), "wo": f(8, 3)},
)
for kind, axis, scale, zero in (
    ("columns", 1, steps(12), zeros(12)),
    ("columns, no zero", 1, steps(12), None),
    ("rows", 0, steps(10), zeros(10)),
    ("tensor", 1, np.float32(0.01), np.int8(2)),
    ("one element", 1, steps(1), zeros(1)),
    ("columns zero 0", 1, steps(12), np.zeros(12, np.int8)),
):
    more = {} if zero is None else {"zz": zero}
    read = ", ".join(["wi", "s", *more])
    net(
        f"DQ MatMul {kind}",
        (10,),
        3,
        f"w=DequantizeLinear<axis={axis}>({read})\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
        dict(wi=b(10, 12), s=scale, wo=f(12, 3), **more),
        13,
    )
net(
    "DQ square",
    (12,),
    3,
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(12, 12), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "DQ last layer",
    (10,),
    12,
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nt=Tanh(x)\ny=MatMul(t,w)",
    {"wi": b(10, 12), "s": steps(12), "zz": zeros(12)},
    13,
)
net(
    "DQ Gemm",
    (10,),
    3,
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nh=Gemm(x,w,bb)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(12), "zz": zeros(12), "bb": f(12), "wo": f(12, 3)},
    13,
)
net(
    "DQ Gemm transB",
    (10,),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Gemm<transB=1>(x,w,bb)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(12, 10), "s": steps(12), "zz": zeros(12), "bb": f(12), "wo": f(12, 3)},
    13,
)
net(
    "DQ transposed",
    (10,),
    3,
    f"w0=DequantizeLinear<axis=0>(wi,s,zz)\nw={swapped(1, 0)}(w0)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(12, 10), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "transposed DQ",
    (10,),
    3,
    f"w0={swapped(1, 0)}(wi)\nw=DequantizeLinear<axis=1>(w0,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(12, 10), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "DQ Einsum",
    (5, 10),
    3,
    f"w=DequantizeLinear<axis=2>(wi,s)\nh={einsum('bld,dhk->blhk')}(x,w)\nt=Tanh(h)\ny={einsum('bihk,hkc->bc')}(t,wo)",
    {"wi": b(10, 2, 5), "s": steps(5), "wo": f(2, 5, 3)},
    13,
)
net(
    "DQ left",
    (10, 5),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=MatMul(w,x)\nt=Tanh(h)\n"
    "m=ReduceMean<axes=[2],keepdims=0>(t)\ny=MatMul(m,wo)",
    {"wi": b(12, 10), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "DQ tokens",
    (5, 10),
    3,
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\n"
    "m=ReduceMean<axes=[1],keepdims=0>(t)\ny=MatMul(m,wo)",
    {"wi": b(10, 12), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "DQ heads",
    (2, 5, 10),
    3,
    "w=DequantizeLinear<axis=2>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\n"
    "m=ReduceMean<axes=[1,2],keepdims=0>(t)\ny=MatMul(m,wo)",
    {"wi": b(2, 10, 12), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "Cast Mul",
    (10,),
    3,
    "w0=Cast<to=1>(wi)\nw=Mul(w0,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(12), "wo": f(12, 3)},
    13,
)
net(
    "Cast Sub Mul",
    (10,),
    3,
    "w0=Cast<to=1>(wi)\nw1=Sub(w0,zz)\nw=Mul(w1,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12).view(np.uint8), "s": steps(12), "zz": np.float32(128), "wo": f(12, 3)},
    13,
)
net(
    "Cast zero too",
    (10,),
    3,
    "w0=Cast<to=1>(wi)\nz1=Cast<to=1>(zz)\nw1=Sub(w0,z1)\nw=Mul(w1,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "Sub of integers",
    (10,),
    3,
    "a=Cast<to=6>(wi)\nc=Cast<to=6>(zz)\nd=Sub(a,c)\nw0=Cast<to=1>(d)\nw=Mul(w0,s)\n"
    "h=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(12), "zz": zeros(12), "wo": f(12, 3)},
    13,
)
net(
    "Cast float16 Mul",
    (10,),
    3,
    "w0=Cast<to=1>(wi)\nw=Mul(w0,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": (b(10, 12) * 0.1).astype(np.float16), "s": steps(12), "wo": f(12, 3)},
    13,
)
net(
    "float16 scale",
    (10,),
    3,
    "w0=DequantizeLinear<axis=1>(wi,s)\nw=Cast<to=1>(w0)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(12).astype(np.float16), "wo": f(12, 3)},
    21,
)
net(
    "int4",
    (10,),
    3,
    "w=DequantizeLinear<axis=1>(wi,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": (b(10, 12) // 16).astype(ml_dtypes.int4), "s": steps(12), "wo": f(12, 3)},
    21,
)
net(
    "uint4 zero",
    (10,),
    3,
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {
        "wi": (b(10, 12) % 16).astype(ml_dtypes.uint4),
        "s": steps(12),
        "zz": (zeros(12) % 16).astype(ml_dtypes.uint4),
        "wo": f(12, 3),
    },
    21,
)
net(
    "blocked rows",
    (10,),
    3,
    "w=DequantizeLinear<axis=0,block_size=5>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(2, 12), "zz": zeros(2, 12), "wo": f(12, 3)},
    21,
)
net(
    "blocked, a short one",
    (10,),
    3,
    "w=DequantizeLinear<axis=0,block_size=4>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 12), "s": steps(3, 12), "zz": zeros(3, 12), "wo": f(12, 3)},
    21,
)
net(
    "blocked columns int4",
    (10,),
    3,
    "w=DequantizeLinear<axis=1,block_size=4>(wi,s,zz)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {
        "wi": (b(10, 12) // 16).astype(ml_dtypes.int4),
        "s": steps(10, 3),
        "zz": (zeros(10, 3)).astype(ml_dtypes.int4),
        "wo": f(12, 3),
    },
    21,
)
net(
    "float8",
    (10,),
    3,
    "w=DequantizeLinear<axis=1>(wi,s)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": (b(10, 12) * 0.5).astype(ml_dtypes.float8_e4m3fn), "s": steps(12), "wo": f(12, 3)},
    21,
)
TAIL = "t=Tanh(h)\nm=ReduceMean<axes=[2,3],keepdims=0>(t)\ny=MatMul(m,wo)"
net(
    "DQ Conv",
    (3, 6, 6),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv(x,w) " + TAIL,
    {"wi": b(4, 3, 3, 3), "s": steps(4), "zz": zeros(4), "wo": f(4, 3)},
    13,
)
net(
    "DQ Conv strided",
    (3, 7, 7),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv<strides=[2,2]>(x,w) " + TAIL,
    {"wi": b(4, 3, 3, 3), "s": steps(4), "zz": zeros(4), "wo": f(4, 3)},
    13,
)
net(
    "DQ Conv strided wide",
    (8, 7, 7),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv<strides=[2,2]>(x,w) " + TAIL,
    {"wi": b(8, 8, 3, 3), "s": steps(8), "zz": zeros(8), "wo": f(8, 3)},
    13,
)
net(
    "DQ Conv depthwise",
    (4, 7, 7),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv<group=4,strides=[2,2]>(x,w) " + TAIL,
    {"wi": b(4, 1, 3, 3), "s": steps(4), "zz": zeros(4), "wo": f(4, 3)},
    13,
)
net(
    "DQ Conv groups",
    (4, 7, 7),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv<group=2,pads=[1,1,1,1]>(x,w) " + TAIL,
    {"wi": b(4, 2, 3, 3), "s": steps(4), "zz": zeros(4), "wo": f(4, 3)},
    13,
)
net(
    "DQ ConvTranspose",
    (4, 6, 6),
    3,
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nh=ConvTranspose<strides=[2,2]>(x,w) " + TAIL,
    {"wi": b(4, 3, 3, 3), "s": steps(3), "zz": zeros(3), "wo": f(3, 3)},
    13,
)
net(
    "DQ Conv 1x1",
    (8, 6, 6),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv(x,w) " + TAIL,
    {"wi": b(8, 8, 1, 1), "s": steps(8), "zz": zeros(8), "wo": f(8, 3)},
    13,
)
net(
    "DQ Conv 1d",
    (3, 9),
    3,
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv(x,w)\nt=Tanh(h)\nm=ReduceMean<axes=[2],keepdims=0>(t)\ny=MatMul(m,wo)",
    {"wi": b(4, 3, 3), "s": steps(4), "zz": zeros(4), "wo": f(4, 3)},
    13,
)
net(
    "DQ factor of Mul",
    (10,),
    3,
    "w=DequantizeLinear<axis=0>(wi,s)\nh=Mul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10), "s": steps(10), "wo": f(10, 3)},
    13,
)
net(
    "DQ bias",
    (10,),
    3,
    "w=DequantizeLinear<axis=0>(wi,s)\nh=Add(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10), "s": steps(10), "wo": f(10, 3)},
    13,
)
net(
    "DQ sliced",
    (10,),
    3,
    "w0=DequantizeLinear<axis=1>(wi,s)\nw=Slice(w0,p0,p12,p1)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 15), "s": steps(15), "wo": f(12, 3), "p0": np.array([0]), "p12": np.array([12]), "p1": FRONT},
    13,
)
net(
    "DQ joined",
    (10,),
    3,
    "w0=DequantizeLinear<axis=1>(wi,s)\nw=Concat<axis=1>(w0,w0)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(10, 6), "s": steps(6), "wo": f(12, 3)},
    13,
)
net(
    "DQ rows gathered",
    (10,),
    3,
    "w0=DequantizeLinear<axis=1>(wi,s)\nw=Gather<axis=0>(w0,ix)\nh=MatMul(x,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"wi": b(14, 12), "s": steps(12), "wo": f(12, 3), "ix": np.arange(10)},
    13,
)
net(
    "QDQ MatMul per column",
    (10,),
    3,
    "q=QuantizeLinear(x,qs,qz)\nd=DequantizeLinear(q,qs,qz)\n"
    "w=DequantizeLinear<axis=1>(wi,s,zz)\nh=MatMul(d,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"qs": np.float32(0.03), "qz": np.int8(2), "wi": b(10, 12), "s": steps(12), "zz": zeros(12) * 0, "wo": f(12, 3)},
    13,
)
net(
    "QDQ MatMul per tensor",
    (10,),
    3,
    "q=QuantizeLinear(x,qs,qz)\nd=DequantizeLinear(q,qs,qz)\nw=DequantizeLinear(wi,s,zz)\n"
    "h=MatMul(d,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {
        "qs": np.float32(0.03),
        "qz": np.int8(2),
        "wi": b(10, 12),
        "s": np.float32(0.01),
        "zz": np.int8(0),
        "wo": f(12, 3),
    },
    13,
)
net(
    "QDQ Gemm",
    (10,),
    3,
    "q=QuantizeLinear(x,qs,qz)\nd=DequantizeLinear(q,qs,qz)\n"
    "w=DequantizeLinear<axis=0>(wi,s,zz)\nh=Gemm<transB=1>(d,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"qs": np.float32(0.03), "qz": np.int8(2), "wi": b(12, 10), "s": steps(12), "zz": zeros(12) * 0, "wo": f(12, 3)},
    13,
)
net(
    "QDQ Conv",
    (3, 6, 6),
    3,
    "q=QuantizeLinear(x,qs,qz)\nd=DequantizeLinear(q,qs,qz)\nw=DequantizeLinear<axis=0>(wi,s,zz)\nh=Conv(d,w) " + TAIL,
    {"qs": np.float32(0.03), "qz": np.int8(2), "wi": b(4, 3, 3, 3), "s": steps(4), "zz": zeros(4) * 0, "wo": f(4, 3)},
    13,
)
net(
    "QDQ per row",
    (10,),
    3,
    "q=QuantizeLinear(x,qs,qz)\nd=DequantizeLinear(q,qs,qz)\nw=DequantizeLinear<axis=0>(wi,s)\n"
    "h=MatMul(d,w)\nt=Tanh(h)\ny=MatMul(t,wo)",
    {"qs": np.float32(0.03), "qz": np.int8(2), "wi": b(10, 12), "s": steps(10), "wo": f(12, 3)},
    13,
)


every_form = pytest.mark.parametrize("form", ["portable", "openvino"])
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name):
    shape, count, body, weights, opset = NETWORKS[name]
    sizes = ",".join(map(str, shape))
    source = f"(float[N,{sizes}] x) => (float[N,{count}] y) {{ {body} }}"
    return model(source, opset, 10 if opset > 18 else 8, weights)


def pictures(name):
    return np.random.default_rng(1).standard_normal((3, *NETWORKS[name][0])).astype(np.float32)


def written(name, form):
    return fgonnx.rewrite(network(name), form=form, target=1, outputs=OUTPUTS)


def in_openvino(proto, x):
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = openvino.Core()
    found = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", settings)([x])
    return {v.name: found[i] for i, v in enumerate(proto.graph.output)}


@every_form
@every_network
def test_the_explanation_in_openvino_is_that_of_onnxruntime(name, form):
    skips.without("openvino")
    proto, x = written(name, form), pictures(name)
    expected, found = run(proto, {"x": x}), in_openvino(proto, x)
    terms = max(float(np.abs(expected[n]).max()) for n in ("score", "contributions"))
    for output, array in expected.items():
        scale = terms if output in ("score", "contributions") else float(np.abs(array).max())
        np.testing.assert_allclose(found[output].reshape(array.shape), array, rtol=0, atol=2e-5 * scale, err_msg=output)


@every_form
@every_network
def test_the_explanation_is_that_of_the_fast_form(name, form):
    expected, found = (run(written(name, which), {"x": pictures(name)}) for which in ("fast", form))
    for output, array in expected.items():
        scale = max(1.0, float(np.abs(expected["contributions"]).max()), float(np.abs(array).max()))
        np.testing.assert_allclose(found[output], array, rtol=0, atol=5e-6 * scale, err_msg=output)


@every_form
@every_network
def test_the_check_finds_nothing(name, form):
    assert portable_violations(written(name, form)) == []


#: What OpenVINO 2026.4 computes wrongly in the fast form.
WRONG = (
    "Cast Mul",
    "Cast Sub Mul",
    "Cast zero too",
    "DQ Conv strided wide",
    "DQ Einsum",
    "DQ Gemm",
    "DQ Gemm transB",
    "DQ MatMul columns",
    "DQ MatMul columns zero 0",
    "DQ MatMul columns, no zero",
    "DQ MatMul rows",
    "DQ last layer",
    "DQ rows gathered",
    "DQ square",
    "Einsum batched square",
    "Einsum ellipsis",
    "Einsum over two letters",
    "Einsum to heads of 4",
    "GRU square",
    "Gemm chain",
    "MHA tied",
    "QDQ Gemm",
    "QDQ MatMul per column",
    "QDQ per row",
    "RNN square",
    "cast, reshaped, transposed",
    "conv 1d square",
    "conv 1x1 and MatMul share",
    "conv group square",
    "conv tied to ConvTranspose",
    "flattened",
    "float16 scale",
    "full MHA",
    "int4",
    "one memory, two matrices",
    "reshaped 3 to 2",
    "reshaped, transposed",
    "squeezed",
    "transposed DQ",
    "transposed, reshaped",
    "uint4 zero",
)


@pytest.mark.parametrize("name", WRONG)
def test_the_check_finds_what_openvino_gets_wrong(name):
    assert any("weights" in violation for violation in portable_violations(written(name, "fast")))
