"""From TensorFlow: SavedModels, frozen graphs, tf.functions and tf.Modules, through tf2onnx."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx

from fgonnx.errors import InputError, ModelError, OptionError
from fgonnx.wording import parameter

from .finish import finish
from .network import Array, Inputs, Linearised, Network, Seed, as_inputs, example_of, exporting, needs, reason
from .options import Conversion, ConversionOptions
from .report import ConversionReport

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before its import, which logs the CPU's instruction set
with needs("tensorflow", "TensorFlow with tf2onnx"):
    import tensorflow as tf
    import tf2onnx

OPSET = 18
SERVING = "serving_default"


def convert(
    model: Any,
    path: str | Path,
    *,
    example_input: Any = None,
    signature: str = SERVING,
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a TensorFlow network and prove the result.

    Parameters
    ----------
    model : tf.function, tf.Module or path
        A function of tensors, a callable module, a SavedModel folder or a frozen graph (.pb).
    path : path-like
        The .onnx file to write.
    example_input : array, or tuple of arrays
        Inputs with a batch axis; seeded random ones by default, where the source says all sizes.
    signature : str
        Which signature of a SavedModel.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport

    Raises
    ------
    FgonnxError
        If the source cannot be loaded or exported, or its sizes are not known.
    """
    conversion = Conversion(**options)
    if isinstance(model, str | Path):
        kind, call, specs = load(Path(model), signature)
    elif callable(model):
        if example_input is None:
            raise InputError(f"a {type(model).__name__} does not say what it takes: give {parameter('example_input')}")
        kind, call = type(model).__name__, model
        specs = [tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in as_inputs(example_input)]
    else:
        raise InputError(f"a callable, a SavedModel folder or a frozen graph is needed, not {type(model).__name__}")
    example = example_for(specs, example_input)
    proto = export(call, specs_like(specs, example), conversion.opset or OPSET)
    network = Network(
        "tensorflow",
        kind,
        "tf2onnx",
        runner(call),
        lineariser(call),
        packages=("tensorflow", "tf2onnx", "keras"),
        notes=("the FullGrad map is not compared: a TensorFlow graph does not say where its layers begin",),
    )
    return finish(proto, network, path, example, conversion)


# files


def load(path: Path, signature: str = SERVING) -> tuple[str, Callable[..., Any], list[Any]]:
    """Load a SavedModel or a frozen graph: its kind, a function of tensors, and their specifications.

    Raises
    ------
    ModelError, OptionError
        If TensorFlow cannot read it, or there is no such signature.
    """
    with quiet():
        try:
            return _saved_model(path, signature) if path.is_dir() else _frozen(path)
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise ModelError(
                f"'{path}' cannot be loaded by TensorFlow: {reason(error)}. Custom operators and layers must be "
                "registered before; load such a model in Python and pass it"
            ) from error


def _saved_model(path: Path, signature: str) -> tuple[str, Callable[..., Any], list[Any]]:
    loaded = tf.saved_model.load(str(path))
    if signature not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none: save it again with tf.saved_model.save(model, path, signatures)"
        raise OptionError(f"'{path}' has no signature '{signature}'; it has: {known}")
    function = loaded.signatures[signature]
    specs = list(function.structured_input_signature[1].values())

    def call(*tensors: Any) -> list[Any]:
        keep_alive = loaded  # its variables die with it
        del keep_alive
        results = function(**{s.name: t for s, t in zip(specs, tensors, strict=True)})
        return [results[name] for name in sorted(results)]

    return "SavedModel", call, specs


def _frozen(path: Path) -> tuple[str, Callable[..., Any], list[Any]]:
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    for node in definition.node:  # its Python code is elsewhere; the nodes themselves have derivatives
        node.attr.pop("_gradient_op_type", None)
    read = {name.partition(":")[0].lstrip("^") for node in definition.node for name in node.input}
    inputs = [n.name for n in definition.node if n.op == "Placeholder"]
    outputs = [n.name for n in definition.node if n.name not in read and n.op not in ("Placeholder", "NoOp", "Const")]
    if not inputs or not outputs:
        raise ModelError(f"'{path}' has {len(inputs)} placeholder(s) and {len(outputs)} output(s): it is no network")
    if variable := next((n for n in definition.node if n.op in ("VariableV2", "VarHandleOp")), None):
        raise ModelError(f"'{path}' is not frozen: node '{variable.name}' is a variable whose value is elsewhere")
    imported = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])
    function = imported.prune([f"{n}:0" for n in inputs], [f"{n}:0" for n in outputs])
    return (
        "frozen graph",
        lambda *tensors: list(function(*tensors)),
        [tf.TensorSpec(t.shape, t.dtype) for t in function.inputs],
    )


