"""What `inspect` says that an input of one axis holds: features, or a recording."""

import numpy as np
import pytest
from onnx import parser

import fgonnx

NET = '<ir_version: 8, opset_import: ["": 18]> net (float[N,26] x) => (float[N,2] y) '
FRAMES = "float[2,4,1] w = {1,2,3,4,5,6,7,8}, float[2] b = {1,2}, int64[3] s = {-1,6,4}, int64[1] last = {-1}"
CASES = {
    "a product": ("<float[26,2] w = {%s}, float[2] b = {1,2}> { h = MatMul(x, w) y = Add(h, b) }", "26 features"),
    "frames": (
        f"<{FRAMES}, int64[1] lo = {{1}}, int64[1] hi = {{25}}, int64[1] at = {{1}}> {{ c = Slice(x, lo, hi, at) "
        "f = Reshape(c, s) t = Transpose<perm = [0, 2, 1]>(f) h = Conv(t, w, b) r = Relu(h) "
        "y = ReduceMax<keepdims = 0>(r, last) }",
        "a series of one channel",
    ),
    "a convolution": (
        "<float[2,1,3] w = {1,2,3,4,5,6}, float[2] b = {1,2}, int64[1] at = {1}, int64[1] last = {-1}> "
        "{ u = Unsqueeze(x, at) h = Conv(u, w, b) r = Relu(h) y = ReduceMax<keepdims = 0>(r, last) }",
        "a series of one channel",
    ),
}


@pytest.mark.parametrize(("body", "kind"), CASES.values(), ids=CASES)
def test_one_axis_is_what_reads_it(body, kind):
    body = body.replace("%s", ", ".join(map(str, np.arange(52) / 10)))
    assert fgonnx.inspect(parser.parse_model(NET + body))["explanation"]["kind"].startswith(kind)
