"""ONNX Runtime sessions: providers, threads, models with external weights."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.providers import CPU, choose_providers, native, ort, with_settings
from fgonnx.errors import ModelError, ProviderError
from fgonnx.wording import in_utf8

_LOGGER = logging.getLogger(__name__)
_NAMED = 4  # outputs in a line of the log

Array = npt.NDArray[Any]

_SHARED_BYTES = 1 << 16  # weights of this size and more are passed to a session by reference, not serialised
_NODE = re.compile(r"while running (\S+) node\. Name:'([^']*)' Status Message: ")
_NO_FILE = "in-memory"  # the file that such weights refer to; onnxruntime replaces them before opening it
_COPIED_BYTES = 1 << 24  # results below this size are copied
_SHARED_TYPES = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT8, ir.DataType.UINT8}
_PROPAGATION = "QDQPropagationTransformer"  # it gives a zero point of int8 the type uint8


@dataclass(frozen=True)
class Slim:
    """A model and, separately, its large weights.

    Attributes
    ----------
    proto : onnx.ModelProto
        The model; its large weights refer to a file that does not exist.
    weights : dict of str to OrtValue
        The weights, by name.
    """

    proto: onnx.ModelProto
    weights: dict[str, ort.OrtValue]


def slim(model: ir.Model) -> Slim:
    """Serialise a model without copying its large weights. The model is not changed."""
    graph = model.graph
    weights = _large_weights(model)
    view = ir.GraphView(
        graph.inputs,
        graph.outputs,
        nodes=graph,
        opset_imports=graph.opset_imports,
        name=graph.name,
        initializers=[_as_external(v) if v.name in weights else v for v in graph.initializers.values()],
    )
    functions = list(model.functions.values())
    # A view is enough for a model that is only serialised.
    written = ir.Model(cast(ir.Graph, view), ir_version=model.ir_version, functions=functions)
    return Slim(ir.to_proto(written), weights)


class Session:
    """A model in ONNX Runtime, run with named arrays. It may be used from several threads at once.

    Parameters
    ----------
    model : onnx.ModelProto, ir.Model or Slim
        The model; external weights are looked up in `folder`.
    folder : Path, optional
        Folder of external weights.
    providers : sequence of str, optional
        See `choose_providers`.
    threads : int, optional
        Threads within an operator; onnxruntime's own choice by default.
    optimise : bool
        Whether onnxruntime optimises the graph.
    tf32 : bool
        Whether CUDA may round factors to TF32.
    spin : bool
        Whether threads busy-wait for work. This reduces latency on idle cores, but takes time away from other threads
        on shared ones.

    Raises
    ------
    ModelError
        If onnxruntime rejects the model.
    ProviderError
        If a provider is not available, or does not start.
    """

    def __init__(
        self,
        model: onnx.ModelProto | ir.Model | Slim,
        *,
        folder: Path | None = None,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        optimise: bool = True,
        tf32: bool = False,
        spin: bool = True,
    ) -> None:
        options = ort.SessionOptions()
        if isinstance(model, ir.Model):
            model = slim(model)
        proto, weights = (model.proto, model.weights) if isinstance(model, Slim) else (model, {})
        if weights:
            options.add_external_initializers(list(weights), list(weights.values()))
        options.log_severity_level = 4
        # The planned block adds to the memory that the first run leaves in the arena: half as much again, no faster.
        options.enable_mem_pattern = False
        if threads is not None:
            options.intra_op_num_threads = threads
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of the weights
        elif _holds_half(proto.graph):
            # onnxruntime's last rounds die (SIGSEGV) on products of transposed float16 values beside their casts.
            level = ort.GraphOptimizationLevel
            options.graph_optimization_level = getattr(level, "ORT_ENABLE_LAYOUT", level.ORT_ENABLE_EXTENDED)
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", os.fspath(folder.resolve())
            )
        self.providers = choose_providers(providers)
        start = time.perf_counter()
        self._session = _open(proto, options, with_settings(self.providers, tf32=tf32))
        took, nodes = time.perf_counter() - start, len(proto.graph.node)
        _LOGGER.debug("a session of %d nodes opened in %.2f s on %s", nodes, took, ", ".join(self.providers))
        if lost := [p for p in self.providers if p not in self._session.get_providers()]:
            raise ProviderError(
                f"the execution provider '{lost[0]}' does not take the model, and others run in its place"
            )
        # Weights must outlive a session that reads them in place, or that falls back to another provider.
        self._weights = {} if self.providers == [CPU] and _copies_weights() else weights
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        #: Types of the outputs, as onnxruntime writes them.
        self.types: dict[str, str] = {o.name: o.type for o in self._session.get_outputs()}

    def run(self, feeds: dict[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model.

        Parameters
        ----------
        feeds : dict of str to numpy array
            One array per input.
        outputs : sequence of str, optional
            What to fetch; all outputs by default. Only the nodes they depend on are run.

        Raises
        ------
        ModelError
            If onnxruntime fails.
        """
        names = list(outputs if outputs is not None else self.outputs)
        options = None
        if len(names) < len(self.outputs):
            options = ort.RunOptions()
            options.only_execute_path_to_fetches = True
        start = time.perf_counter()
        try:
            results = self._session.run(names, feeds, options)
        except Exception as error:  # as above
            raise ModelError(f"onnxruntime failed to run the model: {first_line(error)}") from error
        took = 1e3 * (time.perf_counter() - start)
        _LOGGER.debug(
            "%s%s computed in %.1f ms", in_utf8(", ".join(names[:_NAMED])), ", ..." * (len(names) > _NAMED), took
        )
        return {name: _own(np.asarray(value)) for name, value in zip(names, results, strict=True)}


