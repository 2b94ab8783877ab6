"""Training from the graph alone: gradients are autograd's, weights move as they should, and a kill changes nothing."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.model.load import load
from fgonnx.errors import ModelError, NumericError, OptionError
from fgonnx.training import SGD, Batches, Network, accuracy, fit, reinitialise
from tests import skips
from tests.support import draw, model, pictures, run, script, small_cnn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LABELS = np.array([0, 4, 2, 1, 3, 3, 0, 2])


def normalised_cnn():
    """A convolution with BatchNormalization behind it, and a dense head."""
    return model(
        """(float[N,3,8,6] x) => (float[N,5] y) {
            a = Conv<kernel_shape=[3,3]>(x, w)
            b = BatchNormalization(a, scale, shift, mean, var)
            c = Relu(b)
            d = GlobalAveragePool(c)
            e = Flatten(d)
            y = Gemm(e, w2, b2)
        }""",
        weights=draw(0, w=(4, 3, 3, 3), shift=(4,), mean=(4,), w2=(4, 5), b2=(5,))
        | {"scale": np.full(4, 1.5, np.float32), "var": np.full(4, 0.8, np.float32)},
    )


def test_gradients_of_weights_are_those_of_the_first_engine():
    x = pictures(8)
    found = Network(small_cnn()).step(x, LABELS)
    logits = run(small_cnn(), {"x": x})["y"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(shares[np.arange(8), LABELS]).mean(), rel=1e-5)
    cotangent = ((shares - np.eye(5)[LABELS]) / 8).astype(np.float32)
    differentiated = fgonnx.grad(small_cnn(), of="y", wrt=list(found.gradients), input="x")
    truth = run(differentiated, {"x": x, "y_grad": cotangent})
    assert set(found.gradients) == {"w1", "b1", "w2", "b2", "w3", "b3"}
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(gradient, truth[f"{name}_grad"], rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_differentiated_through():
    torch = skips.without("torch")
    network, x = Network(normalised_cnn()), pictures(8)
    w = {n: torch.tensor(a, requires_grad=True) for n, a in network.weights.items()}
    running = {n: torch.tensor(a) for n, a in network.statistics.items()}
    a = torch.nn.functional.conv2d(torch.from_numpy(x), w["w"])
    b = torch.nn.functional.batch_norm(a, running["mean"], running["var"], w["scale"], w["shift"], True, 1.0)
    y = b.relu().mean((2, 3)) @ w["w2"] + w["b2"]
    loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(LABELS))
    loss.backward()
    found = network.step(x, LABELS)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, parameter in w.items():
        np.testing.assert_allclose(found.gradients[name], parameter.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    for name, statistic in running.items():  # with momentum 1 they are the batch's own
        np.testing.assert_allclose(found.statistics[name], statistic.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_model_comes_back_with_its_new_weights():
    network, source = Network(normalised_cnn()), normalised_cnn()
    for weight in network.weights.values():
        weight *= 2
    trained = network.model()
    assert [n.op_type for n in trained.graph.node] == [n.op_type for n in source.graph.node]
    before, after = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (source, trained))
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array * (2 if name in network.weights else 1))


def test_preprocessing_in_the_graph_is_no_weight():
    proto = model(
        """(float[N,3] x) => (float[N,4] y) { a = Add(x, offset) b = MatMul(a, w) c = Add(b, bias)
        y = Mul(c, temperature) }""",
        weights=draw(0, offset=(3,), w=(3, 4), bias=(4,), temperature=(4,)),
    )
    assert set(Network(proto).weights) == {"w", "bias"}


@pytest.mark.parametrize(
    ("text", "shape", "variance"),
    [
        ("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)", (400, 300), 2 / 400),
        ("a = MatMul(x, w) c = Sigmoid(a) b = Mul(a, c) y = MatMul(b, v)", (400, 300), 2 / 400),
        ("a = MatMul(x, w) b = Tanh(a) y = MatMul(b, v)", (400, 300), 2 / 700),
        ("a = Gemm<transB=1>(x, w) b = Relu(a) y = MatMul(b, v)", (300, 400), 2 / 400),
    ],
)
def test_weights_have_the_variance_that_keeps_the_signal(text, shape, variance):
    proto = model(f"(float[N,400] x) => (float[N,5] y) {{ {text} }}", weights=draw(0, w=shape, v=(300, 5)))
    network = Network(proto)
    reinitialise(network, 0)
    assert network.weights["w"].var() == pytest.approx(variance, rel=0.02)


def test_normalisations_and_biases_begin_neutral():
    network = Network(normalised_cnn())
    reinitialise(network, 0)
    assert {n: set(network.weights[n]) for n in ("scale", "shift", "b2")} == {"scale": {1}, "shift": {0}, "b2": {0}}
    assert {n: set(a) for n, a in network.statistics.items()} == {"mean": {0}, "var": {1}}


def test_a_network_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=200)
    colours = 2 * rng.standard_normal((5, 3))[labels]
    x = (rng.standard_normal((200, 3, 8, 6)) + colours[:, :, None, None]).astype(np.float32)
    network = Network(normalised_cnn())
    reinitialise(network, 0)
    history = fit(network, Batches(x, labels, 20), 8, rate=3e-2, validation=Batches(x, labels, 20))
    assert history[-1].validation > 0.9
    assert history[-1].validation == accuracy(network, Batches(x, labels, 1))
    assert history[-1].loss < history[0].loss / 2


class Interrupted(Batches):
    """Batches that end in the middle of the third epoch."""

    def epoch(self, number):
        for i, batch in enumerate(super().epoch(number)):
            if number == 2 and i == 1:
                raise KeyboardInterrupt
            yield batch


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    x, options = pictures(8), {"rate": 1e-2}

    def trained(kind, **more):
        network = Network(normalised_cnn())
        fit(network, kind(x, LABELS, 2), 4, **options, **more)
        return network

    whole = trained(Batches)
    with pytest.raises(KeyboardInterrupt):
        trained(Interrupted, checkpoint=tmp_path / "state.npz")
    resumed = trained(Batches, checkpoint=tmp_path / "state.npz")
    for name, weight in {**whole.weights, **whole.statistics}.items():
        np.testing.assert_array_equal({**resumed.weights, **resumed.statistics}[name], weight)


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    batches, file = Batches(pictures(8), LABELS, 4), tmp_path / "state.npz"
    fit(Network(small_cnn()), batches, 1, checkpoint=file)
    with pytest.raises(OptionError, match=r"epochs, optimiser differ"):
        fit(Network(small_cnn()), batches, 2, checkpoint=file, optimiser=SGD())


def test_a_loss_that_is_not_finite_ends_training():
    network = Network(small_cnn())
    network.weights["b3"][0] = np.nan
    with pytest.raises(NumericError, match="the loss is nan in epoch 1; give a lower rate"):
        fit(network, Batches(pictures(8), LABELS, 4), 1)


def test_a_model_without_weights():
    with pytest.raises(ModelError, match="none of its weights"):
        Network(model("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }"))


@pytest.mark.slow
def test_the_example_learns_shapes_from_its_file_alone():
    shapes = script(EXAMPLES / "shapes.py")
    loaded = load(EXAMPLES / "shapes.onnx")
    pre = fgonnx.Preprocessing.from_json(loaded.preprocessing_json())

    def drawn(count, seed):
        # circles, stars and rings: all six kinds take longer than a test may
        samples = [shapes.draw(np.random.default_rng([seed, i]), (0, 3, 5)[i % 3], 64) for i in range(count)]
        x = np.stack([pre.apply(sample.image) for sample in samples])
        return Batches(x, np.array([sample.label for sample in samples]), 16, mirror=3)

    network, unseen = Network(loaded, threads=2), drawn(150, 12)
    reinitialise(network, 0)
    assert accuracy(network, unseen) < 0.4
    fit(network, drawn(1500, 3_000_000), 7, rate=3e-3)
    assert accuracy(network, unseen) > 0.8
