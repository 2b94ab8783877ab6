"""Measures on objects of parts: where the worth of every part is known, and on the drawn objects."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper
from scipy.stats import spearmanr

from fgonnx.audit import evaluate
from fgonnx.errors import InputError
from tests.evaluate_support import SIDE, Linear, data, draw, measured, of_net, relu_net, samples, subject

WEIGHTS = samples(1, seed=3)[0, 0]
AREAS = np.zeros((4, SIDE, SIDE), bool)
for part, place in enumerate([(0, 0), (0, 4), (4, 0), (5, 5)]):
    AREAS[part, place[0] : place[0] + 2 + part % 2, place[1] : place[1] + 3] = True


def without_areas(x, areas=AREAS, ground=-0.7):
    """Every sample with one area after the other at the ground's value."""
    return np.stack([np.where(area, ground, x) for area in areas], axis=1).astype(x.dtype)


def in_parts(x, areas=AREAS, **known):
    return data(x, without=without_areas(x, areas), **known)


def worth(x, area):
    """What the linear model loses with an area."""
    return float((WEIGHTS * (x + 0.7))[area].sum())


TRUE = Linear(WEIGHTS, lambda x, target: WEIGHTS * (x[:, 0] + 0.7))


def test_a_map_of_what_pixels_are_worth_has_the_ranks_of_the_parts():
    found = measured("part-removal", TRUE, in_parts(samples(6))).values
    assert found["correlation"] == pytest.approx(np.ones(6))
    assert found["best"].tolist() == [1.0] * 6
    wrong = Linear(WEIGHTS, lambda x, target: -TRUE.saliency(x, target))
    reverse = measured("part-removal", wrong, in_parts(samples(6))).values
    assert reverse["correlation"] == pytest.approx(-np.ones(6))
    assert reverse["best"].tolist() == [0.0] * 6


def test_the_correlation_is_spearmans():
    given = in_parts(samples(6))
    other = Linear(WEIGHTS, lambda x, target: samples(len(x), seed=11)[:, 0])
    found = measured("part-removal", other, given).values
    for i, saliency in enumerate(samples(6, seed=11)[:, 0]):
        sums = [saliency[area].sum() for area in AREAS]
        drops = [worth(given.x[i, 0], area) for area in AREAS]
        assert found["correlation"][i] == pytest.approx(spearmanr(sums, drops).statistic)
        assert found["best"][i] == (np.argmax(sums) == np.argmax(drops))


def unsaturated_net():
    """The small network with logits so small that its probabilities are not all 0 or 1."""
    proto = relu_net()
    last = next(weights for weights in proto.graph.initializer if weights.name == "w3")
    last.CopyFrom(numpy_helper.from_array(0.02 * numpy_helper.to_array(last), "w3"))
    return proto


def test_probabilities_are_scores_too():
    method = subject("gradient-x-input", unsaturated_net())
    given = replace(of_net(3), without=without_areas(draw(7, 3, 1, SIDE, SIDE)))
    found = measured("part-removal:of=probability", method, given).values["correlation"]

    def probability(x, target):
        logits = method.head(x).astype(float)
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, target]

    for i, target in enumerate(given.target):
        drops = probability(given.x[i : i + 1], target) - probability(given.without[i], target)
        sums = [given.maps(method)[i][area].sum() for area in AREAS]
        assert found[i] == pytest.approx(spearmanr(sums, drops).statistic)


@pytest.mark.parametrize(("name", "sign"), [("part-deletion", -1), ("part-preservation", 1)])
@pytest.mark.parametrize("of", ["probability", "logit"])
def test_parts_are_removed_one_after_the_other(name, sign, of):
    given = in_parts(samples(5))
    other = Linear(WEIGHTS, lambda x, target: samples(len(x), seed=11)[:, 0])
    found = measured(name, other, given, of=of).values["auc"]
    for i, saliency in enumerate(samples(5, seed=11)[:, 0]):
        x = given.x[i, 0].copy()
        scores = [(x * WEIGHTS).sum()]
        for area in sorted(AREAS, key=lambda area, saliency=saliency: sign * saliency[area].sum()):
            x[area] = -0.7
            scores.append((x * WEIGHTS).sum())
        curve = [np.exp(s) / (1 + np.exp(s)) if of == "probability" else s for s in scores]
        assert found[i] == pytest.approx(np.trapezoid(curve) / len(AREAS))


