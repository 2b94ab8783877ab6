"""The witnesses are held against identities and against each other before anything else is held against them."""

import numpy as np
import pytest

from tests import skips

torch = skips.without("torch")

import onnxruntime as ort  # noqa: E402

from tests.witness import autograd, literal  # noqa: E402
from tests.witness.torchnets import CLASSES, NETS, export  # noqa: E402

COMPLETE = ["plain", "vgg", "resnet", "densenet", "inception", "shuffle", "convtranspose"]
INCOMPLETE = ["mobilenet_v2", "se_silu", "se_hardswish"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(name, seed=0):
    build, shape = NETS[name]
    rng = np.random.default_rng(seed)
    return build(seed), rng.standard_normal(shape).astype(np.float32), rng.integers(CLASSES, size=shape[0])


def test_every_net_is_tested():
    assert sorted(COMPLETE + INCOMPLETE) == sorted(NETS)


@pytest.mark.parametrize("name", NETS)
def test_a_net_is_its_seed_and_leaves_the_global_generator_alone(name):
    build, _ = NETS[name]
    before = torch.get_rng_state()
    one, same, other = build(3).state_dict(), build(3).state_dict(), build(4).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", NETS)
def test_signals_neither_vanish_nor_explode(name):
    module, x, target = case(name)
    y = autograd.logits(module, x)
    assert y.shape == (len(x), CLASSES)
    assert 0.05 < y.std() < 50
    assert np.abs(y[0] - y[1]).max() > 1e-3
    g = autograd.input_gradient(module, x, target)
    assert (g != 0).any((1, 2, 3)).all()


@pytest.mark.parametrize("name", COMPLETE)
def test_relu_nets_are_complete(name):
    module, x, target = case(name)
    score = autograd.logits(module, x)[np.arange(len(x)), target]
    assert np.abs(literal.completeness(module, x, target) / score).max() < 1e-10


@pytest.mark.parametrize("name", INCOMPLETE)
def test_explicit_biases_alone_miss_part_of_other_nets(name):
    module, x, target = case(name)
    score = autograd.logits(module, x)[np.arange(len(x)), target]
    assert np.abs(literal.completeness(module, x, target) / score).min() > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_input_gradient_agrees_with_a_central_difference(name):
    module, x, target = case(name)
    x = x.astype(np.float64)
    d = np.random.default_rng(1).standard_normal(x.shape)
    eps = 1e-7  # few pre-activations are that close to a kink, and float64 leaves some 1e-8 of accuracy

    def score(at):
        return autograd.logits(module, at)[np.arange(len(x)), target]

    numeric = (score(x + eps * d) - score(x - eps * d)) / (2 * eps)
    analytic = (autograd.input_gradient(module, x, target) * d).sum((1, 2, 3))
    np.testing.assert_allclose(numeric, analytic, rtol=1e-6, atol=1e-7)


def test_float32_gradient_is_near_the_truth():
    module, x, target = case("plain")
    g32 = autograd.input_gradient(module, x, target, dtype=torch.float32)
    g64 = autograd.input_gradient(module, x, target)
    assert (g32.dtype, g64.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(g32, g64, atol=1e-5)
    assert next(module.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", NETS)
def test_decomposition_lists_every_spatial_bias_in_forward_order(name):
    module, x, target = case(name)
    g, biases = literal.full_gradient_decompose(module, x, target)
    np.testing.assert_array_equal(g, autograd.input_gradient(module, x, target))
    modules = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    assert len(biases) == sum(m.bias is not None for m in modules)
    assert all(b.ndim == 4 and b.dtype == np.float64 for b in biases)


def test_bias_gradient_is_the_parameter_gradient_times_the_parameter():
    # sum_n sum_hw ds_n/dy * b = b * d(sum_n s_n)/db, per channel: the parameter's own gradient knows no hooks
    module, x, target = case("vgg")
    _, biases = literal.full_gradient_decompose(module, x, target)
    twin = NETS["vgg"][0](0).double()
    autograd.pick(twin(torch.tensor(x, dtype=torch.float64)), target).sum().backward()
    layers = [m for m in twin.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    assert len(layers) == len(biases)
    for layer, found in zip(layers, biases, strict=True):
        bias = layer.bias.detach()
        if isinstance(layer, torch.nn.BatchNorm2d):
            at_zero = torch.zeros(1, layer.num_features, 1, 1, dtype=torch.float64)
            bias = layer(at_zero).detach().flatten()
        np.testing.assert_allclose(found.sum((0, 2, 3)), (layer.bias.grad * bias).numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("psi", ["abs", "positive"])
@pytest.mark.parametrize("profile", ["reference", "paper"])
@pytest.mark.parametrize("name", ["vgg", "se_silu", "convtranspose"])
def test_maps_of_a_batch_are_the_maps_of_its_samples(name, profile, psi):
    module, x, target = case(name)
    both = literal.saliency(module, x, target, profile, psi)
    assert both.shape == (len(x), *x.shape[2:])
    assert both.dtype == np.float64
    assert np.isfinite(both).all()
    assert both.min() >= 0
    for n in range(len(x)):
        alone = literal.saliency(module, x[n : n + 1], int(target[n]), profile, psi)
        np.testing.assert_allclose(both[n : n + 1], alone, rtol=1e-9)


@pytest.mark.parametrize("name", ["plain", "vgg", "resnet", "densenet", "inception"])
def test_paper_merges_a_convolution_with_its_batch_normalisation(name):
    module, x, target = case(name)
    lin = literal._linearise(module, x, target, literal.SPATIAL)
    blocks = literal._blocks(lin)
    both = {"plain": 0, "vgg": 3}.get(name, 0)  # the others have no convolution with a bias
    assert len(lin.sites) - len(blocks) == both
    whole, parts = sum(b.sum() for b in blocks), sum(s.bias_gradient.sum() for s in lin.sites)
    np.testing.assert_allclose(float(whole), float(parts), rtol=1e-12)


@pytest.mark.parametrize(("reading", "count"), [("bn", 1), ("bn and sum", 2), ("two bns", 3), ("relu", 2)])
def test_paper_merges_only_what_one_batch_normalisation_reads(reading, count):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.other = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            if reading == "relu":
                z = self.bn(y.relu())
            elif reading == "two bns":
                z = self.bn(y) + self.other(y)
            elif reading == "bn and sum":
                z = self.bn(y) + y
            else:
                z = self.bn(y)
            return z.relu().mean((2, 3))

    x = np.random.default_rng(0).standard_normal((2, 3, 8, 6))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lin = literal._linearise(Net(), x, 1, literal.SPATIAL)
    assert len(literal._blocks(lin)) == count


def test_paper_maps_a_constant_to_zero():
    constant = torch.full((2, 3, 4, 5), 7.0, dtype=torch.float64)
    assert not literal._psi(constant, "abs", 0.0).any()


def test_saliency_of_one_site_by_hand():
    # s = relu(b) = b at x = 0: the site's map is b / (H W) at every position, which rescaling turns into zeros, so
    # two channels of unequal bias are needed: |A| in {1/4, 3/4}, rescaled {0, 1}: one everywhere.
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 1, bias=False)
    )
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([1.0, 3.0]))
        net[3].weight.fill_(0.25)
    x = np.zeros((1, 1, 2, 2))
    np.testing.assert_allclose(literal.saliency(net, x, 0, "paper"), np.ones((1, 2, 2)))
    np.testing.assert_allclose(literal.saliency(net, x, 0, "reference"), np.ones((1, 2, 2)) * 0.5 / (0.5 + 1e-6))
    # the gradient alone is the same in both channels
    assert not literal.simple_fullgrad(net, x, 0).any()


def test_upsampling_by_hand():
    # a row of two to a row of four; position i reads i / 3 when corners align, (i + 1/2) / 2 - 1/2 clamped otherwise
    at_input, row = torch.zeros((1, 1, 1, 4)), torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)
    aligned = literal._aggregate([at_input, row], "reference", "abs")
    np.testing.assert_allclose(aligned, [[[0, 1 / 3, 2 / 3, 1]]], rtol=1e-5)
    half_pixel = literal._aggregate([at_input, row], "paper", "abs")
    np.testing.assert_allclose(half_pixel, [[[0, 0.25, 0.75, 1]]], rtol=1e-6)


def test_psi_keeps_what_it_says():
    a = torch.tensor([-4.0, 1.0, 2.0]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(literal._psi(a, "abs", 0.0).flatten(), [1, 0, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(literal._psi(a, "positive", 0.0).flatten(), [0, 0.5, 1], rtol=1e-6)


@pytest.mark.parametrize("profile", ["reference", "paper"])
def test_smooth_without_noise_is_the_map(profile):
    module, x, target = case("vgg")
    still = literal.smooth_fullgrad(module, x, target, np.zeros((3, *x.shape)), profile)
    np.testing.assert_allclose(still, literal.saliency(module, x, target, profile), rtol=1e-12)


def test_smooth_depends_on_the_noise_and_not_on_its_order():
    module, x, target = case("vgg")
    noise = 0.3 * np.random.default_rng(2).standard_normal((4, *x.shape))
    smooth = literal.smooth_fullgrad(module, x, target, noise)
    np.testing.assert_allclose(smooth, literal.smooth_fullgrad(module, x, target, noise[::-1]), rtol=1e-9)
    assert np.abs(smooth - literal.saliency(module, x, target)).max() > 1e-2


def run(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"x": x})[0]


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("name", NETS)
def test_export_is_the_network(name, folded):
    module, x, _ = case(name)
    model = export(module, x.shape, folded=folded)
    one = x[:1]  # a batch that the exporter did not see
    three = np.concatenate([x, one])
    for batch in (one, three):
        np.testing.assert_allclose(run(model, batch), autograd.logits(module, batch), rtol=1e-5, atol=1e-5)
    axes = [v.type.tensor_type.shape.dim[0].dim_param for v in (*model.graph.input, *model.graph.output)]
    assert axes == ["N", "N"]
    batchnorms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    # a BatchNormalization that reads a concatenation, a pooling or a transposed convolution cannot be folded
    unfoldable = {"densenet": 6, "convtranspose": 1}.get(name, 0)
    assert batchnorms == (unfoldable if folded else norms)


@pytest.mark.slow
@pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("name", ["resnet", "shuffle"])
def test_dynamo_export_is_the_network(name, folded):
    skips.without("onnxscript")
    module, x, _ = case(name)
    model = export(module, x.shape, folded=folded, exporter="dynamo")
    for batch in (x[:1], np.concatenate([x, x[:1]])):
        np.testing.assert_allclose(run(model, batch), autograd.logits(module, batch), rtol=1e-5, atol=1e-5)
    batchnorms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    assert batchnorms == (0 if folded else norms)
