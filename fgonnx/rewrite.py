"""The graph rewriter: normalise, seed, walk back, aggregate, prune, and one ONNX model comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx import aggregate, axes, backward, collector, methods, recompute
from fgonnx._version import __version__
from fgonnx.aggregate import BatchLostError, Site
from fgonnx.binding import bind as bound_to
from fgonnx.dequantise import resolve_straight_through
from fgonnx.emit import Emitter, Entry, Recipe
from fgonnx.engines import ENGINES
from fgonnx.errors import ModelError, OptionError, TargetError, UnsupportedError
from fgonnx.model import LoadedModel, ModelLike, load, metadata
from fgonnx.normalise import Normal, normalise
from fgonnx.probe import batch_factor
from fgonnx.rules.registry import FIX_BATCH

HEADS = ("logits", "output")
FORMS = ("fast", "portable")
CERTIFICATE = ("saliency", "target", "score", "completeness", "contributions")
TARGET_INPUT = "target_index"
SEED_INPUT = "seed"

_HEAD_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid"}
_SEE_THROUGH = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout", "StraightThrough"}
_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}


@dataclass(frozen=True)
class Options:
    """What a rewrite is asked for; see `rewrite` for the meaning of each."""

    method: str = "fullgrad"
    profile: str = "full"
    psi: str = "abs"
    head: str = "logits"
    output: str | None = None
    input: str | None = None
    input_shape: tuple[int, ...] | None = None
    layout: str | None = None
    target: int | None = None
    seed: bool = False
    outputs: tuple[str, ...] = CERTIFICATE
    expose: tuple[str, ...] = ()
    one_by_one: bool = False
    engine: str = "fgonnx"
    form: str = "fast"
    settings: Any = None

    def __post_init__(self) -> None:
        method = methods.find(self.method)
        if self.settings is None:
            object.__setattr__(self, "settings", method.set({}))
        for name, value, known in (
            ("profile", self.profile, aggregate.PROFILES),
            ("psi", self.psi, aggregate.PSIS),
            ("head", self.head, HEADS),
            ("engine", self.engine, ENGINES),
            ("form", self.form, FORMS),
        ):
            if value not in known:
                raise OptionError(f"{name}={value!r} does not exist; choose one of: {', '.join(known)}")
        _check_method(method, self)


def _check_method(method: methods.Method, o: Options) -> None:
    """Refuse what means nothing for a method: outputs that it does not have, a psi or profile without effect."""
    known = [*method.writes, "target", "score", "head"]
    known += ["completeness", "contributions", "bias_gradients"] * method.sites + ["input_gradient"] * method.gradient
    unknown = [name for name in o.outputs if name not in known]
    if unknown:
        raise OptionError(f"with {method.name} there is no output {unknown[0]!r}; choose from: {', '.join(known)}")
    if o.psi not in method.psis:
        raise OptionError(f"psi={o.psi!r} means nothing for {method.name}; leave it at {method.psis[0]!r}")
    if o.profile != "full" and not method.sites:
        raise OptionError(f"profile={o.profile!r} means nothing for {method.name}, which shows no layers; leave it out")
    if o.engine != "fgonnx" and method.modify is not None:
        raise OptionError(f"{method.name} changes the rules, which engine={o.engine!r} does not have; leave it out")


@dataclass
class Rewritten:
    """A model that explains itself, and what is known about it.

    Attributes
    ----------
    model : ir.Model
        The graph.
    options : Options
        What was asked for.
    normal : Normal
        What the source was turned into.
    head : str
        Name of the value that is explained.
    head_shape : tuple of int
        Its shape per sample, without the batch axis.
    stripped : str
        Operator that was set aside behind the head, or "".
    sites : tuple of Site
        All terms, the input first, in the order of the columns of `contributions`.
    names : dict of str to str
        From the names fgonnx gives outputs to the names in the graph.
    selector : str
        Name of the input that says what is explained: `target_index` or `seed`, unless the model has such a name.
    source_outputs : tuple of str
        The model's own outputs.
    notes : list of str
        What was changed on the way, in words.
    head_axes : tuple of int or None
        Which axis of the input's grid each axis of the head is, where it is known to be one.
    facts : dict of str to str
        What the method chose by itself: the layer of a class activation map.
    """

    model: ir.Model
    options: Options
    normal: Normal
    head: str
    head_shape: tuple[int, ...]
    stripped: str
    sites: tuple[Site, ...]
    names: dict[str, str]
    selector: str
    source_outputs: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    head_axes: tuple[int | None, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


@collector.paused
def rewrite(
    model: ModelLike | LoadedModel,
    *,
    method: str = "fullgrad",
    profile: str = "full",
    psi: str = "abs",
    head: str = "logits",
    output: str | None = None,
    input: str | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str | None = None,
    target: int | None = None,
    seed: bool = False,
    outputs: Sequence[str] | None = None,
    expose: Sequence[str] = (),
    bind: Mapping[str, Any] | None = None,
    form: str = "fast",
    **settings: Any,
) -> onnx.ModelProto:
    """Return a model that computes what the given one does and explains it.

    Its inputs are the model's own, and `target_index` (int64, one number or one per sample) with a default: the
    flat index of the entry to explain, -1 for the largest. Its outputs are the model's own first, unchanged, then those
    asked for.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model to explain.
    method : str
        One of `fgonnx.methods.names()` that is one feed-forward graph; those that need several runs are for
        `fgonnx.Explainer`.
    profile : {"full", "reference", "paper"}
        Which sites the map shows: all spatial ones, those of the authors' code, or one per linear block.
    psi : {"abs", "positive", "signed"}
        Post-processing of a site: absolute value or positive part, both rescaled to 0..1 per sample; or none, and then
        the map sums to the part of the score that is localised. For other methods: what of every entry of the
        attribution is summed over channels.
    head : {"logits", "output"}
        Explain what stands before a final Softmax, LogSoftmax or Sigmoid, or the output itself.
    output : str, optional
        Which output to explain, or which tensor of the graph; the first output by default.
    input : str, optional
        Which input the explanation is about, where several could be meant.
    input_shape : sequence of int, optional
        Shape of that input, needed where its sizes are free.
    layout : str, optional
        Its axes, such as "NCHW" or "NHWC"; found out by default.
    target : int, optional
        Default of `target_index`.
    seed : bool
        Replace `target_index` by an input `seed` of the head's shape: a cotangent for detectors and the like.
    outputs : sequence of str, optional
        From "saliency" (N, H, W), "target" (N,) int64, "score" (N,), "completeness" (N,): score minus all
        contributions, "contributions" (N, sites), "input_gradient", "bias_gradients" (of every site), "head" (N, ...):
        all entries of the tensor explained, "attribution" (N, ...): that of every entry of the input, where the method
        has one. By default map, target, score and the certificate, where the method has one.
    expose : sequence of str
        More outputs: the name of any value of the graph, "gradient:NAME" for its cotangent, "bias:SITE" for the
        intercept and "bias_gradient:SITE" for the per-neuron bias-gradient of a site.
    bind : mapping of str to number or array, optional
        Inputs to fix; the result does not have them. A number fills the input's shape.
    form : {"fast", "portable"}
        Forms of the gradient: those that are fast on onnxruntime, or plain ones for any runtime, with masks as
        comparisons and max pools without indices wherever their windows allow it.
    **settings
        The method's own, such as `layer` of the class activation maps.

    Returns
    -------
    onnx.ModelProto
        Of standard operators only. Its metadata says what it is, under keys that begin with "fgonnx.".

    Raises
    ------
    ModelError, UnsupportedError, OptionError, TargetError
        If the model cannot be loaded or explained, or an option does not exist.
    """
    chosen = methods.find(method)
    if chosen.drive is not None:
        raise OptionError(
            f"{method} needs several runs or more than the graph, and is not one feed-forward file; use "
            f"fgonnx.Explainer(model, method={method!r}) or 'fgonnx explain'"
        )
    if outputs is None:
        outputs = CERTIFICATE if chosen.certificate else CERTIFICATE[:3]
    options = Options(
        method=method, profile=profile, psi=psi, head=head, output=output, input=input,
        input_shape=tuple(input_shape) if input_shape is not None else None, layout=layout, target=target, seed=seed,
        outputs=tuple(outputs), expose=tuple(expose), form=form, settings=chosen.set(settings),
    )  # fmt: skip
    proto: onnx.ModelProto = ir.to_proto(build(bound_to(load(model), bind), options).model)
    return proto


@collector.paused
def build(loaded: LoadedModel, options: Options) -> Rewritten:
    """Rewrite a loaded model; see `rewrite`.

    A graph that loses its batch axis, or has nodes that only a free batch makes unexplainable, takes one sample at a
    time.
    """
    normal = normalise(
        loaded,
        input_name=options.input,
        input_shape=options.input_shape,
        layout=options.layout,
        one_by_one=options.one_by_one,
    )
    try:
        return _build(loaded, normal, options)
    except BatchLostError:
        return build(loaded, replace(options, one_by_one=True))
    except UnsupportedError as error:
        if not normal.batched or not any(r.what_to_do == FIX_BATCH for r in error.refusals):
            raise
        return build(loaded, replace(options, one_by_one=True))


def _build(loaded: LoadedModel, normal: Normal, options: Options) -> Rewritten:
    graph = normal.model.graph
    opset = normal.model.opset_imports[""]
    nodes = list(graph)
    source_outputs = tuple(str(v.name) for v in normal.outputs)
    head, stripped = find_head(normal, options, loaded)
    head_shape = per_sample_shape(head, normal.batched, loaded.name)

    method = methods.find(options.method)
    active = backward.active_values(nodes, [normal.x])
    if head not in active and method.gradient:
        if obstacles := backward.obstacles(nodes, normal.x, head, opset):
            raise UnsupportedError(obstacles)
        raise ModelError(
            f"{loaded.name}: the output '{head.name}' does not depend on the input '{normal.input_name}'; explain "
            "another output (output=) or input (input=)"
        )
    path = backward.path(nodes, active, head)
    op = Emitter(graph, active, portable=options.form == "portable")
    writer = _Outputs(op, normal)
    selector = writer.claim(SEED_INPUT if options.seed else TARGET_INPUT)
    seed, chosen, score = _seed(op, head, head_shape, selector, options)
    if not method.gradient:
        walked = backward.Walk({})
    elif method.modify is not None:
        walked = backward.walk(op, path, head, seed, opset, method.modify(options.settings))
    else:
        walked = ENGINES[options.engine](op, path, head, seed, opset)
    if method.gradient and normal.x not in walked.cotangents:
        raise ModelError(f"{loaded.name}: the gradient of '{head.name}' with respect to its input is zero everywhere")

    layout = axes.input_layout(normal.layout, normal.x.shape.dims if normal.x.shape else (), normal.batched)
    layouts = axes.propagate(path, normal.x, layout, active)
    grid = tuple(a[0].size if a else 1 for a, letter in zip(layout, normal.layout, strict=False) if letter in "DHWF")
    view = methods.View(
        op,
        normal.x,
        path,
        walked,
        layouts,
        grid,
        normal.batched,
        options.psi,
        options.profile,
        options.settings,
        certificate=bool({"contributions", "completeness"} & set(options.outputs)),
    )
    parts = view.parts if method.sites else []
    _write_outputs(writer, options, method.write(view), view, parts, chosen, score)
    if "head" in options.outputs:
        writer.add("head", op.Reshape(head, [-1, *head_shape]), head_shape)
    _expose(writer, options, parts, walked, nodes, loaded.name)
    if not op.portable:
        recompute.error_functions(op, nodes)
    head_name = str(head.name)  # the next step takes names away
    resolve_straight_through(graph)
    common.RemoveUnusedNodesPass()(normal.model)
    rewritten = Rewritten(
        normal.model, options, normal, head_name, head_shape, stripped,
        (*(p.site for p in parts), *aggregate.beside(parts)), writer.names, selector, source_outputs, normal.notes,
        axes.grid_axes(layouts.get(head, ()))[-len(head_shape) :] if head_shape else (), view.facts,
    )  # fmt: skip
    _describe(rewritten, loaded)
    return rewritten


def find_head(normal: Normal, options: Options, loaded: LoadedModel) -> tuple[ir.Value, str]:
    """Return the value to explain, and the operator that was set aside behind it ("" for none)."""
    where = loaded.name
    named = {str(v.name): v for v in normal.outputs}
    if options.output is not None:
        inner = {v.name: v for node in normal.model.graph for v in node.outputs}
        if options.output not in named and options.output not in inner:
            raise OptionError(f"{where}: has no output '{options.output}'; it has: {', '.join(named)}")
        output = named.get(options.output) or inner[options.output]
    else:
        output = next((v for v in normal.outputs if backward.differentiable(v)), normal.outputs[0])
    output = normal.twins.get(output, output)
    if not backward.differentiable(output):
        raise _no_derivative(normal, output, where)
    if options.head == "output":
        return output, ""
    value = output
    while (node := value.producer()) is not None:
        source = node.inputs[0]
        if source is None or not backward.differentiable(source):
            break
        if node.op_type in _HEAD_ACTIVATIONS and not node.domain:
            return _step_back(source, {v.name for n in loaded.ir.graph for v in n.outputs}), node.op_type
        if node.op_type not in _SEE_THROUGH and not _of_one(node):
            break
        value = source
    return output, ""


def _of_one(node: ir.Node) -> bool:
    """Tell whether a mean, sum or extremum goes over axes of one entry only, and changes nothing."""
    before, after = (v.shape for v in (node.inputs[0], node.outputs[0]) if v is not None)
    if node.op_type not in _REDUCTIONS or before is None or after is None:
        return False
    return [d for d in before.dims if d != 1] == [d for d in after.dims if d != 1]


def _no_derivative(normal: Normal, output: ir.Value, where: str) -> UnsupportedError | OptionError:
    """Return what to raise for an output that holds no numbers with a derivative: what to explain instead of it."""
    opset = normal.model.opset_imports[""]
    if found := backward.obstacles(list(normal.model.graph), normal.x, output, opset):
        return UnsupportedError(found)
    return OptionError(
        f"{where}: its output '{output.name}' is not floating-point, it has no derivative; choose another (output=)"
    )


def _step_back(value: ir.Value, known: set[str | None]) -> ir.Value:
    """Step back to a value of the source, over reshapes that raising its opset put before a Softmax.

    A Softmax of an old opset works on a matrix; the reshape to it may fold other axes into the batch.
    """
    while value.name not in known:
        node = value.producer()
        if node is None or node.op_type not in _SEE_THROUGH or node.inputs[0] is None:
            break
        value = node.inputs[0]
    return value


def per_sample_shape(head: ir.Value, batched: bool, where: str) -> tuple[int, ...]:
    """Return the head's shape for one sample, without the batch axis."""
    assert head.shape is not None
    dims = list(head.shape.dims)
    if dims and (batch_factor(dims[0]) == 1 or dims[0] == 1):
        dims = dims[1:]
    elif batched:
        raise BatchLostError(str(head.name))
    if not all(isinstance(d, int) for d in dims):
        raise BatchLostError(str(head.name))
    return tuple(int(d) for d in dims)  # type: ignore[arg-type]


