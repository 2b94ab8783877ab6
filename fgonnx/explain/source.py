"""Held against the source: what is explained is what the model computes, or it is refused.

The certificate closes whatever the score is, so it cannot tell a wrong score from the model's. The source model is run
on the same input instead, and its outputs and the tensor explained are compared with those of the rewritten graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine import methods
from fgonnx.engine.graph.blame import first_difference
from fgonnx.engine.graph.session import Session, refusal
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.half import is_half
from fgonnx.engine.normal.quantised import is_quantised
from fgonnx.engine.normal.training import random_values
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.rewrite.samples import sized_by
from fgonnx.errors import ModelError, NumericError
from fgonnx.explain import batches
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

MOST = 64
"""Samples that are compared at most."""

# Relative to the largest value. Kernels of another order of summation differ by rounding; onnxruntime fuses quantised
# layers into kernels that round to another step here and there.
_ROUNDING, _HALF, _STEPS = 1e-3, 2e-2, 0.1
ADVICE = (
    "No explanation is given. Check which axis is the batch (layout=, --layout), or report the model; "
    "verify=False (--no-verify) explains the graph as it is"
)
_LEVELS = 256  # of an 8-bit value


def hold_against_source(loaded: LoadedModel, r: Rewritten, fed: Feeds, results: Feeds, *, outputs: bool = True) -> None:
    """Compare results with those of the source model on the same input.

    Parameters
    ----------
    loaded : LoadedModel
        The source.
    r : Rewritten
        The rewritten graph.
    fed : mapping of str to numpy array
        Inputs of the rewritten graph, of all samples.
    results : mapping of str to numpy array
        What it computed, one row per sample.
    outputs : bool
        Whether outputs are compared; else the score alone, where they are known to be right.

    Raises
    ------
    NumericError
        An output or the score differs beyond rounding, or beyond some steps of quantisation. The message names the
        first value that parts.
    """
    graph = loaded.ir.graph
    count, total = _comparable(loaded, r, fed), len(fed[r.normal.input_name])
    allowed = allowed_difference(graph)
    if not outputs and r.head in r.source_outputs and r.head in results:
        for name, wrong, right in score_apart(r, results, results[r.head], total, allowed):
            raise NumericError(f"{parting(loaded, name, wrong, right)}. {ADVICE}")
        return
    given = _given(loaded, r, fed, count)
    try:
        source, head = _run(loaded, r, given)
    except ModelError as error:
        raise NumericError(
            f"{loaded.name}: the source model does not run on the input that was explained, so its explanation cannot "
            f"be held against it: {error}"
        ) from error
    # An output may have several rows for a sample, another number for each, or an axis of another kind in front.
    drawn = {v.name for v in random_values(graph)}  # behind the tensor explained
    compared = [name for name in r.source_outputs if name not in drawn] if outputs else []
    even = r.normal.batched or total == 1
    rows = {name: len(results[name]) * count // total if even else len(source[name]) for name in compared}
    ours = {name: results[name][: rows[name]] for name in compared}
    parted = [(name, array, source[name]) for name, array in ours.items() if difference(array, source[name]) > allowed]
    if not parted and head is not None:
        parted = score_apart(r, results, head, count, allowed)
    if parted:
        name, wrong, right = parted[0]
        raise NumericError(f"{parting(loaded, name, wrong, right)}{_blamed(loaded, r, fed, given, allowed)}. {ADVICE}")


def of_whom(loaded: LoadedModel, error: ModelError, r: Rewritten | None = None, fed: Feeds | None = None) -> ModelError:
    """Return the error for a rewritten graph that does not run: in words about the source, if it does not run either.

    Parameters
    ----------
    loaded : LoadedModel
        The source.
    error : ModelError
        What onnxruntime said of the rewritten graph.
    r : Rewritten, optional
        The rewritten graph, for an error of a run.
    fed : mapping of str to numpy array, optional
        Its inputs.
    """
    own = refusal(loaded.ir, loaded.folder)
    if own is None and r is not None and fed is not None:
        try:
            _run(loaded, r, _given(loaded, r, fed, _comparable(loaded, r, fed)))
        except ModelError as said:
            own = str(said)
    if own is not None:
        return ModelError(f"{loaded.name}: {own}")
    if r is not None and (counted := sized_by(r.normal)):
        return ModelError(
            f"{loaded.name}: {counted} finds as many entries as the data have, and a data-dependent "
            "length has no explanation here. Choose by a mask (Where) instead, or explain a tensor before it "
            f"({parameter('output')})"
        )
    if (missing := re.search(r"NOT_IMPLEMENTED.*implementation for (\w+)", str(error))) is not None:
        return ModelError(
            f"{loaded.name}: onnxruntime runs the model but not its explanation: it has no {missing[1]} for values of "
            "this type. Convert the model to float32"
        )
    return ModelError(
        f"{loaded.name}: onnxruntime runs the model, but not what fgonnx wrote beside it ({error}). If memory is "
        f"short, explain fewer samples at once ({parameter('batch_size')}); else this is a fault of fgonnx: please "
        "report it"
    )


def _given(loaded: LoadedModel, r: Rewritten, fed: Feeds, count: int) -> dict[str, Array]:
    """Return the inputs of the source, of the first `count` samples."""
    total = len(fed[r.normal.input_name])
    given = {}
    for name, array in fed.items():
        first = _first(loaded.ir.graph, name)
        of_samples = array.ndim and len(array) == total and not (isinstance(first, int) and first > 1)
        if name not in (r.selector, r.contrast):
            given[name] = array[:count] if of_samples else array
    return given


def score_apart(
    r: Rewritten, results: Feeds, head: Array, count: int, allowed: float
) -> list[tuple[str, Array, Array]]:
    """Return the score and the entries of the source's tensor, where they differ."""
    score = results[r.names["score"]][:count]
    if "target" not in r.names or r.options.seed or methods.find(r.options.method).drive is not None:
        return []  # the score is a weighted sum, or a mean over variations of the input
    if head.dtype.kind != "f":
        return []  # the score is in real numbers, the tensor in steps of a scale; outputs are compared in steps
    entries = int(np.prod(r.head_shape, initial=1))
    if head.size != count * entries:
        return [(r.head, score, head)]
    rows = head.reshape(count, entries).astype(np.float64)
    expected = rows[np.arange(count), np.asarray(results[r.names["target"]][:count], np.int64)]
    if "contrast" in r.names:
        expected = expected - rows[np.arange(count), np.asarray(results[r.names["contrast"]][:count], np.int64)]
    largest = float(np.abs(rows[np.isfinite(rows)]).max(initial=1e-3))
    close = np.isclose(score, expected, rtol=0, atol=allowed * largest, equal_nan=True)
    return [] if close.all() else [(r.head, score, expected)]


