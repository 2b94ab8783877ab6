"""Find out by running it whether a graph takes any batch size; annotate exact shapes of all values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine.graph import probe
from fgonnx.engine.graph.emit import Emitter, initializer
from fgonnx.engine.graph.values import content_of, dims_of, optional, required
from fgonnx.engine.normal import pinned
from fgonnx.engine.normal.expand import depends_on_inputs
from fgonnx.engine.normal.half import is_half
from fgonnx.engine.normal.independence import coupling, unproved
from fgonnx.engine.normal.quantised import is_quantised
from fgonnx.engine.normal.sized import Sizes, sizes_of
from fgonnx.engine.normal.training import random_values
from fgonnx.errors import ModelError

Array = npt.NDArray[Any]

# Differences, relative to the largest value, that are no influence of one sample on another: rounding in half
# precision; a step of a scale that all samples of a batch share.
_ROUGH, _STEPS = 2e-2, 0.15
ONE_BY_ONE = "the graph does not take a batch: samples are run one by one"


@dataclass
class Tangle:
    """What a run of two samples says of a graph that takes a batch, but not as one of independent samples.

    Attributes
    ----------
    outputs : set of str
        Outputs of two samples that are not those of either alone, side by side.
    rows : set of str
        Values with a row for every sample.
    note : str
        Why samples are explained one by one, where that is known.
    """

    outputs: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)
    note: str = ""


def settle_batch(
    model: ir.Model,
    input_name: str,
    shape: tuple[int, ...],
    folder: Path | None,
    notes: list[str],
    *,
    one_by_one: bool = False,
    tangle: Tangle | None = None,
) -> tuple[ir.Model, bool]:
    """Requires: types. Ensures: exact shapes; a symbolic batch if a run on two samples confirms it.

    Returns the resulting model, and whether its batch is symbolic. Adds to `tangle` what a declared free batch does
    to its samples.
    """
    x = next(v for v in model.graph.inputs if v.name == input_name)
    free = not all(isinstance(d, int) for d in dims_of(x)[:1])
    both = probe.random_feeds(model.graph, x, shape, 2)
    # The first axis of a state may have two entries without being a batch.
    whole = {str(v.name) for v in model.graph.inputs if v.shape is not None and v.shape.rank() and v.shape[0] == 2}
    whole -= {input_name}
    halves = [
        {k: v[i : i + 1] if v.ndim and v.shape[0] == 2 and k not in whole else v for k, v in both.items()}
        for i in (0, 1)
    ]
    # A declared free batch is trusted first; constants may still fix it.
    if free and not one_by_one and (found := _try_batch(model, folder, both, halves, tangle=tangle)) is not None:
        _annotate(model, *found)
        return model, True
    single = model.clone()
    x = next(v for v in single.graph.inputs if v.name == input_name)
    x.shape = ir.Shape(shape)
    prober = probe.Prober(single, folder)
    _set_types(single.graph, prober.types)
    truth = prober.run(probe.random_feeds(single.graph, x, shape, 1))
    if not one_by_one:
        alone = [truth, prober.run(halves[1])]
        del prober  # it holds a copy of the weights, like the next one
        _free_batch(model)
        found = _try_batch(model, folder, both, halves, alone)
        if found is not None:
            if not free:
                notes.append("fixed batch size 1 made free, checked by running two samples")
            _annotate(model, *found)
            return model, True
    _annotate(single, truth.shapes, truth.constants)
    notes.append(ONE_BY_ONE if tangle is None or not tangle.note else tangle.note)
    return single, False


def _free_batch(model: ir.Model) -> None:
    """Make batch 1 symbolic: of inputs, in constant target shapes that begin with 1, and of class tokens."""
    for v in model.graph.inputs:
        if v.shape is not None and v.shape.rank() and v.shape.dims[0] == 1:
            v.shape = ir.Shape([probe.BATCH, *v.shape.dims[1:]])
    dependent = depends_on_inputs(model.graph)
    for node in list(model.graph):
        if node.op_type == "Concat":
            _repeat_tokens(model.graph, node, dependent)
        if node.op_type != "Reshape" or node.inputs[0] not in dependent:
            continue
        if "allowzero" in node.attributes and node.attributes["allowzero"].as_int():
            continue
        target = required(node, 1)
        array = content_of(target)
        if array is not None and array.size and array[0] == 1:
            array = array.copy()
            # -1 infers the size; 0 copies the input's first axis, for targets that use -1 elsewhere
            array[0] = 0 if (array == -1).any() else -1
            node.replace_input_with(1, initializer(model.graph, f"{target.name}::{node.name}::batch", array))
    for v in model.graph.outputs:
        if not v.is_graph_input():
            v.shape = None


def _repeat_tokens(graph: ir.Graph, node: ir.Node, dependent: set[ir.Value]) -> None:
    """Expand constants that are concatenated to the data (class tokens) to the batch size of the data.

    If that is wrong, the graph fails or its results differ from those of single samples, and the batch stays 1.
    """
    data = next((v for v in node.inputs if v in dependent), None)
    if data is None or node.attributes["axis"].as_int() == 0:
        return
    for i, v in enumerate(node.inputs):
        if v is None or v in dependent or v.dtype is None or not v.dtype.is_floating_point():
            continue
        if v.shape is not None and isinstance(v.shape.dims[0], int) and v.shape.dims[0] != 1:
            continue
        op = Emitter(graph, prefix=f"{v.name}::{node.name}::", before=node)
        shape = op.Concat(op.Shape(data, start=0, end=1), op.Shape(v, start=1), axis=0)
        node.replace_input_with(i, op.Expand(v, shape))


def _try_batch(
    model: ir.Model,
    folder: Path | None,
    both: dict[str, np.ndarray],
    halves: Sequence[dict[str, np.ndarray]],
    alone: Sequence[probe.Probe] = (),
    *,
    tangle: Tangle | None = None,
) -> tuple[dict[str, tuple[int | ir.SymbolicDim, ...]], dict[str, np.ndarray]] | None:
    """Run a batch of two samples; return shapes and constants if its results are those of single samples.

    Those are taken from `alone`, runs of the source, if given, else from the model itself.
    """
    try:
        prober = probe.Prober(model, folder)
        _set_types(model.graph, prober.types)
        one = prober.run(halves[0])
        alone = alone or [one, prober.run(halves[1])]
        two = prober.run(both)
    except ModelError:
        return None
    outputs = {name: (array, [run.outputs[name] for run in alone]) for name, array in two.outputs.items()}
    if not all(_side_by_side(array, parts, agree) for array, parts in outputs.values()):
        if tangle is not None:
            dims = probe.merge(one, two)
            left = unproved(model.graph, dims, _same(one, two)) if dims is not None else list(model.graph)
            left = [node for node in left if node not in pinned.dynamic(model.graph)]
            tangle.outputs |= _tangled(model, folder, (both, *halves), outputs, proved=not left)
            if not tangle.outputs and pinned.dynamic(model.graph):
                joining = coupling(model.graph, dims, _same(one, two)) if dims is not None else []
                tangle.note = pinned.scale_note(model.graph, joining)
            tangle.rows |= {n for n, s in one.shapes.items() if s[:1] == (1,) and two.shapes[n] == (2, *s[1:])}
        return None
    dims = probe.merge(one, two)
    if dims is None:
        return None
    same = _same(one, two)
    # Two samples that agree here need not agree elsewhere, where one value stands for all samples.
    return None if coupling(model.graph, dims, same) else (dims, same)


def _same(one: probe.Probe, two: probe.Probe) -> dict[str, Array]:
    """Return the constants that do not follow from the number of samples."""
    return {
        k: v
        for k, v in one.constants.items()
        if k in two.constants and np.array_equal(v, two.constants[k], equal_nan=False)
    }


def _tangled(
    model: ir.Model,
    folder: Path | None,
    feeds: Sequence[dict[str, Array]],
    outputs: Mapping[str, tuple[Array, Sequence[Array]]],
    *,
    proved: bool,
) -> set[str]:
    """Return the outputs of two samples that are not those of either alone, beyond rounding.

    A scale that a dynamic quantiser takes of both is held fixed for this, so that it hides nothing else. Where the
    other operators are proved to keep samples apart, what is left is rounding to another step here and there.
    """
    graph = model.graph
    drawn = {str(v.name) for v in random_values(graph)}
    if pinned.dynamic(graph):
        found = pinned.tangled(model, folder, feeds, lambda a, p: _beside(a, p, _roughly if proved else agree))
        if found is not None:
            return found - drawn
    loose = _loosely if is_quantised(graph) else _roughly if is_half(graph) else agree
    return {name for name, (a, p) in outputs.items() if name not in drawn and not _beside(a, p, loose)}


def _side_by_side(both: Array, parts: Sequence[Array], same: Callable[[Array, Array], bool]) -> bool:
    """Tell whether a result of two samples is that of either alone, one after the other."""
    if both.ndim == 0 or parts[0].ndim == 0 or both.shape[0] != 2 * parts[0].shape[0]:
        return False
    return same(both, np.concatenate(parts))


def _beside(both: Array, parts: Sequence[Array], same: Callable[[Array, Array], bool]) -> bool:
    """Tell the same along any axis."""
    if both.ndim != parts[0].ndim or parts[0].shape != parts[1].shape:
        return False
    joined = (np.concatenate(parts, axis=axis) for axis in range(both.ndim))
    return any(j.shape == both.shape and same(both, j) for j in joined)


def _roughly(found: Array, truth: Array) -> bool:
    return _close(found, truth, _ROUGH)


def _loosely(found: Array, truth: Array) -> bool:
    return _close(found, truth, _STEPS)


def _close(found: Array, truth: Array, share: float) -> bool:
    if truth.dtype.kind not in "fiub":
        return np.array_equal(found, truth)
    apart, size = np.abs(found.astype(np.float64) - truth), np.abs(truth.astype(np.float64))
    return bool(np.nanmax(apart, initial=0.0) <= share * np.nanmax(size, initial=0.0) + 1e-6)


def agree(found: np.ndarray, truth: np.ndarray) -> bool:
    """Tell whether two results are equal up to rounding; a Sigmoid near 0 is accurate to 1e-6 only on some runtimes."""
    if truth.dtype.kind not in "fiub":  # text
        return np.array_equal(found, truth)
    found, truth = found.astype(np.float64), truth.astype(np.float64)
    scale = float(np.max(np.abs(truth[np.isfinite(truth)]), initial=0.0))
    return found.shape == truth.shape and np.allclose(found, truth, rtol=1e-3, atol=1e-3 * scale + 1e-6, equal_nan=True)


def _set_types(graph: ir.Graph, types: dict[str, ir.DataType | None]) -> None:
    for node in graph:
        for v in node.outputs:
            found = types.get(str(v.name))
            if v.type is None and found is not None:
                v.type = ir.TensorType(found)


def _annotate(
    model: ir.Model, dims: Mapping[str, tuple[int | ir.SymbolicDim, ...]], constants: dict[str, np.ndarray]
) -> None:
    """Set exact shapes of all values, and fold values that depend on shapes alone into initializers."""
    graph = model.graph
    for v in graph.inputs:
        if str(v.name) in dims:
            v.shape = ir.Shape(dims[str(v.name)])
    for v in graph.initializers.values():
        if v.const_value is not None:
            v.shape = ir.Shape(v.const_value.shape.numpy())
            v.dtype = v.const_value.dtype
    for node in graph:
        for v in node.outputs:
            if str(v.name) in dims:
                v.shape = ir.Shape(dims[str(v.name)])
            elif node.op_type in ("QuantizeLinear", "Cast") and node.inputs[0] is not None:  # to float8 or int4
                v.shape = node.inputs[0].shape
    sizes, outputs = sizes_of(graph), set(graph.outputs)
    for node in list(graph):
        for v in node.outputs:
            array = constants.get(str(v.name))
            if array is not None and not sizes.moving(v):
                if v.dtype is None:
                    v.dtype = ir.DataType.from_numpy(array.dtype)
                if v not in outputs and len(node.outputs) == 1:
                    folded = initializer(graph, f"{v.name}::folded", array)
                    v.replace_all_uses_with(folded)
    _settle_resizes(graph, sizes)
    common.RemoveUnusedNodesPass()(model)


def _settle_resizes(graph: ir.Graph, known: Sizes) -> None:
    """Set the axes that a Resize changes, so that a target size that contains the batch size becomes constant.

    Only of sizes that follow from shapes: others are those of the run alone.
    """
    for node in graph:
        sizes = optional(node, 3) if node.op_type == "Resize" else None
        if sizes is None or sizes.const_value is not None or "axes" in node.attributes or known.moving(sizes):
            continue
        before, after = (
            v.shape.dims if v is not None and v.shape is not None else () for v in (node.inputs[0], node.outputs[0])
        )
        axes = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b or isinstance(b, int)]
        if all(isinstance(after[i], int) for i in axes):
            target = np.array([after[i] for i in axes], np.int64)
            node.replace_input_with(3, initializer(graph, f"{sizes.name}::{node.name}::sizes", target))
            node.attributes["axes"] = ir.AttrInt64s("axes", axes)
