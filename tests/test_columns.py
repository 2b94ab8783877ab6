"""Tables of text as samples, and what is said of those that do not fit."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper

import fgonnx
from fgonnx.errors import InputError
from fgonnx.explain import parts
from fgonnx.pictures.read import columns
from fgonnx.pictures.show import waterfall
from fgonnx.pictures.show.sheet import Certificate
from tests import skips
from tests.cli_support import good, refused, written
from tests.support import model

CHANNELS = ("I", "II", "V1")


def series(path, *, last=False, length="12"):
    """Three channels over time, a convolution and the mean over time."""
    rng = np.random.default_rng(0)
    weights = {"k": rng.normal(size=(4, 3, 3)), "b": rng.normal(size=4), "w": rng.normal(size=(4, 2))}
    shape = f"N,{length},3" if last else f"N,3,{length}"
    first = "t = Transpose<perm=[0,2,1]>(x)" if last else "t = Identity(x)"
    text = f"""(float[{shape}] x) => (float[N,2] y) <int64[1] at = {{2}}> {{
        {first}
        c = Conv<pads=[1,1]>(t, k, b)
        r = Relu(c)
        m = ReduceMean<keepdims=0>(r, at)
        y = MatMul(m, w)
    }}"""
    proto = model(text, weights={n: a.astype(np.float32) for n, a in weights.items()})
    onnx.save(proto, path)
    return path


def features(path, count=3):
    """A scaler, a hidden layer, two classes."""
    rng = np.random.default_rng(1)
    weights = {
        "mean": rng.normal(size=count),
        "scale": rng.uniform(0.5, 2, count),
        "a": rng.normal(size=(count, 5)),
        "p": rng.normal(size=5),
        "w": rng.normal(size=(5, 2)),
        "q": rng.normal(size=2),
    }
    text = f"""(float[N,{count}] x) => (float[N,2] y) {{
        d = Sub(x, mean) z = Div(d, scale) h = Gemm(z, a, p) r = Relu(h) l = Gemm(r, w, q) y = Softmax(l)
    }}"""
    onnx.save(model(text, weights={n: a.astype(np.float32) for n, a in weights.items()}), path)
    return path


def table(path, names, rows, sep=","):
    lines = [sep.join(names)] if names else []
    path.write_text("\n".join([*lines, *(sep.join(str(v) for v in row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def waves(steps=12, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, 3)).round(3)


def record(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


class TestReading:
    @pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
    def test_a_header_and_numbers(self, sep, tmp_path):
        found = columns.read(table(tmp_path / "a.csv", ["x", "y"], [[1, 2.5], ["-3e-2", 4]], sep))
        assert found.names == ("x", "y")
        np.testing.assert_array_equal(found.numbers(["y", "x"]), [[2.5, 1], [4, -0.03]])

    def test_without_a_header_columns_are_numbered(self, tmp_path):
        found = columns.read(table(tmp_path / "a.csv", [], [[1, 2], [3, 4]]))
        assert (found.names, len(found.rows)) == (("column 0", "column 1"), 2)

    def test_marks_quotes_and_empty_lines(self, tmp_path):
        (tmp_path / "a.csv").write_bytes('\ufeff"lead, left",b\r\n\r\n"1",2\r\n'.encode())
        found = columns.read(tmp_path / "a.csv")
        assert found.names == ("lead, left", "b")
        np.testing.assert_array_equal(found.numbers(found.names), [[1, 2]])

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "is empty: it needs a header and rows of numbers"),
            ("  \n\n", "is empty"),
            ("a,b\n", "has a header and no rows"),
            ("a,b\n1,2\n3\n", "line 3: 1 cells, where the first line has 2"),
            ("a,b\n1,2,3\n", "line 2: 3 cells"),
            ('a,b\n"1,2\n', "cannot be read"),
        ],
    )
    def test_what_is_no_table_is_refused(self, text, said, tmp_path):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputError, match=said):
            columns.read(tmp_path / "a.csv")

    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("", "line 3, column 'b': the cell is empty"),
            ("nan", "line 3, column 'b': nan is no finite number"),
            ("inf", "inf is no finite number"),
            ("high", "'high' is no number; choose the columns of numbers"),
            ("1,5", "'1,5' is no number; write numbers with a point"),
        ],
    )
    def test_cells_that_hold_no_number_are_named(self, cell, said, tmp_path):
        found = columns.read(table(tmp_path / "a.csv", ["a", "b"], [[1, 2], [3, cell]], ";"))
        with pytest.raises(InputError, match=said):
            found.numbers(["a", "b"])


class TestSeries:
    @pytest.mark.parametrize("last", [False, True])
    @pytest.mark.parametrize("length", ["12", "T", "3"])
    def test_a_column_is_a_channel_wherever_the_model_has_them(self, last, length, tmp_path):
        steps = 3 if length == "3" else 12
        values = waves(steps)
        source = series(tmp_path / "m.onnx", last=last, length=length)
        good("explain", source, table(tmp_path / "a.csv", CHANNELS, values), "-o", tmp_path / "out")
        x = values.astype(np.float32)[None] if last else values.T.astype(np.float32)[None]
        expected = fgonnx.Explainer(source)(x)
        np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected.saliency[0], rtol=1e-5)
        assert record(tmp_path / "out", "a")["series"]["channels"] == list(CHANNELS)

    def test_times_give_the_rate_and_ids_the_recordings(self, tmp_path):
        rows = [["b", *(f"{t / 50:.2f}", *v)] for t, v in enumerate(waves())]
        rows += [["a", *(f"{t / 50:.2f}", *v)] for t, v in enumerate(waves(seed=1))]
        source = series(tmp_path / "m.onnx")
        said = good(
            "explain", source, table(tmp_path / "a.csv", ["id", "time", *CHANNELS], rows), "-o", tmp_path / "out"
        )
        assert "50 rows per second by the column 'time'" in said
        found = [record(tmp_path / "out", f"a-{i:04}")["series"] for i in range(2)]
        assert [(s["recording"], s["rate"]) for s in found] == [("b", 50.0), ("a", 50.0)]

    def test_any_column_may_tell_recordings_apart(self, tmp_path):
        rows = [[*v, name] for name in ("one", "two") for v in waves()]
        source = series(tmp_path / "m.onnx")
        path = table(tmp_path / "a.csv", [*CHANNELS, "patient"], rows)
        good("explain", source, path, "-o", tmp_path / "out", "--by", "patient")
        assert record(tmp_path / "out", "a-0001")["series"]["recording"] == "two"

    def test_channels_are_chosen_in_the_order_of_the_model(self, tmp_path):
        values = waves()
        path = table(tmp_path / "a.csv", ["V1", "note", "II", "I"], [[v[2], "ok", v[1], v[0]] for v in values])
        source = series(tmp_path / "m.onnx")
        good("explain", source, path, "-o", tmp_path / "out", "--channels", "I,II,V1", "--units", "mV")
        expected = fgonnx.Explainer(source)(values.T.astype(np.float32)[None])
        np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected.saliency[0], rtol=1e-5)
        assert record(tmp_path / "out", "a")["series"]["units"] == "mV"

    @pytest.mark.parametrize(("pad", "rest"), [("zero", [0, 0, 0]), ("edge", None), ("-1.5", [-1.5] * 3)])
    def test_what_is_too_short_is_padded_as_declared(self, pad, rest, tmp_path):
        values = waves(9)
        source = series(tmp_path / "m.onnx")
        path = table(tmp_path / "a.csv", CHANNELS, values)
        said = good("explain", source, path, "-o", tmp_path / "out", "--pad", pad)
        assert "the last 3 of 12 steps are padding" in said
        x = np.concatenate([values, np.repeat([values[-1] if rest is None else rest], 3, axis=0)])
        expected = fgonnx.Explainer(source)(x.T.astype(np.float32)[None])
        np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected.saliency[0], rtol=1e-5)
        assert record(tmp_path / "out", "a")["series"]["padded"] == 3

    def test_names_of_an_array(self, tmp_path):
        np.save(tmp_path / "a.npy", waves().T.astype(np.float32))
        good(
            "explain", series(tmp_path / "m.onnx"), tmp_path / "a.npy", "-o", tmp_path / "out", "--channels", "I,II,V1"
        )
        assert record(tmp_path / "out", "a")["series"]["channels"] == list(CHANNELS)

    @pytest.mark.parametrize(
        ("names", "rows", "options", "said"),
        [
            (CHANNELS, waves(9), (), "has 9 steps, the model takes 12; say what the rest is filled with (--pad zero"),
            (CHANNELS, waves(20), (), "has 20 steps, the model takes 12; choose which (--span 0:12), or slide"),
            (("I", "II"), waves()[:, :2], (), "has 2 columns of numbers; the input 'x' takes 3 channels"),
            (CHANNELS, waves(), ("--channels", "I,II,V2"), "has no column 'V2'; its header has 'I', 'II', 'V1'"),
            (CHANNELS, waves(), ("--channels", "I,I,V1"), "names 'I' twice"),
            (CHANNELS, waves(), ("--channels", "I,,V1"), "has an empty name"),
            (CHANNELS, waves(), ("--by", "patient"), "has no column 'patient'"),
            (CHANNELS, waves(), ("--span", "8:20"), "has 12 rows; 8:20 is not in it"),
            (CHANNELS, waves(9), ("--pad", "mirror"), "--pad mirror is neither zero, edge nor a number"),
            (CHANNELS, waves(), ("--rate", "0"), "--rate"),
            (("I", "I", "V1"), waves(), (), "2 columns are called 'I'"),
            (
                ("time", *CHANNELS),
                [[t, *v] for t, v in zip([*range(11), 20], waves(), strict=True)],
                (),
                "do not rise evenly",
            ),
            (
                ("time", *CHANNELS),
                [[t / 50, *v] for t, v in enumerate(waves())],
                ("--rate", 100),
                "has 50 rows per second",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(self, names, rows, options, said, tmp_path):
        path = table(tmp_path / "a.csv", names, rows)
        message = refused("explain", series(tmp_path / "m.onnx"), path, "-o", tmp_path / "out", *options)
        assert said in message
        assert written(tmp_path / "out") == []

    def test_nan_in_an_array_is_refused(self, tmp_path):
        x = waves().T.astype(np.float32)
        x[1, 4] = np.nan
        np.save(tmp_path / "a.npy", x)
        message = refused("explain", series(tmp_path / "m.onnx"), tmp_path / "a.npy", "-o", tmp_path / "out")
        assert "holds NaN or infinity, first at (1, 4)" in message


class TestFeatures:
    def test_every_row_is_a_sum_of_its_features_and_the_biases(self, tmp_path):
        rows = np.random.default_rng(2).normal(size=(4, 3)).round(3)
        path = table(tmp_path / "a.csv", ["age", "dose", "weight"], rows)
        said = good("explain", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")
        assert "psi signed" in said
        assert "biases of the network" in said
        for i in range(4):
            made = record(tmp_path / "out", f"a-{i:04}")
            found = made["features"]
            assert found["names"] == ["age", "dose", "weight"]
            np.testing.assert_allclose(found["values"], rows[i], rtol=1e-6)
            np.testing.assert_allclose(sum(found["contributions"]) + found["biases"], made["score"], rtol=1e-5)

    def test_from_a_data_frame(self, tmp_path):
        rows = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
        frame = pd.DataFrame(rows, columns=["age", "dose", "weight"])
        e = fgonnx.explain(features(tmp_path / "m.onnx"), frame)
        found = e.to_dataframe()
        np.testing.assert_allclose(found[["age", "dose", "weight", "biases"]].sum(axis=1), found["score"], rtol=1e-5)
        assert e._repr_html_().count("<img") == 4

    @pytest.mark.parametrize("index", ["", "Unnamed: 0", "index", "id"])
    def test_a_column_that_numbers_the_rows_is_no_feature(self, index, tmp_path):
        path = table(tmp_path / "a.csv", [index, "age", "dose", "weight"], [[0, 1, 2, 3], [1, 2, 3, 4]])
        good("explain", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")
        assert record(tmp_path / "out", "a-0001")["features"]["values"] == [2, 3, 4]

    @pytest.mark.parametrize(
        ("names", "named"),
        [
            (["a", "b", "time", "extra"], "('a', 'b', 'time', 'extra')"),
            (["time", "a", "b", "c"], "('time', 'a', 'b', 'c')"),
            (["a", "s", "b", "c"], "('a', 's', 'b', 'c')"),
            (["id", "score", "index", "top"], "('id', 'score', 'index', 'top')"),
            (["a", "b", "c", "id"], "('a', 'b', 'c', 'id')"),
            (["index", "id", "a", "b", "c"], "('index', 'id', 'a', 'b', 'c')"),
        ],
    )
    @pytest.mark.parametrize("command", ["explain", "check"])
    def test_no_feature_is_left_out_for_its_name(self, command, names, named, tmp_path):
        path = table(tmp_path / "a.csv", names, [[1.5] * len(names)])
        out = ("-o", tmp_path / "out") if command == "explain" else ()
        message = refused(command, features(tmp_path / "m.onnx"), path, *out)
        assert f"has {len(names)} columns {named}" in message

    @pytest.mark.parametrize("names", [["time", "index", "id"], ["t", "s", "sample"]])
    def test_features_may_have_any_name(self, names, tmp_path):
        path = table(tmp_path / "a.csv", names, [[1, 2, 3]])
        good("explain", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")
        assert record(tmp_path / "out", "a-0000")["features"]["names"] == names

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (["id", "a", "b", "c"], ["the column 'id' numbers the rows: it is not among the features"]),
            (["0", "1", "2"], ["no header found: the first row is numbers, and is explained as a sample"]),
            (["a", "b", "c"], []),
        ],
    )
    def test_assumptions_are_noted(self, names, said, tmp_path):
        path = table(tmp_path / "a.csv", names, [[1] * len(names)])
        good("explain", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")
        assert record(tmp_path / "out", "a-0000")["notes"] == said

    def test_every_row_is_checked_and_compared(self, tmp_path):
        source = features(tmp_path / "m.onnx")
        path = table(tmp_path / "a.csv", ["a", "b", "c"], np.eye(3).tolist())
        assert "3 sample(s) given" in good("check", source, path)
        good("compare", source, source, path, "-o", tmp_path / "out")
        rows = json.loads((tmp_path / "out" / "summary.json").read_text())["images"]
        assert [row["row"] for row in rows] == [0, 1, 2]
        assert len({row["score_a"] for row in rows}) == 3

    def test_every_recording_is_checked_and_compared(self, tmp_path):
        source = series(tmp_path / "m.onnx")
        rows = [[name, *row] for name, seed in (("p", 1), ("q", 2)) for row in waves(seed=seed).tolist()]
        path = table(tmp_path / "a.csv", ["id", *CHANNELS], rows)
        assert "2 sample(s) given" in good("check", source, path)
        good("compare", source, source, path, "-o", tmp_path / "out")
        found = json.loads((tmp_path / "out" / "summary.json").read_text())["images"]
        assert len({row["score_a"] for row in found}) == 2

    def test_models_that_take_a_table_otherwise_are_not_compared(self, tmp_path):
        one = tmp_path / "one.onnx"
        onnx.save(model("(float[N,3,1] x) => (float[N,3] y) <int64[1] a = {2}> { y = Squeeze(x, a) }"), one)
        path = table(tmp_path / "a.csv", ["a", "b", "c"], np.eye(3).tolist())
        message = refused("compare", features(tmp_path / "m.onnx"), one, path, "-o", tmp_path / "out")
        assert "holds 3 samples for m.onnx and 1 for one.onnx" in message

    @pytest.mark.parametrize(
        ("names", "columns"),
        [
            (["score", "index", "dose"], ["adds: score", "adds: index", "dose"]),
            (["biases", "sample", "explained"], ["adds: biases", "adds: sample", "adds: explained"]),
            (["score", "adds: score", "top"], ["adds: adds: score", "adds: score", "adds: top"]),
        ],
    )
    def test_no_column_of_the_table_is_lost(self, names, columns, tmp_path):
        e = fgonnx.explain(features(tmp_path / "m.onnx"), pd.DataFrame([[1.0, 2.0, 3.0]], columns=names))
        found = e.to_dataframe()
        np.testing.assert_array_equal(found["score"], e.score)
        np.testing.assert_allclose(found[[*columns, "biases"]].sum(axis=1), e.score, rtol=1e-5)

    @pytest.mark.parametrize(
        "index",
        [
            pd.Index(["p1", "p2"], name="patient"),
            pd.RangeIndex(5, 7),
            pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]),
            pd.to_datetime(["2020-01-01", "2020-01-02"]),
        ],
        ids=["texts", "numbers", "pairs", "days"],
    )
    def test_rows_of_a_frame_keep_its_index(self, index, tmp_path):
        frame = pd.DataFrame(np.eye(2, 3), columns=["a", "b", "c"], index=index)
        e = fgonnx.explain(features(tmp_path / "m.onnx"), frame)
        assert e.to_dataframe().index.equals(frame.index)
        assert e[1].to_dataframe().index.equals(frame.index[1:])
        assert e.to_dataframe().index.names == frame.index.names

    @pytest.mark.parametrize("option", [("--span", "0:1"), ("--pad", "zero"), ("--slide", 1)])
    def test_options_of_recordings_have_no_effect_on_rows(self, option, tmp_path):
        path = table(tmp_path / "a.csv", ["age", "dose", "weight"], [[1, 2, 3]])
        message = refused("explain", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out", *option)
        assert "has no effect: every row of a table is a sample of its own" in message

    def test_true_and_false_are_numbers_and_missing_values_are_named(self, tmp_path):
        source = features(tmp_path / "m.onnx")
        frame = pd.DataFrame({"age": [1.0], "smoker": [True], "weight": [2.0]})
        np.testing.assert_allclose(fgonnx.explain(source, frame).origin.samples[0].x, [1, 1, 2])
        with pytest.raises(InputError, match="'table', row 0, column 'age': nan is no finite number"):
            fgonnx.explain(source, frame.assign(age=[np.nan]))

    def test_columns_of_a_frame_are_chosen_by_name(self, tmp_path):
        rows = np.random.default_rng(2).normal(size=(2, 3)).astype(np.float32)
        frame = pd.DataFrame(rows, columns=["age", "dose", "weight"]).assign(name=["a", "b"])[
            ["name", "weight", "age", "dose"]
        ]
        source = features(tmp_path / "m.onnx")
        e = fgonnx.Explainer(source, psi="signed", channels=("age", "dose", "weight"))(frame)
        np.testing.assert_allclose(e.saliency, fgonnx.Explainer(source, psi="signed")(rows).saliency, rtol=1e-5)

    @pytest.mark.parametrize(
        ("names", "rows", "said"),
        [
            (["a", "b"], [[1, 2]], "has 2 columns ('a', 'b'); one sample of the input 'x' is (3): 3 columns"),
            (["a", "b", "c"], [[1, "x", 3]], "line 2, column 'b': 'x' is no number"),
            (["a", "b", "c"], [[1, 2, 3], [1, "", 3]], "line 3, column 'b': the cell is empty"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, names, rows, said, tmp_path):
        path = table(tmp_path / "a.csv", names, rows)
        assert said in refused("explain", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")


class TestSums:
    def test_of_a_linear_model_behind_a_scaler_are_the_closed_form(self, tmp_path):
        rng = np.random.default_rng(3)
        mean, scale, w, b = rng.normal(size=4), rng.uniform(0.5, 2, 4), rng.normal(size=(4, 2)), rng.normal(size=2)
        text = """(float[N,4] x) => (float[N,2] y) { d = Sub(x, mean) z = Div(d, scale) y = Gemm(z, w, b) }"""
        weights = {"mean": mean, "scale": scale, "w": w, "b": b}
        source = model(text, weights={n: a.astype(np.float32) for n, a in weights.items()})
        x = rng.normal(size=(5, 4))
        found = fgonnx.explain(source, pd.DataFrame(x.astype(np.float32), columns=list("abcd")), 1).to_dataframe()
        np.testing.assert_allclose(found[list("abcd")], (x - mean) / scale * w[:, 1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["biases"], b[1], rtol=1e-6)

    @pytest.mark.parametrize("activation", ["ReLU", "Tanh", "GELU"])
    def test_of_a_perceptron_are_what_torch_differentiates(self, activation):
        """Features: the input times its gradient. Biases: all that is left of the score."""
        torch, captum = skips.without("torch"), skips.without("captum.attr")
        torch.manual_seed(0)
        act = getattr(torch.nn, activation)
        net = torch.nn.Sequential(
            torch.nn.Linear(6, 16), act(), torch.nn.Linear(16, 16), act(), torch.nn.Linear(16, 3)
        ).eval()
        x = torch.randn(8, 6)
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(net, x[:2], file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "N"}})
        e = fgonnx.Explainer(file.getvalue(), psi="signed")(x.numpy(), 2)
        expected = captum.InputXGradient(net).attribute(x.clone().requires_grad_(), target=2).detach().numpy()
        np.testing.assert_allclose(e.saliency, expected, rtol=1e-5, atol=1e-5)
        found = [parts.features(e, i) for i in range(8)]
        rest = net(x)[:, 2].detach().numpy() - expected.sum(axis=1)
        np.testing.assert_allclose([f.biases for f in found], rest, rtol=1e-4, atol=1e-5)
        assert max(abs(f.residual) for f in found) < 1e-5

    def test_many_features_leave_a_bar_for_the_others(self):
        amounts = np.random.default_rng(0).normal(size=40)
        bars = waterfall.rows([str(i) for i in range(40)], ["1"] * 40, list(amounts), 0.5)
        assert len(bars) == waterfall.MOST + 2
        np.testing.assert_allclose(sum(b.amount for b in bars), amounts.sum() + 0.5)
        assert waterfall.draw(bars, amounts.sum() + 0.5, Certificate("t")).shape[0] == 480

    def test_trees_are_refused_with_the_reason(self, tmp_path):
        node = helper.make_node(
            "TreeEnsembleRegressor",
            ["x"],
            ["y"],
            domain="ai.onnx.ml",
            n_targets=1,
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[0, 0, 0],
            nodes_values=[0.5, 0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            target_treeids=[0, 0],
            target_nodeids=[1, 2],
            target_ids=[0, 0],
            target_weights=[1.0, 2.0],
        )
        graph = helper.make_graph(
            [node],
            "trees",
            [helper.make_tensor_value_info("x", 1, ["N", 2])],
            [helper.make_tensor_value_info("y", 1, ["N", 1])],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
        path = table(tmp_path / "a.csv", ["a", "b"], [[0.1, 2]])
        message = refused("explain", tmp_path / "m.onnx", path, "-o", tmp_path / "out")
        assert "between the thresholds of its trees the score is constant: it has no gradient" in message
        assert "TreeSHAP" in message
