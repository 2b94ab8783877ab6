"""Every measure against a literal computation, or on a case whose answer is known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from skimage.metrics import structural_similarity

from benchmarks.evaluation import PAGE, described
from fgonnx.audit import evaluate
from fgonnx.audit.comparison import measures
from fgonnx.audit.evaluate.faithfulness import REMOVED
from fgonnx.audit.evaluate.fill import filled
from fgonnx.audit.evaluate.randomisation import layers, permuted
from fgonnx.audit.evaluate.road import impute
from fgonnx.engine.model.load import load
from fgonnx.errors import InputError, OptionError
from tests.evaluate_support import SIDE, Linear, data, draw, measured, of_net, relu_net, samples, subject

WEIGHTS = np.abs(samples(1, seed=3)[0, 0]) + 0.5


def probability(score):
    return np.exp(score) / (np.exp(score) + 1.0)


def order_of(given, explainer):
    """Places of every sample, the least salient first: literally, one after the other."""
    maps = explainer(given.x).saliency
    return [sorted((m[i, j], (i, j)) for i in range(SIDE) for j in range(SIDE)) for m in maps]


@pytest.mark.parametrize("order", ["least", "most"])
@pytest.mark.parametrize("fill", ["black", "mean", "blur", "noise"])
def test_pixel_perturbation_is_the_fractional_change_of_the_score(order, fill):
    given, explainer = data(samples(), black=-0.3), Linear(WEIGHTS)
    found = measured("pixel-perturbation", explainer, given, order=order, fill=fill)
    for i, places in enumerate(order_of(given, explainer)):
        x, content = given.x[i, 0].copy(), filled(given, i, fill)[0]
        before = (x * WEIGHTS).sum()
        ranked = [place for _, place in (places if order == "least" else places[::-1])]
        for k, share in enumerate(REMOVED):
            changed = x.copy()
            for place in ranked[: max(1, round(share * SIDE * SIDE))]:
                changed[place] = content[place]
            wanted = abs((changed * WEIGHTS).sum() - before) / abs(before)
            assert found.curve[i, k] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert found.values["change"] == pytest.approx(found.curve.mean(axis=1))


@pytest.mark.parametrize(("name", "starts_full"), [("deletion", True), ("insertion", False)])
def test_insertion_and_deletion_are_areas_under_the_probability(name, starts_full):
    given, explainer = data(samples()), Linear(WEIGHTS)
    found = measured(name, explainer, given, fill="mean", steps=SIDE * SIDE)
    for i, places in enumerate(order_of(given, explainer)):
        x = given.x[i, 0]
        blank = np.full_like(x, x.mean())
        current = (x if starts_full else blank).copy()
        curve = [probability((current * WEIGHTS).sum())]
        for _, place in places[::-1]:
            current[place] = (blank if starts_full else x)[place]
            curve.append(probability((current * WEIGHTS).sum()))
        assert found.curve[i] == pytest.approx(curve, rel=1e-9)
        area = sum((a + b) / 2 for a, b in pairwise(curve)) / (SIDE * SIDE)
        assert found.values["auc"][i] == pytest.approx(area)


def test_average_drop_dims_pixels_by_the_rescaled_map():
    given, explainer = data(samples(), black=-0.3), Linear(WEIGHTS)
    found = measured("average-drop", explainer, given)
    for x, saliency, drop, increase in zip(given.x[:, 0], given.maps(explainer), *found.values.values(), strict=True):
        level = (saliency - saliency.min()) / (saliency.max() - saliency.min())
        before, after = (probability((v * WEIGHTS).sum()) for v in (x, -0.3 * (1 - level) + level * x))
        assert drop == pytest.approx(max(0.0, before - after) / before)
        assert increase == (after > before)


@pytest.mark.parametrize("name", ["sensitivity-n", "infidelity"])
def test_a_map_that_says_what_pixels_are_worth_is_perfectly_faithful(name):
    given = data(samples())
    worth = Linear(WEIGHTS, lambda x, target: 3.0 * WEIGHTS * x[:, 0])
    found = measured(name, worth, given, fill="black").values
    best = {"correlation": 1.0, "unexplained": 0.0, "infidelity": 0.0}
    assert all(values == pytest.approx(best[quantity], abs=1e-9) for quantity, values in found.items())


@pytest.mark.parametrize(("name", "quantity"), [("sensitivity-n", "correlation"), ("infidelity", "unexplained")])
def test_a_map_of_something_else_is_not(name, quantity):
    given = data(samples())
    other = Linear(WEIGHTS, lambda x, target: samples(len(x), seed=9)[:, 0])
    value = measured(name, other, given, fill="black").values[quantity]
    assert (value < 0.5).all() if name == "sensitivity-n" else (value > 0.5).all()


def test_sensitivity_n_is_pearsons_correlation():
    given, explainer = data(samples(1)), Linear(WEIGHTS)
    found = measured("sensitivity-n", explainer, given, fill="black", subsets=12)
    rng, saliency = given.rng(0, "sets"), given.maps(explainer)[0].ravel()
    worth = (given.x[0, 0] * WEIGHTS).ravel()
    for k, share in enumerate(found.at):
        sets = [rng.choice(SIDE * SIDE, max(1, round(share * SIDE * SIDE)), replace=False) for _ in range(12)]
        wanted = pearsonr([saliency[s].sum() for s in sets], [worth[s].sum() for s in sets]).statistic
        assert found.curve[0, k] == pytest.approx(wanted)


def test_max_sensitivity_is_the_largest_relative_change():
    x = samples()
    still = measured("max-sensitivity", Linear(WEIGHTS, lambda x, target: np.ones((len(x), SIDE, SIDE))), data(x))
    assert (still.values["change"] == 0).all()
    radius = 0.1
    moved = measured("max-sensitivity", Linear(WEIGHTS, lambda x, target: x[:, 0]), data(x), radius=radius, samples=30)
    # uniform noise of n pixels has norm reach * sqrt(n / 3), give or take
    wanted = [radius * np.ptp(v) * SIDE / np.sqrt(3) / np.linalg.norm(v) for v in x]
    assert moved.values["change"] == pytest.approx(wanted, rel=0.2)


def test_an_empty_map_has_no_relative_change():
    empty = Linear(WEIGHTS, lambda x, target: np.zeros((len(x), SIDE, SIDE)))
    assert np.isnan(measured("max-sensitivity", empty, data(samples())).values["change"]).all()


@pytest.mark.parametrize(
    ("saliency", "gini", "entropy"),
    [
        (np.ones((SIDE, SIDE)), 0.0, np.log(SIDE * SIDE)),
        (np.eye(1, SIDE * SIDE).reshape(SIDE, SIDE), 1 - 1 / (SIDE * SIDE), 0.0),
        (-np.eye(1, SIDE * SIDE).reshape(SIDE, SIDE), 1 - 1 / (SIDE * SIDE), 0.0),
        (np.repeat([[0.0, 1.0]], SIDE * SIDE // 2, axis=0).reshape(SIDE, SIDE), 0.5, np.log(SIDE * SIDE / 2)),
        (np.zeros((SIDE, SIDE)), 0.0, 0.0),
    ],
)
def test_sparseness_and_complexity(saliency, gini, entropy):
    given = data(samples(1), saliency=saliency[None])
    assert measured("sparseness", None, given).values["gini"] == pytest.approx([gini])
    assert measured("complexity", None, given).values["entropy"] == pytest.approx([entropy])


MASK = np.zeros((1, SIDE, SIDE), bool)
MASK[0, 2:4, 2:6] = True


@pytest.mark.parametrize(
    ("peak", "tolerance", "hit"), [((2, 2), 0.0, 1), ((0, 2), 0.0, 0), ((0, 2), 2 / SIDE, 1), ((7, 7), 2 / SIDE, 0)]
)
def test_pointing_game(peak, tolerance, hit):
    saliency = np.zeros((1, SIDE, SIDE))
    saliency[0][peak] = 1.0
    given = data(samples(1), saliency=saliency, masks=MASK)
    assert measured("pointing-game", None, given, tolerance=tolerance).values["hit"] == [hit]


def test_energy_is_the_positive_share_inside():
    saliency = np.where(MASK, 2.0, 0.5)
    saliency[0, 0] = -7.0
    found = measured("energy", None, data(samples(1), saliency=saliency, masks=MASK)).values
    assert found["inside"] == pytest.approx([16 / (16 + 0.5 * 48)])
    assert found["gain"] == pytest.approx(found["inside"] / (8 / 64))


@pytest.mark.parametrize(
    ("inside", "outside", "wanted"),
    [
        (1.0, -1.0, (1.0, 1.0, 1.0)),
        (-1.0, 1.0, (0.0, 0.0, 0.0)),
        (3.0, 0.0, (1.0, 1.0, np.nan)),
        (0.0, 3.0, (0.0, 0.0, np.nan)),
        (0.0, -3.0, (1.0, 0.0, 1.0)),
        (2.0, 0.5, (16 / 44, 16 / 44, np.nan)),
        (-2.0, -0.5, (28 / 44, 0.0, 28 / 44)),
        (0.0, 0.0, (0.0, 0.0, np.nan)),
    ],
)
@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_polarity_of_known_maps(inside, outside, wanted, unit):
    saliency = unit * np.where(MASK, inside, outside)
    found = measured("polarity", None, data(samples(1), saliency=saliency, masks=MASK)).values
    assert [found[name][0] for name in ("precision", "positive", "negative")] == pytest.approx(wanted, nan_ok=True)


def test_polarity_is_the_share_of_pixels_with_the_right_sign():
    saliency, masks = samples(5, seed=6)[:, 0], np.concatenate([MASK, ~MASK, MASK, MASK, ~MASK])
    found = measured("polarity", None, data(samples(5), saliency=saliency, masks=masks)).values
    for i in range(5):
        right = {True: 0.0, False: 0.0}
        total = {True: 0.0, False: 0.0}
        for value, inside in zip(saliency[i].ravel(), masks[i].ravel(), strict=True):
            total[value > 0] += abs(value)
            right[value > 0] += abs(value) * ((value > 0) == inside)
        assert found["precision"][i] == pytest.approx(sum(right.values()) / sum(total.values()))
        assert found["positive"][i] == pytest.approx(right[True] / total[True])
        assert found["negative"][i] == pytest.approx(right[False] / total[False])


def test_polarity_of_a_map_without_negative_values_is_its_energy():
    given = data(samples(1), saliency=np.abs(samples(1, seed=6)[:, 0]), masks=MASK)
    assert measured("polarity", None, given).values["precision"] == pytest.approx(
        measured("energy", None, given).values["inside"]
    )


@pytest.mark.parametrize("name", ["pointing-game", "energy", "polarity"])
def test_without_a_mask_there_is_no_value(name):
    signed = np.where(np.arange(SIDE) < SIDE // 2, 1.0, -1.0) * np.ones((2, SIDE, SIDE))
    given = data(samples(2), saliency=signed, masks=np.concatenate([MASK, MASK & False]))
    for values in measured(name, None, given).values.values():
        assert np.isnan(values).tolist() == [False, True]
    with pytest.raises(InputError, match="needs masks"):
        measured(name, None, data(samples(2), saliency=np.ones((2, SIDE, SIDE))))


def test_imputed_pixels_are_the_weighted_mean_of_their_neighbours():
    x, gone = samples(1, channels=3)[0].transpose(1, 2, 0), samples(1, seed=4)[0, 0] > 0
    found = impute(x, gone, 0.0, np.random.default_rng(0))
    assert (found[~gone] == x[~gone]).all()
    for i, j in np.argwhere(gone):
        total, weights = 0.0, 0.0
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if (di or dj) and 0 <= i + di < SIDE and 0 <= j + dj < SIDE:
                    weight = 1 / 12 if di and dj else 1 / 6
                    total, weights = total + weight * found[i + di, j + dj], weights + weight
        assert found[i, j] == pytest.approx(total / weights, abs=1e-9)


def test_road_prefers_the_map_that_points_at_what_matters():
    given = data(samples() + 1.0)
    right = measured("road", Linear(WEIGHTS, lambda x, target: WEIGHTS * x[:, 0]), given, noise=0.0).values
    wrong = measured("road", Linear(WEIGHTS, lambda x, target: -WEIGHTS * x[:, 0]), given, noise=0.0).values
    assert right["gap"] == pytest.approx(right["least"] - right["most"])
    assert right["gap"] == pytest.approx(-wrong["gap"])
    assert (right["gap"] > 0).all()


def test_random_logit_compares_with_the_map_of_another_class():
    given = of_net()
    explainer = subject("gradient")
    found = measured("random-logit", explainer, given).values
    for i in range(len(given)):
        other = (given.target[i] + given.rng(i, "class").integers(1, 4)) % 4
        a, b = (explainer(given.x[i : i + 1], [int(t)]).saliency[0] for t in (given.target[i], other))
        assert found["rank"][i] == pytest.approx(spearmanr(a, b, axis=None).statistic, abs=1e-5)
    blind = measured("random-logit", subject("edge"), given).values
    assert blind["ssim"] == pytest.approx(1.0)


def test_completeness_is_the_residual_where_there_is_a_certificate():
    given = of_net()
    assert (measured("completeness", subject("fullgrad"), given).values["residual"] < 1e-4).all()
    assert np.isnan(measured("completeness", subject("gradient"), given).values["residual"]).all()
    path = measured("completeness", subject("integrated-gradients", steps=200), given).values["residual"]
    assert (path < 0.05).all()


def test_completeness_holds_at_every_cut():
    given = of_net()
    assert (measured("completeness", subject("fullgrad+"), given).values["cut"] < 1e-5).all()
    assert np.isnan(measured("completeness", subject("fullgrad"), given).values["cut"]).all()


def test_completeness_sees_a_cut_that_lacks_a_part():
    given, right = of_net(), subject("fullgrad+")

    def lacking(x, target):
        found = right(x, target)
        scale = np.abs(found.contributions).sum(axis=1)
        last = list(found.blocks)[-1]
        return replace(found, blocks={**found.blocks, last: found.blocks[last] + 0.1 * scale})

    np.testing.assert_allclose(measured("completeness", lacking, given).values["cut"], 0.1, rtol=1e-3)


def test_layers_are_found_from_the_input_to_the_output():
    found = layers(load(relu_net()).ir)
    assert [weights for _, weights in found] == [("w1", "b1"), ("w2", "b2"), ("w3", "b3")]


def test_permuted_weights_are_the_same_numbers_in_another_order():
    loaded = load(relu_net())
    changed = permuted(loaded, ("w2",), seed=0)
    before, after = ({n: v.const_value.numpy() for n, v in m.ir.graph.initializers.items()} for m in (loaded, changed))
    assert (np.sort(before["w2"].ravel()) == np.sort(after["w2"].ravel())).all()
    assert not np.array_equal(before["w2"], after["w2"])
    assert all(np.array_equal(before[n], after[n]) for n in before if n != "w2")


@pytest.mark.parametrize("name", ["randomisation", "randomisation-independent"])
@pytest.mark.parametrize("method", ["fullgrad", "gradient-x-input"])
def test_randomisation_compares_with_the_maps_of_permuted_models(name, method):
    given, explainer = of_net(2), subject(method)
    found = measured(name, explainer, given, stages=3)
    weights = [("w3", "b3"), ("w2", "b2"), ("w1", "b1")]
    for stage in range(3):
        chosen = weights[stage : stage + 1] if name.endswith("independent") else weights[: stage + 1]
        other = explainer.on(permuted(explainer.loaded, sum(chosen, ()), given.seed))
        maps, changed = (
            explainer(given.x, given.target.tolist()).saliency,
            other(given.x, given.target.tolist()).saliency,
        )
        wanted = [spearmanr(np.abs(a), np.abs(b), axis=None).statistic for a, b in zip(maps, changed, strict=True)]
        assert found.curve[:, stage] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", ["randomisation", "randomisation-independent"])
def test_randomisation_tells_the_edge_detector_from_the_model(name):
    given = of_net()
    edges = measured(name, subject("edge"), given).values
    assert all(values == pytest.approx(1.0) for values in edges.values())
    assert (measured(name, subject("fullgrad"), given).values["rank"] < 0.9).all()


def test_ssim_is_that_of_the_comparison():
    a, b = samples(2, seed=5)[:, 0].repeat(4, axis=1).repeat(4, axis=2)
    scaled = [(m - m.min()) / np.ptp(m) for m in (a, b)]
    wanted = structural_similarity(
        *scaled, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert measures.ssim(a, b) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("name", evaluate.names())
def test_no_result_depends_on_how_samples_are_grouped(name):
    method = subject("gradient-x-input")
    given = of_net(3, masks=np.concatenate([MASK] * 3), seed=5)
    given = replace(given, without=np.stack([np.where(area, 0, given.x) for area in (MASK, MASK.mT)], axis=1))
    whole = measured(name, method, given)
    parts = [
        measured(name, method, replace(of_one, without=given.without[i : i + 1]))
        for i, of_one in enumerate(
            evaluate.Data.of(
                method.on(method.loaded), given.x[i : i + 1], given.target[i : i + 1], masks=MASK, numbers=[i], seed=5
            )
            for i in range(3)
        )
    ]
    for quantity, values in whole.values.items():
        alone = np.concatenate([p.values[quantity] for p in parts])
        assert values == pytest.approx(alone, rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deletoin", "did you mean 'deletion'"),
        ("deletion:size=3", "has no option 'size'; it has: fill, of, steps"),
        ("deletion:steps=many", "'steps=many' of the measure 'deletion' is no whole number; its default is 50"),
    ],
)
def test_unknown_measures_and_options_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        evaluate.get(text)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("deletion", {"fill": "green"}, "fill='green' does not exist; choose one of: black, mean, blur, noise"),
        ("deletion", {"of": "loss"}, "of='loss' does not exist; choose one of: logit, probability"),
        ("pixel-perturbation", {"order": "middle"}, "order='middle' does not exist"),
    ],
)
def test_values_that_do_not_exist_are_refused(name, option, message):
    with pytest.raises(OptionError, match=message):
        measured(name, Linear(WEIGHTS), data(samples()), **option)


def test_every_measure_says_what_it_is_and_where_it_is_from():
    for name in evaluate.names():
        found = evaluate.get(name)
        assert found.meaning.endswith(".")
        assert found.better in ("higher", "lower", "")
        assert any(year in found.source for year in map(str, range(2016, 2027)))


def test_the_page_lists_every_measure_as_its_docstring_does():
    assert f"<!-- measures -->\n\n{described()}\n<!-- end of measures -->" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("fill", ["black", "mean", "blur", "noise"])
def test_fills_have_shape_and_type_of_the_sample(fill):
    x = (draw(8, 2, 3, SIDE, SIDE) * 40 + 128).astype(np.uint8)
    given = data(x)
    assert filled(given, 1, fill).dtype == np.uint8
    assert filled(given, 1, fill).shape == x[1].shape


def test_fills_of_channels_last_are_those_of_channels_first():
    x = samples(1, channels=3)
    first, last = data(x), evaluate.Data(x.transpose(0, 2, 3, 1), np.zeros(1, np.int64), "NHWC", np.arange(1))
    for fill in ("mean", "blur"):
        assert filled(first, 0, fill) == pytest.approx(filled(last, 0, fill).transpose(2, 0, 1))
