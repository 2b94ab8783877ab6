"""Run any number of samples through a rewritten model: check inputs, split into runs, concatenate results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine import methods
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.rewrite.samples import ONE_AT_A_TIME
from fgonnx.errors import InputError, ModelError
from fgonnx.explain import ids
from fgonnx.explain.shapes import as_numbers, is_turned, turned
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


class Runs(Protocol):
    """A session of any runtime."""

    def run(self, feeds: dict[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model, for all outputs or some."""


def feeds(loaded: LoadedModel, r: Rewritten, x: Array | Feeds, size: int | None = None) -> dict[str, Array]:
    """Check arrays against the inputs of a rewritten model and return them by name.

    Parameters
    ----------
    loaded : LoadedModel
        The source, whose inputs say what has the batch axis.
    r : Rewritten
        The rewritten model.
    x : numpy array, or mapping of input names to arrays
        The arrays.
    size : int, optional
        How many samples are run at once; advice to run one at a time is left out where it is 1.

    Raises
    ------
    InputError
        An input is missing or unknown, has another shape, type or number of samples, or holds NaN or infinity.
    ModelError
        There are several samples, and they influence each other.
    """
    where, graph = loaded.name, r.model.graph
    added = {r.selector} if r.normal.given == r.normal.input_name else {r.selector, r.normal.input_name}
    needed = {str(v.name): v for v in graph.inputs if v.name not in graph.initializers and v.name not in added}
    given = dict(x) if isinstance(x, Mapping) else {r.normal.given: x}
    missing, unknown = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    if weights := [name for name in unknown if name in loaded.ir.graph.initializers]:
        raise InputError(
            f"{where}: {', '.join(map(repr, weights))} {'has its value' if len(weights) == 1 else 'have their values'} "
            f"in the file, which is explained as it is; the inputs to give are {', '.join(needed)}. To explain it with "
            "other values, write those into the file, or leave the initializer out, so that an input is left"
        )
    if missing or unknown:
        raise InputError(
            f"{where} takes the inputs {', '.join(needed)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            + (f"; give arrays by name, or fix inputs beforehand ({parameter('bind')})" if len(needed) > 1 else "")
        )
    arrays = {name: np.asarray(given[name]) for name in needed}
    if r.normal.ids is not None:
        ids.check(where, r, arrays)
    found = {name: _checked(name, arrays[name], value) for name, value in needed.items()}
    main = found[r.normal.given]
    if main.shape[0] == 0:
        raise InputError("the batch is empty; give at least one sample")
    turned = set(loaded.arrangement.inputs) if loaded.arrangement is not None else set()
    # a state, whose batch was on another axis, may be one for all samples
    counted = {name: array for name, array in found.items() if name not in turned or len(array) != 1 or array is main}
    check_counts(loaded.ir.graph, r.normal.given, counted, graph)
    if r.entangled and main.shape[0] > 1:
        raise ModelError(r.entangled.replace(ONE_AT_A_TIME, "") if size == 1 else r.entangled)
    return found


def check_counts(source: ir.Graph, main: str, arrays: Feeds, graph: ir.Graph | None = None) -> None:
    """Refuse inputs with another number of samples than the explained one.

    An input has the samples along its first axis where the rewritten graph has a free size there, or, before there is
    one, where the axis has the same name as the explained input's; a fixed size above 1 is that of a state.

    Parameters
    ----------
    source : ir.Graph
        The source.
    main : str
        The explained input.
    arrays : mapping of str to numpy array
        Inputs by name.
    graph : ir.Graph, optional
        The rewritten graph, once there is one.

    Raises
    ------
    InputError
        There is such an input.
    """
    own, written = _firsts(source), _firsts(graph) if graph is not None else {}
    count = len(arrays[main])
    batch = own.get(main)
    for name, array in arrays.items():
        first, rewritten = own.get(name), written.get(name, 0)
        shared = first == 1 and len(array) == 1  # a state
        if name == main or not array.ndim or name not in own or len(array) == count or shared:
            continue
        named = isinstance(first, ir.SymbolicDim) and isinstance(batch, ir.SymbolicDim) and first.value is not None
        alike = named and first == batch
        # a graph that runs samples one by one takes a single row for all of them
        apart = not isinstance(rewritten, int) or (rewritten == 1 and len(array) != 1)
        if apart if graph is not None else alike:
            rows = f"{len(array)} row{'s' if len(array) != 1 else ''}"
            raise InputError(
                f"input '{name}' has {rows}, '{main}' has {count}; give as many of both, or bind an input that has "
                f"no row for each sample ({parameter('bind')})"
            )


def _firsts(graph: ir.Graph) -> dict[str, int | ir.SymbolicDim]:
    """Return the sizes of the first axes of inputs that have one."""
    return {str(v.name): v.shape.dims[0] for v in graph.inputs if v.shape is not None and v.shape.rank()}


def cut(r: Rewritten, fed: Feeds, size: int) -> Iterator[dict[str, Array]]:
    """Yield samples in runs of at most `size`, one by one if the graph takes no batch.

    Inputs without a leading batch axis, such as the state of a recurrent network, are passed whole to every run.
    Whether an input has one is decided by the graph: the state of two layers has the shape of two samples.
    """
    count = fed[r.normal.input_name].shape[0]
    whole = _without_batch(r)
    step = size if r.normal.batched else 1
    for start in range(0, count, step):
        part = {
            name: array[start : start + step] if array.ndim and len(array) == count and name not in whole else array
            for name, array in fed.items()
        }
        if r.options.seed and r.selector in whole and fed[r.selector].ndim > len(r.head_shape):
            part[r.selector] = fed[r.selector][start]  # a head without a batch axis
        yield part


