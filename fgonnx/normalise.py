"""Normal form: ordered passes, each saying what it requires and ensures.

After `normalise` the graph has no functions, opset 18 or newer, no Constant nodes and no initializers among its inputs;
every value has an element type and an exact shape whose only symbols are multiples of the batch size N; what follows
from shapes alone is an initializer; the explained input is floating-point; the explained output is the head.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnx_ir.traversal import RecursiveGraphIterator

from fgonnx import probe
from fgonnx.dequantise import dequantise, is_quantised
from fgonnx.emit import PREFIX
from fgonnx.errors import ModelError, OptionError, Refusal, UnsupportedError
from fgonnx.expand import depends_on_inputs, expand
from fgonnx.half import is_half, widen
from fgonnx.model import LoadedModel
from fgonnx.runtime import Session

OPSET = 18
IR_VERSION = 8  # the one of opset 18; before 4, initializers had to be inputs
_BIG = 1024
_SEQUENCE_RESULT = {"SplitToSequence", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceEmpty"}


@dataclass
class Normal:
    """A model in normal form.

    Attributes
    ----------
    model : ir.Model
        The graph, free to be written to.
    x : ir.Value
        The explained input: a graph input, or the floating-point copy of an integer one.
    input_name : str
        Name of the graph input behind `x`.
    input_shape : tuple of int
        Its shape for one sample, with the batch axis (1) in front where there is one.
    layout : str
        Axes of the input: "NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NF" or "" for one without batch axis.
    batched : bool
        Whether the graph takes any batch size; otherwise samples are run one by one.
    outputs : list of ir.Value
        The model's own outputs.
    notes : list of str
        What was changed on the way, in words.
    twins : dict of ir.Value to ir.Value
        What the integer outputs stand for, floating-point.
    """

    model: ir.Model
    x: ir.Value
    input_name: str
    input_shape: tuple[int, ...]
    layout: str
    batched: bool
    outputs: list[ir.Value]
    notes: list[str] = field(default_factory=list)
    twins: dict[ir.Value, ir.Value] = field(default_factory=dict)


def normalise(
    loaded: LoadedModel,
    *,
    input_name: str | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str | None = None,
    one_by_one: bool = False,
    per_sample: bool = True,
) -> Normal:
    """Bring a model into normal form. The model given is not changed.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    input_name : str, optional
        The input to explain; needed where several could be meant.
    input_shape : sequence of int, optional
        Shape of the input, for models with free sizes. Its first entry (the batch) is ignored.
    layout : str, optional
        Axes of the input; found out by default.
    one_by_one : bool
        Leave the batch at 1 even where the graph would take more.
    per_sample : bool
        Whether the first axis of the input is a batch of samples. Without (a plain gradient graph), fixed sizes are
        kept as they are, and any floating-point input will do.

    Raises
    ------
    ModelError
        If no input can be explained, its size is free and not given, or onnxruntime does not run the model.
    OptionError
        If `input_name` or `input_shape` does not fit the model.
    """
    model = loaded.ir.clone()
    folder = loaded.path.parent if loaded.path is not None else None
    notes: list[str] = []
    model.ir_version = max(model.ir_version, IR_VERSION)
    inline_functions(model)
    converted = raise_opset(model, notes)
    lift_constants(model)
    infer_types(model)
    x = choose_input(model, input_name, loaded.name, per_sample=per_sample)
    shape = concrete_shape(x, input_shape, loaded.name, per_sample=per_sample)
    fixed = x.shape is not None and x.shape.is_static()
    one_by_one = one_by_one or (fixed and not per_sample)
    model, batched = settle_batch(model, str(x.name), shape, folder, notes, one_by_one=one_by_one)
    while expand(model):
        lift_constants(model)
        infer_types(model)
        model, batched = settle_batch(model, str(x.name), shape, folder, notes, one_by_one=one_by_one or not batched)
    x = next(v for v in model.graph.inputs if v.name == x.name)
    if converted:
        check_results(loaded, model, probe.random_feeds(model.graph, x, shape, 1))
    axes = layout or find_layout(x, shape)
    explained = x
    twins: dict[ir.Value, ir.Value] = {}
    if is_quantised(model.graph) or not (x.dtype is not None and x.dtype.is_floating_point()):
        explained, twins = dequantise(model, x)
    elif is_half(model.graph):
        explained, twins = widen(model, x)
    said = list(dict.fromkeys(notes))
    return Normal(model, explained, str(x.name), shape, axes, batched, list(model.graph.outputs), said, twins)


def inline_functions(model: ir.Model) -> None:
    """Requires: a valid model. Ensures: no model-local functions, unique names."""
    if model.functions:
        common.InlinePass()(model)
        common.NameFixPass()(model)


def raise_opset(model: ir.Model, notes: list[str]) -> bool:
    """Requires: no functions, opset 7 or newer. Ensures: opset 18 or newer. Returns whether nodes were converted.

    onnx's converter serialises the model, so big weights are set aside as inputs while it runs.
    """
    version = model.opset_imports.get("", 1)
    if version >= OPSET:
        return False
    if all(_unchanged_since(node, version) for node in RecursiveGraphIterator(model.graph)):
        model.opset_imports[""] = OPSET
        notes.append(f"opset {version} raised to {OPSET}: the same operators in both")
        return False
    graph = model.graph
    _refuse_unknown(graph, version)
    tensors = {name: v.const_value for name, v in graph.initializers.items()}
    own_inputs = {v.name for v in graph.inputs}
    aside = {n: t for n, t in tensors.items() if t is not None and t.nbytes > _BIG}
    slim = model.clone()
    for name in aside:
        value = slim.graph.initializers.pop(name)
        value.const_value = None
        if name not in own_inputs:
            slim.graph.inputs.append(value)
    proto = ir.to_proto(slim)
    proto.ir_version = max(proto.ir_version, 4)
    _forget_shapes(proto)
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(proto, OPSET))
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        raise ModelError(
            f"opset {version} cannot be raised to {OPSET}: {str(error).strip().splitlines()[0]}. "
            "Export the model with opset 18 or newer"
        ) from error
    for name, tensor in aside.items():
        value = next(v for v in converted.graph.inputs if v.name == name)
        if name not in own_inputs:
            converted.graph.inputs.remove(value)
        value.const_value = tensor
        converted.graph.register_initializer(value)
    if version < 11:
        _keep_old_resize(converted.graph)
    ranks = {v.name: v.shape.rank() for v in graph.inputs if v.shape is not None}
    for v in converted.graph.inputs:
        if v.shape is not None and v.shape.rank() != ranks.get(v.name, v.shape.rank()):
            raise ModelError(
                f"raising opset {version} to {OPSET} changes the shape of its input '{v.name}'. "
                "Export the model with opset 18 or newer"
            )
    model.graph = converted.graph
    notes.append(f"opset {version} raised to {OPSET}")
    return True


def _unchanged_since(node: ir.Node, version: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return True
    try:
        old, new = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (version, OPSET))
    except onnx.defs.SchemaError:
        return False
    return bool(old.since_version == new.since_version)


def _refuse_unknown(graph: ir.Graph, version: int) -> None:
    """Name the operators that the standard does not have; onnx's converter would stop at the first of them."""
    unknown = [n for n in graph if n.domain in ("", "ai.onnx") and not onnx.defs.has(n.op_type, "")]
    if unknown:
        advice = "Export the model again, so that it holds operators of the ONNX standard"
        raise UnsupportedError(
            [
                Refusal(
                    n.name or str(n.outputs[0].name), n.op_type, version, "the standard has no such operator", advice
                )
                for n in unknown
            ]
        )


