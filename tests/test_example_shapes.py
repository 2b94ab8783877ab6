"""The shipped example: its drawings are what they claim to be, and its model knows them."""

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.support import script

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Far below the seeds of training, see FIRST_TRAINING_SEED in train_shapes.py.
FRESH_SEED = 2024


@pytest.fixture(scope="module")
def shapes() -> ModuleType:
    return script(EXAMPLES / "shapes.py")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(EXAMPLES / "shapes.onnx")


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def classify(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Preprocess by the model's own description, so that a wrong description shows as wrong classes."""
    how = json.loads(metadata(model)["fgonnx.preprocessing"])
    x = (images * how["scale"] - np.array(how["mean"])) / np.array(how["std"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": x.transpose(0, 3, 1, 2).astype(how["dtype"])})[0].argmax(1)


def grow(mask: np.ndarray, pixels: int = 1) -> np.ndarray:
    side = 2 * pixels + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)


def same_scene(shapes: ModuleType, seed: int, size: int = 64) -> list:
    return [shapes.draw(np.random.default_rng(seed), k, size) for k in range(len(shapes.CLASSES))]


def test_equal_seeds_draw_equal_pictures(shapes: ModuleType) -> None:
    first, again, other = shapes.dataset(12, 3), shapes.dataset(12, 3), shapes.dataset(12, 4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_shorter_set_is_the_start_of_a_longer_one(shapes: ModuleType) -> None:
    for short, long in zip(shapes.dataset(5, 3), shapes.dataset(12, 3), strict=True):
        np.testing.assert_array_equal(short, long[:5])


def test_dataset_is_balanced_and_typed(shapes: ModuleType) -> None:
    images, labels, masks = shapes.dataset(20, 8, size=32)
    counts = np.bincount(labels, minlength=len(shapes.CLASSES))
    assert counts.min() >= 3
    assert counts.max() <= 4
    assert (images.shape, images.dtype) == ((20, 32, 32, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((20,), np.int64)
    assert (masks.shape, masks.dtype) == ((20, 32, 32), bool)


@pytest.mark.parametrize("seed", range(6))
def test_label_changes_nothing_outside_the_outlines(shapes: ModuleType, seed: int) -> None:
    scene = same_scene(shapes, seed)
    outside = ~grow(np.any([s.mask for s in scene], axis=0))
    assert outside.mean() > 0.5
    for sample in scene[1:]:
        np.testing.assert_array_equal(sample.image[outside], scene[0].image[outside])


@pytest.mark.parametrize("seed", range(6))
def test_mask_covers_the_object_only(shapes: ModuleType, seed: int) -> None:
    scene = same_scene(shapes, seed)
    for a in scene:
        for b in scene:
            # Away from the smoothed edges, two drawings of one scene differ where one mask is set, nowhere else.
            difference = np.abs(a.image.astype(int) - b.image).max(axis=2)
            only_a = a.mask & ~grow(b.mask) & ~grow(~a.mask)
            both = ~grow(~a.mask) & ~grow(~b.mask)
            neither = ~grow(a.mask) & ~grow(b.mask)
            assert not difference[both].any()
            assert not difference[neither].any()
            if only_a.any():
                assert np.median(difference[only_a]) > 15


@pytest.mark.parametrize("seed", range(6))
def test_area_does_not_tell_the_class(shapes: ModuleType, seed: int) -> None:
    areas = [sample.mask.mean() for sample in same_scene(shapes, seed, size=128)]
    assert min(areas) > 0.04
    assert max(areas) < 0.17
    assert max(areas) < 1.05 * min(areas)


def test_object_is_in_one_piece_off_the_border_and_only_the_ring_has_a_hole(shapes: ModuleType) -> None:
    for seed in range(5):
        for sample in same_scene(shapes, seed):
            edge = np.concatenate([sample.mask[[0, -1]].ravel(), sample.mask[:, [0, -1]].ravel()])
            assert not edge.any()
            assert cv2.connectedComponents(sample.mask.astype(np.uint8))[0] == 2
            around = cv2.connectedComponents((~sample.mask).astype(np.uint8), connectivity=4)[0] - 1
            assert around == (2 if shapes.CLASSES[sample.label] == "ring" else 1)


def test_every_class_has_its_own_outline(shapes: ModuleType) -> None:
    masks = [sample.mask for sample in same_scene(shapes, 1)]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.95


def test_larger_picture_shows_the_same_scene(shapes: ModuleType) -> None:
    for label in range(len(shapes.CLASSES)):
        small, large = (shapes.draw(np.random.default_rng(7), label, size) for size in (64, 256))
        shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk.astype(int) - small.image).mean() < 12
        covered = cv2.resize(large.mask.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
        assert ((covered >= 0.5) != small.mask).mean() < 0.005


@pytest.mark.parametrize(("label", "size"), [(-1, 64), (6, 64), (0, 15)])
def test_senseless_arguments_are_refused(shapes: ModuleType, label: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        shapes.draw(np.random.default_rng(0), label, size)


def test_model_classifies_fresh_drawings(shapes: ModuleType, model: onnx.ModelProto) -> None:
    images, labels, _ = shapes.dataset(120, FRESH_SEED)
    assert (classify(model, images) == labels).mean() >= 0.95


def test_prediction_follows_the_outline_alone(shapes: ModuleType, model: onnx.ModelProto) -> None:
    # Six drawings of one scene share all but the outline; a model that used the rest could not tell them apart.
    samples = [sample for seed in range(15) for sample in same_scene(shapes, FRESH_SEED + seed)]
    right = classify(model, np.stack([s.image for s in samples])) == [s.label for s in samples]
    assert right.mean() >= 0.95


def test_shipped_pictures_are_classified_by_their_names(shapes: ModuleType, model: onnx.ModelProto) -> None:
    pictures = [cv2.imread(str(EXAMPLES / "images" / f"{name}.png"), cv2.IMREAD_COLOR) for name in shapes.CLASSES]
    assert all(picture.shape == (256, 256, 3) for picture in pictures)
    small = [cv2.resize(picture[..., ::-1], (64, 64), interpolation=cv2.INTER_AREA) for picture in pictures]
    assert classify(model, np.stack(small)).tolist() == list(range(len(shapes.CLASSES)))


def test_model_file_is_small_valid_and_self_contained(model: onnx.ModelProto) -> None:
    assert (EXAMPLES / "shapes.onnx").stat().st_size < 1_000_000
    onnx.checker.check_model(model, full_check=True)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert {node.op_type for node in model.graph.node} >= {"Conv", "BatchNormalization", "Relu", "Add", "Gemm"}
    assert model.doc_string


def test_model_interface_and_metadata(shapes: ModuleType, model: onnx.ModelProto) -> None:
    (image,), (logits,) = model.graph.input, model.graph.output
    sides = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, logits)]
    assert (image.name, logits.name) == ("image", "logits")
    assert sides == [["N", 3, 64, 64], ["N", 6]]
    entries = metadata(model)
    assert json.loads(entries["fgonnx.labels"]) == list(shapes.CLASSES)
    assert json.loads(entries["fgonnx.preprocessing"]) == {
        "layout": "NCHW",
        "size": [64, 64],
        "resize": "stretch",
        "channels": "RGB",
        "scale": 0.00392156862745098,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "dtype": "float32",
    }