def _seed(
    op: Emitter, head: ir.Value, shape: tuple[int, ...], name: str, options: Options
) -> tuple[ir.Value, ir.Value | None, ir.Value]:
    """Return the head's cotangent, the index explained per sample (None with a seed of the user's), and the score."""
    assert head.dtype is not None
    count = int(np.prod(shape, initial=1))
    if options.seed:
        seed = ir.Value(name=name, shape=head.shape, type=ir.TensorType(head.dtype))
        op.graph.inputs.append(seed)
        products = op.Reshape(op.Mul(aggregate.widen(op, seed), aggregate.widen(op, head)), [-1, count])
        return seed, None, op.ReduceSum(products, [1], keepdims=0)
    if options.target is not None and not -1 <= options.target < count:
        raise TargetError(f"target {options.target} is out of range: '{head.name}' has {count} entries per sample")
    default = np.array([-1 if options.target is None else options.target], np.int64)
    index = ir.Value(name=name, shape=ir.Shape(["targets"]), type=ir.TensorType(ir.DataType.INT64))
    index.const_value = ir.tensor(default, name=name)
    op.graph.inputs.append(index)
    op.graph.register_initializer(index)
    flat = op.Reshape(head, [-1, count])
    largest = op.ArgMax(flat, axis=1, keepdims=0)
    chosen = op.Where(op.Less(index, 0), largest, index)
    # onnxruntime has OneHot in float32, not in float64
    hot = op.OneHot(chosen, np.array(count, np.int64), op.constant(np.array([0, 1], np.float32)), axis=1)
    if head.dtype != ir.DataType.FLOAT:
        hot = op.Cast(hot, to=head.dtype.value)
    score = op.Reshape(op.GatherElements(aggregate.widen(op, flat), op.Unsqueeze(chosen, [1]), axis=1), [-1])
    op.recipes[hot] = Recipe(entry=Entry(chosen, count))
    return op.reshape_like(hot, head), chosen, score


