"""Load a model from a path, bytes, ModelProto or ir.Model; large weights stay in their file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from fgonnx import bounds, files
from fgonnx.engine.graph import collector
from fgonnx.engine.graph.session import first_line, from_ort_format
from fgonnx.engine.model import classes, external, reading, weights, wellformed
from fgonnx.engine.model.arrangement import Arrangement
from fgonnx.engine.model.inputs import choose_input
from fgonnx.engine.model.loops import refuse_endless
from fgonnx.errors import FgonnxError, InputError, ModelError
from fgonnx.labels import HF_LABELS_KEY, ULTRALYTICS_KEY, from_config, from_json, from_ultralytics
from fgonnx.labels import METADATA_KEY as LABELS_KEY
from fgonnx.wording import in_utf8

_LOGGER = logging.getLogger(__name__)

Value = ir.Value  # `ir` is a field's name below
Graphs = ir.Model

OLDEST_OPSET = 7
PREPROCESSING_KEY = "fgonnx.preprocessing"
"""Key of a model's metadata that holds how pictures become its input, a JSON object."""

_ORT_FORMAT = b"ORTM"  # identifier of the flatbuffer, at byte 4
_ARRAY_BYTES = 1 << 12  # weights of this size and more are taken out of the protobuf
_FILE_BYTES = 1 << 16  # weights of this size and more stay in their file
_NUMPY_TYPES = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8}

#: What `load` takes.
ModelLike = str | Path | bytes | onnx.ModelProto | ir.Model


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model.

    Attributes
    ----------
    ir : ir.Model
        The graph. External weights and large weights of a file stay on disk; each access to their content reads the
        file again.
    path : Path or None
        The file it came from.
    sha256 : str
        Hash of the file or of the serialised model, in hexadecimal, without external weights.
    bound : mapping of str to str
        Inputs bound to values (`fgonnx.engine.model.bind.bind`), with a description of each value.
    notes : tuple of str
        What of the file is not in the graph: outputs that are no tensors.
    arrangement : Arrangement or None
        Where the samples lay, of a model whose graph was given inputs and outputs with samples first.
    own : ir.Model or None
        Then, the graph as it was, if it was changed.
    columns : tuple of str
        Inputs of the file that are columns of the one input that the graph has, in their order.
    """

    ir: ir.Model
    path: Path | None
    sha256: str
    bound: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    arrangement: Arrangement | None = None
    own: Graphs | None = None
    columns: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self.path.name if self.path is not None else (self.ir.graph.name or "model")

    @property
    def folder(self) -> Path | None:
        """The folder of its file, where external weights lie."""
        return self.path.parent if self.path is not None else None

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.ir.opset_imports.get("", 1)

    def input(self, name: str | None = None) -> Value:
        """Return the input to explain: the one of that name, or the only one that can be meant.

        Raises
        ------
        ModelError
            If none can be explained, or several can and no name says which.
        OptionError
            If there is no input of that name, or it is not an array of floats or of uint8.
        """
        return choose_input(self.ir, name, self.name)

    @property
    def batch_axis(self) -> int:
        """Which axis of the explained input held the samples, in arrays in its own layout; 0 where none did."""
        return (self.arrangement.axis or 0) if self.arrangement is not None else 0

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Pickle by the file where the graph is as it was read, else by the graph; weights outside stay outside."""
        if self.path is not None and not (self.bound or self.columns) and self.arrangement is None:
            return _again, (self.path.absolute(), self.sha256)
        graphs = tuple(m if m is None else ir.to_proto(m).SerializeToString() for m in (self.ir, self.own))
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("ir", "own")}
        path = None if self.path is None else self.path.absolute()
        return _restored, (graphs, {**rest, "path": path, "bound": dict(self.bound)})

    def __copy__(self) -> LoadedModel:
        """Return itself: nothing changes a loaded model."""
        return self

    def __deepcopy__(self, memo: Any) -> LoadedModel:
        """Return itself: nothing changes a loaded model."""
        return self

    def preprocessing_json(self) -> str | None:
        """Return the preprocessing stored in the model's metadata, as JSON text."""
        return self.ir.metadata_props.get(PREPROCESSING_KEY)

    def labels(self) -> tuple[str, ...] | None:
        """Return the class labels that come with the model.

        Those of its metadata, by fgonnx, Ultralytics or Hugging Face (`id2label`); else those of its graph, or of a
        ``config.json`` beside it, by Hugging Face or timm.

        Raises
        ------
        ModelError
            If the entry does not hold names of classes.
        """
        text = self.ir.metadata_props.get(LABELS_KEY)
        if text is None:
            metadata = self.ir.metadata_props
            stored = from_ultralytics(metadata.get(ULTRALYTICS_KEY)) or from_ultralytics(metadata.get(HF_LABELS_KEY))
            return stored or classes.names_in(self.ir.graph) or self._configured()
        try:
            return from_json(text, f"{self.name}: its metadata entry '{LABELS_KEY}'")
        except InputError as error:
            raise ModelError(str(error)) from error

    def _configured(self) -> tuple[str, ...] | None:
        """Return the names of a ``config.json`` beside the model; one that cannot be read says nothing."""
        for file in files.beside(self.folder, "config.json"):
            try:
                return from_config(files.read_text(file, InputError, "description"))
            except InputError:
                continue
        return None


