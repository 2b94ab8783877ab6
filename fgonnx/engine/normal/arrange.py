"""Find out where the samples lie, and give a model an input and outputs with samples first.

Which axis is the batch is read off the operators, as far as they have one; what they leave open is tried: a batch of
two samples gives what two single ones give, and a changed sample of a fixed batch changes one row of the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.arrangement import Arrangement, Place
from fgonnx.engine.model.inputs import choose_input, described, free_inputs
from fgonnx.engine.model.layouts import batch_axis, check_layout, plain
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal import trials
from fgonnx.engine.normal.layout import contradicted
from fgonnx.engine.normal.roles import BATCH_AXIS, CHANNEL, Roles
from fgonnx.engine.normal.whole import as_one, beside, read_axes
from fgonnx.errors import FgonnxError, ModelError, OptionError
from fgonnx.wording import parameter

_BATCH_NAMES = {"n", "batch", "batch_size", "batchsize", "bs", "b", "num_samples", "samples"}
_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid"}
_SUFFIX = "::own"
_MOST_COPIES = 256


@dataclass(frozen=True)
class Found:
    """Where the samples of the explained input lie.

    Attributes
    ----------
    axis : int or None
        Which axis is the batch.
    fixed : int
        Its size, where it is fixed to more than one sample; else 0.
    proof : str
        How it was found, where that is worth a note.
    """

    axis: Place
    fixed: int = 0
    proof: str = ""


def arrange(
    loaded: LoadedModel,
    *,
    input_name: str | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str | None = None,
    output: str | None = None,
) -> LoadedModel:
    """Return the model with samples first in its inputs and outputs, and where they lay.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    input_name, output : str, optional
        What is explained.
    input_shape : sequence of int, optional
        Sizes of the input, in its own order, where they are free.
    layout : str, optional
        The layout of the input, in its own order.

    Raises
    ------
    OptionError
        The layout does not exist, or an operator contradicts the place of its batch.
    ModelError
        The samples of a fixed batch influence each other.
    """
    if loaded.arrangement is not None:
        return loaded
    try:
        x = choose_input(loaded.ir, input_name, loaded.name)
    except FgonnxError:  # said where it is explained
        return loaded
    rank = len(dims_of(x))
    if layout is not None:
        check_layout(layout, rank, loaded.name)
    read = read_axes(loaded, x, rank)
    trial = trials.Trials(loaded, x, input_shape, output)
    if layout is not None:
        found = _given(layout, x, read, loaded.name)
        contradicted(plain(layout), read, dims_of(x), loaded.name, layout)
    else:
        found = _find(x, read, trial)
    over = read.of(0) if rank == 1 else None
    given = Arrangement(str(x.name), found.axis, given=layout, reads="T" if over and over.role != CHANNEL else "")
    return _arranged(loaded, x, found, trial, given)


def _given(layout: str, x: ir.Value, read: Roles, where: str) -> Found:
    axis = batch_axis(layout)
    proven = _proven_batch(read)
    # A first axis of one entry makes one sample of all behind it, and may be any part of it.
    one = dims_of(x)[0] == 1 and (axis == 0 or proven == 0)
    letter = "" if one or proven in (axis, "unknown") or not isinstance(proven, int) else layout[proven]
    if letter and letter not in "ND":
        reader = next(r for r, a in zip(read.readers, read.batches, strict=True) if proven in a.origins)
        raise OptionError(
            f"{where}: {parameter('layout', layout)} does not make axis {proven} of the input the batch, but "
            f"{reader} reads it as the batch; leave the layout out, or correct it"
        )
    size = dims_of(x)[axis] if axis is not None else 0
    return Found(axis, size if isinstance(size, int) and size > 1 else 0)


def _proven_batch(read: Roles) -> int | str | None:
    """Return which axis operators read as the batch; None if they read a new one as the batch, or "unknown"."""
    if not read.batches:
        return "unknown"
    single = {axis.single for axis in read.batches if axis.origins}
    if not single:
        return None
    merged = [min(axis.origins) for axis in read.batches if axis.origins]
    chosen = {a if a is not None else merged[0] for a in single}
    return chosen.pop() if len(chosen) == 1 else "unknown"


def _find(x: ir.Value, read: Roles, trial: trials.Trials) -> Found:
    dims = dims_of(x)
    if len(dims) == 1:
        return Found(None)
    proven = _proven_batch(read)
    if proven is None:
        return Found(None)
    if dims[0] == 1 and isinstance(proven, int):
        return _behind_one(dims, read, proven, trial)
    if isinstance(proven, int):
        size = dims[proven]
        return Found(proven, size if isinstance(size, int) and size > 1 else 0)
    named = [i for i, d in enumerate(dims) if not isinstance(d, int) and str(d.value).lower() in _BATCH_NAMES]
    if named:
        return Found(named[0])
    if dims[0] == 1:
        return Found(0)
    if not isinstance(dims[0], int) and (weak := read.of(0)) is not None and weak.role == BATCH_AXIS:
        return Found(0)
    return _tried(dims, trial)


def _behind_one(dims: Sequence[int | ir.SymbolicDim], read: Roles, proven: int, trial: trials.Trials) -> Found:
    """Return the batch where the first axis has one entry: that one, unless another one answers to an output.

    Operators read channels, frames or patches as their batch that are folded into the first axis. A Reshape that folds
    them keeps the sample whole, unless the output has one row for each of them.
    """
    folded = [min(axis.origins - {0}) for axis in read.batches if 0 in axis.origins and axis.origins != {0}]
    axis = proven or (folded[0] if folded else 0)
    size = dims[axis]
    if not axis or size == 1:
        return Found(axis)
    fixed = size if isinstance(size, int) else 0
    if not trial.runs:
        return Found(proven, fixed if proven else 0)
    place = trial.answer(axis) if fixed else trial.joined(axis)
    return Found(axis, fixed) if place == 0 or (proven and place is not None) else Found(0)


def _tried(dims: Sequence[int | ir.SymbolicDim], trial: trials.Trials) -> Found:
    """Try which axis is the batch, those of free size first."""
    free = [i for i, d in enumerate(dims) if not isinstance(d, int)]
    for axis in free:
        if trial.joins(axis) or trial.tie(axis):
            return Found(axis)
    for axis in (i for i, d in enumerate(dims) if isinstance(d, int) and d > 1):
        if trial.answer(axis) is not None:
            return Found(axis, int(dims[axis]))  # type: ignore[arg-type]
    # A first axis of free size of which the graph takes one entry alone, or that other inputs may share, is a batch.
    if free[:1] == [0] and (not trial.runs or trial.takes_one(0) or trial.shared):
        return Found(0)
    return Found(None, proof="no axis of the input answers to one of the output")


def _arranged(loaded: LoadedModel, x: ir.Value, found: Found, trial: trials.Trials, known: Arrangement) -> LoadedModel:
    """Write the model with samples first."""
    name, axis, filled = str(x.name), found.axis, 1
    notes = [found.proof] if found.proof else []
    model = loaded.ir
    if found.fixed:
        assert axis is not None
        freed = trial.freed(axis)
        if freed is None:
            whole = as_one(loaded, name)
            trial.refuse_mixing(axis, whole)
            if found.fixed > _MOST_COPIES:
                advice = f", or take the whole array as one sample ({parameter('layout', whole)})" if whole else ""
                raise ModelError(
                    f"{loaded.name}: the batch of its input {described([x])} is fixed to {found.fixed} samples: one "
                    f"would have to be repeated that often; export it with batch size 1 or a free one{advice}"
                )
            filled = found.fixed
            notes.append(
                f"the batch is fixed to {filled} samples: every sample is explained alone, repeated {filled} times"
            )
        else:
            model = freed
            notes.append(f"the batch size, fixed to {found.fixed}, was made free, checked by running the model")
    if axis is None:
        notes.append(f"the input '{name}' has no batch axis: it is one sample")
    elif axis:
        notes.append(f"the batch is axis {axis} of the input '{name}'")
    inputs = _places(model.graph, x, axis)
    if axis is not None and len(free_inputs(model.graph)) > 1:
        inputs.update(trial.tie(axis))
        others = beside(model.graph, x, inputs, trial.head)
        for other in trial.apart(axis, others) if others else ():
            inputs[other] = None
            notes.append(f"the input '{other}' has no row for each sample: all samples take the whole of it")
    outputs = trial.places(axis)
    loaded = replace(loaded, notes=(*loaded.notes, *notes))
    if not any(place != 0 for place in (*inputs.values(), *outputs.values())) and filled == 1:
        own = loaded.ir if model is not loaded.ir else None
        return replace(loaded, ir=model, arrangement=known, own=own)
    copied = trial.positions(axis) if filled > 1 and axis is not None else {}
    inputs = {k: v for k, v in {**inputs, **copied}.items() if v != 0}
    rows = trial.rows(axis) if filled > 1 and axis is not None else {}
    aside = [str(v.name) for v in model.graph.outputs if rows and v.name not in rows]
    if aside:
        listed = ", ".join(f"'{n}'" for n in aside)
        left = f"left out of the outputs, as no axis of it answers to the samples alone: {listed}"
        loaded = replace(loaded, notes=(*loaded.notes, left))
    passed = [f"'{v.name}'" for v in model.graph.outputs if v.name in inputs]
    if passed:
        alike = f"left out of the outputs, as it is an input itself: {', '.join(passed)}"
        loaded = replace(loaded, notes=(*loaded.notes, alike))
    outputs = {k: v for k, v in outputs.items() if v != 0}
    known = replace(known, inputs=inputs, outputs=outputs, filled=filled)
    return replace(loaded, ir=_turned(model, known, set(copied), rows), arrangement=known, own=loaded.ir)


def turn(loaded: LoadedModel, known: Arrangement) -> LoadedModel:
    """Return a model with samples first in its inputs and outputs, where it is known how they lie."""
    return replace(loaded, ir=_turned(loaded.ir, known, set(), {}), arrangement=known)


def _turned(source: ir.Model, known: Arrangement, copied: set[str], rows: Mapping[str, int]) -> ir.Model:
    model = source.clone()
    for i, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{i}"  # counted without those that are added
    for v in [v for v in model.graph.outputs if v.is_graph_input() and v.name in known.inputs]:
        model.graph.outputs.remove(v)
    for v in list(model.graph.inputs):
        if v.name in known.inputs or v.name in copied:
            _turn_input(model, v, known.inputs.get(str(v.name), 0), known.filled if v.name in copied else 1)
    for v in list(model.graph.outputs):
        if rows and v.name not in rows:  # of all samples of a fixed batch together, which are explained alone
            model.graph.outputs.remove(v)
        elif v.name in known.outputs or v.name in rows:
            _turn_output(model, v, known.outputs.get(str(v.name), 0), rows.get(str(v.name), 0))
    return model


def _own_name(graph: ir.Graph, name: str) -> str:
    """Return a name for what an input or output was before it was turned, which nothing in the graph begins with."""
    taken = [str(v.name) for node in graph for v in node.outputs] + [str(node.name) for node in graph]
    found = f"{name}{_SUFFIX}"
    while any(t.startswith(found) for t in taken):
        found += _SUFFIX
    return found


def _places(graph: ir.Graph, x: ir.Value, axis: Place) -> dict[str, Place]:
    """Return where the batch is in every input: where the same symbol stands.

    An input that begins with the symbol of another axis of the explained one, such as positions (T), has no batch.
    """
    if axis is None:
        return {str(v.name): None for v in free_inputs(graph) if v.shape is not None}
    found: dict[str, Place] = {str(x.name): axis}
    symbols = [None if isinstance(d, int) else d.value for d in dims_of(x)]
    batch = symbols[axis]
    others = {s for i, s in enumerate(symbols) if i != axis and s not in (None, batch)}
    for v in free_inputs(graph):
        if v is x or v.name == x.name or v.shape is None or not v.shape.rank():
            continue
        own = [None if isinstance(d, int) else d.value for d in v.shape.dims]
        same = [i for i, s in enumerate(own) if s is not None and s == batch]
        if len(same) == 1:
            found[str(v.name)] = same[0]
        elif not same and own[0] in others:
            found[str(v.name)] = None
    return found


def _turn_input(model: ir.Model, v: ir.Value, place: Place, copies: int) -> None:
    """Replace an input by one with samples first, and turn that back for all that reads it."""
    graph, name = model.graph, str(v.name)
    dims = list(dims_of(v))
    batch: int | ir.SymbolicDim = 1 if place is None or copies > 1 else dims.pop(place)
    if copies > 1 and place is not None:
        dims.pop(place)
    turned = ir.Value(name=name, type=v.type, shape=ir.Shape([batch, *dims]), doc_string=v.doc_string)
    v.name = None
    own_name = _own_name(graph, name)
    op = Emitter(graph, prefix=f"{own_name}/", before=next(iter(graph)))
    own = turned
    if place is None:
        own = _reaxed(op, model, "Squeeze", own)
    elif place:
        own = op.Transpose(own, perm=moved(len(dims) + 1, 0, place))
    if copies > 1:
        assert place is not None
        own = op.Concat(*[own] * copies, axis=place)
    graph.inputs[list(graph.inputs).index(v)] = turned
    v.replace_all_uses_with(own, replace_graph_outputs=True)
    own.name = own_name


def _turn_output(model: ir.Model, v: ir.Value, place: Place, rows: int) -> None:
    """Replace an output by one with samples first, of which `rows` belong to the first sample (0: all)."""
    graph, name = model.graph, str(v.name)
    at = list(graph.outputs).index(v)
    rank = v.shape.rank() if v.shape is not None else None
    own_name = _own_name(graph, name)
    op = Emitter(graph, prefix=f"{own_name}/")
    node = v.producer()
    turned = v
    if rows and place is not None:
        turned = op.Gather(turned, list(range(rows)), axis=place)
    if place is None:
        turned = _reaxed(op, model, "Unsqueeze", turned)
    elif place and rank is not None:
        perm = moved(rank, place, 0)
        if not rows and node is not None and _movable(model, node, rank) and len(v.uses()) == 0:
            # In front of the activation, so that the values before it are found as the head.
            turned = op.Transpose(node.inputs[0], perm=perm)
            axis = _axis_of(model, node)
            kept = {} if axis is None else {"axis": perm.index(axis % rank)}
            turned = op.emit(node.op_type, turned, **kept)
        else:
            turned = op.Transpose(turned, perm=perm)
    v.name, turned.name = own_name, name
    turned.type, turned.shape = v.type, None
    graph.outputs[at] = turned


def _movable(model: ir.Model, node: ir.Node, rank: int) -> bool:
    if node.op_type not in _ACTIVATIONS or node.domain:
        return False
    axis = _axis_of(model, node)
    return node.op_type == "Sigmoid" or model.opset_imports.get("", 1) >= 13 or axis in (-1, rank - 1)


def _axis_of(model: ir.Model, node: ir.Node) -> int | None:
    if node.op_type == "Sigmoid":
        return None
    usual = -1 if model.opset_imports.get("", 1) >= 13 else 1
    return node.attributes.get_int("axis", usual)


def _reaxed(op: Emitter, model: ir.Model, kind: str, v: ir.Value) -> ir.Value:
    """Write a Squeeze or an Unsqueeze of the first axis in the model's operator set."""
    if model.opset_imports.get("", 1) < 13:
        return op.emit(kind, v, axes=[0])
    return op.emit(kind, v, [0])


def moved(rank: int, source: int, target: int) -> list[int]:
    """Return the perm of a Transpose that moves one axis."""
    order = [i for i in range(rank) if i != source]
    order.insert(target, source)
    return order
