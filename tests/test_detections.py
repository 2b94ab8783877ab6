"""Detectors: heads on the grid of the picture, and what is explained of a detector where no target is given."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgonnx import Explainer
from fgonnx.errors import TargetError
from fgonnx.explain.choice import parse, resolve
from fgonnx.explain.detection import Detection, unasked
from fgonnx.explain.head import Head
from tests.cli_support import good
from tests.support import draw, model, pictures

X = pictures(3, (3, 16, 12))
NAMES = ("cat", "dog", "hen")
SHARES, COORDINATES = "Sigmoid(p)", "Mul(p, hundred)"


def detector(tail, columns="b, o, k", anchors=1, shape="N,K,H,W", **weights):
    """A head of cells of 2 x 2 pixels, each with `anchors` anchors: a box in pixels, objectness and classes in 0..1."""
    body = f"""
        c = Conv<strides=[2,2]>(x, w)
        r = Reshape(c, by_anchor)
        p4, p1, p3 = Split<axis=2>(r, parts)
        b = Mul(p4, hundred) o = Sigmoid(p1) k = Sigmoid(p3)
        t = Concat<axis=2>({columns})
        {tail}"""
    return model(
        f"(float[N,3,16,12] x) => (float[{shape}] y) {{ {body} }}",
        weights=draw(w=(8 * anchors, 3, 2, 2))
        | {
            "by_anchor": np.array([-1, anchors, 8, 8, 6]),
            "parts": np.array([4, 1, 3]),
            "hundred": np.array(100, np.float32),
            "one": np.array([1]),
            "cells": np.array([0, anchors * count(columns), 8, 6]),
            "rows": np.array([0, -1, count(columns)]),
        }
        | weights,
    )


def count(columns):
    return sum({"b": 4, "o": 1, "k": 3}[c] for c in columns.split(", "))


#: How heads of one anchor, or of two, are laid out; and the axis of columns in them.
LAID_OUT = {
    "columns, rows, cells": (detector("y = Squeeze(t, one)"), 1),
    "rows, cells, columns": (detector("s = Squeeze(t, one) y = Transpose<perm=[0,2,3,1]>(s)", shape="N,H,W,K"), 3),
    "anchors, columns, rows, cells": (detector("y = Identity(t)", anchors=2, shape="N,A,K,H,W"), 2),
    "rows, cells, anchors, columns": (detector("y = Transpose<perm=[0,3,4,1,2]>(t)", anchors=2, shape="N,H,W,A,K"), 4),
    "all anchors, columns": (
        detector("u = Transpose<perm=[0,1,3,4,2]>(t) y = Reshape(u, rows)", anchors=2, shape="N,R,K"),
        2,
    ),
}


@pytest.mark.parametrize("name", LAID_OUT)
class TestLayouts:
    def table(self, name, y):
        """(N, anchors, columns), and the flat index of each entry."""
        axis = LAID_OUT[name][1]
        index = np.broadcast_to(np.arange(y[0].size).reshape(y[0].shape), y.shape)
        return (np.moveaxis(a, axis, -1).reshape(len(y), -1, 8) for a in (y, index))

    @pytest.mark.parametrize("target", ["best=dog", "best=1,first=5", Detection("dog", first=5)])
    def test_the_best_of_a_class_is_found(self, name, target):
        e = Explainer(LAID_OUT[name][0], head="output", labels=NAMES)(X, target)
        values, index = self.table(name, e.outputs["y"])
        best = (values[:, :, 6] * values[:, :, 4]).argmax(1)
        np.testing.assert_array_equal(e.target, index[range(3), best, 6])
        assert e.described[0].startswith("best 'dog' (")

    def test_by_default_the_best_of_all_is_explained(self, name):
        e = Explainer(LAID_OUT[name][0], head="output", labels=NAMES)(X)
        values, index = self.table(name, e.outputs["y"])
        ranked = values[:, :, 5:] * values[:, :, 4:5]
        anchor, entry = np.divmod(ranked.reshape(3, -1).argmax(1), 3)
        np.testing.assert_array_equal(e.target, index[range(3), anchor, 5 + entry])
        assert e.described[0].startswith(f"best '{NAMES[entry[0]]}' (")


class TestObjectness:
    FIRST = detector("y = Squeeze(t, one)", "o, b, k")

    @pytest.mark.parametrize("target", ["best=hen", "best=hen,first=5", "best=hen,objectness=0"])
    def test_before_the_box_is_found_by_its_values(self, target):
        e = Explainer(self.FIRST, head="output", labels=NAMES)(X, target)
        y = e.outputs["y"].reshape(3, 8, -1)
        np.testing.assert_array_equal(e.target, 7 * 48 + (y[:, 7] * y[:, 0]).argmax(1))

    def test_may_be_named(self):
        e = Explainer(self.FIRST, head="output", labels=NAMES)(X, "best=hen,objectness=5")
        y = e.outputs["y"].reshape(3, 8, -1)
        np.testing.assert_array_equal(e.target, 7 * 48 + (y[:, 7] * y[:, 5]).argmax(1))

    def test_that_is_no_column(self):
        with pytest.raises(TargetError, match="objectness=8 is out of range: there are 8 columns"):
            Explainer(self.FIRST, head="output", labels=NAMES)(X, "best=hen,objectness=8")


ROWS = "u = Transpose<perm=[0,1,3,4,2]>(t) y = Reshape(u, rows)"


class TestDefault:
    def test_pixels_before_shares_are_a_detector(self):
        source = detector(ROWS, "b, k", shape="N,R,K")
        e = Explainer(source, head="output")(X)
        assert e.outputs["y"].reshape(3, -1).argmax(1).tolist() != e.target.tolist()
        np.testing.assert_array_equal(e.score, e.outputs["y"][:, :, 4:].max((1, 2)))

    def test_a_background_is_no_detection(self):
        source = detector("u = Transpose<perm=[0,1,3,4,2]>(k) y = Reshape(u, rows)", "k", shape="N,R,K")
        e = Explainer(source, head="output", labels=("background", "cat", "dog"))(X)
        np.testing.assert_array_equal(e.score, e.outputs["y"][:, :, 1:].max((1, 2)))
        assert "best 'cat'" in e.described[0] or "best 'dog'" in e.described[0]

    def test_boxes_alone_are_refused_with_what_to_write(self):
        source = detector(ROWS, "b", shape="N,R,K")
        source.graph.node.extend(detector("u2 = Transpose<perm=[0,1,3,4,2]>(k) s = Reshape(u2, three)").graph.node[-2:])
        source.graph.initializer.append(numpy_helper.from_array(np.array([0, -1, 3]), "three"))
        source.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", "R", "K"]))
        with pytest.raises(
            TargetError, match=r"holds boxes.*target best=CLASS,by=s,column=0 \(0 to 3, CLASS one of 0 to 2"
        ):
            Explainer(source, output="y")(X)
        e = Explainer(source, output="y")(X, "best=1,by=s,column=2")
        np.testing.assert_array_equal(e.target, e.outputs["s"][:, :, 1].argmax(1) * 4 + 2)

    @pytest.mark.parametrize(
        ("tail", "columns", "labels"),
        [
            ("y = Squeeze(t, one)", "k", ()),
            ("y = Squeeze(t, one)", "k", NAMES),
            ("y = Squeeze(t, one)", "o, k", NAMES),
            ("y = Squeeze(t, one)", "b, k", ()),
            (ROWS, "k", NAMES),
            (ROWS, "o, k", ()),
            ("q = Squeeze(t, one) g = GlobalAveragePool(q) y = Flatten(g)", "b, k", (*NAMES, "a", "b", "c", "d")),
        ],
        ids=["grid", "segmentation", "and its background", "unknown", "scores", "tokens", "classifier"],
    )
    def test_others_explain_the_largest_entry(self, tail, columns, labels):
        shape = {"ROWS": "N,R,K"}.get("ROWS" if tail == ROWS else "", "N,K" if "Flatten" in tail else "N,K,H,W")
        e = Explainer(detector(tail, columns, shape=shape), head="output", labels=labels or None)(X)
        np.testing.assert_array_equal(e.target, e.outputs["y"].reshape(3, -1).argmax(1))


def columns_of_a_head(objectness, classes, anchors=400, box=300.0):
    """A head of anchors: boxes and columns of shares, of each of which so many are above 0.05."""
    rng = np.random.default_rng(0)

    def shares(often):
        return np.where(
            rng.uniform(0, 1, anchors) < often, rng.uniform(0.06, 1, anchors), rng.uniform(0, 0.04, anchors)
        )

    boxes = rng.uniform(-1, box, (anchors, 4))
    return np.column_stack([boxes, shares(objectness), *(shares(often) for often in classes)])[None]


class TestObjectnessOrClass:
    """Heads without labels: K + 4 columns or K + 5, which their number does not tell."""

    @pytest.mark.parametrize(
        ("objectness", "classes", "box", "first"),
        [
            (0.01, (0.3,), 300.0, 5),
            (0.0, (0.9,), 1.9, 5),
            (0.02, (0.3, 0.3, 0.4), 300.0, 5),
            (0.01, (0.02,), 300.0, 4),
            (0.0, (0.05, 0.02), 300.0, 4),
            (0.5, (0.5,), 300.0, 4),
            (0.3, (0.01,), 300.0, 4),
        ],
    )
    def test_values_tell_and_a_note_says_so(self, objectness, classes, box, first):
        table = columns_of_a_head(objectness, classes, box=box)
        head = Head(table.shape[1:], 1, values=lambda: table)
        best = unasked(head)
        assert best == Detection("*", first=first)
        (remark,) = resolve(None, head).remarks
        count = len(classes)
        either = f"either {count + 1} classes, or objectness and {count} class"
        assert either in remark
        assert f"read as {'objectness and ' if first == 5 else ''}{count + 5 - first} class" in remark
        assert f"best=*,first={9 - first} reads" in remark
        assert parse(f"best=*,first={9 - first}") == Detection("*", first=9 - first)

    @pytest.mark.parametrize(
        ("labels", "classes", "first"),
        [(("cat",), (0.02,), 5), (("cat", "dog"), (0.9,), 4), ((), (), 4), ((), (0.3,) * 80, 5), ((), (0.3,) * 79, 4)],
        ids=["one label", "two labels", "one column", "80 classes behind objectness", "80 classes"],
    )
    def test_where_it_is_known_no_note_says_so(self, labels, classes, first):
        table = columns_of_a_head(0.01, classes)
        head = Head(table.shape[1:], 1, labels=labels, values=lambda: table)
        assert unasked(head) == Detection("*", first=first)
        assert "read as" not in resolve(None, head).remarks[0]

    def test_nothing_is_detected_where_the_product_is_small(self):
        table = columns_of_a_head(0.0, (0.5,))
        (remark,) = resolve(None, Head(table.shape[1:], 1, values=lambda: table)).remarks
        assert remark.startswith("nothing is detected: the best score is 0.0")


class TestNothingDetected:
    """Scores that are shares and all near 0: said, with the likely cause; the record names the best detection."""

    FAINT = detector(
        "f = Mul(t, faint) y = Squeeze(f, one)", faint=np.array([1, 1, 1, 1, 1e-2, 1e-2, 1e-2, 1e-2])[:, None, None]
    )

    def source(self):
        source = helper.make_model(self.FAINT.graph, opset_imports=self.FAINT.opset_import, ir_version=8)
        for tensor in source.graph.initializer:
            if tensor.name == "faint":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), "faint"))
        return source

    @pytest.mark.parametrize("target", [None, "best=dog", "best=1,first=5"])
    def test_is_said_of_each_sample(self, target):
        notes = Explainer(self.source(), head="output", labels=NAMES)(X, target).notes
        for sample in range(3):
            assert any(n.startswith(f"sample {sample}: no") and "preprocessing" in n for n in notes)

    def test_is_not_said_where_something_is(self):
        found = Explainer(detector("y = Squeeze(t, one)"), head="output", labels=NAMES)(X)
        assert not any("detected" in n for n in found.notes)

    def test_is_in_the_table_and_in_the_record_of_a_picture(self, tmp_path):
        path = tmp_path / "net.onnx"
        path.write_bytes(self.source().SerializeToString())
        np.save(tmp_path / "x.npy", X[:1])
        (tmp_path / "names.txt").write_text("\n".join(NAMES))
        said = good(
            *("explain", path, tmp_path / "x.npy", "-o", tmp_path / "out", "--head", "output"),
            *("--labels", tmp_path / "names.txt"),
        )
        record = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
        assert record["detected"].split()[0] in said
        assert any("is detected: the best score is" in note for note in record["notes"])
