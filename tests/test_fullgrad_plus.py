"""FullGrad+: where blocks begin, the sum at each of them, and the map that adds all of it."""

import json

import numpy as np
import pytest

from fgonnx import Explainer, rewrite
from fgonnx.engine.maps import interpolate
from fgonnx.errors import OptionError
from tests import skips
from tests.cli_support import CIRCLE, SHAPES, good
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(3)


def explained(source, x=X, target=1, **options):
    return Explainer(source, method="fullgrad+", threads=1, **options)(x, target)


def upsampled(maps, grid):
    """Upsample maps (N, h, w), keeping their sum."""
    for axis, after in enumerate(grid, start=1):
        matrix = interpolate.mass_preserving(maps.shape[axis], after)
        maps = np.moveaxis(np.tensordot(matrix, maps, axes=(1, axis)), 0, axis)
    return maps


class TestDefinition:
    """The map of a small network, added up in numpy: blocks begin at x, at c and at f, which are the entries of e."""

    @pytest.fixture
    def parts(self):
        names = [n for v in ("c", "e") for n in (v, f"gradient:{v}")]
        found = Explainer(small_cnn(), expose=names, input_gradient=True, bias_gradients=True, psi="signed", threads=1)(
            X, 1
        )
        values = {v: found.exposed[v] * found.exposed[f"gradient:{v}"] for v in ("c", "e")}
        return {"x": X * found.input_gradient, **values, **found.bias_gradients}

    @pytest.mark.parametrize(
        ("skip", "shown"),
        [(0, "x a c d e"), (0.3, "x a c d e"), (0.4, "c d e"), (0.5, "c d e"), (0.7, "e"), (1, "e")],
    )
    def test_the_map_is_the_sum_of_all_blocks_and_biases(self, parts, skip, shown):
        expected = sum(upsampled(parts[n].sum(1), X.shape[2:]) for n in shown.split())
        found = explained(small_cnn(), psi="signed", skip=skip).saliency
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize(("psi", "taken"), [("abs", np.abs), ("positive", lambda v: np.maximum(v, 0))])
    def test_psi_is_of_the_sum(self, psi, taken):
        signed = explained(small_cnn(), psi="signed").saliency
        np.testing.assert_allclose(explained(small_cnn(), psi=psi).saliency, taken(signed), rtol=0, atol=1e-6)

    def test_the_contributions_are_those_of_fullgrad(self):
        plus, plain = explained(small_cnn()), Explainer(small_cnn(), threads=1)(X, 1)
        np.testing.assert_allclose(plus.contributions, plain.contributions, rtol=0, atol=1e-6)
        assert plus.sites == plain.sites


