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

import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine.graph import probe
from fgonnx.engine.graph.emit import PREFIX
from fgonnx.engine.graph.lookups import lookups, vocabulary
from fgonnx.engine.graph.origin import source_of
from fgonnx.engine.graph.session import first_line
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.inputs import choose_input, concrete_shape, described, free_inputs, in_own_order, tie_sizes
from fgonnx.engine.model.load import PREPROCESSING_KEY, LoadedModel
from fgonnx.engine.normal.batch import ONE_BY_ONE, Tangle, settle_batch
from fgonnx.engine.normal.embedded import embedded
from fgonnx.engine.normal.expand import expand
from fgonnx.engine.normal.expand.statistics import expand_half
from fgonnx.engine.normal.guards import choose_before
from fgonnx.engine.normal.half import add_twins, is_half
from fgonnx.engine.normal.independence import independent
from fgonnx.engine.normal.layout import settle_layout
from fgonnx.engine.normal.levels import measured_levels
from fgonnx.engine.normal.opset import IR_VERSION, check_results, raise_opset
from fgonnx.engine.normal.quantised import dequantise, is_quantised
from fgonnx.engine.normal.recurrence import settle_recurrences
from fgonnx.engine.normal.roles import roles
from fgonnx.engine.normal.rounding import tie_rounding
from fgonnx.engine.normal.sized import needed_values, sizes_of
from fgonnx.engine.normal.stepped import roles_with_steps
from fgonnx.engine.normal.tie import Twins
from fgonnx.engine.normal.training import refuse_training
from fgonnx.engine.normal.unrolled import mark_steps
from fgonnx.engine.normal.whole import no_batch
from fgonnx.errors import ModelError
from fgonnx.labels import METADATA_KEY
from fgonnx.wording import parameter

_TOKENS = {3: "NHW", 4: "NDHW"}
_SEQUENCE_RESULT = {
    "SplitToSequence",
    "SequenceConstruct",
    "SequenceInsert",
    "SequenceErase",
    "SequenceEmpty",
    "SequenceMap",
}


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
        Name of the graph input that `x` is or is cast from.
    input_shape : tuple of int
        Its shape for one sample, with the batch axis (1) in front where there is one.
    layout : str
        Axes of the input: "NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NF" or "" for one without batch axis.
    batched : bool
        Whether the graph takes any batch size; otherwise samples are run one by one.
    outputs : list of ir.Value
        The model's own outputs.
    notes : list of str
        Descriptions of changes to the model.
    twins : dict of ir.Value to ir.Value
        What the integer outputs stand for, floating-point.
    origin : dict of ir.Value to str
        For every value that was written twins the model's own, the node whose result it stands for; "" where it
        converts between others.
    unscaled : dict of ir.Value to ir.Value
        The operands of integer products, s (q - z) / s, and the values s (q - z) they are computed from.
    counterparts : tuple of ir.Value
        The values beside which a twin was written.
    entangled : tuple of str
        Outputs of a batch that are not those of its samples alone, though the model takes a batch.
    rows : tuple of str
        Then, the values that have a row for every sample.
    independent : bool
        Whether the operators prove that the samples of a batch do not influence each other; else it was only tried.
    sized : bool
        Whether sizes of some values follow from the values of inputs: those that are known are of one run.
    ids : ir.Value, optional
        The graph input, where it holds ids: `x` are the rows of a table that they select.
    selected : ir.Value, optional
        Then, the rows as they are computed from the ids; `x` is that value, or a copy of it that can be given.
    vocabulary : tuple of int, optional
        The least and the largest id that the table has, where that is known.
    axes : str
        Axes of `x`, where they are not those of the input: letters as in `layout`.
    in_place : bool
        Whether the rows that ids select lie as the ids do: samples, the axes of the tokens, their width.
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
    origin: dict[ir.Value, str] = field(default_factory=dict)
    unscaled: dict[ir.Value, ir.Value] = field(default_factory=dict)
    counterparts: tuple[ir.Value, ...] = ()
    entangled: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    independent: bool = False
    ids: ir.Value | None = None
    selected: ir.Value | None = None
    vocabulary: tuple[int, ...] | None = None
    axes: str = ""
    in_place: bool = False
    sized: bool = False

    @property
    def given(self) -> str:
        """Name of the model's own input that is explained."""
        return self.input_name if self.ids is None else str(self.ids.name)