def _keep_old_resize(graph: ir.Graph) -> None:
    """Before opset 11 position i of a resized axis read position i / scale; onnx's converter leaves today's default."""
    for node in graph:
        if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            if "mode" not in node.attributes or node.attributes["mode"].as_string() == "nearest":
                node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def check_results(loaded: LoadedModel, model: ir.Model, feeds: dict[str, np.ndarray]) -> None:
    """Requires: the source's inputs and outputs. Ensures: the same results, whatever onnx's converter did.

    Not checked: models that draw random numbers, and sources that this onnxruntime no longer runs.
    """
    if any(node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial") for node in model.graph):
        return
    folder = loaded.path.parent if loaded.path is not None else None
    try:
        before = Session(loaded.ir, folder=folder, providers=["cpu"], optimise=False).run(feeds)
    except ModelError:
        return
    after = Session(model, folder=folder, providers=["cpu"], optimise=False).run(feeds)
    for name, array in before.items():
        if not _agree(after[name], array):
            raise ModelError(
                f"{loaded.name}: raising its opset from {loaded.opset} to {OPSET} changes its output '{name}'. "
                f"Export the model with opset {OPSET} or newer"
            )


def _forget_shapes(proto: onnx.ModelProto) -> None:
    # Declared shapes of intermediate values may be wrong in old exports, and the converter checks them.
    del proto.graph.value_info[:]


def lift_constants(model: ir.Model) -> None:
    """Requires: opset 18. Ensures: constants are initializers and none of them is a graph input."""
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    graph = model.graph
    taken = {str(v.name) for v in graph.inputs} | set(graph.initializers)
    for i, node in enumerate(list(graph)):
        node.name = node.name or f"{node.op_type}_{i}"
        for j, v in enumerate(node.outputs):
            if v.name is None:
                v.name = f"{node.name}:{j}"
            taken.add(v.name)
    reserved = sorted(n for n in taken if n.startswith(PREFIX))
    if reserved:
        raise ModelError(
            f"the model has values named '{reserved[0]}' and the like: fgonnx wrote it; explain its source"
        )


def infer_types(model: ir.Model) -> None:
    """Requires: constants lifted. Ensures: every value the standard's inference reaches has an element type."""
    for node in model.graph:
        for v in node.outputs:
            v.shape = None if v not in model.graph.outputs else v.shape
    with contextlib.redirect_stderr(io.StringIO()):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for node in model.graph:
        if node.op_type in _SEQUENCE_RESULT and node.outputs[0].dtype is not None:
            # the pass takes over the type of the elements and forgets that they are in a sequence
            node.outputs[0].type = ir.SequenceType(ir.TensorType(node.outputs[0].dtype))


def choose_input(model: ir.Model, name: str | None, where: str, *, per_sample: bool = True) -> ir.Value:
    """Return the input to explain: the one asked for, or the only one that can be meant."""
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    if not per_sample:
        floating = [v for v in inputs if v.dtype is not None and v.dtype.is_floating_point() and v.shape is not None]
        for v in floating:
            if name in (None, v.name):
                return v
    candidates = [v for v in inputs if _explainable(v)]
    if name is not None:
        chosen = next((v for v in inputs if v.name == name), None)
        if chosen is None:
            raise OptionError(f"{where}: has no input '{name}'; it has: {_describe(inputs)}")
        if not _explainable(chosen):
            raise OptionError(
                f"{where}: its input '{name}' is not an array of floats or of uint8: {_describe([chosen])}"
            )
        return chosen
    if len(candidates) > 1:
        candidates = [v for v in candidates if v.shape is not None and v.shape.rank() >= 4] or candidates
    if not candidates:
        raise ModelError(
            f"{where}: no input is an array of floats or of uint8 that could be explained; it has: {_describe(inputs)}"
        )
    if len(candidates) > 1:
        raise ModelError(
            f"{where}: several inputs could be explained; name one (input=, --input): {_describe(candidates)}"
        )
    return candidates[0]


def _explainable(v: ir.Value) -> bool:
    dtype = v.dtype
    right = dtype is not None and (dtype.is_floating_point() or dtype == ir.DataType.UINT8)
    return right and v.shape is not None and v.shape.rank() >= 2


def _describe(values: Sequence[ir.Value]) -> str:
    def one(v: ir.Value) -> str:
        dims = (
            "?"
            if v.shape is None
            else ", ".join(str(d if isinstance(d, int) else d.value or "?") for d in v.shape.dims)
        )
        return f"{v.name} ({v.dtype.name.lower() if v.dtype is not None else '?'} [{dims}])"

    return "; ".join(one(v) for v in values) or "none"


def concrete_shape(x: ir.Value, given: Sequence[int] | None, where: str, *, per_sample: bool = True) -> tuple[int, ...]:
    """Return the input's shape for one sample: 1, then the model's sizes, or the given ones where they are free."""
    assert x.shape is not None
    declared = list(x.shape.dims)
    if given is not None:
        if len(given) != len(declared) or any(
            isinstance(d, int) and d != g for d, g in zip(declared[1:], given[1:], strict=False)
        ):
            raise OptionError(f"{where}: the shape {tuple(given)} does not fit its input {_describe([x])}")
        declared = [1, *(int(g) for g in given[1:])]
    free = [i for i, d in enumerate(declared) if i > 0 and not isinstance(d, int)]
    if free:
        raise ModelError(
            f"{where}: its input {_describe([x])} has free sizes; give them (input_shape=, --input-shape 1,3,224,224)"
        )
    if not per_sample:
        return tuple(d if isinstance(d, int) else 1 for d in declared)
    first = declared[0]
    if isinstance(first, int) and first > 1:
        # A batch that is baked in is run as it is: one "sample" of that many rows would not be per-sample.
        raise ModelError(f"{where}: its batch size is fixed to {first}; export it with batch size 1 or a free one")
    return (1, *(int(d) for d in declared[1:]))  # type: ignore[arg-type]


def settle_batch(
    model: ir.Model,
    input_name: str,
    shape: tuple[int, ...],
    folder: Path | None,
    notes: list[str],
    *,
    one_by_one: bool = False,
) -> tuple[ir.Model, bool]:
    """Requires: types. Ensures: exact shapes; a symbolic batch where running two samples at once proves it right.

    Returns the model to go on with, and whether its batch is symbolic.
    """
    x = next(v for v in model.graph.inputs if v.name == input_name)
    assert x.shape is not None
    free = x.shape.rank() > 0 and not isinstance(x.shape.dims[0], int)
    both = probe.random_feeds(model.graph, x, shape, 2)
    # States may have a first axis of two entries that is no batch.
    whole = {str(v.name) for v in model.graph.inputs if v.shape is not None and v.shape.rank() and v.shape[0] == 2}
    whole -= {input_name}
    halves = [
        {k: v[i : i + 1] if v.ndim and v.shape[0] == 2 and k not in whole else v for k, v in both.items()}
        for i in (0, 1)
    ]
    # A graph that says its batch is free is taken at its word first; constants may still fix it.
    if free and not one_by_one and (found := _try_batch(model, folder, both, halves)) is not None:
        _annotate(model, *found)
        return model, True
    single = model.clone()
    x = next(v for v in single.graph.inputs if v.name == input_name)
    x.shape = ir.Shape(shape)
    prober = probe.Prober(single, folder)
    _set_types(single.graph, prober.types)
    truth = prober.run(probe.random_feeds(single.graph, x, shape, 1))
    if not one_by_one:
        alone = [truth, prober.run(halves[1])]
        del prober  # it holds a copy of the weights, and so does the next one
        _free_batch(model)
        found = _try_batch(model, folder, both, halves, alone)
        if found is not None:
            if not free:
                notes.append("fixed batch size 1 made free, checked by running two samples")
            _annotate(model, *found)
            return model, True
    merged = probe.merge(truth, None)
    assert merged is not None
    _annotate(single, merged, truth.constants)
    notes.append("the graph does not take a batch: samples are run one by one")
    return single, False


def _free_batch(model: ir.Model) -> None:
    """Make batch 1 symbolic: on the inputs, in constant target shapes that begin with 1, for class tokens."""
    for v in model.graph.inputs:
        if v.shape is not None and v.shape.rank() and v.shape.dims[0] == 1:
            v.shape = ir.Shape([probe.BATCH, *v.shape.dims[1:]])
    dependent = depends_on_inputs(model.graph)
    for node in list(model.graph):
        if node.op_type == "Concat":
            _repeat_tokens(model.graph, node, dependent)
        if node.op_type != "Reshape" or node.inputs[0] not in dependent:
            continue
        if "allowzero" in node.attributes and node.attributes["allowzero"].as_int():
            continue
        target = node.inputs[1]
        if target is None or target.const_value is None:
            continue
        array = target.const_value.numpy().copy()
        if array.size and array[0] == 1:
            # -1 needs nothing of the input; 0 copies its first axis, for targets that use their -1 elsewhere
            array[0] = 0 if (array == -1).any() else -1
            node.replace_input_with(1, _initializer(model.graph, f"{target.name}::{node.name}::batch", array))
    for v in model.graph.outputs:
        v.shape = None


def _repeat_tokens(graph: ir.Graph, node: ir.Node, dependent: set[ir.Value]) -> None:
    """Give constants that are concatenated to the data (class tokens) the batch size of the data.

    Where that is wrong the graph does not run, or not as one sample does, and stays at one sample.
    """
    data = next((v for v in node.inputs if v in dependent), None)
    if data is None or node.attributes["axis"].as_int() == 0:
        return
    for i, v in enumerate(node.inputs):
        if v is None or v in dependent or v.dtype is None or not v.dtype.is_floating_point():
            continue
        if v.shape is not None and isinstance(v.shape.dims[0], int) and v.shape.dims[0] != 1:
            continue
        batch = ir.Node("", "Shape", [data], ir.convenience.convert_attributes({"start": 0, "end": 1}))
        rest = ir.Node("", "Shape", [v], ir.convenience.convert_attributes({"start": 1}))
        axis = ir.convenience.convert_attributes({"axis": 0})
        shape = ir.Node("", "Concat", [batch.outputs[0], rest.outputs[0]], axis)
        repeated = ir.Node("", "Expand", [v, shape.outputs[0]])
        for role, new in (("batch", batch), ("rest", rest), ("shape", shape), ("repeated", repeated)):
            new.outputs[0].name = f"{v.name}::{node.name}::{role}"
            new.outputs[0].type = ir.TensorType(v.dtype if new is repeated else ir.DataType.INT64)
        graph.insert_before(node, (batch, rest, shape, repeated))
        node.replace_input_with(i, repeated.outputs[0])


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name)
    value.const_value = ir.tensor(array, name=name)
    value.dtype = value.const_value.dtype
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _try_batch(
    model: ir.Model,
    folder: Path | None,
    both: dict[str, np.ndarray],
    halves: Sequence[dict[str, np.ndarray]],
    alone: Sequence[probe.Probe] = (),
) -> tuple[dict[str, tuple[int | ir.SymbolicDim, ...]], dict[str, np.ndarray]] | None:
    """Run two samples at once; return shapes and constants if they give what each gives alone.

    Alone in the source, where those runs are given, else in the model itself.
    """
    try:
        prober = probe.Prober(model, folder)
        _set_types(model.graph, prober.types)
        one = prober.run(halves[0])
        alone = alone or [one, prober.run(halves[1])]
        two = prober.run(both)
    except ModelError:
        return None
    for name, array in two.outputs.items():
        parts = [run.outputs[name] for run in alone]
        if array.ndim == 0 or parts[0].ndim == 0 or array.shape[0] != 2 * parts[0].shape[0]:
            return None
        if not _agree(array, np.concatenate(parts)):
            return None
    dims = probe.merge(one, two)
    if dims is None:
        return None
    same = {
        k: v
        for k, v in one.constants.items()
        if k in two.constants and np.array_equal(v, two.constants[k], equal_nan=False)
    }
    return dims, same


