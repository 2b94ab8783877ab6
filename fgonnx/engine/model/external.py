"""Weights that are stored in files beside the model."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from fgonnx.errors import ModelError


def external_tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the constants of a model that are stored in external files."""
    tensors = [v.const_value for graph in model.graphs() for v in graph.initializers.values()]
    for node in model.graph.all_nodes():
        tensors += [a.as_tensor() for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR]
    return [t for t in tensors if isinstance(t, ir.ExternalTensor)]


def check_at_hand(model: ir.Model, where: str) -> None:
    """Refuse external weights of a model without a folder, unless they lie in the current one."""
    for tensor in external_tensors(model):
        if not os.path.isfile(tensor.path):
            raise ModelError(
                f"{where}: its weights '{tensor.name}' are in a file, '{_short(tensor.location)}', and not in the "
                "model; give the path of the .onnx file, or onnx.load(path), which reads them"
            )


def check_files(model: ir.Model, path: Path) -> None:
    """Refuse external weights that are missing, truncated, or outside the folder of the model."""
    folder = path.resolve().parent
    for tensor in external_tensors(model):
        location = str(tensor.location)
        if not (folder / location).resolve().is_relative_to(folder):
            raise ModelError(
                f"{path}: the weights of '{tensor.name}' point outside the model's folder ('{_short(location)}'); "
                "this is refused: put the file next to the model"
            )
        # os.path says False for names that are too long, where Path raises
        if not os.path.isfile(folder / location):
            raise ModelError(
                f"{path}: its weights file '{_short(location)}' is missing; put it into {folder.name}/ next to the "
                "model"
            )
        needed = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if (size := os.path.getsize(folder / location)) < needed:
            raise ModelError(
                f"{path}: its weights file '{location}' is truncated: '{tensor.name}' ends at byte {needed}, "
                f"the file at {size}"
            )


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 80 else f"{text[:77]}..."