def normalise(
    loaded: LoadedModel,
    *,
    input_name: str | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str | None = None,
    one_by_one: bool = False,
    per_sample: bool = True,
    output: str | None = None,
) -> Normal:
    """Bring a model into normal form. The source is not changed.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    input_name : str, optional
        The input to explain; needed if there are several candidates.
    input_shape : sequence of int, optional
        Shape of the input, for models with free sizes. Its first entry (the batch) is ignored.
    layout : str, optional
        Axes of the input; inferred by default.
    one_by_one : bool
        Keep the batch at 1 even if the graph takes more.
    per_sample : bool
        Whether the first axis of the input is a batch of samples. If not (a plain gradient graph), fixed sizes are kept
        and any floating-point input is accepted.
    output : str, optional
        Name of the value that is explained, for what is refused on the way to it: the first floating-point output by
        default.

    Raises
    ------
    ModelError
        If no input can be explained, its size is free and not given, or onnxruntime cannot run the model.
    OptionError
        If `input_name` or `input_shape` does not match the model.
    UnsupportedError
        If the model was left in training mode.
    """
    model = loaded.ir.clone()
    notes = list(loaded.notes)
    model.ir_version = max(model.ir_version, IR_VERSION)
    inline_functions(model)
    _drop_without_outputs(model)
    refuse_training(model, output)
    converted = raise_opset(model, notes)
    lift_constants(model)
    infer_types(model)
    if expand_half(model):
        infer_types(model)
    x = choose_input(model, input_name, loaded.name, per_sample=per_sample)
    axis = loaded.arrangement.axis if loaded.arrangement is not None else 0
    shape = concrete_shape(x, input_shape, loaded.name, per_sample=per_sample, axis=axis)
    notes += tie_sizes(model.graph, x, shape)
    fixed = x.shape is not None and x.shape.is_static()
    arrangement = loaded.arrangement
    alone = arrangement is not None and (arrangement.axis is None or arrangement.filled > 1)  # said in its own words
    one_by_one = one_by_one or (fixed and not per_sample) or alone
    tangle = Tangle()
    try:
        model, batched = settle_batch(
            model, str(x.name), shape, loaded.folder, notes, one_by_one=one_by_one, tangle=tangle
        )
    except ModelError as error:
        _refuse_sizes_given(model, x, loaded.name, error)
        if all(isinstance(d, int) for d in dims_of(x)[1:]):
            if fixed:
                raise
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ModelError(
                f"{loaded.name}: onnxruntime does not run it on one sample, {described([x])} of shape {shape} "
                f"({first_line(cause)}){no_batch(loaded, str(x.name))}"
            ) from error
        others = [v for v in free_inputs(model.graph) if v is not x]
        beside = f" beside {described(others)}" if others else ""
        own = ir.Value(name=x.name, shape=ir.Shape(in_own_order(dims_of(x), axis)), type=x.type)
        sizes = tuple(in_own_order(shape, axis))
        raise ModelError(
            f"{loaded.name}: sizes of its input {described([own])} are free, but it does not run on {sizes}{beside}; "
            f"give another shape ({parameter('input_shape')}), or of a recording the part that it is made for "
            f"({parameter('span')}), or windows of it ({parameter('slide')}). What it says: {error}"
        ) from error
    entry = next(v for v in model.graph.inputs if v.name == x.name)
    read, stepped = (read_by(model.graph, entry, len(shape)) for read_by in (roles, roles_with_steps))
    while expand(model):
        lift_constants(model)
        infer_types(model)
        one_by_one = one_by_one or not batched
        model, batched = settle_batch(model, str(x.name), shape, loaded.folder, notes, one_by_one=one_by_one)
    proved = batched and independent(model.graph)
    x = next(v for v in model.graph.inputs if v.name == x.name)
    refuse_training(model, output)  # in branches and bodies, too
    if converted:
        check_results(loaded, model, probe.random_feeds(model.graph, x, shape, 1))
    found = lookups(model.graph, x) if per_sample else []
    if found and layout is None and 1 not in shape[1:] and len(shape) in _TOKENS:
        axes = _TOKENS[len(shape)]  # every axis counts tokens: none is of channels
    else:
        axes = settle_layout(x, shape, read, layout, loaded.name, notes, arrangement, stepped)
    levels = measured_levels(model, x, shape, loaded.folder)
    settle_recurrences(model)
    mark_steps(model.graph)
    found = lookups(model.graph, x) if per_sample else []
    rows, in_place = embedded(model, x, found, loaded.name, axes, batched=batched) if found else (x, False)
    choose_before(model, rows)
    tie_rounding(model, rows, levels)
    twins = Twins(rows)
    if is_quantised(model.graph) or not (rows.dtype is not None and rows.dtype.is_floating_point()):
        twins = dequantise(model, rows)
    elif is_half(model.graph):
        twins = add_twins(model, rows)
    said = [note for note in dict.fromkeys(notes) if not (alone and note == ONE_BY_ONE)]
    return Normal(
        model,
        twins.x,
        str(x.name),
        shape,
        axes,
        batched,
        list(model.graph.outputs),
        said,
        twins.outputs,
        twins.origin,
        twins.unscaled,
        twins.counterparts,
        tuple(sorted(tangle.outputs)),
        tuple(sorted(tangle.rows)),
        proved,
        x if found else None,
        rows if found else None,
        vocabulary(found),
        in_place=in_place,
        sized=bool(sizes_of(model.graph).axes),
    )