def _blamed(loaded: LoadedModel, r: Rewritten, fed: Feeds, given: Feeds, allowed: float) -> str:
    """Say which node is the first to give something else."""
    one = next(batches.cut(r, fed, next(iter(given.values())).shape[0]))
    try:
        node = first_difference((loaded.ir, r.model), (given, one), allowed, loaded.folder)
    except Exception:  # the search is a courtesy: it must not hide the message
        return ""
    return (
        "" if node is None else f"; the first node that parts is '{node.name or node.outputs[0].name}' ({node.op_type})"
    )


def _comparable(loaded: LoadedModel, r: Rewritten, fed: Feeds) -> int:
    """Return how many samples the source takes at once: all of them, or one where its batch is fixed."""
    count = len(fed[r.normal.input_name])
    free = r.normal.batched and not isinstance(_first(loaded.ir.graph, r.normal.input_name), int)
    return min(count, MOST) if free else 1


def _first(graph: ir.Graph, name: str) -> int | ir.SymbolicDim | None:
    """Return the size of the first axis of an input; None where it has none, or is none of the model's."""
    value = next((v for v in graph.inputs if v.name == name), None)
    return value.shape.dims[0] if value is not None and value.shape is not None and value.shape.rank() else None


def _run(loaded: LoadedModel, r: Rewritten, given: Feeds) -> tuple[dict[str, Array], Array | None]:
    """Run the source as its operators are defined; return its outputs, and the tensor explained where it has it."""
    found = as_defined(loaded.ir, loaded.folder, r.head).run(dict(given))
    return {name: np.atleast_1d(found[name]) for name in r.source_outputs}, found.get(r.head)


def as_defined(model: ir.Model, folder: Path | None, inner: str = "") -> Session:
    """Return a session that runs operators as they are defined, and gives an inner value, too, if it has it."""
    model = model.clone()
    value = next((v for node in model.graph for v in node.outputs if inner and v.name == inner), None)
    if value is not None and not value.is_graph_output():
        value.shape = None
        model.graph.outputs.append(value)
    return Session(model, folder=folder, providers=["cpu"], optimise=False)


def allowed_difference(graph: ir.Graph) -> float:
    """Return which difference, relative to the largest value, is rounding or some steps of quantisation."""
    if is_quantised(graph):
        return _STEPS
    return _HALF if is_half(graph) else _ROUNDING


def difference(ours: Array, theirs: Array) -> float:
    """Return the largest difference relative to the largest value; infinity where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf") if ours.size != theirs.size else difference(ours.reshape(theirs.shape), theirs)
    if ours.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    apart = float(np.abs(a[finite] - b[finite]).max(initial=0)) - _step(b[finite])
    return max(apart, 0.0) / max(float(np.abs(b)[finite].max(initial=0)), 1e-3)


def _step(values: Array) -> float:
    """Return the step between values that a quantised graph gives; 0 where they take no steps."""
    levels = np.unique(values)
    return float(np.diff(levels).min()) if 2 <= len(levels) <= min(_LEVELS, values.size // 2) else 0.0


def parting(loaded: LoadedModel, name: str, ours: Array, theirs: Array) -> str:
    """Say what an output is, and what the model gives."""
    shapes = (
        f" (shape {ours.shape}, the model's {theirs.shape})"
        if np.squeeze(ours).shape != np.squeeze(theirs).shape
        else ""
    )
    example = ""
    if not shapes and ours.dtype.kind in "fiub":
        at = int(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).reshape(-1).argmax())
        example = f": {ours.reshape(-1)[at]:.6g} where the model gives {theirs.reshape(-1)[at]:.6g}"
    return (
        f"{loaded.name}: '{name}' of the explained graph is not what the model computes on this input{shapes}{example}"
    )