def _agree(found: np.ndarray, truth: np.ndarray) -> bool:
    """Tell whether two results are equal but for rounding; a Sigmoid near 0 is only good to 1e-6 on some runtimes."""
    if truth.dtype.kind not in "fiub":  # text
        return np.array_equal(found, truth)
    found, truth = found.astype(np.float64), truth.astype(np.float64)
    scale = float(np.nanmax(np.abs(truth), initial=0.0))
    return found.shape == truth.shape and np.allclose(found, truth, rtol=1e-3, atol=1e-3 * scale + 1e-6, equal_nan=True)


def _set_types(graph: ir.Graph, types: dict[str, ir.DataType | None]) -> None:
    for node in graph:
        for v in node.outputs:
            found = types.get(str(v.name))
            if v.type is None and found is not None:
                v.type = ir.TensorType(found)


def _annotate(
    model: ir.Model, dims: dict[str, tuple[int | ir.SymbolicDim, ...]], constants: dict[str, np.ndarray]
) -> None:
    """Write exact shapes onto all values and turn what follows from shapes alone into initializers."""
    graph = model.graph
    for v in graph.inputs:
        if str(v.name) in dims:
            v.shape = ir.Shape(dims[str(v.name)])
    for v in graph.initializers.values():
        if v.const_value is not None:
            v.shape = ir.Shape(v.const_value.shape.numpy())
            v.dtype = v.const_value.dtype
    outputs = set(graph.outputs)
    for node in list(graph):
        for v in node.outputs:
            if str(v.name) in dims:
                v.shape = ir.Shape(dims[str(v.name)])
            elif node.op_type in ("QuantizeLinear", "Cast") and node.inputs[0] is not None:  # to float8 or int4
                v.shape = node.inputs[0].shape
            array = constants.get(str(v.name))
            if array is not None:
                if v.dtype is None:
                    v.dtype = ir.DataType.from_numpy(array.dtype)
                if v not in outputs and len(node.outputs) == 1:
                    folded = _initializer(graph, f"{v.name}::folded", array)
                    v.replace_all_uses_with(folded)
    _settle_resizes(graph)
    common.RemoveUnusedNodesPass()(model)


