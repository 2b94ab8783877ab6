"""Saving a model so that it loads again, wherever the source keeps its weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir

from fgonnx.engine.model.external import external_tensors
from fgonnx.errors import OptionError
from fgonnx.files import TEMPORARY, destination, make_folder, replacing, unwritable

EMBED_LIMIT = 1_900_000_000
"""Bytes of weights up to which they are stored in the model file; protobuf is limited to 2 GiB."""


def save(
    model: onnx.ModelProto | ir.Model,
    path: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    limit: int = EMBED_LIMIT,
    prove: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Save a model so that it loads again, wherever the source keeps its weights.

    Parameters
    ----------
    model : onnx.ModelProto or ir.Model
        A model, such as `rewrite` returns.
    path : path-like
        The .onnx file. Its folder is created.
    folder : path-like, optional
        Folder of a ModelProto's external weights: that of its source.
    limit : int
        Bytes of weights up to which they are stored in the file itself; above, in ``<path>.data`` next to it.
    prove : callable, optional
        Takes the path of the complete file before it gets its name; what it raises leaves nothing behind.

    Returns
    -------
    list of Path
        The files written, the model first.

    Raises
    ------
    OptionError
        If the file cannot be written, or would overwrite weights that the model still uses.
    """
    path = destination(Path(path))
    own = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model.clone()
    if folder is not None:
        ir.external_data.set_base_dir(own.graph, Path(folder))
    make_folder(path.parent)
    tensors = external_tensors(own)
    if sum(v.const_value.nbytes for v in own.graph.initializers.values() if v.const_value is not None) <= limit:
        if tensors:
            ir.external_data.load_to_model(own)
        content = ir.to_proto(own).SerializeToString()
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            if prove is not None:
                prove(temporary)
        return [path]
    data = destination(path.with_name(f"{path.name}.data"))
    if data in {Path(t.path).resolve() for t in tensors}:
        raise OptionError(f"'{data}' holds the weights of the source model and would be replaced; give another name")
    try:
        # The model stores the name of its weights file: both are written under their final names in a temporary folder.
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=path.parent) as temporary_folder:
            ir.save(own, Path(temporary_folder, path.name), external_data=data.name)
            if prove is not None:
                prove(Path(temporary_folder, path.name))
            for file in (data, path):
                Path(temporary_folder, file.name).replace(file)
    except OSError as error:
        raise unwritable(path, error) from error
    return [path, data]