class _Outputs:
    """Adds inputs and outputs under the names users expect, stepping aside for names the model has."""

    def __init__(self, op: Emitter, normal: Normal) -> None:
        self.op = op
        self.names: dict[str, str] = {}
        graph = op.graph
        self._faces = {v.name for v in [*graph.inputs, *graph.outputs]}
        self._inner = {v.name: v for node in graph for v in node.outputs if v.name not in self._faces}
        self._inner.update({n: v for n, v in graph.initializers.items() if n not in self._faces})
        self._batch: list[int | str] = ["N"] if normal.batched else [1]

    def claim(self, name: str) -> str:
        """Return a name for a new input or output: the one asked for, behind "fg_" where an input or output has it."""
        while name in self._faces:
            name = f"fg_{name}"
        if name in self._inner:
            self._inner[name].name = f"{name}::inner"
        self._faces.add(name)
        return name

    def add(self, name: str, value: ir.Value, dims: Sequence[int | str | ir.SymbolicDim] | None = None) -> None:
        """Add an output; `dims` are its dimensions after the batch axis, or those of the value."""
        graph = self.op.graph
        out = self.op.Identity(value)
        free = out.name = self.claim(name)
        out.dtype = value.dtype
        out.shape = ir.Shape([*self._batch, *dims]) if dims is not None else value.shape
        graph.outputs.append(out)
        self.names[name] = free


