"""The study of maps: paired differences, Holm's correction, halves, and a run that goes on where it stopped."""

import numpy as np
import pytest

import fgonnx
from tests import skips

skips.without("scipy")

from scipy.stats import permutation_test  # noqa: E402

from benchmarks import maps, variants, verdict  # noqa: E402
from benchmarks.results import Results, difference, half, holm, whole  # noqa: E402
from fgonnx.audit import evaluate  # noqa: E402
from tests.support import model  # noqa: E402


def by_image(values):
    return {f"{i:03}.png": float(v) for i, v in enumerate(values)}


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 0.005 * 4, 0.01 * 3, 0.03 * 2, and not less
        ([0.5, 0.6, 0.9], [1.0, 1.0, 1.0]),
    ],
)
def test_holm_multiplies_by_how_many_are_left(given, corrected):
    assert holm(given) == pytest.approx(np.array(corrected, float))


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    base = 10 * rng.normal(size=40)
    found = difference(by_image(base + 0.1 + 0.05 * rng.normal(size=40)), by_image(base))
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.05
    assert found.p < 0.001
    none = difference(by_image(base + 0.05 * rng.normal(size=40)), by_image(base))
    assert none.p > 0.01


def test_a_few_differences_of_one_sign_are_not_significant():
    found = difference(by_image([1, 2, 3]), by_image([0, 0, 0]))
    assert found.mean == 2
    assert found.p == pytest.approx(0.25)  # 2 of the 8 choices of signs


@pytest.mark.parametrize("count", [8, 30])
def test_the_p_value_is_that_of_the_test_that_flips_signs(count):
    differences = 0.25 + np.random.default_rng(1).normal(size=count)
    found = difference(by_image(differences), by_image(np.zeros(count)))
    expected = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0)
    assert 0.001 < found.p < 0.5
    assert found.p == pytest.approx(expected.pvalue, abs=0.012)  # four standard deviations of 20,000 draws


def test_a_clear_difference_stays_significant_among_a_thousand():
    found = difference(by_image(np.arange(1.0, 26)), by_image(np.zeros(25)))
    assert 1000 * found.p < 0.05


def test_images_without_both_values_do_not_count():
    values, base = by_image([1, 2, np.nan, 4]), by_image([0, np.nan, 0, 0])
    assert difference(values, {**base, "other.png": 3.0}).mean == 2.5
    assert difference(by_image([1]), base) is None


def test_halves_share_no_image_and_are_all():
    found = Results({("a", "m"): by_image(range(7)), ("b", "m"): by_image(range(5))})
    halves = [half(found, which).values for which in ("choose", "report")]
    for key, values in found.values.items():
        first, second = (given[key] for given in halves)
        assert not first.keys() & second.keys()
        assert first | second == values
    assert [sorted(h["b", "m"].values()) for h in halves] == [[0, 2, 4], [1, 3]]


def test_what_was_not_finished_is_left_out():
    found = Results({("a", "m"): by_image(range(7)), ("b", "m"): by_image(range(5)), ("c", "m"): by_image(range(7))})
    assert [method for method, _ in whole(found).values] == ["a", "c"]


def test_marks_say_which_way_is_better():
    rng = np.random.default_rng(1)
    base = rng.normal(size=30)
    values = {
        ("fullgrad", "deletion"): by_image(base),
        ("grad-cam", "deletion"): by_image(base - 1),
        ("edge", "deletion"): by_image(base + 1),
        ("random", "deletion"): by_image(base + 1e-3 * rng.normal(size=30)),
        ("fullgrad", "insertion"): by_image(base),
        ("grad-cam", "insertion"): by_image(base + 1),
    }
    better = {"deletion": "lower", "insertion": "higher"}
    text = maps.section("net", maps.NETWORKS["shapes"], Results(values, better=better))
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| ")}
    assert rows["grad-cam"].count("▲") == 2
    assert rows["edge"].count("▼") == 1
    assert rows["edge"].endswith("| – |")
    assert not {"▲", "▼"} & {*rows["random"], *rows["fullgrad"]}


def test_only_what_the_pictures_have_is_measured():
    assert maps.NETWORKS["squeezenet"].has == set()
    assert maps.NETWORKS["parts"].has == {"masks", "parts"}
    for name in maps.MEASURES:
        assert evaluate.get(name).needs in {"", "model", "masks", "parts"}


@pytest.mark.parametrize("backward", ["libra", "attnlrp"])
@pytest.mark.parametrize(("name", "changed"), [("shapes", False), ("parts", False), ("parts-convnext", True)])
def test_backward_passes_are_for_networks_that_they_change(name, backward, changed):
    assert variants.changed_by(maps.NETWORKS[name].model, backward) is changed