def run(r: Rewritten, session: Runs, fed: Feeds, size: int, outputs: Sequence[str] | None = None) -> dict[str, Array]:
    """Run samples, at most `size` at once, and concatenate the results.

    Parameters
    ----------
    r : Rewritten
        The model, whose inputs determine what has the batch axis.
    session : Runs
        Session of it, or of another model with the same inputs, such as its source.
    fed : mapping of str to numpy array
        Inputs by name, of all samples.
    size : int
        Largest number of samples in one run.
    outputs : sequence of str, optional
        What to fetch; all outputs by default.

    Returns
    -------
    dict of str to numpy array
        One row per sample.
    """
    parts = [session.run(part, outputs) for part in cut(r, fed, size)]
    return {name: _joined([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _joined(arrays: Sequence[Array]) -> Array:
    """Return the rows of all runs; those of the first where others have another size, as lists of what is found do."""
    alike = all(array.shape[1:] == arrays[0].shape[1:] for array in arrays)
    return np.concatenate(arrays) if alike else arrays[0]


def drive(r: Rewritten, session: Runs, fed: Feeds, size: int) -> dict[str, Array]:
    """Explain samples by a method that needs several runs for each, at most `size` variations at once.

    Returns
    -------
    dict of str to numpy array
        The model's own outputs for the samples themselves, by name; the results of graph and method, by the names
        that `named` returns.
    """
    found = [_driven(r, session, part, index, size) for index, part in enumerate(cut(r, fed, 1))]
    return {name: _joined([np.atleast_1d(one[name]) for one in found]) for name in found[0]}


def named(r: Rewritten, name: str) -> str:
    """Return the name of a result among the model's outputs: that of the graph, or one that no model uses."""
    return r.names.get(name, f"fg/{name}")


def _driven(r: Rewritten, session: Runs, fed: Feeds, index: int, size: int) -> dict[str, Array]:
    """Explain one sample. Random draws depend on its index and the seed, not on the batch size."""
    method = methods.find(r.options.method)
    assert method.drive is not None
    name = r.normal.input_name
    clean = session.run(dict(fed))
    fixed = dict(fed)
    if "target" in r.names:
        fixed[r.selector] = clean[r.names["target"]]
    if "contrast" in r.names:
        fixed[r.contrast] = clean[r.names["contrast"]]
    free = {str(v.name) for v in r.model.graph.inputs if v.shape and not isinstance(v.shape.dims[0], int)}

    def run(variations: Array, names: Sequence[str]) -> dict[str, Array]:
        copies = {k: np.repeat(v, len(variations), axis=0) if k in free else v for k, v in fixed.items()}
        copies[name] = typed(variations, fed[name].dtype)
        results = session.run(copies, [r.names[n] for n in names])
        return {n: results[r.names[n]] for n in names}

    sample = methods.Sample(
        fed[name].astype(np.float64),
        index,
        r.normal.axes or r.normal.layout,
        size if r.normal.batched else 1,
        {n: clean[where] for n, where in r.names.items()},
        r.options.psi,
        r.options.profile,
        run,
        lambda model, given: Session(model, providers=["cpu"]).run(given),
    )
    made = method.drive(sample, r.options.settings)
    if "score" in made:  # of its runs: that of the sample itself is shown beside it
        made = {**made, "model_score": clean[r.names["score"]]}
    single = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in made.items()}
    return {**clean, **{named(r, k): v for k, v in single.items()}}


def _without_batch(r: Rewritten) -> set[str]:
    """Return the inputs whose first axis has a fixed size above 1."""
    return {name for name, first in _firsts(r.model.graph).items() if isinstance(first, int) and first > 1}


def typed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Cast numbers to the type of an input; for integers, rounded and clipped to their range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)


def _checked(name: str, array: Array, value: ir.Value) -> Array:
    dtype = dtype_of(value)
    wanted = dtype.numpy()
    if array.dtype != wanted:
        both_float = array.dtype.kind == "f" and dtype.is_floating_point()
        if not both_float:
            raise InputError(f"input '{name}' must be {wanted}, the array is {array.dtype}; {as_numbers(array)}")
        with np.errstate(invalid="ignore", over="ignore"):
            array = array.astype(wanted)
    dims = tuple(value.shape.dims) if value.shape is not None else ()
    fits = len(dims) == array.ndim and all(
        not isinstance(d, int) or d == s or i == 0 for i, (d, s) in enumerate(zip(dims, array.shape, strict=True))
    )
    if not fits:
        shape = ", ".join("N" if i == 0 else str(d if isinstance(d, int) else "?") for i, d in enumerate(dims))
        way = f"; give {turned(array.ndim, last=False)}" if is_turned(array.shape, dims) else ""
        raise InputError(f"input '{name}' must have the shape ({shape}), the array has {array.shape}{way}")
    check_finite(name, array)
    return array


def check_finite(name: str, array: Array) -> None:
    """Refuse an input that holds NaN or infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"input '{name}' holds NaN or infinity, first at {where}")