def _refuse_sizes_given(model: ir.Model, x: ir.Value, where: str, error: ModelError) -> None:
    """Refuse a model that does not run on zeros, where another input says how large something is.

    Raises
    ------
    ModelError
        With the inputs that have to be given a value.
    """
    given = {v: node for v, node in needed_values(model.graph).items() if v.name != x.name}
    if not given:
        return
    names = " and ".join(f"'{v.name}'" for v in given)
    name, op_type = source_of(next(iter(given.values())))
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    raise ModelError(
        f"{where}: the values of its input {names} say how large '{name}' ({op_type}) makes its result, and sizes have "
        f"to be known before it is explained: bind {names} to a value ({parameter('bind')}); with zeros onnxruntime "
        f"does not run it ({first_line(cause)})"
    ) from error


def inline_functions(model: ir.Model) -> None:
    """Requires: a valid model. Ensures: no model-local functions, unique names."""
    if model.functions:
        common.InlinePass()(model)
        common.NameFixPass()(model)


def _drop_without_outputs(model: ir.Model) -> None:
    """Take out nodes that compute nothing, whatever they are: onnxruntime does not look at them."""
    for graph in model.graphs():
        graph.remove([node for node in graph if not node.outputs], safe=False)


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
    if reserved and _is_written(model):
        raise ModelError(
            f"the model has values named '{reserved[0]}' and the like: fgonnx wrote it; explain its source"
        )
    if reserved:
        raise ModelError(
            f"the model has values named '{reserved[0]}' and the like, names that fgonnx keeps for what it writes; "
            "rename them"
        )


def _is_written(model: ir.Model) -> bool:
    own = {key for key in model.metadata_props if key.startswith("fgonnx.")} - {PREPROCESSING_KEY, METADATA_KEY}
    return model.producer_name == "fgonnx" or bool(own)


def infer_types(model: ir.Model) -> None:
    """Requires: constants lifted. Ensures: every value that onnx's inference reaches has an element type."""
    for node in model.graph:
        for v in node.outputs:
            v.shape = None if v not in model.graph.outputs else v.shape
    with contextlib.redirect_stderr(io.StringIO()):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for graph in reversed(list(model.graphs())):  # bodies before the nodes they are of
        for node in graph:
            for i, v in enumerate(node.outputs):
                # the pass sets the type of the elements instead of that of the sequence
                if not isinstance(v.type, ir.SequenceType) and _is_sequence(node, i) and v.dtype is not None:
                    v.type = ir.SequenceType(ir.TensorType(v.dtype))
                _set_optional(node, v)


def _set_optional(node: ir.Node, v: ir.Value) -> None:
    """Set the type of an optional value, and of what it holds."""
    held = node.inputs[0].type if not node.domain and node.inputs and node.inputs[0] is not None else None
    if node.op_type == "Optional" and isinstance(held, ir.TensorType | ir.SequenceType):
        v.type = ir.OptionalType(held)
    elif node.op_type == "OptionalGetElement" and isinstance(held, ir.OptionalType):
        v.type = held.elem_type


def _is_sequence(node: ir.Node, i: int) -> bool:
    """Tell whether an output is a sequence: by the operator, by what is passed on, or by the body it is a result of."""
    if node.domain:
        return False
    if node.op_type in ("Identity", "If", "Loop"):
        return any(v is not None and isinstance(v.type, ir.SequenceType) for v in _passed_on(node, i))
    return node.op_type in _SEQUENCE_RESULT


def _passed_on(node: ir.Node, i: int) -> list[ir.Value | None]:
    if node.op_type == "Identity":
        return [node.inputs[0]]
    if node.op_type == "If":
        return [node.attributes[k].as_graph().outputs[i] for k in ("then_branch", "else_branch")]
    body = node.attributes["body"].as_graph()
    return [body.outputs[i + 1]] if i + 2 < len(node.inputs) else []