def test_libra_methods_are_measured_next_to_the_others(tmp_path):
    chosen, measure = ("fullgrad", "libra/fullgrad"), evaluate.get("energy")
    found = maps.measured("net", maps.NETWORKS["parts-convnext"], chosen, [measure], 2, tmp_path)
    plain, libra = (found.values[method, "energy"] for method in chosen)
    assert plain.keys() == libra.keys()
    assert all(plain[image] != libra[image] for image in plain)
    assert not found.left_out


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("ends", ["scores", "probabilities"])
def test_centred_methods_explain_a_score_against_the_mean_of_all(ends, opset, tmp_path):
    softmax = ends == "probabilities"
    body = "z = Gemm(x, w, b)  y = Softmax(z)" if softmax else "y = Gemm(x, w, b)"
    weights = "float[2,3] w = {1, 2, 4, 8, 16, 32}, float[3] b = {0, 0, 9}"
    source = model(f"(float[N,2] x) => (float[N,3] y) <{weights}> {{ {body} }}", opset=opset)
    (tmp_path / "net.onnx").write_bytes(source.SerializeToString())
    centred = fgonnx.Explainer(variants.centred(tmp_path / "net.onnx", tmp_path))
    plain, x = fgonnx.Explainer(source), np.array([[1, 0.5]], np.float32)
    every = [plain(x, c).contributions[0] for c in range(3)]
    found = centred(x, 2)
    np.testing.assert_allclose(found.contributions.sum(), np.sum(every[2] - np.mean(every, 0)), rtol=1e-6)
    np.testing.assert_allclose(found.outputs["y"].sum(), 1 if softmax else 0, atol=1e-5)


NET = "net-fullgrad"
WORSE = {"deletion": 0.6, "insertion": 0.4, "pixel-perturbation": 0.6, "randomisation": 0.6}


def measured(**of_net):
    """Results of FullGrad, 0.5 in everything, and of another method, 0.5 with a few hundredths of noise unless said."""
    rng = np.random.default_rng(0)
    values = {}
    for measure in (verdict.SPECIFIC, *verdict.NO_WORSE):
        base = 0.5 + 0.01 * rng.normal(size=30)
        values["fullgrad", measure] = by_image(base)
        wanted = of_net.get(measure.replace("-", "_"), 0.5)
        values[NET, measure] = by_image(wanted + rng.permutation(base) - 0.5)
    return Results(values, better={m: evaluate.get(m).better for _, m in values})


def failing(found):
    return [c.name for c in verdict.conditions(found, NET) if not c.met]


@pytest.mark.parametrize("measure", verdict.NO_WORSE)
def test_a_candidate_must_be_no_worse(measure):
    assert failing(measured(random_logit=0.3)) == []
    assert failing(measured(random_logit=0.3, **{measure.replace("-", "_"): WORSE[measure]})) == [measure]
    assert failing(measured(random_logit=0.3, **{measure.replace("-", "_"): 1 - WORSE[measure]})) == []


def test_a_candidate_must_depend_on_the_class():
    assert failing(measured(random_logit=0.45)) == ["random-logit"]


def test_a_candidate_must_pass_on_every_network():
    good, bad = measured(random_logit=0.3), measured(random_logit=0.45)
    assert "`net-fullgrad` wins" in "\n".join(verdict.verdict({"a": good, "b": good}, NET))
    said = "\n".join(verdict.verdict({"a": good, "b": bad}, NET))
    assert "does not win**: random-logit on b" in said


def test_the_candidate_that_meets_most_is_chosen():
    both = measured(random_logit=0.3)
    other = measured(random_logit=0.2, deletion=0.6)
    both.values |= {("other", measure): v for (name, measure), v in other.values.items() if name == NET}
    assert verdict.chosen({"a": both}, ("other", NET)) == NET
    assert verdict.chosen({"a": both}, ("absent",)) is None


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped(tmp_path):
    small = ["--out", str(tmp_path), "--networks", "parts,shapes", "--images", "4"]
    few = [*small, "--measures", "energy,part-removal"]
    maps.main([*few, "--methods", "fullgrad,edge"])
    journal = tmp_path / "parts4" / "journal.jsonl"
    before = journal.read_text()
    maps.main([*few, "--methods", "fullgrad,edge,grad-cam,libra/fullgrad"])
    after = journal.read_text()
    assert after.startswith(before)
    assert after.count('"method": "fullgrad"') == before.count('"method": "fullgrad"') == 2
    page = (tmp_path / "maps.md").read_text(encoding="utf-8")
    assert page.count("| grad-cam | ") == 2
    assert "Left out: libra/...: the network has no operators" in page


def test_where_no_method_meets_the_rule_is_said():
    good, bad = measured(random_logit=0.3), measured(random_logit=0.45)
    worse = measured(random_logit=0.3, deletion=0.6)
    said = "\n".join(verdict.reachable({"a": good, "b": bad, "c": worse}))
    assert "On b and c (2 of 3 networks) no method that was measured meets all conditions" in said
    assert "On every network some method meets all" in "\n".join(verdict.reachable({"a": good}))
