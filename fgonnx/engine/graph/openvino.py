"""OpenVINO sessions: graphs in the form for OpenVINO or the portable one, compiled for the processor in float32."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.kept import Kept
from fgonnx.errors import ModelError, OptionError, ProviderError
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

DEVICE = "CPU"
PRECISION = "f32"

KEPT_FILES = 60
KEPT_BYTES = 2_000_000_000

_SUFFIX = ".openvino"
_OWN_SHAPES = 2  # shapes of inputs with a compiled model each: fixed shapes take a fifth to two fifths off the time
_SERIALISED_BYTES = 1_000_000_000  # a larger model is read from files: a message of protobuf holds 2 GB at most
_WIDE = {ir.DataType.DOUBLE, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}
#: Where an exception was raised, which says nothing to users.
_PLACE = re.compile(r"^(Exception from .*|Check '.*' failed at .*|While validating .*|While building .*):?$")

#: The summary of operators that could not be read.
_UNCONVERTED = re.compile(r"(?:Conversion is failed for: |does not support the following ONNX operations: )([\w.]+)")


def installed() -> bool:
    """Tell whether OpenVINO is there."""
    return importlib.util.find_spec("openvino") is not None


def version() -> str:
    """Return the version of OpenVINO.

    Raises
    ------
    ProviderError
        It is not installed.
    """
    if not installed():
        raise ProviderError(
            "OpenVINO is not installed. Install it with pip install openvino, or run models in ONNX Runtime "
            f"({parameter('runtime', 'onnxruntime')})"
        )
    return importlib.metadata.version("openvino")


@dataclass
class Variant:
    """A compiled model: of given inputs' shapes or of any, with all outputs or some.

    Attributes
    ----------
    compiled : openvino.CompiledModel
        The compiled model.
    inputs : list of int
        Which of the model's inputs it takes: all that are used.
    idle : list of openvino.InferRequest
        Requests that no thread uses.
    held : bool
        Whether its results were held against those of another runtime.
    """

    compiled: Any
    inputs: list[int]
    idle: list[Any] = field(default_factory=list)
    held: bool = False

    def infer(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the model; several threads may."""
        try:
            request = self.idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            found = request.infer({place: arrays[i] for place, i in enumerate(self.inputs)})
            return [np.array(found[i]) for i in range(len(self.compiled.outputs))]
        finally:
            self.idle.append(request)


