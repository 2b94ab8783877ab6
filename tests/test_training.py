"""What training needs beside gradients: batches, optimisers, and the pixels that are taken out."""

import numpy as np
import pytest

from benchmarks.roar import experiment as roar
from fgonnx.errors import InputError, OptionError
from fgonnx.training import SGD, AdamW, Batches, Rate
from tests import skips

X = np.arange(10 * 2 * 3, dtype=np.float32).reshape(10, 2, 3)
LABELS = np.arange(10)


def test_an_epoch_holds_every_sample_once():
    batches = Batches(X, LABELS, size=5)
    seen = [label for _, labels in batches.epoch(0) for label in labels]
    assert sorted(seen) == list(range(10))


def test_samples_stay_with_their_classes():
    for x, labels in Batches(X, LABELS, size=4).epoch(3):
        np.testing.assert_array_equal(x, X[labels])


@pytest.mark.parametrize(("other", "same"), [((0, 1), True), ((0, 2), False), ((1, 1), False)])
def test_order_depends_on_seed_and_epoch_alone(other, same):
    seed, epoch = other
    first = np.concatenate([labels for _, labels in Batches(X, LABELS, 5, seed=0).epoch(1)])
    second = np.concatenate([labels for _, labels in Batches(X, LABELS, 5, seed=seed).epoch(epoch)])
    assert np.array_equal(first, second) == same


def test_mirroring_turns_some_samples_round():
    turned = [
        np.array_equal(sample, X[label][:, ::-1])
        for x, labels in Batches(X, LABELS, 5, mirror=2).epoch(0)
        for sample, label in zip(x, labels, strict=True)
    ]
    assert 0 < sum(turned) < 10


def test_the_data_itself_is_left_alone():
    before = X.copy()
    list(Batches(X, LABELS, 5, mirror=1).epoch(0))
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("error", "options"),
    [(InputError, {"labels": LABELS[:9]}), (InputError, {"size": 11}), (OptionError, {"size": 0})],
)
def test_batches_that_cannot_be(error, options):
    with pytest.raises(error):
        Batches(**{"x": X, "labels": LABELS, "size": 5, **options})


@pytest.mark.parametrize(
    ("ours", "name", "options"),
    [
        (SGD(momentum=0.9), "SGD", {"momentum": 0.9, "nesterov": True}),
        (SGD(momentum=0.5, nesterov=False), "SGD", {"momentum": 0.5}),
        (SGD(momentum=0.0, nesterov=False), "SGD", {}),
        (AdamW(decay=0.0), "AdamW", {"weight_decay": 0.0}),
        (AdamW(0.8, 0.95, 1e-6, 0.1), "AdamW", {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ],
)
def test_steps_are_those_of_torch(ours, name, options):
    torch = skips.without("torch")
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 4)).astype(np.float32)
    witness = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    theirs = getattr(torch.optim, name)([witness], lr=0.05, **options)
    for _ in range(5):
        gradient = rng.standard_normal(weight.shape).astype(np.float32)
        ours.update({"w": weight}, {"w": gradient}, 0.05)
        witness.grad = torch.from_numpy(gradient)
        theirs.step()
    np.testing.assert_allclose(weight, witness.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_biases_do_not_decay():
    bias = np.ones(3, np.float32)
    AdamW(decay=0.5).update({"b": bias}, {"b": np.zeros(3, np.float32)}, 0.1)
    np.testing.assert_array_equal(bias, 1)


def test_a_rate_falls_along_half_a_cosine_or_stays():
    assert [Rate(0.2).at(share) for share in (0, 0.5, 1)] == pytest.approx([0.2, 0.1, 0])
    assert [Rate(0.2, "constant").at(share) for share in (0, 1)] == [0.2, 0.2]


@pytest.mark.parametrize("options", [{"start": 0.0}, {"start": -1.0}, {"schedule": "linear"}])
def test_rates_that_cannot_be(options):
    with pytest.raises(OptionError):
        Rate(**options)


# Remove and retrain


def test_the_largest_values_of_every_map_are_marked():
    maps = np.array([[[3, 1], [2, 0]], [[0, 5], [-9, 4]]], np.float32)
    found = roar.salient(maps, 0.5)
    np.testing.assert_array_equal(found, [[[True, False], [True, False]], [[False, True], [False, True]]])


def test_chance_breaks_ties_evenly():
    marked = roar.salient(np.zeros((200, 4, 4)), 0.25)
    assert (marked.sum(axis=(1, 2)) == 4).all()
    assert marked.mean(axis=0).min() > 0.1


def test_a_summary_has_a_row_for_every_method_and_share():
    cells = [roar.Cell("gradient", 0.5, seed, a, 1.0) for seed, a in ((0, 0.4), (1, 0.6))]
    (row,) = roar.summary(cells)
    assert (row["method"], row["share"], row["seeds"]) == ("gradient", 0.5, 2)
    assert row["accuracy"] == pytest.approx(0.5)
    assert row["deviation"] == pytest.approx(np.sqrt(0.02))


@pytest.mark.parametrize("options", [{"methods": ()}, {"seeds": ()}, {"shares": (0.5, 1.0)}])
def test_plans_that_cannot_be(options):
    with pytest.raises(OptionError):
        roar.Plan(**{"methods": ("gradient",), **options})
