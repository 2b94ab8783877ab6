"""From TensorFlow Lite, int8 included, through tf2onnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx

from fgonnx.errors import InputError, ModelError

from . import tensorflow as by_tensorflow
from .finish import finish
from .network import Array, Inputs, Network, as_inputs, example_of, exporting, needs, reason
from .options import Conversion, ConversionOptions
from .parity import output_steps
from .report import ConversionReport

with needs("tflite", "LiteRT with TensorFlow and tf2onnx"):
    import tf2onnx
    from ai_edge_litert.interpreter import Interpreter


def convert(
    model: str | Path,
    path: str | Path,
    *,
    example_input: Any = None,
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a .tflite file and prove the result against LiteRT's interpreter.

    Parameters
    ----------
    model : path
        The .tflite file, in floating point or quantised.
    path : path-like
        The .onnx file to write.
    example_input : array, or tuple of arrays
        Inputs with a batch axis, in real numbers where the file takes int8; seeded random ones by default.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport
        Outputs of quantised files, integer or floating-point, may differ by one step of quantisation. There is no
        autograd to compare gradients with.

    Raises
    ------
    FgonnxError
        If the file cannot be read or exported, or the example does not fit.
    """
    conversion = Conversion(**options)
    if not isinstance(model, str | Path):
        raise InputError(f"the path of a .tflite file is needed, not {type(model).__name__}")
    file = Path(model)
    try:
        interpreter = Interpreter(model_path=str(file))
    except (ValueError, OSError) as error:
        raise ModelError(f"'{file}' is not a TensorFlow Lite model: {reason(error)}") from error
    details = interpreter.get_input_details()
    example = _example(details, example_input)
    with exporting("tf2onnx"), by_tensorflow.quiet() as said:
        proto, _ = tf2onnx.convert.from_tflite(str(file), opset=conversion.opset or by_tensorflow.OPSET)
        if said:
            raise ModelError(f"tf2onnx cannot export the model: {'; '.join(said)}")
    outputs = interpreter.get_output_details()
    steps = [
        1.0 if np.dtype(o["dtype"]).kind in "iu" else step for o, step in zip(outputs, output_steps(proto), strict=True)
    ]
    quantised = any(d["dtype"] == np.int8 for d in interpreter.get_tensor_details())
    notes = _take_floats(proto, details)
    network = Network(
        "tflite",
        "TensorFlow Lite, quantised" if quantised else "TensorFlow Lite",
        "tf2onnx",
        _runner(interpreter),
        None,
        steps,
        ("ai-edge-litert", "tensorflow", "tf2onnx"),
        tuple(notes),
    )
    return finish(proto, network, path, example, conversion)


def _take_floats(proto: onnx.ModelProto, details: Sequence[dict[str, Any]]) -> list[str]:
    """Move the quantisation of int8 inputs, which a .tflite leaves to its caller, into the graph.

    Integers have no gradient, and preprocessing comes before quantisation.
    """
    notes = []
    for value, detail in zip(proto.graph.input, details, strict=True):
        if not _is_int8(detail):
            continue
        scale, zero = detail["quantization"]
        inner, constants = f"{value.name}/int8", (f"{value.name}/scale", f"{value.name}/zero_point")
        for node in proto.graph.node:
            node.input[:] = [inner if name == value.name else name for name in node.input]
        values: list[Array] = [np.array(scale, np.float32), np.array(zero, np.int8)]
        proto.graph.initializer.extend(
            onnx.numpy_helper.from_array(*pair) for pair in zip(values, constants, strict=True)
        )
        node = onnx.helper.make_node("QuantizeLinear", [value.name, *constants], [inner], f"{value.name}/quantise")
        proto.graph.node.insert(0, node)
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        notes.append(
            f"the input is float32: x / {scale:.6g} + {zero} is rounded to int8 in the graph, as the source wants it"
        )
    return notes


def _is_int8(detail: dict[str, Any]) -> bool:
    return detail["dtype"] == np.int8 and detail["quantization"][0] > 0


def _quantised(a: Array, detail: dict[str, Any]) -> Array:
    """Quantise an array for an int8 input of the file, rounded as QuantizeLinear does."""
    if not _is_int8(detail):
        return a
    scale, zero = detail["quantization"]
    return np.clip(np.rint(a / np.float32(scale)) + zero, -128, 127).astype(np.int8)


def _example(details: Sequence[dict[str, Any]], given: Any) -> Inputs:
    if given is None:
        return tuple(
            example_of([None if s < 1 else int(s) for s in (-1, *f["shape_signature"][1:])], _dtype(f)) for f in details
        )
    example = as_inputs(given)
    for a, f in zip(example, details, strict=False):
        wanted = f["shape_signature"]
        if a.ndim != len(wanted) or any(w not in (-1, s) for s, w in zip(a.shape[1:], wanted[1:], strict=True)):
            raise InputError(f"the input '{f['name']}' takes {tuple(map(int, wanted))}, the example has {a.shape}")
        if a.dtype != _dtype(f):
            raise InputError(f"the input '{f['name']}' takes {_dtype(f)}, the example is {a.dtype}: convert it")
    if len(example) != len(details):
        raise InputError(f"the model takes {len(details)} input(s), the example has {len(example)}")
    return example


def _dtype(detail: dict[str, Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if _is_int8(detail) else detail["dtype"])


def _runner(interpreter: Any) -> Callable[[Inputs], list[Array]]:
    def run(inputs: Inputs) -> list[Array]:
        # Sample by sample: operators such as Reshape keep the batch size of 1 that the file was written with.
        rows = [_single(interpreter, tuple(a[i : i + 1] for a in inputs)) for i in range(len(inputs[0]))]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    return run


def _single(interpreter: Any, inputs: Inputs) -> list[Array]:
    for detail, a in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], a.shape)
    interpreter.allocate_tensors()
    for detail, a in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], _quantised(a, detail))
    interpreter.invoke()
    return [np.array(interpreter.get_tensor(detail["index"])) for detail in interpreter.get_output_details()]