class OpenVinoSession:
    """A model in OpenVINO, run with named arrays. It may be used from several threads at once.

    Models are compiled when they are run first: the first two combinations of input shapes have a compiled model each,
    all others share one.

    Parameters
    ----------
    model : ir.Model
        The model, in the form for OpenVINO or the portable one.
    threads : int, optional
        Threads within an operator; OpenVINO's own choice by default.
    cache : Path, optional
        Folder where compiled models are kept.

    Attributes
    ----------
    hold : callable or None
        Takes inputs and results of the first run of every compiled model, and raises an error where these are wrong.

    Raises
    ------
    ProviderError
        If OpenVINO is not installed.
    ModelError
        If OpenVINO rejects the model.
    """

    def __init__(self, model: ir.Model, *, threads: int | None = None, cache: Path | None = None) -> None:
        self.version = version()
        _refuse_wide(model)
        graph = model.graph
        self.inputs: tuple[str, ...] = tuple(str(v.name) for v in graph.inputs)
        self.outputs: tuple[str, ...] = tuple(str(v.name) for v in graph.outputs)
        self._defaults = {str(v.name): v.const_value.numpy() for v in graph.inputs if v.const_value is not None}
        self._types = {str(v.name): v.dtype.numpy() for v in (*graph.inputs, *graph.outputs) if v.dtype is not None}
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": PRECISION,
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Its passes for int8 die (SIGSEGV) of some sums of dequantised values.
            "LP_TRANSFORMS_MODE": False,
            **({"INFERENCE_NUM_THREADS": threads} if threads is not None else {}),
        }
        self._kept = (
            None
            if cache is None or _size(model) >= _SERIALISED_BYTES
            else Kept(cache / "openvino", _SUFFIX, most_files=KEPT_FILES, most_bytes=KEPT_BYTES)
        )
        self.hold: Callable[[Mapping[str, Array], dict[str, Array]], None] | None = None
        self._lock = threading.Lock()
        self._variants: dict[Any, Variant] = {}
        self._takes_shapes = True
        self._source = model
        self._digest: str | None = None
        self._model: Any = None

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model.

        Parameters
        ----------
        feeds : dict of str to numpy array
            One array per input; those that have a default value may be left out.
        outputs : sequence of str, optional
            What to fetch; all outputs by default. Only what they depend on is compiled.

        Raises
        ------
        ModelError
            If OpenVINO fails.
        """
        # OpenVINO dies (SIGSEGV) of a result listed twice.
        names = tuple(dict.fromkeys(outputs if outputs is not None else self.outputs))
        arrays = self._arrays(feeds)
        variant = self._variant(names, tuple(a.shape for a in arrays))
        try:
            found = variant.infer(arrays)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO failed to run the model: {said(error)}") from error
        results = {
            name: array.astype(self._types.get(name, array.dtype), copy=False)
            for name, array in zip(names, found, strict=True)
        }
        if self.hold is not None and not variant.held:
            self.hold(feeds, results)
            variant.held = True
        return results

    def _arrays(self, feeds: Mapping[str, Array]) -> list[Array]:
        return [np.asarray(feeds[n] if n in feeds else self._defaults[n], order="C") for n in self.inputs]

    def _variant(self, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> Variant:
        with self._lock:
            if (names, shapes) in self._variants:
                return self._variants[names, shapes]
            own = sum(1 for given, sizes in self._variants if given == names and sizes is not None)
            if own < _OWN_SHAPES and self._takes_shapes:
                try:
                    return self._variants.setdefault((names, shapes), self._compiled(names, shapes))
                except RuntimeError:  # a graph that takes no fixed shapes may run as it is
                    self._takes_shapes = False
            try:
                if (names, None) not in self._variants:
                    self._variants[names, None] = self._compiled(names, None)
            except RuntimeError as error:
                raise ModelError(f"OpenVINO does not take the model: {said(error)}") from error
            return self._variants[names, None]

    def _compiled(self, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...] | None) -> Variant:
        """Compile the model, or take it from disk."""
        core, key = _core(), ""
        if self._kept is not None:
            key = self._key(names, shapes)
            if (content := self._kept.read(key)) is not None:
                with contextlib.suppress(RuntimeError):
                    return self._made(core.import_model(content, DEVICE, self._settings))
        model = self._part(names)
        if shapes is not None:
            model.reshape({place: list(shapes[i]) for place, i in enumerate(self._taken(model))})
        compiled = core.compile_model(model, DEVICE, {**self._settings, **_careful(model, self._settings)})
        if self._kept is not None:
            with contextlib.suppress(RuntimeError, OptionError):  # a folder that cannot be written: the graph says so
                self._kept.write(key, compiled.export_model().getvalue())
        return self._made(compiled)

    def _made(self, compiled: Any) -> Variant:
        return Variant(compiled, self._taken(compiled))

    def _taken(self, model: Any) -> list[int]:
        """Return which inputs a model of OpenVINO has, in its order."""
        return [next(i for i, name in enumerate(self.inputs) if name in port.names) for port in model.inputs]

    def _key(self, *described: Any) -> str:
        """Return the hash of all that decides about a compiled model."""
        if self._digest is None:
            self._digest = hashlib.sha256(_serialised(self._source)).hexdigest()
        decisive = (self.version, _processor(), sorted(self._settings.items()), self._digest, *described)
        return hashlib.sha256(repr(decisive).encode()).hexdigest()

    def _part(self, names: tuple[str, ...]) -> Any:
        """Return the part of the model that gives some outputs; it may be reshaped."""
        import openvino

        if self._model is None:
            self._model = _read(self._source)
            if len(self._model.inputs) == len(self.inputs):  # one that a Dropout passes on has the name of its result
                for name, port in zip(self.inputs, self._model.inputs, strict=True):
                    port.tensor.add_names({name})
        whole = self._model.clone()
        if len(whole.outputs) != len(self.outputs):
            raise RuntimeError("it does not keep all outputs")
        places = [self.outputs.index(name) for name in names]
        return openvino.Model([whole.results[i] for i in places], whole.get_parameters(), "explained")


def _read(model: ir.Model) -> Any:
    """Read a model into OpenVINO."""
    if _size(model) < _SERIALISED_BYTES:
        return _core().read_model(io.BytesIO(_serialised(model)))
    with tempfile.TemporaryDirectory(prefix="fgonnx-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "model.onnx")
        ir.save(_with_all_inputs(model), path, external_data="weights")
        return _core().read_model(os.fspath(path), config={"ENABLE_MMAP": False})


def _serialised(model: ir.Model) -> bytes:
    return ir.to_proto(_with_all_inputs(model)).SerializeToString(deterministic=True)


def _size(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def refusal(model: ir.Model) -> str | None:
    """Return why OpenVINO does not take a model; None if it does."""
    try:
        _refuse_wide(model)
        _core().compile_model(_read(model), DEVICE)
    except ModelError as error:
        return str(error)
    except RuntimeError as error:
        return f"OpenVINO does not take the model: {said(error)}"
    return None


def said(error: Exception) -> str:
    """Return what an exception of OpenVINO says, without places in its source code."""
    if operators := _UNCONVERTED.findall(str(error)):
        return f"it has no {', '.join(dict.fromkeys(operators))} of this kind"
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not _PLACE.match(line)]
    return lines[0].rstrip(".:") if lines else type(error).__name__


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


@cache
def _processor() -> tuple[str, ...]:
    core = _core()
    return core.get_property(DEVICE, "FULL_DEVICE_NAME"), *core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def _careful(model: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with which OpenVINO survives a model.

    For one thread it fuses products with what is between and behind them, and dies (SIGSEGV) of some of these chains
    that end in a division by a computed value, as by the scale of a dynamic quantisation.
    """
    if settings.get("INFERENCE_NUM_THREADS") != 1:
        return {}
    divisions = (op for op in model.get_ops() if op.get_type_name() == "Divide")
    risky = any(_source(op, 0) == "MatMul" and _source(op, 1) != "Constant" for op in divisions)
    return {"SNIPPETS_MODE": "DISABLE"} if risky else {}


def _source(op: Any, i: int) -> str:
    return str(op.input(i).get_source_output().get_node().get_type_name())


def _refuse_wide(model: ir.Model) -> None:
    """Refuse numbers that OpenVINO would compute in float32 without a word."""
    values = (*model.graph.inputs, *model.graph.outputs)
    for v in values:
        if v.dtype is not None and v.dtype in _WIDE:
            raise ModelError(f"OpenVINO computes in float32, and '{v.name}' is {v.dtype.name.lower()}")


def _with_all_inputs(model: ir.Model) -> ir.Model:
    """Return the model with its weights in memory and no default values of inputs, which OpenVINO takes for weights."""
    own = model.clone()
    weights = own.graph.initializers
    for name, v in list(weights.items()):
        tensor = v.const_value
        if v.is_graph_input():
            del weights[name]
        elif isinstance(tensor, ir.ExternalTensor):
            v.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    return own
