"""Finish an exporter's graph: names, a free batch, the head, metadata, checks, and the proof of parity."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx import labels
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import inputs_of
from fgonnx.engine.model import save
from fgonnx.engine.model.load import PREPROCESSING_KEY
from fgonnx.errors import InputError, ModelError, OptionError, Refusal, UnsupportedError
from fgonnx.pictures.read import images
from fgonnx.pictures.read.complete import complete
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.read.synthetic import random_pictures
from fgonnx.wording import parameter

from . import parity, report
from .network import Array, Inputs, Network, example_of, exporting, needs
from .options import Conversion
from .parity import Head
from .report import ConversionReport

BATCH = "N"
LOGITS = "logits"
_SAMPLES = 2
_CHECKED_BYTES = 2**31 - 2**20  # the largest model that onnx's checker takes from memory


def finish(
    proto: onnx.ModelProto, network: Network, path: str | Path, example: Inputs, options: Conversion
) -> ConversionReport:
    """Clean up an exporter's graph, prove it against its source and save it.

    Parameters
    ----------
    proto : onnx.ModelProto
        The exported model.
    network : Network
        The source.
    path : path-like
        The .onnx file to write.
    example : Inputs
        One array per input, with a batch axis.
    options : Conversion
        The options of the conversion.

    Returns
    -------
    ConversionReport
        Also stored in the file's metadata. The file is written whether or not the proof succeeds.

    Raises
    ------
    FgonnxError
        If the file is not a valid model, or pictures or preprocessing do not fit, or the exporter wrote another opset
        than was asked for.
    """
    written = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if options.opset not in (None, written):
        raise OptionError(
            f"{parameter('opset', options.opset)} cannot be had: {network.exporter} writes this network in opset "
            f"{written}; leave it out, or give one that the exporter has"
        )
    notes = list(network.notes)
    model = _prepared(proto, example, options, notes)
    head = _head(model, example, options, notes)
    names = options.labels
    if names is not None and head is not None and len(head.shape) == 1:
        names, note = labels.align(names, head.shape[0])
        notes += [note] if note else []
    pre = _completed(options.preprocessing, model, head)
    _check(model)
    samples = _samples(model, example, pre, options)
    measured = parity.prove(
        model, network, samples, head, tolerance=options.tolerance, random_state=options.random_state
    )
    if network.linearise is None:
        notes.append(f"{network.source}: has no autograd, so that only outputs are compared")
    result = ConversionReport(
        Path(path),
        network.framework,
        network.source,
        network.exporter,
        model.opset_imports[""],
        {str(v.name): _dims(v) for v in model.graph.inputs},
        {str(v.name): _dims(v) for v in model.graph.outputs},
        head.name if head else "",
        head.stripped if head else "",
        tuple(measured),
        _versions(network),
        tuple(notes),
    )
    _describe(model, result, pre, names)
    save.save(model, path)
    return result


def _prepared(proto: onnx.ModelProto, example: Inputs, options: Conversion, notes: list[str]) -> ir.Model:
    """Return the exported graph without unused nodes, with plain names and, where possible, a free batch."""
    if options.simplify:
        proto = _slimmed(proto)
    model = ir.from_proto(proto)
    common.RemoveUnusedNodesPass()(model)
    _refuse_decisions(model)
    _rename(model, proto.graph.name)
    _free_batch(model, example, notes)
    return model


def _head(model: ir.Model, example: Inputs, options: Conversion, notes: list[str]) -> Head | None:
    """Return the head, made an output if requested; None if fgonnx cannot explain the file."""
    found, obstacle = parity.explainable(model, example, options.head)
    if found is None:
        notes.append(f"fgonnx cannot explain this file, only its outputs are compared: {obstacle}")
        return None
    if found.ids:
        notes.append("its input holds ids, which have no gradient in the source: only its outputs are compared")
    if options.head == "logits" and found.stripped:
        return _expose(model, found, notes)
    return found


def _refuse_decisions(model: ir.Model) -> None:
    """Refuse a graph with an If whose condition depends on the input, naming the nodes."""
    reached: set[ir.Value] = set(model.graph.inputs)
    refused = []
    for node in model.graph:
        if node.op_type == "If" and node.inputs[0] in reached:
            refused.append(
                Refusal(
                    node.name or str(node.outputs[0].name),
                    "If",
                    model.opset_imports[""],
                    "it takes one of two branches by what is in the input",
                    "Convert a network without the decision, or each branch on its own",
                )
            )
        if any(v in reached for v in inputs_of(node)):
            reached.update(node.outputs)
    if refused:
        raise UnsupportedError(refused)


def _slimmed(proto: onnx.ModelProto) -> onnx.ModelProto:
    with needs("simplify", "onnxslim"):
        import onnxslim
    with exporting("onnxslim"):
        slim: onnx.ModelProto = onnxslim.slim(proto)
    return slim


def _rename(model: ir.Model, name: str) -> None:
    """Rename a single input to "input" and a single output to "output"; strip ":0" from the names of several."""
    graph = model.graph
    for initializer in [v for v in graph.inputs if v.name in graph.initializers]:
        graph.inputs.remove(initializer)  # an input that has a value is a constant
    taken = {v.name for node in graph for v in node.outputs} | set(graph.initializers)
    for values, only in ((graph.inputs, "input"), (graph.outputs, "output")):
        for v in values:
            wanted = only if len(values) == 1 else str(v.name).removesuffix(":0")
            if wanted != v.name and wanted not in taken:
                v.name = wanted
    graph.name = name.partition(":")[0] or "network"


def _free_batch(model: ir.Model, example: Inputs, notes: list[str]) -> None:
    """Name the batch axis; free a fixed one where a batch of two samples gives the same results as one by one."""
    graph = model.graph
    fixed = [v for v in graph.inputs if v.shape is not None and v.shape.rank() and isinstance(v.shape.dims[0], int)]
    if fixed:
        model_free = model.clone()
        _set_batch(model_free)
        if not _batch_is_free(model_free, example):
            notes.append("the batch is fixed in the source, and its graph cannot do without; fgonnx runs one by one")
            return
        notes.append("the batch was fixed in the source; it is free in the file (tried with two samples)")
    _set_batch(model)


def _set_batch(model: ir.Model) -> None:
    graph = model.graph
    old = {str(v.shape.dims[0]) for v in graph.inputs if v.shape is not None and v.shape.rank()}
    for v in (*graph.inputs, *graph.outputs, *(v for node in graph for v in node.outputs)):
        external = v in graph.inputs or v in graph.outputs
        if v.shape is None or not v.shape.rank():
            continue
        if not external:
            v.shape = None  # shapes with the old batch would contradict: they are inferred again
            continue
        first = v.shape.dims[0]
        if v in graph.inputs or not isinstance(first, int) or str(first) in old:
            v.shape = ir.Shape([BATCH, *v.shape.dims[1:]])


def _batch_is_free(model: ir.Model, example: Inputs) -> bool:
    rng = np.random.default_rng(0)
    rows = [tuple(rng.permuted(a[:1], axis=a.ndim - 1) if i else a[:1] for a in example) for i in range(_SAMPLES)]
    try:
        session = Session(model)
        alone = [session.run(dict(zip(session.inputs, row, strict=True))) for row in rows]
        together = session.run(
            {name: np.concatenate(parts) for name, parts in zip(session.inputs, zip(*rows, strict=True), strict=True)}
        )
    except ModelError:
        return False
    return all(
        together[o].shape[:1] == (_SAMPLES,)
        and np.allclose(together[o], np.concatenate([a[o] for a in alone]), rtol=1e-4, atol=1e-5)
        for o in session.outputs
    )


def _expose(model: ir.Model, head: Head, notes: list[str]) -> Head:
    """Make the tensor before the final activation an output, after those of the source."""
    inner = {str(v.name): v for node in model.graph for v in node.outputs}
    value, taken = inner.get(head.name), {str(v.name) for v in (*model.graph.inputs, *model.graph.outputs)}
    if value is None or value.is_graph_output() or LOGITS in taken | set(inner):
        notes.append(f"the tensor before the final {head.stripped}, '{head.name}', is not an output of its own")
        return head
    value.name = LOGITS
    value.dtype = value.dtype or ir.DataType.FLOAT
    value.shape = ir.Shape([BATCH if head.batched else 1, *head.shape])
    model.graph.outputs.append(value)
    return replace(head, name=LOGITS)


def _completed(pre: Preprocessing | None, model: ir.Model, head: Head | None) -> Preprocessing | None:
    if pre is None:
        return None
    x = next((v for v in model.graph.inputs if head is not None and v.name == head.input), model.graph.inputs[0])
    assert x.shape is not None
    assert x.dtype is not None
    dims = [d if isinstance(d, int) else None for d in x.shape.dims]
    return complete(pre, dims, x.dtype.numpy())


def _samples(model: ir.Model, example: Inputs, pre: Preprocessing | None, options: Conversion) -> dict[str, Inputs]:
    """Return the sets of samples to compare on; with a fixed batch, one set per picture."""
    first = model.graph.inputs[0].shape
    fixed = first is not None and first.rank() and isinstance(first.dims[0], int)
    count = int(first.dims[0]) if fixed and first is not None else _SAMPLES  # type: ignore[arg-type]
    found = {"example": tuple(a[:count] for a in example)}
    if pre is not None and len(example) == 1:
        size = None if pre.size is not None else example[0].shape
        found["random"] = (random_pictures(pre, size, count, options.random_state),)
    else:
        found["random"] = tuple(_random_like(a, count, options.random_state) for a in example)
    if options.pictures:
        if pre is None:
            raise InputError("pictures were given without a preprocessing: say how they become numbers (preprocessing)")
        files = (images.read(p) for p in images.expand(options.pictures))
        rows = [pre.apply(p.fit(pre.channels, pre.dtype)[0]) for p in files]
        if fixed:
            found |= {f"picture {i + 1}": (row[None],) for i, row in enumerate(rows)}
        else:
            found["pictures"] = (np.stack(rows),)
    return found


def _random_like(a: Array, count: int, random_state: int) -> Array:
    """Return random numbers with mean and standard deviation of an example, or integers of its range."""
    if a.dtype.kind in "iu":
        rng = np.random.default_rng(random_state + 1)
        return rng.integers(a.min(), a.max(), (count, *a.shape[1:]), endpoint=True).astype(a.dtype)
    made = example_of((count, *a.shape[1:]), a.dtype, random_state + 1)
    return (made * a.std() + a.mean()).astype(a.dtype) if a.std() else made


def _check(model: ir.Model) -> None:
    """Run onnx's checker.

    Raises
    ------
    ModelError
        With its reason.
    """
    proto = ir.to_proto(model)
    if proto.ByteSize() > _CHECKED_BYTES:
        return  # the checker takes such models only from disk; the proof runs them anyway
    try:
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the exported graph is not valid ONNX: {str(error).strip().splitlines()[0]}") from error


def _dims(v: ir.Value) -> list[int | str]:
    return [d if isinstance(d, int) else str(d) for d in v.shape.dims] if v.shape is not None else []


def _versions(network: Network) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("fgonnx", "onnx", *network.packages) if _has(name)}


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _describe(
    model: ir.Model, result: ConversionReport, pre: Preprocessing | None, names: Sequence[str] | None
) -> None:
    entries: dict[str, Any] = {report.METADATA_KEY: result.to_json()}
    if pre is not None:
        entries[PREPROCESSING_KEY] = pre.to_json()
    if names is not None:
        entries[labels.METADATA_KEY] = labels.to_json(names)
    model.metadata_props.update(entries)
    worst = max((m.relative for m in result.measurements if m.quantity.startswith("output")), default=0.0)
    model.doc_string = (
        f"Converted from {result.framework} ({result.source}) by {result.exporter}. Outputs differ from the source's "
        f"by {worst:.1e} of the largest."
    )
