"""The shipped objects of parts: what is drawn is what it claims to be, and the model knows it."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest

from fgonnx import Explainer
from fgonnx.audit import evaluate
from tests.support import script

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FRESH_SEED = 2024  # far below the seeds of training


@pytest.fixture(scope="module")
def parts():
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(EXAMPLES))
        return script(EXAMPLES / "parts.py")


@pytest.fixture(scope="module")
def drawn(parts):
    return parts.dataset(36, FRESH_SEED)


def as_input(images):
    how = json.loads(next(e.value for e in MODEL.metadata_props if e.key == "fgonnx.preprocessing"))
    x = (images * how["scale"] - np.array(how["mean"])) / np.array(how["std"])
    return np.moveaxis(x, -1, -3).astype(np.float32)


NETWORKS = ("parts", "parts_convnext", "parts_vit")
MODEL = onnx.load(EXAMPLES / "parts.onnx")


def test_any_two_classes_differ_in_three_badges(parts):
    assert {sum(a != b for a, b in zip(*pair, strict=True)) for pair in combinations(parts.WORDS, 2)} == {3}
    for place in range(4):
        assert np.bincount([word[place] for word in parts.WORDS]).tolist() == [3, 3, 3]


def test_equal_seeds_draw_equal_pictures(parts, drawn):
    for short, long in zip(parts.dataset(3, FRESH_SEED), drawn, strict=True):
        assert (short == long[:3]).all()
    assert (parts.dataset(3, FRESH_SEED + 1)[0] != drawn[0][:3]).any()


def test_a_picture_without_a_badge_differs_where_the_badge_is(drawn):
    images, _, masks, without = drawn
    differs = (images[:, None] != without).any(axis=-1)
    assert differs[masks].mean() > 0.999  # grain may hide a pixel
    beyond = differs & ~masks
    assert beyond.sum(axis=(2, 3)).max() < masks.sum(axis=(2, 3)).max()  # edges alone, less than half covered


def test_badges_touch_neither_each_other_nor_the_border(drawn):
    masks = drawn[2]
    assert masks.sum(axis=1).max() == 1
    assert masks.any(axis=(2, 3)).all()
    assert (drawn[0][:, None] != drawn[3]).any(axis=-1).sum(axis=1).max() == 1
    for edge in (masks[..., 0, :], masks[..., -1, :], masks[..., 0], masks[..., -1]):
        assert not edge.any()


def test_several_badges_can_be_missing(parts):
    rng = (np.random.default_rng(5) for _ in range(3))
    whole, bare, one = (parts.draw(next(rng), 4, missing) for missing in ((), range(6), (0, 1, 2, 4, 5)))
    assert not bare.parts.any()
    assert (one.parts == whole.parts * (np.arange(6) == 3)[:, None, None]).all()
    near = (one.image != bare.image).any(axis=-1)
    assert (one.image[near] == whole.image[near]).all()


@pytest.mark.parametrize(("label", "missing", "size"), [(-1, (), 64), (9, (), 64), (0, (6,), 64), (0, (), 15)])
def test_senseless_arguments_are_refused(parts, label, missing, size):
    with pytest.raises(ValueError, match="must be"):
        parts.draw(np.random.default_rng(0), label, missing, size)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_knows_the_classes_also_without_any_one_badge(name, parts, drawn):
    images, labels, _, without = drawn
    explainer = Explainer(EXAMPLES / f"{name}.onnx")
    assert (explainer.head(as_input(images)).argmax(axis=1) == labels).mean() >= 0.95
    for part in range(len(parts.PARTS)):
        assert (explainer.head(as_input(without[:, part])).argmax(axis=1) == labels).mean() >= 0.85


@pytest.mark.parametrize("name", NETWORKS)
def test_badges_that_spell_the_class_are_worth_more_than_those_that_do_not(name, drawn):
    images, labels, _, without = drawn
    explainer = Explainer(EXAMPLES / f"{name}.onnx")
    rows = np.arange(len(labels))
    whole = explainer.head(as_input(images))[rows, labels]
    drops = [whole - explainer.head(as_input(without[:, part]))[rows, labels] for part in range(6)]
    assert np.mean(drops[:4]) > 5 * abs(np.mean(drops[4:]))


def test_part_removal_tells_maps_of_the_model_from_those_of_nothing(drawn):
    images, labels, _, without = (values[:18] for values in drawn)
    x = as_input(images)
    found = {}
    for method in ("grad-cam", "integrated-gradients", "fullgrad", "random"):
        subject = evaluate.Subject(MODEL, method)
        data = evaluate.Data(x, labels, "NCHW", np.arange(len(x)), without=as_input(without))
        found[method] = np.nanmean(evaluate.get("part-removal")(subject, data).values["correlation"])
    print(found)
    assert min(found["integrated-gradients"], found["fullgrad"]) > found["random"] + 0.2


def test_several_badges_are_removed_as_if_drawn_without_them(parts, drawn):
    x, whole, without = (as_input(v) for v in (drawn[0][:1], drawn[0][0], drawn[3][:1]))
    data = evaluate.Data(x, drawn[1][:1], "NCHW", np.arange(1), without=without)
    masks = evaluate.parts.part_masks(data, 0)
    removed = (1, 4, 5)
    for part in removed:
        whole = np.where(masks[part], without[0, part], whole)
    again = parts.draw(np.random.default_rng([FRESH_SEED, 0]), int(drawn[1][0]), removed)
    assert (whole == as_input(again.image)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_file_is_small_valid_and_self_contained(name, parts):
    file = EXAMPLES / f"{name}.onnx"
    assert file.stat().st_size < 1_000_000
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(entries["fgonnx.labels"]) == list(parts.CLASSES)
    assert model.doc_string


@pytest.mark.parametrize(
    ("name", "backward"), [("parts_convnext", "libra"), ("parts_vit", "libra"), ("parts_vit", "attnlrp")]
)
def test_other_backward_passes_are_complete_on_networks_that_they_change(name, backward, drawn):
    x = as_input(drawn[0][:6])
    plain, other = (Explainer(EXAMPLES / f"{name}.onnx", backward=how)(x) for how in ("gradient", backward))
    assert np.abs(other.saliency - plain.saliency).max() > 1e-3
    assert other.rounding_residual().max() < 1e-5
