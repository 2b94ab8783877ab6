"""Run `fgonnx export`: a model repository with a model and its explained twin, as model servers read it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir

from fgonnx import files
from fgonnx.engine.model import save
from fgonnx.engine.model.bind import bind
from fgonnx.engine.model.external import external_tensors
from fgonnx.engine.model.load import LoadedModel, load
from fgonnx.engine.rewrite.options import INPUT, Options
from fgonnx.engine.rewrite.rewrite import rewrite
from fgonnx.errors import OptionError
from fgonnx.explain.proof import prover
from fgonnx.jobs import triton
from fgonnx.jobs.reading import Reading, aligned_labels, targeted
from fgonnx.jobs.triton import LABELS, Exporting

MODEL, CONFIG = "model.onnx", "config.pbtxt"

_SUFFIX = "_explained"
_PASSED_ON = ("fgonnx.preprocessing", "fgonnx.sites", "fgonnx.head_stripped")
"""Metadata that clients need, and that a server passes on as parameters."""


def export_triton(
    path: Path,
    repository: Path,
    options: Options,
    reading: Reading,
    how: Exporting,
    *,
    target: str = INPUT,
    verify: bool = True,
) -> list[Path]:
    """Write a model and its explained twin into a model repository of Triton Inference Server.

    A version folder gets its name when everything in it is written, so that a running server never loads half of one.

    Parameters
    ----------
    path : Path
        The model.
    repository : Path
        The repository, a folder of folders of models.
    options : Options
        How it is explained.
    reading : Reading
        Class names.
    how : Exporting
        What is written, and how it runs.
    target : str
        What the explained model explains: "input", "argmax", an index or a label.
    verify : bool
        Whether the explained file is run, and held against the model, before it gets its name.

    Returns
    -------
    list of Path
        The folders of the models, the plain one first.

    Raises
    ------
    OptionError
        The repository cannot be written, or has that version already.
    FgonnxError
        The model cannot be explained with these options.
    """
    files.check_folder(repository)
    loaded = load(path)
    name = how.name or _name_of(path)
    if how.name is None:
        replace(how, name=name)  # refuses what is no name of a folder
    folders = {
        **({repository / name: False} if how.plain else {}),
        repository / f"{name}{_SUFFIX}": True,
    }
    for folder in (loaded.folder, path):
        if folder is not None and any(folder.resolve().is_relative_to(f.resolve()) for f in folders):
            raise OptionError(f"'{path}' is in the repository itself; give another name or another folder")
    version = how.version or _next(list(folders))
    for folder in folders:
        if (folder / str(version)).exists():
            raise OptionError(f"'{folder / str(version)}' is there already; give another version, or none for the next")
    given = reading.names()
    names = given or loaded.labels() or ()
    bound = bind(loaded, options.bind, options.input_shape)
    explained = rewrite(bound, options=replace(targeted(options, target, names), bind=None))
    known = {p.key: p.value for p in explained.metadata_props}
    head = _sizes(known["fgonnx.head_shape"])
    notes = {key: known[key] for key in _PASSED_ON if known.get(key)}
    classes = sum(size > 1 for size in head) == 1
    called = aligned_labels(given, loaded.labels(), math.prod(head))[0] if classes else None
    independent = triton.takes_batches(explained)  # else its samples influence each other, and must meet no strangers
    for folder, is_explained in folders.items():
        proto = explained if is_explained else ir.to_proto(loaded.ir)
        output = _of_classes(proto, len(called), options.output) if called else None
        passed_on = notes if is_explained else None
        text = triton.config(proto, folder.name, how, output, passed_on, batched=independent)
        files.make_folder(folder)
        partial = folder / f"{files.TEMPORARY}{version}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            if is_explained:
                prove = prover(bound, proto) if verify else None
                save.save(proto, partial / MODEL, folder=bound.folder, prove=prove)
            else:
                _copy(loaded, partial / MODEL)
            if output is not None and called is not None:
                _write(folder / LABELS, "".join(f"{' '.join(one.split())}\n" for one in called))
            _write(folder / CONFIG, text)
            try:
                partial.rename(folder / str(version))
            except OSError as error:
                raise files.unwritable(folder / str(version), error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return list(folders)


def _sizes(text: str) -> list[int]:
    """Return the sizes that a metadata entry lists."""
    return [int(size) for size in text.strip("[]").split(",") if size.strip()]


def _name_of(path: Path) -> str:
    """Return the name of a model: the file's, or for a `model.onnx` that of the folders around it."""
    path = path.absolute()
    if path.stem != "model":
        return path.stem
    return path.parent.parent.name if path.parent.name.isdigit() else path.parent.name


def _next(folders: Sequence[Path]) -> int:
    """Return the version after the last one of all folders."""
    found = [int(p.name) for folder in folders if folder.is_dir() for p in folder.iterdir() if p.name.isdecimal()]
    return max(found, default=0) + 1


def _copy(loaded: LoadedModel, path: Path) -> None:
    """Write a model as it is: its bytes, where one ONNX file holds all of it."""
    source = loaded.path
    if source is None or external_tensors(loaded.ir):
        save.save(loaded.ir, path, folder=loaded.folder)
        return
    content = files.read(source, OptionError, bound="model_bytes")
    if content[4:8] == b"ORTM":  # onnxruntime's own format
        content = ir.to_proto(loaded.ir).SerializeToString()
    files.make_folder(path.parent)
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


def _write(path: Path, text: str) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _of_classes(proto: onnx.ModelProto, count: int, chosen: str | None) -> str | None:
    """Return the output that has an entry for each class: the one chosen, or the first."""
    for value in proto.graph.output:
        dims = value.type.tensor_type.shape.dim
        sizes = [d.dim_value for d in dims if d.HasField("dim_value")]
        if chosen in (None, value.name) and math.prod(sizes) == count and len(sizes) >= len(dims) - 1:
            return str(value.name)
    return None
