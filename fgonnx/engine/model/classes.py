"""Names of classes that a graph itself holds, as exporters of classical models write them."""

from __future__ import annotations

import json
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.values import content_of
from fgonnx.labels import METADATA_KEY, ULTRALYTICS_KEY

_ML = "ai.onnx.ml"


def keep(proto: onnx.ModelProto) -> None:
    """Note the names that a ZipMap gives its numbers in the model's metadata, in place, where it has none itself."""
    zipped = [n for n in proto.graph.node if (n.op_type, n.domain) == ("ZipMap", _ML)]
    texts = [a.strings for n in zipped for a in n.attribute if a.name == "classlabels_strings" and a.strings]
    found = {tuple(v.decode(errors="replace") for v in strings) for strings in texts}
    if len(found) == 1 and all(p.key not in (METADATA_KEY, ULTRALYTICS_KEY) for p in proto.metadata_props):
        proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(list(found.pop()), ensure_ascii=False))


def names_in(graph: ir.Graph) -> tuple[str, ...] | None:
    """Return the names that decide what a classifier answers; None where there are none, or several lists."""
    found = {names for node in graph if node.domain == _ML and (names := _names_of(node))}
    return found.pop() if len(found) == 1 else None


def _constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    made = value.producer() if value is not None else None
    held = made.attributes.get("value") if made is not None and made.op_type == "Constant" else None
    return content_of(value) if held is None else held.as_tensor().numpy()


def _names_of(node: ir.Node) -> tuple[str, ...]:
    if node.op_type == "ArrayFeatureExtractor":
        content = _constant(node.inputs[0])
        if content is None or content.dtype.kind not in "OSUT":
            return ()
        return tuple(v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in content.reshape(-1))
    attribute = node.attributes.get("classlabels_strings")
    if node.op_type == "LabelEncoder" and (keys := node.attributes.get("keys_int64s")) is not None:
        counted = list(keys.as_ints()) == list(range(len(keys.as_ints())))
        attribute = node.attributes.get("values_strings") if counted else None
    return tuple(attribute.as_strings()) if attribute is not None else ()
