"""Where tokens lie: a score that one patch alone has an influence on has its map there, in every token network."""

import itertools

import numpy as np
import pytest

from fgonnx import Explainer, targets
from tests import skips
from tests.support import draw, model, pictures

skips.without("torch")

from tests.witness import onepatch, torchnets  # noqa: E402

READ = (9, 17)  # row 1, column 3; row 2, column 5: on grids of 4 x 6
RUNS = {
    "fullgrad": {},
    "fullgrad, libra": {"backward": "libra"},
    "net-fullgrad": {"method": "net-fullgrad"},
    "fullgrad+": {"method": "fullgrad+", "backward": "libra"},
    "gradient-x-input": {"method": "gradient-x-input"},
    "hires-cam": {"method": "hires-cam", "psi": "signed"},
}


def target(name, read):
    if name == "CLIP":
        return targets.Similarity(np.linspace(-1, 1, 5))
    return read * 5 + 1 if name.startswith("DINO") else 1


@pytest.fixture(scope="module", params=zip(onepatch.NETS, itertools.cycle(READ)), ids=str)
def case(request):
    name, read = request.param
    return name, read, torchnets.export(onepatch.build(name, read), onepatch.SHAPE, folded=True, opset=18)


def place(read):
    """Return the rows and columns of a patch."""
    row, column = divmod(read, onepatch.COLUMNS)
    size = onepatch.PATCH
    return slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)


def near(read):
    """Return the patch and as far around it as interpolation reaches, (H, W)."""
    rows, columns = place(read)
    found = np.zeros(onepatch.SHAPE[2:], bool)
    size = onepatch.PATCH
    found[max(rows.start - size, 0) : rows.stop + size, max(columns.start - size, 0) : columns.stop + size] = True
    return found


@pytest.mark.parametrize("run", RUNS)
def test_the_map_is_where_the_only_patch_is_that_matters(case, run):
    name, read, source = case
    x = pictures(2, onepatch.SHAPE[1:])
    found = np.abs(Explainer(source, threads=1, **RUNS[run])(x, target(name, read)).saliency)
    assert found[:, ~near(read)].max() <= 1e-6 * found.max()
    inside = found[(slice(None), *place(read))]
    assert inside.mean() > found.sum() / near(read).sum() / len(x)
    assert (inside.max(axis=(1, 2)) == found.max(axis=(1, 2))).all()


def test_every_bias_of_a_token_has_its_place(case):
    name, read, source = case
    found = Explainer(source, threads=1, backward="libra")(pictures(2, onepatch.SHAPE[1:]), target(name, read))
    lost = [s.name for s in found.sites if s.kind == "bias" and not s.in_map and "[class tokens]" not in s.name]
    behind = 1 + name.startswith("CLIP")
    assert len(lost) <= behind  # the head's own, of one cell
    assert not any("rows" in note for note in found.notes)


def test_rows_that_cannot_be_followed_are_named_in_a_note():
    source = model(
        """(float[N,3,8,12] x) => (float[N,4] y) {
            e = Conv<kernel_shape=[2,2], strides=[2,2]>(x, patch, bias)
            s = Constant<value_ints=[0,6,24]>()
            f = Reshape(e, s)
            t = Transpose<perm=[0,2,1]>(f)
            g = Gather<axis=1>(t, order)
            z = Add(g, bias)
            r = Relu(z)
            m = Constant<value_ints=[1]>()
            p = ReduceMean<keepdims=0>(r, m)
            y = MatMul(p, out)
        }""",
        weights={**draw(patch=(6, 3, 2, 2), bias=(6,), out=(6, 4)), "order": np.random.default_rng(0).permutation(24)},
    )
    found = Explainer(source, threads=1)(pictures(2, (3, 8, 12)), 1)
    (note,) = [n for n in found.notes if "rows" in n]
    assert note.startswith("where the rows of 1 site lie in the map is not known, the first at 'z'")
    assert found.rounding_residual().max() < 1e-6
