"""Token networks, windows, decoders and dense heads: exact gradients, complete, and placed where they belong."""

import io
import warnings
from functools import cache

import numpy as np
import pytest

from tests import skips

torch = skips.without("torch")

import onnx  # noqa: E402

import fgonnx  # noqa: E402
from benchmarks.families import __main__ as families  # noqa: E402
from benchmarks.families import measure, networks  # noqa: E402
from fgonnx.engine.graph.emit import Emitter  # noqa: E402
from fgonnx.engine.graph.session import Session  # noqa: E402
from fgonnx.engine.maps import axes, follow, placement, sites  # noqa: E402
from fgonnx.engine.maps.signed import canonical  # noqa: E402
from fgonnx.engine.model.load import load  # noqa: E402
from fgonnx.engine.normal.normalise import normalise  # noqa: E402
from fgonnx.engine.walk import backward  # noqa: E402
from tests.witness import autograd  # noqa: E402
from tests.witness.tokennets import NETS  # noqa: E402
from tests.witness.torchnets import export  # noqa: E402

SAMPLES = 3
# Least share of the absolute contributions that has a place in the picture. A network that is read out at its class
# token owes most of its score to the token's own parameters, which have none.
SHARES = {
    "vit": 0.15,
    "deit": 0.15,
    "vit_pooled": 0.8,
    "swin": 0.7,
    "convnext": 0.4,
    "mobilevit": 0.9,
    "unet": 0.99,
    "yolo": 0.99,
}

every_net = pytest.mark.parametrize("name", NETS)


@cache
def case(name):
    build, shape = NETS[name]
    x = np.random.default_rng(0).standard_normal((SAMPLES, *shape[1:])).astype(np.float32)
    return build(0), x


@cache
def explainer(name, exporter="torchscript", opset=17):
    module, x = case(name)
    model = export(module, x.shape, folded=True, exporter=exporter, opset=opset)
    return fgonnx.Explainer(model, input_gradient=True, bias_gradients=True, threads=1)


@cache
def explained(name, *how):
    return explainer(name, *how)(case(name)[1])


def gradient(name, targets):
    """Return torch's own input-gradient in float64, for heads of any shape."""
    module, x = case(name)
    twin, leaf = autograd.prepare(module, x)
    (found,) = torch.autograd.grad(autograd.pick(twin(leaf).flatten(1), targets).sum(), leaf)
    return found.numpy()


def distance(found, truth):
    return np.abs(found - truth).max() / np.abs(truth).max()


@every_net
def test_input_gradient(name):
    found = explained(name)
    assert distance(found.input_gradient, gradient(name, found.target)) < 1e-5


@every_net
def test_every_sample_is_complete(name):
    assert explained(name).relative_residual().max() < 1e-5


@every_net
def test_share_in_the_map(name):
    assert explained(name).localised_share().min() > SHARES[name]


@every_net
def test_a_batch_is_its_samples(name):
    found, (_, x) = explained(name), case(name)
    assert found.settings["batch"] == "any"
    for i in range(SAMPLES):
        alone = explainer(name)(x[i : i + 1], int(found.target[i]))
        np.testing.assert_allclose(alone.saliency[0], found.saliency[i], rtol=1e-4, atol=1e-5 * found.saliency.max())
        np.testing.assert_allclose(alone.contributions[0], found.contributions[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "deit", "vit_pooled"])
def test_what_class_tokens_bring_is_counted_apart(name):
    found = explained(name)
    columns = {s.name: found.contributions[:, i] for i, s in enumerate(found.sites)}
    split = [s for s in found.sites if s.name.endswith(sites.EXTRA_TOKENS)]
    assert len(split) > 10
    assert not any(s.in_map for s in split)
    for s in split:
        patches = s.name.removesuffix(sites.EXTRA_TOKENS)
        whole = found.bias_gradients[patches].astype(np.float64).reshape(SAMPLES, -1).sum(1)
        np.testing.assert_allclose(columns[patches] + columns[s.name], whole, rtol=1e-5, atol=1e-6)
    assert sum(s.in_map for s in found.sites) >= len(split)


