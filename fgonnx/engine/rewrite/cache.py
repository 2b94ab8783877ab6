"""A disk cache of rewritten graphs, so that a model that was explained before is not rewritten again.

An entry holds the graph without the weights that it shares with the source, which are put back from the source, and
what is known about it. Its name is the hash of all that decides about the graph, its first bytes are the hash of its
content: whatever is there is complete and up to date, or is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from fgonnx._version import __version__
from fgonnx.engine import methods
from fgonnx.engine.graph.kept import Kept, folder_of
from fgonnx.engine.maps.sites import Site
from fgonnx.engine.model.external import external_tensors
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.rules.registry import rules
from fgonnx.errors import FgonnxWarning, OptionError
from fgonnx.wording import in_utf8

_LOGGER = logging.getLogger(__name__)

KEPT_FILES = 200
KEPT_BYTES = 1_000_000_000

_SAID: set[Path] = set()
_KNOWN = "fgonnx.cache"
_SUFFIX = ".fgonnx"
_SHARED_BYTES = 1 << 12  # weights of this size and more are not stored in an entry


class Cache:
    """A folder of rewritten graphs. Several processes may use it at once.

    Parameters
    ----------
    folder : Path
        The folder; it is made when the first graph is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, loaded: LoadedModel, options: Options) -> Rewritten:
        """Return what `fgonnx.engine.rewrite.rewrite.build` does, from disk where it is there.

        Nothing is kept where rules or methods of the user's own have a part in it. Where the folder cannot be written,
        a warning says so.
        """
        key = _key(loaded, options)
        if key is None:
            return build(loaded, options)
        entries = Kept(self.folder, _SUFFIX, most_files=KEPT_FILES, most_bytes=KEPT_BYTES)
        content = entries.read(key)
        if content is not None:
            with contextlib.suppress(Exception):  # forged: its hash is right, what it holds is not
                found = _unpacked(content, loaded, options)
                _LOGGER.info(
                    "%s: the rewritten graph is taken from %s", in_utf8(loaded.name), in_utf8(str(self.folder))
                )
                return found
        rewritten = build(loaded, options)
        try:
            entries.write(key, _packed(rewritten, loaded))
        except OptionError as error:
            self._say(str(error))
        return rewritten

    def _say(self, why: str) -> None:
        """Warn, once for a folder, that graphs are not kept."""
        if self.folder not in _SAID:
            _SAID.add(self.folder)
            warnings.warn(
                f"rewritten graphs are not kept: {why}, or keep none (cache=False, --no-cache)",
                FgonnxWarning,
                stacklevel=2,
            )


def opened(given: bool | str | os.PathLike[str] | None) -> Cache | None:
    """Return the requested cache.

    Parameters
    ----------
    given : bool, path-like or None
        A folder; True for the one of the environment variable FGONNX_CACHE, else the user's; False or None for none.

    Returns
    -------
    Cache or None
        None also for True where FGONNX_CACHE is "off".
    """
    folder = folder_of(given)
    return None if folder is None else Cache(folder)


def builder(given: bool | str | os.PathLike[str] | None) -> Callable[[LoadedModel, Options], Rewritten]:
    """Return the function that rewrites a model through the requested cache.

    See `opened` and `fgonnx.engine.rewrite.rewrite.build`.
    """
    kept = opened(given)
    return build if kept is None else kept.build


def _key(loaded: LoadedModel, options: Options) -> str | None:
    """Return the hash of everything that determines a graph; None if that is unknown."""
    method = methods.find(options.method)
    if not all(
        map(_own, [r.linearise for r in rules()] + [f for f in (method.write, method.modify, method.drive) if f])
    ):
        return None
    try:
        external = [
            (os.fspath(path), (status := path.stat()).st_size, status.st_mtime_ns)
            for path in sorted({Path(t.path).resolve() for t in external_tensors(loaded.ir)})
        ]
        described = _described(options)
    except (OSError, TypeError):
        return None
    versions = __version__, np.__version__, onnx.__version__, ir.__version__, onnxruntime.__version__
    sizes = [(v.name, str(v.shape)) for v in loaded.ir.graph.inputs]
    given = loaded.sha256, sorted(loaded.bound.items()), loaded.columns
    decisive = (*versions, _own_source(), *given, sizes, external, described)
    return hashlib.sha256(repr(decisive).encode()).hexdigest()


def _own(function: Callable[..., Any]) -> bool:
    return function.__module__.partition(".")[0] == "fgonnx"