WEIGHTS = draw(w=(4, 3, 3, 3), v=(4, 4, 3, 3), b=(4,), out=(4, 3))
_STEM = "s = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)"
_HEAD = "p = GlobalAveragePool(z)\n f = Flatten(p)\n y = MatMul(f, out)"
_CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
BEGINNINGS = {
    "a chain begins at each layer with weights, behind its activation": (
        f"{_STEM}\n r = Relu(s)\n t = {_CONV}(r, v, b)\n z = Relu(t)",
        ["r", "z"],
    ),
    "a shortcut": (f"{_STEM}\n r = Relu(s)\n t = {_CONV}(r, v, b)\n z = Add(t, r)", ["r", "z"]),
    "two shortcuts": (
        f"{_STEM}\n t = {_CONV}(s, v, b)\n u = Add(t, s)\n a = {_CONV}(u, v, b)\n z = Add(a, u)",
        ["s", "u", "z"],
    ),
    "nothing inside of a block": (
        f"{_STEM}\n r = Relu(s)\n t = {_CONV}(r, v, b)\n k = Relu(t)\n q = {_CONV}(k, v, b)\n z = Add(q, r)",
        ["r", "z"],
    ),
    "an activation with a gate is no block": (f"{_STEM}\n g = Sigmoid(s)\n z = Mul(s, g)", ["z"]),
    "squeeze and excite is one": (
        f"{_STEM}\n m = GlobalAveragePool(s)\n g = Sigmoid(m)\n z = Mul(s, g)",
        ["s", "z"],
    ),
    "a value that is only moved begins nothing anew": (
        "t = Transpose<perm=[0,2,3,1]>(x)\n u = Transpose<perm=[0,3,1,2]>(t)\n"
        f"s = {_CONV}(u, w, b)\n t2 = Transpose<perm=[0,2,3,1]>(s)\n u2 = Transpose<perm=[0,3,1,2]>(t2)\n"
        f"a = {_CONV}(u2, v, b)\n z = Add(a, s)",
        ["s", "z"],
    ),
    "branches that are joined": (
        f"{_STEM}\n a = {_CONV}(s, v, b)\n c = Relu(s)\n j = Add(a, c)\n z = Relu(j)",
        ["s", "z"],
    ),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_blocks_begin_where_all_paths_meet(name):
    body, expected = BEGINNINGS[name]
    source = model(f"(float[N,3,8,6] x) => (float[N,3] y) {{ {body}\n {_HEAD} }}", weights=WEIGHTS)
    found = explained(source)
    assert list(found.blocks) == expected
    for total in found.blocks.values():
        np.testing.assert_allclose(total, found.score, rtol=0, atol=1e-5 * np.abs(found.contributions).sum())


class TestNetworks:
    @pytest.fixture
    def nets(self):
        skips.without("torch")
        from tests.witness import tokennets, torchnets

        return {**torchnets.NETS, **tokennets.NETS}, torchnets.export

    @pytest.mark.parametrize(
        ("name", "backward", "count"),
        [
            *(("vit", backward, 5) for backward in ("gradient", "libra", "attnlrp")),
            ("deit", "libra", 5),
            ("vit_pooled", "libra", 5),
            ("swin", "libra", 11),
            ("swin", "attnlrp", 11),
            ("convnext", "libra", 5),
            ("mobilevit", "libra", 3),
            ("unet", "gradient", 3),
            ("resnet", "gradient", 4),
            ("densenet", "gradient", 6),
            ("se_silu", "libra", 7),
        ],
    )
    def test_every_block_sums_to_the_score(self, nets, name, backward, count):
        known, export = nets
        build, shape = known[name]
        source = export(build(0), shape, folded=True)
        found = explained(source, pictures(2, shape[1:]), backward=backward)
        assert len(found.blocks) == count
        assert max(np.abs(v).max() for v in found.block_residuals().values()) < 1e-6


def test_a_network_without_a_grid_has_no_blocks():
    source = model(
        "(float[N,4] x) => (float[N,3] y) { h = MatMul(x, a)\n r = Relu(h)\n y = MatMul(r, c) }",
        weights=draw(a=(4, 6), c=(6, 3)),
    )
    found = explained(source, pictures(2, (4,)))
    assert found.blocks == {}
    assert found.rounding_residual().max() < 1e-6


def test_without_a_certificate_there_are_none():
    assert explained(small_cnn(), certificate=False).blocks == {}


@pytest.mark.parametrize("form", ["fast", "portable"])
def test_a_file_has_them(form, tmp_path):
    proto = rewrite(small_cnn(), method="fullgrad+", target=1, form=form)
    found = run(proto, {"x": X})
    assert found["blocks"].shape == (len(X), 2)
    np.testing.assert_allclose(found["blocks"], np.stack([found["score"]] * 2, 1), rtol=1e-4)
    assert list(Explainer(proto)(X).blocks) == ["c", "f"]


def test_the_record_reports_every_block(tmp_path):
    good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "fullgrad+", "--set", "skip=0.5", "--threads", 1)
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert len(record["blocks"]) > 4
    for block in record["blocks"]:
        assert block["sum"] == pytest.approx(record["score"], rel=1e-3)
        assert block["rounding"] < 1e-5


@pytest.mark.parametrize("skip", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(skip):
    with pytest.raises(OptionError, match="skip"):
        explained(small_cnn(), skip=skip)
