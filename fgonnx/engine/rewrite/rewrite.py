"""The graph rewriter: normalise, seed, walk back, aggregate, prune; the result is one ONNX model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine import methods
from fgonnx.engine.graph import collector
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.maps import axes, follow, sites
from fgonnx.engine.maps.sites import BatchLostError
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.inputs import choose_input, refuse_untied
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.normal.cut import free_input
from fgonnx.engine.normal.normalise import Normal, normalise
from fgonnx.engine.normal.tie import resolve_own_nodes
from fgonnx.engine.rewrite import rows
from fgonnx.engine.rewrite.arranged import arranged, in_own_layout
from fgonnx.engine.rewrite.door import in_words_of
from fgonnx.engine.rewrite.head import find_head, own_name, per_sample_shape, seeded
from fgonnx.engine.rewrite.options import FAST, INPUT, OPENVINO, Options, options_with_changes
from fgonnx.engine.rewrite.outputs import CONTRAST_INPUT, SEED_INPUT, TARGET_INPUT, Outputs, expose, write_outputs
from fgonnx.engine.rewrite.portable import forget_shapes, make_portable
from fgonnx.engine.rewrite.quantised import read_copies
from fgonnx.engine.rewrite.rewritten import Rewritten, describe
from fgonnx.engine.rewrite.samples import entangled, refuse_sized_by_data
from fgonnx.engine.rules.fast import recompute
from fgonnx.engine.walk import ENGINES, PASSES, backward, cuts
from fgonnx.engine.walk.chosen_sizes import refused_sizes
from fgonnx.errors import ModelError, OptionError, TargetError, UnsupportedError
from fgonnx.fields import of_kind
from fgonnx.wording import in_utf8, parameter

_LOGGER = logging.getLogger(__name__)


@collector.paused
def rewrite(model: ModelLike | LoadedModel, *, options: Options | None = None, **changes: Any) -> onnx.ModelProto:
    """Return a model that computes what the given one does and explains it.

    Its inputs are the model's own, and `target_index` (int64, one number or one per sample) with a default: the
    flat index of the entry to explain, -1 for the largest; with a contrast also `contrast_index`, what to subtract,
    -1 for the largest other one. Such optional inputs work in ONNX Runtime's Python package; other runtimes ignore or
    refuse them. For those, `target="argmax"` or an index gives a file with the model's own inputs alone, and
    `target="input"` one that requires `target_index`, (N,).

    Its outputs are the model's own first, unchanged, then those asked for:
    "saliency" (N, H, W), "target" (N,) int64, "score" (N,), "completeness" (N,): score minus all
    contributions, "contributions" (N, sites), "blocks" (N, blocks): what "fullgrad+" finds at the beginning of every
    block, "input_gradient", "bias_gradients" (of every site), "head" (N, ...): all entries of the tensor explained,
    "attribution" (N, ...): that of every entry of the input, where the method has one, "contrast" (N,) int64: what was
    subtracted. What is of the input's shape has its batch where the input has it, or none; all else that is added
    begins with the samples, a single one where the input has no batch axis.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model to explain.
    options : Options, optional
        What is explained and how.
    **changes
        Fields of `Options`, or settings of the method, that differ from `options`.

    Returns
    -------
    onnx.ModelProto
        Of standard operators only. Its metadata says what it is, under keys that begin with "fgonnx.".

    Raises
    ------
    ModelError, UnsupportedError, OptionError, TargetError
        If the model cannot be loaded or explained, or an option does not exist.

    Examples
    --------
    >>> import fgonnx
    >>> model = fgonnx.rewrite("examples/shapes.onnx", outputs=("saliency", "score"))
    >>> [i.name for i in model.graph.input]
    ['image', 'target_index']
    >>> [o.name for o in model.graph.output]
    ['logits', 'saliency', 'score']

    For any runtime, and always of the largest entry:

    >>> model = fgonnx.rewrite("examples/shapes.onnx", form="portable", target="argmax")
    >>> [i.name for i in model.graph.input]
    ['image']
    """
    name = methods.named(changes.get("method", of_kind(options, Options).method))
    if methods.find(name).drive is not None:
        raise OptionError(
            f"{name} needs several runs or more than the graph, and is not one feed-forward file; use "
            "fgonnx.Explainer or 'fgonnx explain' with it"
        )
    options = options_with_changes(options, changes)
    loaded, options = arranged(bound_to(load(model), options.bind, options.input_shape), options)
    own = loaded.own.graph if loaded.own is not None else None
    refuse_untied(loaded.ir.graph, choose_input(loaded.ir, options.input, loaded.name), loaded.name, own)
    rewritten = build(loaded, options)
    if options.contrast is not None and sum(size > 1 for size in rewritten.head_shape) > 1:
        raise TargetError(
            f"{parameter('contrast', options.contrast)} compares two classes, and '{rewritten.head}' has "
            f"{rewritten.head_shape} entries per sample; write a file with a cotangent as its input (seed=True)"
        )
    in_own_layout(rewritten, loaded.arrangement)
    if options.form != FAST:
        forget_shapes(rewritten.model.graph)
    proto: onnx.ModelProto = ir.to_proto(rewritten.model)
    return proto


@collector.paused
def build(loaded: LoadedModel, options: Options) -> Rewritten:
    """Rewrite a loaded model; see `rewrite`.

    A graph that loses its batch axis, or has nodes that only a free batch makes unexplainable, takes one sample at a
    time. A model that onnxruntime does not take is refused in its words about the source, not about what was written
    beside it.
    """
    start = time.perf_counter()
    with in_words_of(loaded):
        rewritten = _rewritten(loaded, options)
    took, before, after = time.perf_counter() - start, len(loaded.ir.graph), len(rewritten.model.graph)
    _LOGGER.info(
        "%s rewritten for %s in %.2f s: %d nodes became %d", in_utf8(loaded.name), options.method, took, before, after
    )
    return rewritten


def _rewritten(loaded: LoadedModel, options: Options) -> Rewritten:
    normal = normalise(
        loaded,
        input_name=options.input,
        input_shape=options.explained_shape,
        layout=options.layout,
        one_by_one=options.one_by_one,
        output=options.output,
    )
    try:
        return _build(loaded, normal, options)
    except BatchLostError:
        return _rewritten(loaded, replace(options, one_by_one=True))
    except UnsupportedError as error:
        if not normal.batched:
            raise
        try:  # what depends on the batch size is known for a single sample
            return _rewritten(loaded, replace(options, one_by_one=True))
        except UnsupportedError:
            raise error from None


def _build(loaded: LoadedModel, normal: Normal, options: Options) -> Rewritten:
    method = methods.find(options.method)
    if normal.ids is not None:
        normal = rows.arranged(normal)
        normal = normal if method.drive is None else free_input(normal)
    graph = normal.model.graph
    source_outputs = tuple(str(v.name) for v in normal.outputs)
    head, stripped = find_head(normal, options, loaded)
    nodes = list(graph)  # with those that the head may have added
    refuse_sized_by_data(loaded, normal, head)
    head_shape = per_sample_shape(head, normal.batched, loaded.name)
    active = backward.active_values(nodes, [normal.x])
    if method.gradient:
        _hold_whole(normal, active, head)
        if head not in active:
            raise _independent(loaded, normal, head)
    op = Emitter(graph, active, portable=options.form != FAST, openvino=options.form == OPENVINO)
    writer = Outputs(op, normal)
    chosen = options.seed or options.target in (None, INPUT)
    selector = writer.claim(SEED_INPUT if options.seed else TARGET_INPUT) if chosen else ""
    contrast = writer.claim(CONTRAST_INPUT) if options.contrast is not None and options.target is None else ""
    explained = seeded(op, head, head_shape, (selector, contrast), options)
    path = backward.path(nodes, active, head)
    view = _view(op, normal, path, _walk(op, normal, path, head, explained.seed, options), options)
    if method.gradient and normal.x not in view.walked.cotangents:
        raise ModelError(
            f"{loaded.name}: the gradient of '{own_name(loaded, normal, head)}' with respect to its input is zero "
            f"everywhere; explain another output ({parameter('output')}) or input ({parameter('input')})"
        )

    parts = view.terms if method.sites else []
    if parts and (lost := sites.without_place(parts, grouped=normal.in_place)):
        normal.notes.append(lost)
    write_outputs(writer, options, method.write(view), view, parts, explained)
    if normal.selected is not None and normal.x is not normal.selected and normal.input_name != normal.given:
        writer.add("rows", normal.selected)  # what is varied, as it is without a variation
    if "head" in options.wanted:
        writer.add("head", op.Reshape(head, [-1, *head_shape]), head_shape)
    expose(writer, options, parts, view.walked, nodes, loaded.name)
    if not op.portable:
        recompute.error_functions(op, nodes)
    alone = entangled(loaded, normal, options, head)
    head_name = own_name(loaded, normal, head)  # the next step takes names away
    resolve_own_nodes(graph)
    common.RemoveUnusedNodesPass()(normal.model)
    read_copies(normal.model)
    if op.portable:
        make_portable(normal.model)
    if normal.sized:  # onnxruntime takes the shapes of one run for those of all, and folds what follows from them
        forget_shapes(graph)
    rewritten = Rewritten(
        model=normal.model,
        options=options,
        normal=normal,
        head=head_name,
        head_shape=head_shape,
        stripped=stripped,
        sites=(*(p.site for p in parts), *sites.extra_tokens(parts)),
        names=writer.names,
        selector=selector,
        source_outputs=source_outputs,
        notes=normal.notes,
        head_axes=axes.grid_axes(view.layouts.get(head, ()))[-len(head_shape) :] if head_shape else (),
        facts=view.facts,
        blocks=tuple(view.blocks),
        entangled=alone,
        contrast=contrast,
    )
    describe(rewritten, loaded)
    return rewritten


def _hold_whole(normal: Normal, active: set[ir.Value], head: ir.Value) -> None:
    """Refuse what leads to the head without a cotangent; note the choices that are held fixed."""
    nodes, opset = list(normal.model.graph), normal.model.opset_imports[""]
    found = cuts.find(nodes, [normal.x], active, head, opset, cuts.Origin.of(normal))
    path = backward.path(nodes, active, head)
    refused = [*found.refusals, *refused_sizes(normal, path, active)]
    if refused:
        ruled = backward.refusals(path, opset)
        raise UnsupportedError([*refused, *(r for r in ruled if r not in refused)])
    normal.notes += [note for note in found.notes() if note not in normal.notes]


def _independent(loaded: LoadedModel, normal: Normal, head: ir.Value) -> UnsupportedError | ModelError:
    """Return what to raise where no differentiable path leads from the input to the head."""
    nodes, opset = list(normal.model.graph), normal.model.opset_imports[""]
    if obstacles := backward.obstacles(nodes, normal.x, head, opset):
        return UnsupportedError(obstacles)
    return ModelError(
        f"{loaded.name}: the output '{own_name(loaded, normal, head)}' does not depend on the input "
        f"'{normal.input_name}'; explain another output ({parameter('output')}) or input ({parameter('input')})"
    )


def _walk(
    op: Emitter, normal: Normal, path: Sequence[ir.Node], head: ir.Value, seed: ir.Value, options: Options
) -> backward.Walk:
    """Write the backward pass that the method asks for."""
    method, opset = methods.find(options.method), normal.model.opset_imports[""]
    if not method.gradient:
        return backward.Walk({})
    if method.modify is not None:
        return backward.walk(op, path, head, seed, opset, method.modify(options.settings))
    if options.backward in PASSES:
        return backward.walk(op, path, head, seed, opset, PASSES[options.backward])
    return ENGINES[options.engine](op, path, head, seed, opset)


def _view(
    op: Emitter, normal: Normal, path: Sequence[ir.Node], walked: backward.Walk, options: Options
) -> methods.View:
    """Return what a method sees of the graph: cotangents, and where every value lies on the input's grid."""
    own = normal.x if normal.ids is None else normal.ids
    layout = axes.input_layout(normal.layout, own.shape.dims if own.shape else (), normal.batched)
    at = layout
    if normal.selected is not None and normal.in_place:
        at = axes.input_layout(normal.axes, dims_of(normal.selected), normal.batched)
    elif normal.selected is not None:
        at = follow.behind(list(op.graph), own, normal.selected, layout)
    return methods.View(
        op,
        normal.x,
        path,
        walked,
        layouts=follow.propagate(path, normal.x, at, op.active),
        grid=tuple(
            axis[0].size if axis else 1 for axis, letter in zip(layout, normal.layout, strict=False) if letter in "DHWF"
        ),
        batched=normal.batched,
        psi=options.psi,
        profile=options.profile,
        settings=options.settings,
        certificate=bool({"contributions", "completeness", "blocks"} & set(options.wanted)),
    )
