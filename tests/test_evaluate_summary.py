"""Means, intervals and curves over images."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fgonnx.audit.evaluate import figures
from fgonnx.audit.evaluate.journal import Row
from fgonnx.audit.evaluate.page import number, ranked, remarks, table
from fgonnx.audit.evaluate.registry import Measured
from fgonnx.audit.evaluate.summary import interval, summarise


def row(shard, values, curve=None):
    at = None if curve is None else np.array([0.0, 1.0])
    images = tuple(f"{shard}-{i}" for i in range(len(values)))
    found = Measured({"v": np.array(values)}, at, None if curve is None else np.array(curve))
    return Row("fullgrad", "m", shard, images, found)


def test_means_are_over_images_that_have_a_value():
    ((entry,), _) = summarise([row(1, [5.0]), row(0, [1.0, np.nan, 3.0])], ["fullgrad"], ["m"], 0)
    assert (entry.count, entry.mean) == (3, 3.0)
    assert 1.0 <= entry.low < 3.0 < entry.high <= 5.0


@pytest.mark.parametrize(("values", "bounds"), [([], (None, None)), ([2.0], (None, None)), ([2.0, 2.0], (2.0, 2.0))])
def test_too_few_values_have_no_interval(values, bounds):
    assert interval(np.array(values), 0) == bounds


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (interval(rng.normal(size=40), 0) for _ in range(200))]
    assert 0.88 < np.mean(covered) < 0.99  # 95 %, a little less for few values


def test_curves_leave_out_images_without_one():
    _, (curve,) = summarise(
        [row(0, [0.0, 0.0], [[1.0, 3.0], [np.nan, 0.0]]), row(1, [0.0], [[3.0, 5.0]])], ["fullgrad"], ["m"], 0
    )
    assert curve.mean.tolist() == [2.0, 4.0]
    assert summarise([row(0, [0.0], [[np.nan, 1.0]])], ["fullgrad"], ["m"], 0)[1] == []


@pytest.mark.parametrize(("better", "first"), [("higher", "b"), ("lower", "a"), ("", None)])
def test_methods_are_ranked_in_the_direction_that_is_better(better, first):
    cells = [{"method": "a", "mean": 1.0}, {"method": "b", "mean": 2.0}, {"method": "c", "mean": None}]
    order = ranked(cells, better)
    assert next(iter(order), None) == first
    assert "c" not in order


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0.000"), (0.01234, "0.012"), (-0.5, "-0.500"), (1.0, "1.00"), (12.345, "12.3"), (3e-7, "3e-07")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def summary_of(means, better="higher"):
    what = {"edge": "Edges. Null baseline; somebody, 2018.", "fullgrad": "Full-gradients."}
    return {
        "methods": [{"name": name, "what": what[name]} for name in means],
        "measures": [{"name": "m", "better": better}],
        "results": [{"method": n, "measure": "m", "quantity": "q", "mean": mean} for n, mean in means.items()],
    }


@pytest.mark.parametrize("better", ["higher", "lower", ""])
@pytest.mark.parametrize("means", [{"edge": 1.0, "fullgrad": 2.0}, {"edge": 2.0, "fullgrad": 1.0}])
def test_a_null_baseline_is_never_the_best_without_a_remark(means, better):
    summary = summary_of(means, better)
    (column,) = table(summary)
    leads = bool(better) and (means["edge"] > means["fullgrad"]) == (better == "higher")
    assert not column["cells"]["edge"]["best"]
    assert column["cells"]["fullgrad"]["best"] == (bool(better) and not leads)
    assert [r.startswith("m: the null baseline edge") for r in remarks(summary)] == [True] * leads


def test_curves_differ_without_their_colours(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda self, *where, **how: drawn.append((how["linestyle"], how["marker"])) or [])
    monkeypatch.setattr(Figure, "legend", lambda self, *handles, **how: None)
    curve = {"at": [0.0, 1.0], "mean": [0.0, 1.0], "low": [0.0, 1.0], "high": [0.0, 1.0]}
    figures.curves("m", ("x", "y"), [{"method": str(i), **curve} for i in range(26)])
    assert len(set(drawn)) == 26