# shared with keras and tflite


def example_for(specs: Sequence[Any], example_input: Any) -> Inputs:
    """Return example inputs that fit specifications: those given, or seeded random ones.

    Raises
    ------
    InputError
        If those given do not fit, or sizes are not known.
    """
    if example_input is None:
        return tuple(example_of(list(s.shape), s.dtype.as_numpy_dtype) for s in specs)
    example = as_inputs(example_input)
    if len(example) != len(specs):
        raise InputError(f"the model takes {len(specs)} input(s), the example has {len(example)}")
    for a, s in zip(example, specs, strict=True):
        if not s.shape.is_compatible_with(a.shape) and not s.shape[1:].is_compatible_with(a.shape[1:]):
            raise InputError(
                f"the input '{s.name}' takes {tuple(s.shape)}, the example has {a.shape}: fix "
                f"{parameter('example_input')}"
            )
    return example


def specs_like(specs: Sequence[Any], example: Inputs) -> list[Any]:
    """Return specifications with a free batch, and the sizes of the example where they were free."""
    return [
        tf.TensorSpec((s.shape[0], *a.shape[1:]), s.dtype, name=f"input_{i}")
        for i, (s, a) in enumerate(zip(specs, example, strict=True))
    ]


def export(call: Callable[..., Any], specs: Sequence[Any], opset: int) -> onnx.ModelProto:
    """Export a function of tensors by tf2onnx.

    Parameters
    ----------
    call : callable
        The function.
    specs : sequence of tf.TensorSpec
        Its inputs.
    opset : int
        Operator set of the file.

    Raises
    ------
    ModelError
        If it cannot; the operator and its place are named.
    """
    with exporting("tf2onnx"), quiet() as said:
        function = tf.function(call, input_signature=specs)
        handlers: dict[str, Any] = {"Erfc": (_erfc, [])}
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=specs, opset=opset, custom_op_handlers=handlers
        )
        if said:
            raise ModelError(f"tf2onnx cannot export the model: {'; '.join(said)}. Replace what it names")
        # tf2onnx leaves captured constants (means of a Normalization layer) as inputs
        values = {inner.name: outer for outer, inner in function.get_concrete_function().graph.captures}
    for extra in [i for i in proto.graph.input if i.name in values]:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values[extra.name]), extra.name))
        proto.graph.input.remove(extra)
    return proto


def _erfc(context: Any, node: Any, name: str, _: Any) -> None:
    """Write erfc(x), a part of GELU that tf2onnx does not support, as 1 - erf(x)."""
    node.type = "Erf"
    one = context.make_const(f"{name}/one", np.float32(1.0))
    context.insert_new_node_on_output(
        "Sub", node.output[0], f"{name}/complement", inputs=[one.output[0], node.output[0]]
    )


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Silence TensorFlow and tf2onnx; yield a list that collects errors of tf2onnx."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().strip().splitlines()[0])

    loggers = [logging.getLogger(n) for n in ("tensorflow", "tf2onnx")]
    names = [n for n in logging.root.manager.loggerDict if n.startswith("tf2onnx.")]
    before = [(logger, logger.level) for logger in (*loggers, *map(logging.getLogger, names))]
    listener = Listener(logging.ERROR)
    loggers[1].addHandler(listener)
    propagate, loggers[1].propagate = loggers[1].propagate, False
    try:
        for logger, _ in before:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        loggers[1].removeHandler(listener)
        loggers[1].propagate = propagate
        for logger, level in before:
            logger.setLevel(level)


def flat(outputs: Any) -> list[Any]:
    """List the tensors of an output in the order in which tf2onnx flattens it."""
    return list(tf.nest.flatten(outputs))


def runner(call: Callable[..., Any]) -> Callable[[Inputs], list[Array]]:
    """Return a function from arrays to arrays."""
    return lambda inputs: [np.asarray(y) for y in flat(call(*(tf.constant(a) for a in inputs)))]


def lineariser(call: Callable[..., Any]) -> Callable[[Inputs, Seed], Linearised]:
    """Return a function that computes the input-gradient with a GradientTape."""

    def linearise(inputs: Inputs, seed: Seed) -> Linearised:
        tensors = [tf.constant(a) for a in inputs]
        with tf.GradientTape() as tape:
            tape.watch(tensors[seed.input])
            y = flat(call(*tensors))[seed.output]
            s = tf.reduce_sum(seed.scores(y, tf.math.log, tf.constant(seed.weights)))
        return Linearised(np.asarray(tape.gradient(s, tensors[seed.input])), None)

    return linearise
