"""Class activation maps: a weighted sum over the channels of one layer, upsampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.maps import interpolate
from fgonnx.engine.maps.psi import ABS, SIGNED
from fgonnx.engine.maps.signed import canonical
from fgonnx.engine.maps.sites import at_least_float32
from fgonnx.engine.methods.layers import Layer, cotangent, find_layer
from fgonnx.engine.methods.registry import driven, written
from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.engine.methods.view import View, Written
from fgonnx.engine.rules.fast.masks import nonzero

Terms = Callable[[Emitter, ir.Value, ir.Value, list[int]], ir.Value]


def cam(name: str, *, source: str) -> Callable[[Terms], Terms]:
    """Register a method whose map is the positive part of a sum over channels.

    The decorated function gets the activations and their gradient, both (N, K, *grid), and the axes of the grid; it
    returns the weighted activations. With psi "signed" the negative part is kept.
    """

    def register(terms: Terms) -> Terms:
        def write(view: View) -> Mapping[str, Written]:
            op = view.op
            layer, placed = find_layer(view)
            a = canonical(op, at_least_float32(op, layer), placed)
            g = canonical(op, at_least_float32(op, cotangent(view, layer)), placed)
            summed = op.ReduceSum(terms(op, a, g, list(range(2, len(placed.shape)))), [1])
            summed = summed if view.psi == SIGNED else op.Relu(summed)
            enlarged = interpolate.upsample(op, summed, placed.grid, view.grid, signed=False, align_corners=False)
            return {"saliency": Written(op.Reshape(enlarged, [-1, *view.grid]), view.grid)}

        write.__doc__ = terms.__doc__
        written(name, source=source, settings=Layer, psis=(ABS, SIGNED))(write)
        return terms

    return register


@cam("grad-cam", source="Selvaraju et al., ICCV 2017, section 3.")
def grad_cam(op: Emitter, a: ir.Value, g: ir.Value, grid: list[int]) -> ir.Value:
    """Activations of a layer, each channel weighted by the mean of its gradient."""
    return op.Mul(op.ReduceMean(g, grid), a)


@cam("grad-cam++", source="Chattopadhay, Sarkar, Howlader, Balasubramanian, WACV 2018.")
def grad_cam_plus_plus(op: Emitter, a: ir.Value, g: ir.Value, grid: list[int]) -> ir.Value:
    """Activations of a layer, each channel weighted by its positive gradients, isolated ones more."""
    # g^2 / (2 g^2 + sum(a) g^3) = 1 / (2 + sum(a) g)
    alpha = op.Reciprocal(nonzero(op, op.Add(op.Mul(op.ReduceSum(a, grid), g), 2.0)))
    return op.Mul(op.ReduceSum(op.Mul(alpha, op.Relu(g)), grid), a)


@cam("xgrad-cam", source="Fu et al., BMVC 2020.")
def xgrad_cam(op: Emitter, a: ir.Value, g: ir.Value, grid: list[int]) -> ir.Value:
    """Activations of a layer, each channel weighted by its gradient, averaged with the activations as weights."""
    return op.Mul(op.Div(op.ReduceSum(op.Mul(g, a), grid), nonzero(op, op.ReduceSum(a, grid))), a)


@cam("layer-cam", source="Jiang, Zhang, Hou, Cheng, Wei, IEEE TIP 30, 2021.")
def layer_cam(op: Emitter, a: ir.Value, g: ir.Value, grid: list[int]) -> ir.Value:
    """Activations of a layer, each weighted by the positive part of its own gradient."""
    return op.Mul(op.Relu(g), a)


@cam("hires-cam", source="Draelos, Carin, arXiv:2011.08891, 2020.")
def hires_cam(op: Emitter, a: ir.Value, g: ir.Value, grid: list[int]) -> ir.Value:
    """Activations of a layer, each times its own gradient."""
    return op.Mul(g, a)


def activations(view: View) -> Mapping[str, Written]:
    """Write the activations of the layer, (N, K, *grid)."""
    layer, placed = find_layer(view)
    return {"activations": Written(canonical(view.op, at_least_float32(view.op, layer), placed), placed.shape[1:])}


@driven(
    "eigen-cam",
    activations,
    ("activations",),
    source="Muhammad, Yeasin, IJCNN 2020.",
    cost="1 forward",
    settings=Layer,
    gradient=False,
    psis=("abs",),
)
def eigen_cam(sample: Sample, layer: Layer) -> dict[str, Array]:
    """Activations of a layer, centred, projected on their first principal direction; no target enters.

    The sign, which the decomposition leaves undetermined, is chosen so that the largest absolute value is positive.
    """
    a = sample.clean["activations"][0].astype(np.float64)
    rows = a.reshape(len(a), -1).T
    rows = rows - rows.mean(axis=0)
    projected = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
    projected *= np.sign(projected[np.abs(projected).argmax()])
    return {"saliency": enlarged(np.maximum(projected, 0).reshape(1, *a.shape[1:]), sample.grid)}


@driven(
    "score-cam",
    activations,
    ("activations",),
    source="Wang et al., CVPR workshop 2020, algorithm 1.",
    cost="1 forward, and 1 per channel of the layer",
    settings=Layer,
    gradient=False,
    psis=("abs",),
)
def score_cam(sample: Sample, layer: Layer) -> dict[str, Array]:
    """Activations of a layer, each channel weighted by the score of the input masked with it, by a softmax."""
    a = sample.clean["activations"][0].astype(np.float64)
    scores = np.empty(len(a))
    for part in sample.parts(len(a)):
        masks = enlarged(a[part], sample.grid, align_corners=True)
        low = masks.min(axis=tuple(range(1, masks.ndim)), keepdims=True)
        high = masks.max(axis=tuple(range(1, masks.ndim)), keepdims=True)
        masks = (masks - low) / np.where(high > low, high - low, 1)
        scores[part] = sample.run(sample.x * sample.spread(masks), ["score"])["score"]
    weights = np.exp(scores - scores.max())
    summed = np.tensordot(weights / weights.sum(), a, axes=1)
    return {"saliency": enlarged(np.maximum(summed, 0)[None], sample.grid)}


def enlarged(maps: Array, grid: tuple[int, ...], *, align_corners: bool = False) -> Array:
    """Upsample maps (n, *cells) to (n, *grid) linearly."""
    for axis, after in enumerate(grid, start=1):
        matrix = interpolate.interpolation(maps.shape[axis], after, align_corners=align_corners)
        maps = np.moveaxis(np.tensordot(matrix, maps, axes=(1, axis)), 0, axis)
    return maps
