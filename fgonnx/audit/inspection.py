"""Inspect a model: what it is, what would be explained, and what prevents it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.lookups import holds_ids
from fgonnx.engine.graph.session import refusal
from fgonnx.engine.graph.values import dims_of, subgraphs_of
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.external import external_tensors
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.normal.roles import CHANNEL, roles
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import FILE, Options, options_with_changes
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.engine.rewrite.rewritten import Rewritten, own_layout_of
from fgonnx.errors import FgonnxError, ModelError, UnsupportedError
from fgonnx.fields import refuse_idle

_TOKENS = 16
"""Length of texts that are tried where it is free."""


def inspect(model: ModelLike | LoadedModel, *, options: Options | None = None, **changes: Any) -> dict[str, Any]:
    """Inspect a model and try to rewrite it.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    options : Options, optional
        What would be explained and how.
    **changes
        Fields of `Options`, or settings of the method, that differ from `options`.

    Returns
    -------
    dict
        Ready for JSON. `explanation` holds the head, the layout and the sites, or is None; then `obstacle` says why,
        and `refusals` lists the nodes without a usable rule.

    Raises
    ------
    ModelError, OptionError
        If it cannot be loaded or run by onnxruntime, or an option does not exist or has no effect.

    Examples
    --------
    >>> import fgonnx
    >>> found = fgonnx.inspect("examples/shapes.onnx")
    >>> found["explanation"]["head"], found["explanation"]["head_shape"], found["explanation"]["layout"]
    ('logits', [6], 'NCHW')
    >>> found["obstacle"] is None
    True
    """
    return inspected(model, options_with_changes(options, changes), str)


def inspected(
    model: ModelLike | LoadedModel, options: Options, spelled: Callable[[FgonnxError], str]
) -> dict[str, Any]:
    """Inspect a model, as `inspect` does, with the obstacle spelled by the function given."""
    refuse_idle(options, ("contrast",), "an inspection explains nothing")
    refuse_idle(options, FILE, "inspect writes no file")
    loaded = bound_to(load(model), options.bind, options.input_shape)
    options = _some_tokens(loaded, options)
    found = _file(loaded)
    found |= {"explanation": None, "obstacle": None, "refusals": []}
    try:
        loaded, options = arranged(loaded, options)
        r = build(loaded, options)
    except UnsupportedError as error:
        found["obstacle"] = spelled(error).splitlines()[0]
        found["refusals"] = [asdict(refusal) for refusal in error.refusals]
        return found
    except ModelError as error:
        if refusal(loaded.ir, loaded.folder) is not None:
            raise
        found["obstacle"] = spelled(error)
        return found
    shape, place = r.normal.input_shape, loaded.arrangement
    found["explanation"] = {
        **options.to_dict(),
        "input": r.normal.input_name,
        "kind": _kind(r, loaded),
        "input_shape": list(shape if place is None else place.own_shape(shape)),
        "layout": own_layout_of(r, loaded),
        "batch": "any" if r.normal.batched else "one by one",
        "batch_axis": 0 if place is None else place.axis,
        "head": r.head,
        "head_shape": list(r.head_shape),
        "head_stripped": r.stripped or None,
        "profile": options.profile,
        "notes": list(r.normal.notes),
        "sites": [{**asdict(s), "grid": list(s.grid)} for s in r.sites],
    }
    return found


def _some_tokens(loaded: LoadedModel, options: Options) -> Options:
    """Return options with a length for ids whose number is free, as for a text of some tokens."""
    try:
        x = loaded.input(options.input)
    except FgonnxError:  # said where it is explained
        return options
    dims = x.shape.dims if x.shape is not None else ()
    if options.input_shape is not None or len(dims) != 2 or not holds_ids(loaded.ir, x):
        return options
    free = isinstance(dims[1], ir.SymbolicDim)
    return replace(options, input_shape=(1, _TOKENS)) if free else options


def _kind(r: Rewritten, loaded: LoadedModel) -> str | None:
    """Return what the explained input holds and how it is explained, where its shape does not say so."""
    if (found := _ids(r)) is not None:
        return found
    return _series(r) or _features(r, loaded)


def _series(r: Rewritten) -> str | None:
    """Return what is said of channels over time."""
    n = r.normal
    if n.layout not in ("NCW", "NWC"):
        return None
    count = n.input_shape[n.layout.index("C")]
    return (
        f"a series of {count} channel{'s' * (count != 1)}: explained with a lane for each channel and one for the "
        "network, from .csv with a column for each channel, .npy or .wav (docs/series.md)"
    )


def _features(r: Rewritten, loaded: LoadedModel) -> str | None:
    """Return what is said of a single axis: features, or the time of one channel, by what reads it."""
    n = r.normal
    if n.layout != "NF":
        return None
    x = loaded.input(n.input_name)
    reading = roles(loaded.ir.graph, x, len(dims_of(x))).of(1)
    placed = any(s.grid for s in r.sites if s.kind != "input")  # frames, too, lie along the axis
    if placed or (reading is not None and reading.role != CHANNEL):
        return "a series of one channel: explained over time, from .wav, .csv with one column, or .npy (docs/series.md)"
    return (
        f"{n.input_shape[1]} features: explained as a sum of what each adds and of the biases, from .csv with a column "
        "for each feature, a DataFrame, or .npy (docs/tables.md)"
    )


def _ids(r: Rewritten) -> str | None:
    """Return what is said of ids."""
    n = r.normal
    if n.ids is None or n.selected is None:
        return None
    known = "" if n.vocabulary is None else f" of a vocabulary of {n.vocabulary[1] + 1:,}"
    width = n.x.shape.dims[-1] if n.x.shape is not None else "?"
    return (
        f"ids{known}: explained with respect to the rows that they select ('{n.selected.name}', {width} numbers each), "
        "one number per token, from texts or ids (docs/text.md)"
    )


def _file(loaded: LoadedModel) -> dict[str, Any]:
    model, graph = loaded.ir, loaded.ir.graph
    external = external_tensors(model)
    labels = loaded.labels()
    written = model.metadata_props.get("fgonnx.version")
    return {
        "model": {
            "path": str(loaded.path) if loaded.path is not None else None,
            "bytes": loaded.path.stat().st_size if loaded.path is not None else None,
            "external_bytes": sum(t.nbytes for t in external),
            "sha256": loaded.sha256,
            "producer": " ".join(filter(None, (model.producer_name, model.producer_version))) or None,
            "ir_version": model.ir_version,
            "opsets": {domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
            "written_by_fgonnx": written,
            "parameters": sum(map(_parameters, _graphs(model))),
        },
        "inputs": [_signature(v) for v in graph.inputs if v.name not in graph.initializers],
        "outputs": [_signature(v) for v in graph.outputs],
        "operators": dict(
            sorted(Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in graph).items(), key=lambda e: (-e[1], e[0]))
        ),
        "preprocessing": loaded.preprocessing_json(),
        "labels": list(labels) if labels is not None else None,
    }


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    """Yield the graph and those in its nodes, and local functions and those in theirs."""
    yield from model.graphs()
    for function in model.functions.values():
        yield function
        yield from (inner for node in function.all_nodes() for inner in subgraphs_of(node))


def _parameters(graph: ir.Graph | ir.Function) -> int:
    """Return how many numbers its initializers and Constant nodes hold."""
    own = graph.initializers.values() if isinstance(graph, ir.Graph) else ()
    tensors = [v.const_value for v in own if v.const_value is not None]
    constants = [a for n in graph if n.op_type == "Constant" and not n.domain for a in n.attributes.values()]
    tensors += [a.as_tensor() for a in constants if a.type == ir.AttributeType.TENSOR]
    listed = [a.value for a in constants if a.type in (ir.AttributeType.FLOATS, ir.AttributeType.INTS)]
    single = sum(a.type in (ir.AttributeType.FLOAT, ir.AttributeType.INT) for a in constants)
    numbers = (t.size for t in tensors if t.dtype.is_floating_point() or t.dtype.is_integer())
    return sum(numbers) + sum(map(len, listed)) + single


def _signature(value: ir.Value) -> dict[str, Any]:
    dims = None
    if value.shape is not None:
        dims = [d if isinstance(d, int) else (str(d.value) if d.value is not None else None) for d in value.shape.dims]
    return {
        "name": value.name,
        "dtype": value.dtype.name.lower() if value.dtype is not None else None,
        "shape": dims,
    }
