"""What is explained where nothing is asked for: the page decides as fgonnx does, for heads of every shape."""

from dataclasses import dataclass

import numpy as np
import pytest

from fgonnx.explain.choice import resolve
from fgonnx.explain.head import Head
from tests.view_support import browser, modules  # noqa: F401

COCO = tuple(f"thing {i}" for i in range(80))


@dataclass(frozen=True)
class Case:
    """A head: its shape, axes that are places, names of classes; of a detector, its columns and largest coordinate."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int | None, ...] = ()
    labels: tuple[str, ...] = ()
    columns: int | None = None
    box: float = 300.0
    objectness: float | None = None

    def values(self):
        """Shares; of a detector, coordinates in its first four columns."""
        rng = np.random.default_rng(len(self.name))
        found = rng.uniform(0, 1, self.shape) ** 4
        if self.columns is not None:
            moved = np.moveaxis(found, self.columns, 0)
            moved[:4] = rng.uniform(0, self.box, moved[:4].shape)
            if self.objectness is not None:
                moved[4] *= self.objectness
        return found


CASES = [
    Case("classes", (10,), (), tuple("abcdefghij")),
    Case("one number", (1,)),
    Case("classes of a map of one cell", (10, 1, 1)),
    Case("a mask", (1, 12, 16), (None, 0, 1)),
    Case("classes of places", (5, 12, 16), (None, 0, 1)),
    Case("rows of detections", (1, 200, 85), (), COCO, 2),
    Case("columns of detections", (84, 200), (), COCO, 0),
    Case("without names, 80 classes", (200, 85), columns=1),
    Case("without names, 6 columns", (200, 6), columns=1),
    Case("without names, objectness and a class", (200, 6), columns=1, objectness=0.01),
    Case("without names, objectness and classes", (9, 200), columns=0, objectness=0.01),
    Case("without names, small boxes behind objectness", (200, 8), columns=1, box=1.5, objectness=0.01),
    Case("without names, shares behind objectness", (200, 8), columns=1, box=1.0, objectness=0.01),
    Case("shares of the picture", (200, 6), columns=1, box=1.0),
    Case("with a background", (200, 7), (), ("background", "a", "b", "c"), 1),
    Case("an objectness first", (100, 10), (), tuple("abcde"), 1, 1.0),
    Case("detections in places", (85, 13, 13), (None, 0, 1), COCO, 0),
    Case("named classes of places", (10, 13, 13), (None, 0, 1), tuple("abcdefghij")),
    Case("few anchors", (8, 6), columns=1),
]


def own(case):
    values = case.values()
    head = Head(case.shape, 1, case.axes, case.labels, lambda: values[None], dict)
    (index,) = resolve(None, head).indices
    return int(values.argmax() if index < 0 else index)


@pytest.fixture(scope="module")
def decided(modules):  # noqa: F811
    """What the page decides, by case."""
    given = []
    for case in CASES:
        named = sum(size > 1 for size in case.shape) < 2 and case.labels
        head = {"shape": case.shape, "axes": case.axes, "labels": named or None, "classes": case.labels}
        given.append([case.values().ravel().tolist(), head])
    found = modules.evaluate(
        """async (cases) => {
            const { decide, nameOf } = await import("/page/decision.js");
            return cases.map(([values, head]) => {
                const { entries, own } = decide(Float64Array.from(values), null, head);
                return { own, names: entries.map((e) => nameOf(e, head)), indices: entries.map((e) => e.index) };
            });
        }""",
        given,
    )
    return dict(zip([case.name for case in CASES], found, strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decided_as_in_python(decided, case):
    found = decided[case.name]
    assert found["own"] == own(case)
    assert found["indices"][0] == found["own"]
    assert len(found["indices"]) == len(set(found["indices"])) == len(found["names"]) <= 5


def test_entries_have_names(decided):
    assert decided["classes"]["names"][0] in "abcdefghij"
    assert decided["one number"]["names"] == ["the only entry"]
    assert decided["a mask"]["names"][0].startswith("entry 0, ")
    assert decided["rows of detections"]["names"][0].startswith("thing ")


BLANK = ["\u200b", "", " ", "\u00a0\u3000", "\u2060\u200d", "\ufe0f", "\u3164", "\u2800", "\u00ad"]


@pytest.mark.parametrize(
    ("label", "name"),
    [*((label, "class 7") for label in BLANK), ("a\u200b", "a\u200b"), ("\u202e", "\u202e"), ("猫", "猫"), ("0", "0")],
    ids=ascii,
)
def test_a_label_of_which_nothing_is_seen_is_its_number(modules, label, name):  # noqa: F811
    found = modules.evaluate(
        """async (label) => {
            const { nameOf } = await import("/page/decision.js");
            return nameOf({ index: 7, label, position: [7] }, { shape: [10] });
        }""",
        label,
    )
    assert found == name