@pytest.mark.parametrize("name", ["vit", "deit", "convnext", "unet"])
def test_a_fixed_batch_of_one_is_made_free(name):
    module, x = case(name)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.from_numpy(x[:1]),), buffer, dynamo=False, opset_version=17)
    found = fgonnx.Explainer(onnx.load_from_string(buffer.getvalue()), threads=1)(x)
    assert found.settings["batch"] == "any"
    np.testing.assert_allclose(found.saliency, explained(name).saliency, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_dynamo_exports_agree(name):
    skips.without("onnxscript")
    found = explained(name, "dynamo", 18)
    assert distance(found.input_gradient, gradient(name, found.target)) < 1e-5
    assert found.relative_residual().max() < 1e-5
    assert found.localised_share().min() > SHARES[name]


# Networks that only move what they get: whatever value is said to be on the grid must, once placed, be the picture.


class Tokens(torch.nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.before, self.after = (torch.nn.Parameter(torch.zeros(1, n, 2)) for n in (before, after))

    def forward(self, x):
        t = x.flatten(2).transpose(1, 2)
        n = t.shape[0]
        t = torch.cat([self.before.expand(n, -1, -1), t, self.after.expand(n, -1, -1)], 1)
        t = t.reshape(n, -1, 2, 1).transpose(1, 2)  # heads in front of tokens
        return t.permute(2, 0, 1, 3).permute(1, 2, 0, 3)[:, :, 1:]  # tokens before the batch, and back


class Windows(torch.nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        y = torch.roll(x.permute(0, 2, 3, 1), (-2, -3), (1, 2))
        y = y.reshape(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = y.reshape(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(y, (1, 3), (1, 2)).permute(0, 3, 1, 2)


class Unfolded(torch.nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        y = x.reshape(n * c * (h // 2), 2, w // 2, 2).transpose(1, 2).reshape(n, c, h * w // 4, 4)
        y = y.transpose(1, 3).reshape(n * 4, h * w // 4, c)
        y = y.reshape(n, 4, h * w // 4, c).transpose(1, 3).reshape(n * c * (h // 2), w // 2, 2, 2)
        return y.transpose(1, 2).reshape(n, c, h, w)


class Corners(torch.nn.Module):
    """Patches whose pixels go into the channels, and back."""

    def forward(self, x):
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(n, h * w // 16, 16 * c)
        return y.reshape(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def placed(model, x):
    """Return every value of a graph that has a place on the grid, put there, by name."""
    normal = normalise(load(model))
    graph = normal.model.graph
    nodes = list(graph)
    active = backward.active_values(nodes, [normal.x])
    layout = axes.input_layout(normal.layout, normal.x.shape.dims, normal.batched)
    layouts = follow.propagate(nodes, normal.x, layout, active)
    op = Emitter(graph, active)
    found = {}
    for v, its in layouts.items():
        placed = placement.place(its, 2, normal.batched)
        if placed is not None and placed.spatial:
            out = op.Identity(canonical(op, v, placed))
            graph.outputs.append(out)
            found[v.name] = out.name
    results = Session(normal.model, optimise=False).run({normal.input_name: x})
    return {name: results[out] for name, out in found.items()}, len(layouts)


@pytest.mark.parametrize(
    ("module", "least"),
    [(Tokens(1, 0), 6), (Tokens(2, 3), 5), (Windows(), 10), (Unfolded(), 10), (Corners(), 6)],
    ids=["class token", "tokens on both sides", "shifted windows", "unfolded", "patches in channels"],
)
def test_placing_undoes_every_movement(module, least):
    x = np.arange(3 * 2 * 8 * 12, dtype=np.float32).reshape(3, 2, 8, 12)
    found, _ = placed(export(module, x.shape, folded=True, opset=17), x)
    whole = {name: value for name, value in found.items() if value.shape[2:] == x.shape[2:]}
    assert len(whole) >= least
    for name, value in whole.items():
        np.testing.assert_array_equal(value, x, err_msg=name)


def test_pooled_windows_are_a_coarser_grid():
    class Pooled(torch.nn.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            return x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).mean((3, 4))

    x = np.random.default_rng(0).standard_normal((2, 2, 8, 12)).astype(np.float32)
    found, _ = placed(export(Pooled(), x.shape, folded=True, opset=17), x)
    coarse = [value for value in found.values() if value.shape[2:] == (2, 3)]
    assert coarse
    np.testing.assert_allclose(coarse[-1], x.reshape(2, 2, 2, 4, 3, 4).mean((3, 5)), rtol=1e-5, atol=1e-6)


# The benchmark itself, on what the tests have anyway.


def test_the_page_is_written_from_the_cache(tmp_path, monkeypatch):
    own = networks.Family("U-Net", "own", networks._own("unet"), (2, 3, 24, 32), (("torchscript", 17),))
    broken = networks.Family("broken", "own", networks._own("no such network"), (2, 3, 24, 32), (("torchscript", 17),))
    monkeypatch.setattr(families, "FAMILIES", (own, broken))
    row = measure.measure(own, "torchscript", 17)
    assert row.residual < measure.RESIDUAL
    assert row.gradient < measure.GRADIENT
    failed = measure.Row("broken", "own", [2, 3, 24, 32], "torchscript", 17, "KeyError: 'no such | network'")
    for job, what in zip(families.jobs(), (row, failed), strict=True):
        families._cached(tmp_path, job).write_text(families.json.dumps(families.asdict(what)), encoding="utf-8")
    page = tmp_path / "families.md"
    assert families.main(["--cache", str(tmp_path), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "| U-Net | own | 3 x 24 x 32 | torchscript 17 | 18" in text
    assert "not explained: KeyError: 'no such / network'" in text


def test_families_are_chosen_by_name_or_package():
    assert {families.FAMILIES[i].package for i, *_ in families.jobs(["keras"])} == {"keras"}
    assert {families.FAMILIES[i].name for i, *_ in families.jobs(["swin"])} == {"Swin (timm)", "Swin (torchvision)"}