def _write_outputs(
    writer: _Outputs, options: Options, written: Mapping[str, methods.Written], view: methods.View,
    parts: Sequence[aggregate.Summand], chosen: ir.Value | None, score: ir.Value,
) -> None:  # fmt: skip
    op = writer.op
    for name, value in written.items():
        if name in options.outputs or (name.startswith("signed_map_") and "signed_maps" in options.outputs):
            writer.add(name, value.value, value.dims)
    if "target" in options.outputs and chosen is not None:
        writer.add("target", chosen, ())
    if "score" in options.outputs:
        writer.add("score", score, ())
    if "completeness" in options.outputs or "contributions" in options.outputs:
        columns = aggregate.totals(op, parts, view.carried)
        if "completeness" in options.outputs:
            writer.add("completeness", op.Sub(score, op.ReduceSum(columns, [1], keepdims=0)), ())
        if "contributions" in options.outputs:
            writer.add("contributions", columns, (len(parts) + len(aggregate.beside(parts)),))
    if "input_gradient" in options.outputs:
        writer.add("input_gradient", view.walked.cotangents[view.x])
    if "bias_gradients" in options.outputs:
        for p in parts[1:]:
            writer.add(f"bias_gradient:{p.site.name}", p.product)


def _expose(
    writer: _Outputs,
    options: Options,
    parts: Sequence[aggregate.Summand],
    walked: backward.Walk,
    nodes: Sequence[ir.Node],
    where: str,
) -> None:
    values = {str(v.name): v for node in nodes for v in node.outputs if v.name}
    sites = {p.site.name: p for p in parts[1:]}
    gradients = {str(v.name): g for v, g in walked.cotangents.items()}
    for name in options.expose:
        if name in writer.names:
            continue
        if name in values:
            if not values[name].is_graph_output():
                writer.op.graph.outputs.append(values[name])
            writer.names[name] = name
            continue
        kind, _, which = name.partition(":")
        if kind == "gradient" and which in gradients:
            writer.add(name, gradients[which])
        elif kind == "bias" and which in sites:
            writer.add(name, sites[which].c)
        elif kind == "bias_gradient" and which in sites:
            writer.add(name, sites[which].product)
        else:
            raise OptionError(
                f"{where}: nothing to expose under {name!r}. Give the name of a value of the graph, 'gradient:NAME', "
                "'bias:SITE' or 'bias_gradient:SITE'; 'fgonnx inspect' lists the sites"
            )


