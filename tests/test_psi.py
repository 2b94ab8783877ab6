"""A map is read where it lies, whatever the order of its axes: as if it had been brought to (N, channels, *grid)."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from fgonnx.engine.maps.axes import Atom, grid, other
from fgonnx.engine.maps.net import channel_sums
from fgonnx.engine.maps.placement import place
from fgonnx.engine.maps.psi import rescaled_sums
from fgonnx.engine.maps.signed import Signed, canonical, factored, sample_sums
from tests.support import emitted, run

BATCH = (Atom("batch", 0),)
ROWS, COLUMNS = grid(0, 3), grid(1, 4)
PATCHES = (*ROWS, *COLUMNS)
# One class token before the patches, one something behind them.
TOKENS = (Atom("tokens", 14, lead=1, inner=PATCHES),)

# Layout of a map and its shape, N = 2 samples.
MAPS = {
    "channels first": ((BATCH, other(5), ROWS, COLUMNS), (2, 5, 3, 4)),
    "channels last": ((BATCH, ROWS, COLUMNS, other(5)), (2, 3, 4, 5)),
    "patches": ((BATCH, PATCHES, other(5)), (2, 12, 5)),
    "patches, channels first": ((BATCH, other(5), PATCHES), (2, 5, 12)),
    "sequence first": ((PATCHES, BATCH, other(5)), (12, 2, 5)),
    "class tokens": ((BATCH, TOKENS, other(5)), (2, 14, 5)),
    "class tokens, sequence first": ((TOKENS, BATCH, other(5)), (14, 2, 5)),
    "class tokens, channels first": ((BATCH, other(5), TOKENS), (2, 5, 14)),
    "class tokens of heads": ((BATCH, other(2), TOKENS, other(5)), (2, 2, 14, 5)),
    "class tokens, then heads": ((BATCH, TOKENS, other(2), other(5)), (2, 14, 2, 5)),
    "columns first": ((BATCH, COLUMNS, ROWS, other(5)), (2, 4, 3, 5)),
    "windows": (
        (BATCH, (Atom("s1", 2, 2, 4, 0, 4),), ROWS, (Atom("s1", 2, 1, 4, 0, 4),), other(5)),
        (2, 2, 3, 2, 5),
    ),
    "rolled by one": ((BATCH, ROWS, (Atom("s1", 4, 1, 4, 1, 4),), other(5)), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("psi", ["abs", "positive"])
@pytest.mark.parametrize("biased", [False, True], ids=["product", "bias"])
@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_read_where_it_lies(name, biased, psi):
    layout, shape = MAPS[name]
    p = place(layout, 2, batched=True)
    batch = layout.index(BATCH)
    dims = ["N" if i == batch else d for i, d in enumerate(shape)]
    channel_axis = 1 if p.trivial else len(shape) - 1

    def make(op, x, b):
        x.shape = ir.Shape(dims)
        product = op.Mul(x, b) if biased else op.Identity(x)
        product.shape = x.shape
        signed = factored(op, product, x, b, p) if biased else Signed(product, p)
        found, _ = rescaled_sums(op, [signed], psi, 1e-6)
        total = sample_sums(op, signed)
        net, net_total = channel_sums(op, replace(signed, total=total))
        outputs = {
            "net": op.Identity(net),
            "map": found,
            "plain": canonical(op, product, p),
            "product": op.Identity(product),
        }
        return outputs if total is None or net_total is None else outputs | {"total": total, "net total": net_total}

    rng = np.random.default_rng(0)
    b_shape = [1] * len(shape)
    b_shape[channel_axis] = shape[channel_axis] if not (set(layout[channel_axis]) & set(TOKENS + PATCHES)) else 1
    x = rng.standard_normal(shape).astype(np.float32)
    b = rng.standard_normal(b_shape).astype(np.float32)
    got = run(emitted(make, x=("N", *shape[1:]), b=b_shape), {"x": x, "b": b})
    read = np.abs(got["plain"]) if psi == "abs" else np.maximum(got["plain"], 0)
    low, high = (each(axis=(1, 2, 3), keepdims=True) for each in (read.min, read.max))
    expected = ((read - low) / (high - low + 1e-6)).sum(1, keepdims=True)
    np.testing.assert_allclose(got["map"], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got["net"], got["plain"].sum(1).reshape(2, -1), rtol=0, atol=1e-5)
    if "total" in got:
        everything = np.moveaxis(got["product"], batch, 0).reshape(2, -1).sum(1)
        np.testing.assert_allclose(got["net total"], got["total"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(got["total"].sum(1), everything, rtol=0, atol=1e-5)
        np.testing.assert_allclose(got["total"][:, 0], got["plain"].sum((1, 2, 3)), rtol=0, atol=1e-5)