def run_file(path: Path, feeds: dict[str, Array] | None, outputs: Sequence[str]) -> dict[str, Array]:
    """Open a file in ONNX Runtime as others will, and run it on the processor; with None for the inputs, only open it.

    Raises
    ------
    ModelError
        If onnxruntime does not take it, or fails to run it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        results = [] if feeds is None else session.run(list(outputs), feeds)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ModelError(f"onnxruntime does not run the file that was written: {first_line(error)}") from error
    return dict(zip(outputs, map(np.asarray, results), strict=False))


def refusal(model: ir.Model, folder: Path | None) -> str | None:
    """Return why onnxruntime does not take a model; None if it does."""
    try:
        Session(model, folder=folder, providers=["cpu"], optimise=False)
    except ModelError as error:
        return str(error)
    return None


def _open(proto: onnx.ModelProto, options: ort.SessionOptions, providers: Sequence[Any]) -> ort.InferenceSession:
    """Open a model; where an optimiser fails on a graph that onnxruntime takes as it is, without that one."""
    content = proto.SerializeToString()
    try:
        return ort.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        if "y_zero_point type" in str(error):  # of int8 values moved behind DequantizeLinear, from opset 21 on
            with contextlib.suppress(Exception):
                return ort.InferenceSession(content, options, providers=providers, disabled_optimizers=[_PROPAGATION])
        raise ModelError(f"onnxruntime does not take the model: {first_line(error)}") from error


def _holds_half(graph: onnx.GraphProto) -> bool:
    """Tell whether a graph holds float16 values: among its inputs and weights, or by a Cast."""
    half = onnx.TensorProto.FLOAT16
    return (
        any(v.type.tensor_type.elem_type == half for v in graph.input)
        or any(t.data_type == half for t in graph.initializer)
        or any(a.i == half for n in graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to")
    )


@cache
def _operators() -> frozenset[tuple[str, str]]:
    return frozenset((s.domain, s.name) for s in native.get_all_operator_schema())


def has_operator(domain: str, op_type: str) -> bool:
    """Tell whether onnxruntime has an operator of its own under that name, in any version."""
    return (domain, op_type) in _operators()


def from_ort_format(content: bytes) -> bytes:
    """Turn a model in onnxruntime's own format (.ort) into an ONNX file.

    Raises
    ------
    ModelError
        If this onnxruntime does not take it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ONNX")
    with tempfile.TemporaryDirectory(prefix="fgonnx-") as folder:
        written = Path(folder, "model.onnx")
        options.optimized_model_filepath = os.fspath(written)
        try:
            ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            return written.read_bytes()
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(first_line(error)) from error


@cache
def _copies_weights() -> bool:
    """Tell whether this onnxruntime copies the weights that it is given, so that they need not be kept alive."""
    weight = np.zeros(_SHARED_BYTES, np.float32)
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [_SHARED_BYTES]) for name in "xy")
    added = [onnx.helper.make_node("Add", ["x", "w"], ["y"])]
    graph = onnx.helper.make_graph(added, "sum", [x], [y], [ir.to_proto(_empty("w", ir.tensor(weight)))])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.add_external_initializers(["w"], [ort.OrtValue.ortvalue_from_numpy(weight)])
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    weight += 1.0
    return not session.run(["y"], {"x": np.zeros(_SHARED_BYTES, np.float32)})[0].any()


def _large_weights(model: ir.Model) -> dict[str, ort.OrtValue]:
    """Return the large weights of a model, without copying them.

    Default values of inputs stay in the model, and so do weights that nothing uses: onnxruntime drops them before it
    looks for those that it is given.
    """
    return {
        name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor.numpy()))
        for name, v in model.graph.initializers.items()
        if (tensor := v.const_value) is not None
        and not isinstance(tensor, ir.ExternalTensor)
        and not v.is_graph_input()
        and (v.uses() or v.is_graph_output())
        and tensor.nbytes >= _SHARED_BYTES
        and tensor.dtype in _SHARED_TYPES
    }


def _as_external(weight: ir.Value) -> ir.Value:
    """Return an initializer like this one, but with external content."""
    name, tensor = str(weight.name), weight.const_value
    content = None if tensor is None else _empty(name, tensor)
    return ir.Value(name=name, shape=weight.shape, type=weight.type, const_value=content)


def _empty(name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(_NO_FILE, 0, tensor.nbytes, tensor.dtype, shape=shape, name=name, base_dir="")


def _own(array: Array) -> Array:
    """Copy a small result out of onnxruntime's arena: a view would keep the whole arena alive."""
    return array.copy() if array.nbytes < _COPIED_BYTES else array


def first_line(error: Exception) -> str:
    """Return the first line of the text of an exception, or its kind; of nested nodes, what the innermost one says."""
    if not str(error).strip():
        return type(error).__name__
    line = str(error).strip().splitlines()[0]
    nodes = list(_NODE.finditer(line))
    if not nodes:
        return line
    op_type, name = nodes[-1].groups()
    return f"node '{name}' ({op_type}): {line[nodes[-1].end() :]}"
