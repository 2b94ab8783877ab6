"""Convert a model to the operator set that the rules are written for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fgonnx.engine.graph.session import Session
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.batch import agree
from fgonnx.engine.normal.old import NEWER, write_anew
from fgonnx.engine.normal.training import random_values
from fgonnx.errors import ModelError, Refusal, UnsupportedError

OPSET = 18
IR_VERSION = 8  # that of opset 18; before 4, initializers had to be inputs
_ASIDE_BYTES = 1024  # larger weights are kept from onnx's converter


def raise_opset(model: ir.Model, notes: list[str]) -> bool:
    """Requires: no functions, opset 7 or newer. Ensures: opset 18 or newer. Returns whether nodes were converted.

    onnx's converter serialises the model, so large weights are replaced by inputs while it runs. Operators that are
    newer than the file's opset, which onnxruntime takes nonetheless, are hidden from it in another domain.
    """
    version = model.opset_imports.get("", 1)
    if version >= OPSET:
        return False
    if all(_unchanged_since(node, version) for node in RecursiveGraphIterator(model.graph)):
        model.opset_imports[""] = OPSET
        notes.append(f"opset {version} raised to {OPSET}: the same operators in both")
        return False
    graph = model.graph
    _refuse_unknown(model, version)
    tensors = {name: v.const_value for name, v in graph.initializers.items()}
    own_inputs = {v.name for v in graph.inputs}
    aside = {n: t for n, t in tensors.items() if t is not None and t.nbytes > _ASIDE_BYTES}
    slim = model.clone()
    write_anew(slim, version)
    for node in RecursiveGraphIterator(slim.graph):
        if _is_newer(node, version):
            node.domain = NEWER
            slim.opset_imports[NEWER] = 1
    for name in aside:
        value = slim.graph.initializers.pop(name)
        value.const_value = None
        if name not in own_inputs:
            slim.graph.inputs.append(value)
    proto = ir.to_proto(slim)
    proto.ir_version = max(proto.ir_version, 4)
    _forget_shapes(proto)
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(proto, OPSET))
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        raise ModelError(
            f"opset {version} cannot be raised to {OPSET}: {str(error).strip().splitlines()[0]}. "
            "Export the model with opset 18 or newer"
        ) from error
    for name, tensor in aside.items():
        value = next(v for v in converted.graph.inputs if v.name == name)
        if name not in own_inputs:
            converted.graph.inputs.remove(value)
        value.const_value = tensor
        converted.graph.register_initializer(value)
    for node in RecursiveGraphIterator(converted.graph):
        if node.domain == NEWER:
            node.domain = ""
    if version < 11:
        _keep_old_resize(converted.graph)
    ranks = {v.name: v.shape.rank() for v in graph.inputs if v.shape is not None}
    for v in converted.graph.inputs:
        if v.shape is not None and v.shape.rank() != ranks.get(v.name, v.shape.rank()):
            raise ModelError(
                f"raising opset {version} to {OPSET} changes the shape of its input '{v.name}'. "
                "Export the model with opset 18 or newer"
            )
    model.graph = converted.graph
    notes.append(f"opset {version} raised to {OPSET}")
    return True


#: What onnxruntime's optimiser writes among the operators of the standard, into files of any opset.
_OF_THE_OPTIMISER = {"SimplifiedLayerNormalization"}


def _is_newer(node: ir.Node, version: int) -> bool:
    """Tell whether an operator came after the opset of the file, such as the LayerNormalization of its optimiser."""
    if node.domain:
        return False
    if node.op_type in _OF_THE_OPTIMISER:
        return True
    return not onnx.defs.has(node.op_type, version, "") and onnx.defs.has(node.op_type, OPSET, "")


def _unchanged_since(node: ir.Node, version: int) -> bool:
    if node.domain or _is_newer(node, version):
        return True
    try:
        old, new = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (version, OPSET))
    except onnx.defs.SchemaError:
        return False
    return bool(old.since_version == new.since_version)


def _refuse_unknown(model: ir.Model, version: int) -> None:
    """Refuse operators that are not in the standard, naming all; onnx's converter would stop at the first."""
    found = []
    for n in RecursiveGraphIterator(model.graph):
        if n.domain or onnx.defs.has(n.op_type, version, "") or _is_newer(n, version):
            continue
        why, advice = "the standard has no such operator", "so that it holds operators of the ONNX standard"
        if onnx.defs.has(n.op_type, ""):
            since = onnx.defs.get_schema(n.op_type, "").since_version
            why, advice = f"the operator came with opset {since}, after that of the file", f"with opset {since}"
        found.append(
            Refusal(n.name or str(n.outputs[0].name), n.op_type, version, why, f"Export the model again, {advice}")
        )
    if found:
        raise UnsupportedError(found)


def _keep_old_resize(graph: ir.Graph) -> None:
    """Keep the coordinates of Resize before opset 11, i / scale; onnx's converter would use today's default."""
    for node in graph:
        if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            if "mode" not in node.attributes or node.attributes["mode"].as_string() == "nearest":
                node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def check_results(loaded: LoadedModel, model: ir.Model, feeds: dict[str, np.ndarray]) -> None:
    """Requires: the source's inputs and outputs. Ensures: the same results after onnx's converter.

    Where a result is all rounding, as a constant row brought to variance 1, it may differ at one point: what is changed
    differs at two of three. Not checked: outputs that random numbers lead to, and sources that this onnxruntime no
    longer runs.
    """
    drawn = {v.name for v in random_values(model.graph)}
    try:
        source = Session(loaded.ir, folder=loaded.folder, providers=["cpu"], optimise=False)
        before = source.run(feeds)
    except ModelError:
        return
    raised = Session(model, folder=loaded.folder, providers=["cpu"], optimise=False)
    names = [n for n in before if n not in drawn]

    def changed(point: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> list[str]:
        found = raised.run(point)
        return [n for n in names if not agree(found[n], truth[n])]

    if not (first := changed(feeds, before)):
        return
    elsewhere = [_spread(feeds, seed) for seed in (1, 2)]
    again = [n for point in elsewhere for n in changed(point, source.run(point))]
    if name := next((n for n in first if n in again), None) or next((n for n in again if again.count(n) > 1), None):
        raise ModelError(
            f"{loaded.name}: raising its opset from {loaded.opset} to {OPSET} changes its output '{name}'. "
            f"Export the model with opset {OPSET} or newer"
        )


def _spread(feeds: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return other numbers in place of floating-point ones, to both sides of zero."""
    rng = np.random.default_rng(seed)
    return {k: rng.normal(0, seed, v.shape).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in feeds.items()}


def _forget_shapes(proto: onnx.ModelProto) -> None:
    # Declared shapes of intermediate values may be wrong in old exports, and the converter checks them.
    del proto.graph.value_info[:]
