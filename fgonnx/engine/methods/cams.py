"""Class activation maps: a weighted sum over the channels of one layer, upsampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps import interpolate
from fgonnx.engine.maps.aggregate import at_least_float32
from fgonnx.engine.maps.placement import Placement
from fgonnx.engine.maps.psi import ABS, SIGNED, Signed, canonical
from fgonnx.engine.methods.registry import Array, Sample, View, Written, driven, written
from fgonnx.engine.rules.fast.masks import nonzero
from fgonnx.errors import OptionError
from fgonnx.fields import documented, option
from fgonnx.wording import near, parameter

_PICKS = {"Gather", "Slice", "Split"}
_AVERAGES = {"AveragePool", "ReduceMean"}
_MOVES = {
    *("Cast", "Concat", "Dropout", "Flatten", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
}
_SCALES = {"Div", "Mul", "Where"}
_LISTED = 8  # the last layers, named in an error message


@documented
@dataclass(frozen=True, kw_only=True)
class Layer:
    """The layer whose channels are weighted."""

    layer: str | None = option(
        None,
        "Name of a value of the graph with channels over a grid; by default the last one before the score through "
        "which all paths from the grid pass.",
    )


def find_layer(view: View) -> tuple[ir.Value, Placement]:
    """Return the value whose channels are weighted, and its placement on the grid.

    Raises
    ------
    OptionError
        There is none, or the named one has no grid.
    """
    values = {str(v.name): v for node in view.nodes for v in node.outputs if v in view.layouts}
    name = view.settings.layer
    found = [(v, p) for v in values.values() if (p := view.place(v)).spatial and p.shape[1] > 1]
    if name is None and not found:
        raise OptionError(
            "a class activation map needs a layer with channels over a grid, and no value on the way to the score has "
            "one; choose a method that works on the input, such as gradient"
        )
    if name is None:
        name = _last(view, [v for v, _ in found])
    chosen = [(v, p) for v, p in found if v.name == name]
    if not chosen:
        names = [str(v.name) for v, _ in found]
        raise OptionError(
            f"{parameter('layer', name)} is no value with channels over a grid on the way to the score; there are: "
            f"{', '.join(names[-_LISTED:]) or 'none'}{near(name, names)}"
        )
    view.facts["layer"] = str(chosen[-1][0].name)
    return chosen[-1]


def _last(view: View, found: Sequence[ir.Value]) -> str:
    """Return the name of the last value through which all paths from the grid to the score pass, before it is averaged.

    An adaptive pool to more than one cell hides the layer that it averages. A sweep back from the head tracks the
    values still to be produced; a single one is a cut of the graph. Where the head reads only class tokens after the
    last attention, their patches do not count as read.
    """
    read, pending = {view.nodes[-1].outputs[0]}, set[ir.Value]()
    last, seen, between = None, None, list[ir.Node]()
    for node in reversed(view.nodes):
        pending.difference_update(node.outputs)
        taken = {v for v in node.inputs if v in view.layouts and _has_grid(view, v) and _takes(view, node, v, read)}
        read |= taken
        pending |= taken
        if node.outputs[0] in read:
            between.append(node)
        if len(pending) != 1 or (only := next(iter(pending))) not in found:
            continue
        if only is seen:  # those were other readers of it
            between = []
            continue
        if last is not None and not all(_averages(view, n) or _moves(view, n) for n in between):
            break
        if last is None or any(_averages(view, n) for n in between):
            last = only
        seen, between = only, []
    return str((last or found[-1]).name)


def _averages(view: View, node: ir.Node) -> bool:
    """Tell whether a node averages cells of the grid, or adds some up, as exporters write pools to uneven sizes."""
    return node.op_type in _AVERAGES or (node.op_type == "Add" and all(v in view.layouts for v in node.inputs))


def _moves(view: View, node: ir.Node) -> bool:
    """Tell whether a node moves cells of the grid, or scales them by a constant."""
    return node.op_type in _MOVES or (node.op_type in _SCALES and sum(v in view.layouts for v in node.inputs) == 1)


def _has_grid(view: View, v: ir.Value) -> bool:
    return any(atom.spatial or atom.inner for axis in view.layouts[v] for atom in axis)


def _takes(view: View, node: ir.Node, v: ir.Value, read: set[ir.Value]) -> bool:
    """Tell whether a node passes the patches of a value on to where they are read."""
    if view.place(v).crop is None:
        return True
    mixing = node.op_type in ("MatMul", "Einsum") and all(u in view.layouts for u in node.inputs)
    for y in (y for y in node.outputs if y in view.layouts):
        kept = view.place(y).crop is not None
        if mixing or y in read or (not kept and (node.op_type not in _PICKS or view.place(y).spatial)):
            return True
    return False


def evidence(view: View, kind: ir.Value) -> Signed:
    """Return the activations of the layer times their gradient, in float64 where `kind` is of that type.

    Their sum is the score without the biases behind the layer, which is a cut of the graph: as complete as the
    decomposition at the input.

    Raises
    ------
    OptionError
        There is no such layer, or no gradient reaches it.
    """
    layer, placed = find_layer(view)
    double = kind.dtype == ir.DataType.DOUBLE
    a, g = (at_least_float32(view.op, v, double=double) for v in (layer, _cotangent(view, layer)))
    return Signed(shaped(view.op.Mul(a, g), layer), placed)


def _cotangent(view: View, layer: ir.Value) -> ir.Value:
    if layer not in view.walked.cotangents:
        raise OptionError(f"no gradient reaches the layer '{layer.name}'; choose another ({parameter('layer')})")
    return view.walked.cotangents[layer]


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
            g = canonical(op, at_least_float32(op, _cotangent(view, layer)), placed)
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