@once
def _own_source() -> str:
    """Return the hash of the source code: a changed version does not use graphs of an old one."""
    folder = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _described(value: Any) -> Any:
    """Return a value that is equal for equal options, and whose text differs for different ones.

    Raises
    ------
    TypeError
        If it holds something that has no such text.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, (bool, int, float, str, np.generic, type(None))):
        return value
    if isinstance(value, Mapping):
        return [(str(k), _described(v)) for k, v in value.items()]
    if is_dataclass(value):
        return type(value).__qualname__, [(f.name, _described(getattr(value, f.name))) for f in fields(value)]
    if isinstance(value, (tuple, list)):
        return [_described(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot be told from another by its text")


def _packed(r: Rewritten, loaded: LoadedModel) -> bytes:
    sources = _by_tensor(loaded)
    slim = r.model.clone()
    shared = {}
    for name, value in slim.graph.initializers.items():
        tensor = value.const_value
        source = sources.get(id(tensor)) if tensor is not None else None
        if tensor is not None and source is not None:
            shared[name] = source
            value.const_value = ir.ExternalTensor(
                source, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=name, base_dir=""
            )
    slim.metadata_props[_KNOWN] = json.dumps({"rewritten": _encoded(r), "weights": shared})
    return ir.to_proto(slim).SerializeToString()


def _by_tensor(loaded: LoadedModel) -> Mapping[int, str]:
    """Return the names of the source's large weights by the identity of their tensors."""
    return {
        id(v.const_value): name
        for name, v in loaded.ir.graph.initializers.items()
        if v.const_value is not None and v.const_value.nbytes >= _SHARED_BYTES
    }


def _unpacked(content: bytes, loaded: LoadedModel, options: Options) -> Rewritten:
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    model = ir.from_proto(proto)
    known = json.loads(model.metadata_props.pop(_KNOWN))
    weights, own = model.graph.initializers, loaded.ir.graph.initializers
    for name, source in known["weights"].items():
        weights[name].const_value = own[source].const_value
    values = {v.name: v for v in model.graph.inputs} | {v.name: v for node in model.graph for v in node.outputs}
    rewritten = _decoded(known["rewritten"], {"model": model, "options": options, "values": values})
    written = {str(v.name) for v in model.graph.outputs}
    if not isinstance(rewritten, Rewritten) or not written.issuperset(rewritten.names.values()):
        raise ValueError("the entry is of another shape")
    return rewritten


# What is known about a graph, as JSON. Dataclasses, tuples, mappings and values of the graph are lists that begin with
# their kind, so that a field added to `Rewritten` or `Normal` is kept without a line here.
_CLASSES: dict[str, type] = {c.__name__: c for c in (Rewritten, Normal, Site)}


def _encoded(x: Any) -> Any:
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, ir.Model):
        return ["model"]
    if isinstance(x, Options):
        return ["options"]
    if isinstance(x, ir.Value):
        dims = None if x.shape is None else [d if isinstance(d, int) else ["symbol", d.value] for d in x.shape.dims]
        return ["value", x.name, None if x.dtype is None else int(x.dtype), dims]
    if is_dataclass(x):
        return [type(x).__name__, {f.name: _encoded(getattr(x, f.name)) for f in fields(x)}]
    if isinstance(x, Mapping):
        return ["mapping", [[_encoded(k), _encoded(v)] for k, v in x.items()]]
    if isinstance(x, (list, tuple)):
        return [type(x).__name__, [_encoded(v) for v in x]]
    raise TypeError(f"{type(x).__name__} cannot be kept with a graph")


def _decoded(x: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(x, list):
        return x
    kind, *rest = x
    if kind in ("model", "options"):
        return known[kind]
    if kind == "value":
        name, dtype, dims = rest
        # Values that were pruned from the graph keep their name, type and shape.
        if name not in known["values"]:
            known["values"][name] = _pruned(name, dtype, dims)
        return known["values"][name]
    if kind == "mapping":
        return {_decoded(k, known): _decoded(v, known) for k, v in rest[0]}
    if kind in _CLASSES:
        return _CLASSES[kind](**{name: _decoded(v, known) for name, v in rest[0].items()})
    items = [_decoded(v, known) for v in rest[0]]
    return tuple(items) if kind == "tuple" else items


def _pruned(name: str | None, dtype: int | None, dims: Sequence[Any] | None) -> ir.Value:
    shape = None if dims is None else ir.Shape([d if isinstance(d, int) else ir.SymbolicDim(d[1]) for d in dims])
    return ir.Value(name=name, shape=shape, type=None if dtype is None else ir.TensorType(ir.DataType(dtype)))
