"""A rewritten model and its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx
import onnx_ir as ir

from fgonnx._version import __version__
from fgonnx.engine.maps.sites import Site
from fgonnx.engine.model.load import LoadedModel, metadata
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import ModelError
from fgonnx.files import parsed

OF_THE_INPUT = ("input_gradient", "attribution")
"""Outputs of the input's shape."""


@dataclass
class Rewritten:
    """A model that explains itself, and its description.

    Attributes
    ----------
    model : ir.Model
        The graph.
    options : Options
        The options.
    normal : Normal
        What the source was turned into.
    head : str
        Name of the value that is explained.
    head_shape : tuple of int
        Its shape per sample, without the batch axis.
    stripped : str
        Operator that was set aside behind the head, or "".
    sites : tuple of Site
        All terms, the input first, in the order of the columns of `contributions`.
    names : dict of str to str
        From the names fgonnx gives outputs to the names in the graph.
    selector : str
        Name of the input that says what is explained: `target_index` or `seed`, unless the model has such a name;
        empty where that is fixed.
    source_outputs : tuple of str
        The model's own outputs.
    notes : list of str
        Descriptions of changes to the model.
    head_axes : tuple of int or None
        Which axis of the input's grid each axis of the head is, where it is known to be one.
    facts : dict of str to str
        What the method chose by itself: the layer of a class activation map.
    blocks : tuple of str
        Names of the values that the columns of "blocks" are about.
    entangled : str
        Why several samples at once are not explained; "" where they are.
    contrast : str
        Name of the input that says what the target is compared with; "" without a contrast.
    """

    model: ir.Model
    options: Options
    normal: Normal
    head: str
    head_shape: tuple[int, ...]
    stripped: str
    sites: tuple[Site, ...]
    names: dict[str, str]
    selector: str
    source_outputs: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    head_axes: tuple[int | None, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    entangled: str = ""
    contrast: str = ""


def describe(r: Rewritten, loaded: LoadedModel) -> None:
    """Write the description of a rewritten model into its metadata."""
    model = r.model
    model.producer_name, model.producer_version = "fgonnx", __version__
    folded = "no" if any(n.op_type == "BatchNormalization" for n in model.graph) else "yes, or none in the source"
    known = {
        **r.options.to_dict(),
        **r.facts,
        "version": __version__,
        "source_sha256": loaded.sha256,
        "source_producer": f"{loaded.ir.producer_name or '?'} {loaded.ir.producer_version or ''}".strip(),
        "target": None if r.options.seed else r.options.target,
        "selector": r.selector or None,
        "contrast_input": r.contrast or None,
        "head_value": r.head,
        "head_shape": list(r.head_shape),
        "source_outputs": list(r.source_outputs),
        "head_stripped": r.stripped or None,
        "batchnormalization_folded": folded,
        "batch": "any" if r.normal.batched else "1",
        "layout": own_layout_of(r, loaded),
        "arrangement": _places(r, loaded),
        "input": r.normal.input_name,
        "vocabulary": None if r.normal.vocabulary is None else list(r.normal.vocabulary),
        "rows": None if r.normal.selected is None else str(r.normal.selected.name),
        "input_shape": None,  # the graph itself has it
        "bind": None,
        "bound": dict(loaded.bound) or None,
        "outputs": r.names,
        "sites": [asdict(s) for s in r.sites],
        "blocks": list(r.blocks) or None,
    }
    model.metadata_props.update(metadata(**known))


def _places(r: Rewritten, loaded: LoadedModel) -> dict[str, Any] | None:
    """Return where the batch is in inputs and outputs of the file, if it is not the first axis of all of them."""
    a = loaded.arrangement
    if a is None or not (a.inputs or a.outputs):
        return None
    outputs = {**a.outputs, **{r.names[n]: a.axis for n in OF_THE_INPUT if n in r.names and a.axis != 0}}
    return {"explained": a.explained, "axis": a.axis, "inputs": dict(a.inputs), "outputs": outputs}


def own_layout_of(r: Rewritten, loaded: LoadedModel) -> str:
    """Return the layout of the explained input, in the order of its own axes."""
    known = r.normal.layout if r.normal.ids is None else r.normal.layout.replace("F", "T")
    return known if loaded.arrangement is None else loaded.arrangement.layout(known)


def sites_of(model: onnx.ModelProto) -> list[Site]:
    """Return the sites of a rewritten model from its metadata, in the order of the columns of `contributions`."""
    stored = {p.key: p.value for p in model.metadata_props}.get("fgonnx.sites")
    if stored is None:
        raise ModelError("the model was not written by fgonnx: it has no metadata entry 'fgonnx.sites'")
    return parse_sites(parsed(stored, "the metadata entry 'fgonnx.sites'", ModelError))


def parse_sites(entries: Sequence[Mapping[str, Any]]) -> list[Site]:
    """Return sites from what the metadata holds of them."""
    return [Site(**{**entry, "grid": tuple(entry["grid"])}) for entry in entries]