def _again(path: Path, sha256: str) -> LoadedModel:
    """Load the file of a model that was pickled."""
    loaded = load(path)
    if loaded.sha256 != sha256:
        raise ModelError(f"{path}: is another file than when the model was pickled; make it again from this one")
    return loaded


def _restored(graphs: tuple[bytes, bytes | None], rest: Mapping[str, Any]) -> LoadedModel:
    """Return a model that was pickled by its graph."""
    found: list[ir.Model | None] = []
    for content in graphs:
        model = None if content is None else ir.from_proto(_parse(content, "the pickled model"))
        if model is not None and rest["path"] is not None:
            ir.external_data.set_base_dir(model.graph, rest["path"].parent)
        found.append(model)
    own, model = found[1], found[0]
    assert model is not None
    return LoadedModel(ir=model, own=own, **rest)


@collector.paused
def load(source: ModelLike | LoadedModel) -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    source : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model. External weights are looked up in the folder of the path and stay there. Files of onnxruntime's own
        format (.ort) are turned back into ONNX by it. The file is kept open and
        read again when a session needs its weights; it may be deleted or replaced meanwhile, but not written to.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ModelError
        If it is not an ONNX model, is older than opset 7, or its external weights are missing, truncated or outside
        the model's folder.
    """
    start = time.perf_counter()
    try:
        loaded = _load(source)
    except FgonnxError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, EncodeError) as error:
        where = str(source) if isinstance(source, str | os.PathLike) else "the model given"
        raise ModelError(f"{where}: is not a valid ONNX model ({first_line(error)})") from error
    if loaded is not source:
        took, nodes = time.perf_counter() - start, len(loaded.ir.graph)
        _LOGGER.info("%s loaded in %.2f s: %d nodes, sha256 %s", in_utf8(loaded.name), took, nodes, loaded.sha256[:12])
    return loaded


def _load(source: ModelLike | LoadedModel) -> LoadedModel:
    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, ir.Model):
        proto = ir.to_proto(source)
        where = "the model given"
        wellformed.check(proto, where)
        external.check_at_hand(source, where)
        return _checked(LoadedModel(_sorted(source, where), None, _digest(proto.SerializeToString(deterministic=True))))
    if isinstance(source, onnx.ModelProto):
        proto, notes = reading.settled(source, "the ModelProto")
        model = _deserialise(proto, "the ModelProto")
        external.check_at_hand(model, "the ModelProto")
        return _checked(LoadedModel(model, None, _digest(_bytes_of(source)), notes=notes))
    if isinstance(source, bytes):
        where = "the bytes given"
        model, notes = _emptied(_parse(_as_onnx(source, where), where), where, None, {})
        external.check_at_hand(model, where)
        return _checked(LoadedModel(model, None, _digest(source), notes=notes))
    if not isinstance(source, (str, os.PathLike)):
        raise ModelError(
            f"a model is a path, bytes, an onnx.ModelProto or an ir.Model; this is of the type {type(source).__name__}"
        )
    path = Path(source)
    size = _check_file(path)
    bounds.check("model_bytes", size, f"{path}: has", ModelError)
    file = weights.opened(path)
    try:
        # Through the same handle: the path may name another file a moment later.
        content = file.content() if file is not None else path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    digest = _digest(content)
    if content[4:8] == _ORT_FORMAT:
        content, file = _as_onnx(content, str(path)), None
    proto = _parse(content, str(path))
    places = weights.raw_places(content) if file is not None else {}
    del content  # at most two copies of the weights exist at a time, none in the end
    model, notes = _emptied(proto, str(path), file, places)
    ir.external_data.set_base_dir(model.graph, path.parent)
    external.check_files(model, path)
    return _checked(LoadedModel(model, path, digest, notes=notes))


def _check_file(path: Path) -> int:
    """Return the size of a regular file; refuse anything else."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file{files.near_name(path)}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if what := files.kind_of(status.st_mode):
        raise ModelError(f"{path}: is {what}; give the .onnx file" + " in it" * (what == "a folder"))
    return status.st_size


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _bytes_of(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def _as_onnx(content: bytes, where: str) -> bytes:
    """Return a model as an ONNX file, if it is in onnxruntime's own format."""
    if content[4:8] != _ORT_FORMAT:
        return content
    try:
        return from_ort_format(content)
    except ModelError as error:
        raise ModelError(
            f"{where}: is in onnxruntime's own format (.ort), which this onnxruntime does not turn back ({error}); "
            "give the .onnx file it was made from"
        ) from error


def _parse(content: bytes, where: str) -> onnx.ModelProto:
    if not content:
        raise ModelError(f"{where}: is empty; an ONNX model was expected")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(
            f"{where}: is not an ONNX file, or is truncated ({error}); export or download it again"
        ) from error
    return proto


def _deserialise(
    proto: onnx.ModelProto, where: str, weights: Mapping[str, ir.TensorProtocol] | None = None
) -> ir.Model:
    if not proto.ir_version or not proto.graph.output:
        raise ModelError(f"{where}: is not an ONNX model, or is truncated: it holds no graph with outputs")
    try:
        model = ir.from_proto(proto)
        reading.make_readable(model)
        reading.settle_switches(model)
        for name, weight in (weights or {}).items():
            model.graph.initializers[name].const_value = weight
        _unpack(model)
    except Exception as error:  # onnx_ir raises many kinds on malformed protobufs
        raise ModelError(f"{where}: is not a valid ONNX model ({error})") from error
    return _sorted(model, where)


def _sorted(model: ir.Model, where: str) -> ir.Model:
    reading.sort(model, where)
    return model


def _emptied(
    proto: onnx.ModelProto, where: str, file: weights.ModelFile | None, places: Mapping[str, int]
) -> tuple[ir.Model, tuple[str, ...]]:
    """Deserialise a protobuf that has no other owner, with large weights as arrays or left in their file; and notes.

    A protobuf does not free a cleared field: the rest is serialised and parsed again.
    """
    proto, notes = reading.settled(proto, where)
    taken: dict[str, ir.TensorProtocol] = {}
    for initializer in proto.graph.initializer:
        tensor = ir.from_proto(initializer)
        name = initializer.name
        fits = len(initializer.raw_data) == tensor.nbytes
        if fits and tensor.nbytes >= _ARRAY_BYTES and tensor.dtype in _NUMPY_TYPES:
            if file is not None and name in places and tensor.nbytes >= _FILE_BYTES:
                taken[name] = file.tensor(name, places[name], tensor.dtype, tuple(initializer.dims))
            else:
                taken[name] = ir.tensor(tensor.numpy(), name=tensor.name, doc_string=tensor.doc_string)
            initializer.ClearField("raw_data")
    if taken:
        proto = _parse(proto.SerializeToString(), where)
    return _deserialise(proto, where, taken), notes


def _unpack(model: ir.Model) -> None:
    """Turn weights into arrays: a protobuf tensor copies its content on every access."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.TensorProtoTensor) and tensor.nbytes >= _ARRAY_BYTES and tensor.dtype in _NUMPY_TYPES:
            value.const_value = ir.tensor(tensor.numpy(), name=tensor.name, doc_string=tensor.doc_string)


def _checked(loaded: LoadedModel) -> LoadedModel:
    graph = loaded.ir.graph
    if not graph.num_nodes():
        raise ModelError(f"{loaded.name}: its graph has no nodes; there is nothing to explain")
    if loaded.opset < OLDEST_OPSET:
        raise ModelError(
            f"{loaded.name}: opset {loaded.opset} is older than {OLDEST_OPSET}; convert it with onnx.version_converter"
        )
    refuse_endless(loaded.ir, loaded.name)
    return loaded


def metadata(**entries: Any) -> dict[str, str]:
    """Return metadata entries with fgonnx's prefix; values that are not text become JSON."""
    return {
        f"fgonnx.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in entries.items()
        if value is not None
    }
