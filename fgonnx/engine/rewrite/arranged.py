"""Models with samples first: made before a graph is rewritten, and undone in the file that is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import PREFIX, Emitter
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.arrangement import Arrangement, Place
from fgonnx.engine.model.bind import with_given_sizes
from fgonnx.engine.model.inputs import choose_input
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.arrange import arrange, moved
from fgonnx.engine.rewrite.door import in_words_of
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import OF_THE_INPUT, Rewritten
from fgonnx.engine.rewrite.sizes import EXPLAINED
from fgonnx.errors import OptionError

Array = npt.NDArray[Any]


def sized(loaded: LoadedModel, options: Options) -> tuple[LoadedModel, Options]:
    """Return a model whose other inputs have the sizes that are given by name, and options with the explained one's.

    Raises
    ------
    OptionError
        A shape is of no input, or does not fit it.
    """
    if not isinstance(options.input_shape, Mapping):
        return loaded, options
    shapes = dict(options.input_shape)
    x = choose_input(loaded.ir, options.input, loaded.name)
    if EXPLAINED in shapes and x.name in shapes:
        raise OptionError(f"{loaded.name}: the shape of the input '{x.name}' is given twice; keep one")
    own = shapes.pop(EXPLAINED, None) or shapes.pop(str(x.name), None)
    return with_given_sizes(loaded, x, shapes), replace(options, input_shape=own)


def arranged(loaded: LoadedModel, options: Options) -> tuple[LoadedModel, Options]:
    """Return a model with samples first, and options whose input shape is that of the new input.

    A model that `arrange` has seen already is returned as it is.

    Raises
    ------
    OptionError, ModelError
        The layout does not fit the model, or its samples cannot be told apart.
    """
    loaded, options = sized(loaded, options)
    if loaded.arrangement is not None:
        return loaded, options
    with in_words_of(loaded):
        found = arrange(
            loaded,
            input_name=options.input,
            input_shape=options.explained_shape,
            layout=options.layout,
            output=options.output,
        )
    shape, axis = options.explained_shape, found.arrangement.axis if found.arrangement is not None else 0
    if shape is not None and axis != 0:
        shape = (1, *shape) if axis is None else (shape[axis], *shape[:axis], *shape[axis + 1 :])
        options = replace(options, input_shape=shape)
    return found, options


def turned(loaded: LoadedModel, x: Array | Mapping[str, Array]) -> Array | dict[str, Array]:
    """Return arrays in the model's own layout with samples first, as its rewritten graph takes them.

    Parameters
    ----------
    loaded : LoadedModel
        The model with samples first.
    x : numpy array, or mapping of input names to arrays
        The explained input or several; one without a batch axis may hold several samples, (N, ...).

    Raises
    ------
    InputError
        An array has another number of axes.
    """
    frame = loaded.arrangement
    if frame is None or not frame.inputs:
        return dict(x) if isinstance(x, Mapping) else x
    ranks = {str(v.name): v.shape.rank() for v in loaded.ir.graph.inputs if v.shape is not None}

    def first(name: str, array: Array) -> Array:
        return frame.first(name, np.asarray(array), ranks[name]) if name in ranks else array

    if isinstance(x, Mapping):
        return {name: first(name, array) for name, array in x.items()}
    return first(frame.explained, x)


def in_own_layout(r: Rewritten, arrangement: Arrangement | None) -> None:
    """Let a rewritten graph take the model's inputs and give its outputs as they were, and gradients of their shape.

    All other outputs have samples first. A batch that is filled up stays one sample.
    """
    if arrangement is None:
        return
    graph = r.model.graph
    names = [str(v.name) for v in graph.inputs]
    for name, place in arrangement.inputs.items():
        if name in names:
            _own_input(graph, names.index(name), place)
    for name, place in arrangement.outputs.items():
        _turn_back(graph, name, place)
    for name in OF_THE_INPUT:
        if name in r.names and arrangement.axis != 0:
            _turn_back(graph, r.names[name], arrangement.axis)
    graph.sort()


def _own_input(graph: ir.Graph, at: int, place: Place) -> None:
    v = graph.inputs[at]
    batch, *dims = dims_of(v)
    if place is not None:
        dims.insert(place, batch)
    own = ir.Value(name=v.name, type=v.type, shape=ir.Shape(dims), doc_string=v.doc_string)
    v.name = None
    op = Emitter(graph, prefix=f"{PREFIX}{own.name}/", before=next(iter(graph)))
    turned = op.Unsqueeze(own, [0]) if place is None else op.Transpose(own, perm=moved(len(dims), place, 0))
    graph.inputs[at] = own
    v.replace_all_uses_with(turned, replace_graph_outputs=True)


def _turn_back(graph: ir.Graph, name: str, place: Place) -> None:
    at = next((i for i, v in enumerate(graph.outputs) if v.name == name), None)
    if at is None:
        return
    v = graph.outputs[at]
    rank = v.shape.rank() if v.shape is not None else None
    if place is not None and rank is None:
        return
    v.name = f"{name}::first"
    op = Emitter(graph, prefix=f"{PREFIX}{name}/")
    back = op.Squeeze(v, [0]) if place is None else op.Transpose(v, perm=moved(rank or 0, 0, place))
    back.name, back.type = name, v.type
    if v.shape is not None:
        first, *dims = v.shape.dims
        if place is not None:
            dims.insert(place, first)
        back.shape = ir.Shape(dims)
    graph.outputs[at] = back