def _describe(r: Rewritten, loaded: LoadedModel) -> None:
    o = r.options
    model = r.model
    model.producer_name, model.producer_version = "fgonnx", __version__
    folded = "no" if any(n.op_type == "BatchNormalization" for n in model.graph) else "yes, or none in the source"
    model.metadata_props.update(
        metadata(
            version=__version__,
            source_sha256=loaded.sha256,
            source_producer=f"{loaded.ir.producer_name or '?'} {loaded.ir.producer_version or ''}".strip(),
            method=o.method,
            **r.facts,
            profile=o.profile,
            psi=o.psi,
            head=o.head,
            head_value=r.head,
            head_stripped=r.stripped or None,
            batchnormalization_folded=folded,
            batch="any" if r.normal.batched else "1",
            layout=r.normal.layout,
            input=r.normal.input_name,
            bound=dict(loaded.bound) or None,
            outputs=r.names,
            sites=[asdict(s) for s in r.sites],
        )
    )


def sites_of(model: onnx.ModelProto) -> list[Site]:
    """Return the sites of a rewritten model from its metadata, in the order of the columns of `contributions`."""
    stored = {p.key: p.value for p in model.metadata_props}.get("fgonnx.sites")
    if stored is None:
        raise ModelError("the model was not written by fgonnx: it has no metadata entry 'fgonnx.sites'")
    return [Site(**{**entry, "grid": tuple(entry["grid"])}) for entry in json.loads(stored)]