@pytest.mark.parametrize("name", ["part-deletion", "part-preservation"])
def test_a_faithful_map_deletes_what_counts_first(name):
    given = in_parts(samples(6))
    wrong = Linear(WEIGHTS, lambda x, target: -TRUE.saliency(x, target))
    right, reverse = (measured(name, method, given).values["auc"] for method in (TRUE, wrong))
    assert (right < reverse).all() if name == "part-deletion" else (right > reverse).all()


@pytest.mark.parametrize("name", ["part-deletion", "part-preservation"])
def test_what_is_behind_overlapping_parts_is_not_known(name):
    overlapping = np.stack([AREAS[0], np.roll(AREAS[0], 1, axis=0)])
    assert np.isnan(measured(name, TRUE, in_parts(samples(2), overlapping)).values["auc"]).all()
    assert np.isnan(measured(name, TRUE, in_parts(samples(2), AREAS[:1] & False)).values["auc"]).all()


def test_parts_that_a_sample_does_not_have_do_not_count():
    x = samples(3)
    none = np.zeros_like(AREAS[:1])
    more = in_parts(x, np.concatenate([AREAS[:2], none, AREAS[2:], none]))
    other = Linear(WEIGHTS, lambda x, target: samples(len(x), seed=11)[:, 0])
    for measure in ("part-removal", "part-deletion", "part-preservation"):
        for name, values in measured(measure, other, in_parts(x)).values.items():
            assert measured(measure, other, more).values[name] == pytest.approx(values)


@pytest.mark.parametrize(
    ("weights", "areas", "saliency", "wanted"),
    [
        (WEIGHTS, AREAS[:1], np.ones((SIDE, SIDE)), (np.nan, np.nan)),
        (WEIGHTS * 0, AREAS, np.ones((SIDE, SIDE)), (np.nan, np.nan)),
        (WEIGHTS, AREAS, np.zeros((SIDE, SIDE)), (0.0, 0.0)),
    ],
    ids=["one part", "parts of equal worth", "an empty map"],
)
def test_where_nothing_can_be_ranked(weights, areas, saliency, wanted):
    method = Linear(weights, lambda x, target: np.broadcast_to(saliency, (len(x), SIDE, SIDE)))
    found = measured("part-removal", method, in_parts(samples(2), areas)).values
    for values, value in zip(found.values(), wanted, strict=True):
        assert values == pytest.approx([value, value], nan_ok=True)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_part_is_where_any_channel_differs(layout):
    x = samples(2, channels=3)
    without = np.stack([np.where(area, x * [[[0.5]], [[1.0]], [[1.0]]], x) for area in AREAS], axis=1)
    if layout == "NHWC":
        x, without = np.moveaxis(x, 1, -1), np.moveaxis(without, 2, -1)
    given = evaluate.Data(x, np.zeros(2, np.int64), layout, np.arange(2), without=without)
    assert (evaluate.parts.part_masks(given, 1) == AREAS).all()


@pytest.mark.parametrize("name", ["part-removal", "part-deletion", "part-preservation"])
def test_without_pictures_without_parts_there_is_no_value(name):
    with pytest.raises(InputError, match="needs pictures without each part"):
        measured(name, TRUE, data(samples(2)))


@pytest.mark.parametrize("shape", [(2, 4, 1, SIDE, SIDE - 1), (3, 4, 1, SIDE, SIDE), (2, 1, SIDE, SIDE)])
def test_pictures_without_parts_have_the_shape_of_the_samples(shape):
    with pytest.raises(InputError, match=r"must have the shape \(2, parts, 1, 8, 8\)"):
        data(samples(2), without=np.zeros(shape))