def _settle_resizes(graph: ir.Graph) -> None:
    """Name the axes that a Resize changes, so that a target size that holds the batch size becomes a constant."""
    for node in graph:
        sizes = node.inputs[3] if node.op_type == "Resize" and len(node.inputs) > 3 else None
        if sizes is None or sizes.const_value is not None or "axes" in node.attributes:
            continue
        before, after = (v.shape.dims if v is not None and v.shape is not None else () for v in (
            node.inputs[0], node.outputs[0]
        ))  # fmt: skip
        axes = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b or isinstance(b, int)]
        if all(isinstance(after[i], int) for i in axes):
            target = np.array([after[i] for i in axes], np.int64)
            node.replace_input_with(3, _initializer(graph, f"{sizes.name}::{node.name}::sizes", target))
            node.attributes["axes"] = ir.AttrInt64s("axes", axes)


def find_layout(x: ir.Value, shape: tuple[int, ...]) -> str:
    """Return the axes of an input: by the node that takes it, then by which axis has 1, 3 or 4 entries."""
    rank = len(shape)
    channels_first = {2: "NF", 3: "NCW", 4: "NCHW", 5: "NCDHW"}.get(rank, "")
    channels_last = {2: "NF", 3: "NWC", 4: "NHWC", 5: "NDHWC"}.get(rank, "")
    if rank not in (3, 4, 5):
        return channels_first
    for node in _first_movers(x):
        if node.op_type == "Transpose":
            perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else []
            return channels_last if list(perm) == [0, rank - 1, *range(1, rank - 1)] else channels_first
        if node.op_type in ("Conv", "MaxPool", "AveragePool", "BatchNormalization"):
            return channels_first
    plausible = (1, 3, 4)
    if shape[-1] in plausible and shape[1] not in plausible:
        return channels_last
    return channels_first


def _first_movers(x: ir.Value) -> list[ir.Node]:
    """Return the first consumers of a value that tell its layout, through elementwise nodes."""
    queue, seen = [x], 0
    while queue and seen < 32:
        seen += 1
        v = queue.pop(0)
        for node in v.consumers():
            if node.op_type in ("Transpose", "Conv", "MaxPool", "AveragePool", "BatchNormalization", "Reshape"):
                return [node]
            queue.extend(node.outputs[:1])
    return []
