"""A scene of several shapes; a detector and a segmentation, made out of the classifier shapes.onnx without training.

`python examples/scene.py FOLDER` writes scene.png, detector.onnx and segmenter.onnx. Both run the
layers of the classifier over a picture of any part of which may hold a shape. The detector averages windows of features
and gives for each its box and a probability for every class, the segmentation gives a score for every class and pixel.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnx
import shapes
from onnx import helper, numpy_helper

SIZE = 192
"""Height and width of the scene, in pixels."""

SHAPES = (("star", 52, 50, 30), ("ring", 138, 66, 30), ("square", 84, 142, 26))
"""Class, centre and width of every shape of the scene, in pixels."""

_HERE = Path(__file__).resolve().parent
_STRIDE, _WINDOW = 8, 5  # of the classifier's last features, in pixels; side of a window of them
_FEATURES = "/last/relu/Relu_output_0"
_SURE = 5.0  # the logit from which on a window holds a shape


def scene(seed: int = 1) -> np.ndarray:
    """Return a picture of several shapes, ``uint8`` of shape ``(SIZE, SIZE, 3)``."""
    rng = np.random.default_rng(seed)
    picture = shapes.background(rng, SIZE).astype(np.float64)
    for name, x, y, width in SHAPES:
        contours = shapes.OUTLINES[name]
        unit = width / np.ptp(contours[0], axis=0).max()
        outline = [unit * c + (x, y) for c in contours]
        mask = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillPoly(
            mask, [np.round(16 * c).astype(np.int32) for c in outline], 255, cv2.LINE_AA, 4
        )  # holes are left out
        colour = rng.integers(0, 2, 3) * 200 + 28
        share = mask[..., None] / 255
        picture = picture * (1 - share) + colour * share
    return np.clip(picture, 0, 255).astype(np.uint8)


def detector() -> onnx.ModelProto:
    """Return the detector: a box and a probability of every class for every window, (1, windows, 4 + 6)."""
    cells = SIZE // _STRIDE - _WINDOW + 1
    centres = (np.arange(cells) + _WINDOW / 2) * _STRIDE
    y, x = np.meshgrid(centres, centres, indexing="ij")
    side = np.full(x.shape, float(_WINDOW * _STRIDE))
    constants = {
        "flat": np.array([1, len(shapes.CLASSES), -1]),
        "boxes": np.stack([x, y, side, side], axis=-1).reshape(1, -1, 4).astype(np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", [_FEATURES], ["means"], kernel_shape=[_WINDOW] * 2),
        helper.make_node("Conv", ["means", "kernel", "bias"], ["dense"]),
        helper.make_node("Reshape", ["dense", "flat"], ["flattened"]),
        helper.make_node("Transpose", ["flattened"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Sigmoid", ["rows"], ["probabilities"]),
        helper.make_node("Concat", ["boxes", "probabilities"], ["detections"], axis=2),
    ]
    return _dense(nodes, constants, "detections", [1, cells**2, 4 + len(shapes.CLASSES)])


def segmenter() -> onnx.ModelProto:
    """Return a segmentation: a score of every class for every pixel, (1, 6, SIZE, SIZE)."""
    nodes = [
        helper.make_node("AveragePool", [_FEATURES], ["means"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["means", "kernel", "bias"], ["dense"]),
        helper.make_node("Resize", ["dense", "", "scales"], ["classes"], mode="linear"),
    ]
    scales = np.array([1, 1, _STRIDE, _STRIDE], np.float32)
    return _dense(nodes, {"scales": scales}, "classes", [1, len(shapes.CLASSES), SIZE, SIZE])


def _dense(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str, shape: list[int]
) -> onnx.ModelProto:
    """Return the classifier with other nodes behind its features, and its last layer as a convolution's weights."""
    classifier = onnx.load(_HERE / "shapes.onnx")
    weights = {w.name: numpy_helper.to_array(w) for w in classifier.graph.initializer}
    constants = constants | {
        "kernel": weights.pop("head.weight")[..., None, None],
        "bias": weights.pop("head.bias") - np.float32(_SURE),
    }
    graph = helper.make_graph(
        [*classifier.graph.node[:-3], *nodes],  # without the pool, and what follows it
        "scene",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(w, name) for name, w in (weights | constants).items()],
    )
    made = helper.make_model(graph, opset_imports=classifier.opset_import, ir_version=classifier.ir_version)
    known = {p.key: p.value for p in classifier.metadata_props}
    known["fgonnx.preprocessing"] = known["fgonnx.preprocessing"].replace("[64, 64]", f"[{SIZE}, {SIZE}]")
    helper.set_model_props(made, known)
    onnx.checker.check_model(made)
    return made


def write(folder: str | Path) -> None:
    """Write scene.png, detector.onnx and segmenter.onnx."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(Path(folder, "scene.png")), scene()[..., ::-1])
    onnx.save(detector(), Path(folder, "detector.onnx"))
    onnx.save(segmenter(), Path(folder, "segmenter.onnx"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    write(parser.parse_args().folder)
