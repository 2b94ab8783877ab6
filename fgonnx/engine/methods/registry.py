"""Registry of attribution methods, and what each is given: `View`, a walked graph; `Sample`, a runnable model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.maps import aggregate, steps
from fgonnx.engine.maps.aggregate import BatchLostError, PlacedTerm
from fgonnx.engine.maps.axes import Layout
from fgonnx.engine.maps.placement import Placement, place
from fgonnx.engine.maps.psi import ABS, POSITIVE, Signed, cell_sums, matrix
from fgonnx.engine.walk.backward import Modify, Walk
from fgonnx.errors import OptionError
from fgonnx.fields import check_choice, checked, pairs
from fgonnx.files import read_named
from fgonnx.wording import near, parameter

Array = npt.NDArray[Any]
Compute = Callable[[ir.Model, dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Plain:
    """Settings of a method without any."""


@dataclass(frozen=True)
class Written:
    """A value that a method offers as an output of the graph.

    Attributes
    ----------
    value : ir.Value
        The value, samples first.
    dims : tuple of int
        Its dimensions after the batch axis.
    """

    value: ir.Value
    dims: tuple[int, ...]


@dataclass
class View:
    """The graph after the reverse walk, as a method sees it when it writes its map.

    Attributes
    ----------
    op : Emitter
        Writes into the graph.
    x : ir.Value
        The explained input.
    nodes : sequence of ir.Node
        The path from it to the head, in order.
    walked : Walk
        Cotangents and terms; empty for a method without a gradient.
    layouts : dict of ir.Value to Layout
        The layout of every active value.
    grid : tuple of int
        Spatial sizes of the input.
    batched : bool
        Whether the batch is free.
    psi, profile : str
        Options of the explanation.
    settings : object
        The method's own.
    certificate : bool
        Whether the totals of sites are needed.
    facts : dict of str to str
        What the method chose by itself, for the record.
    blocks : list of str
        Names of the values that the columns of the output "blocks" are about.
    carried : dict of ir.Value to ir.Value
        Totals of sites that the method has computed along with its maps.
    """

    op: Emitter
    x: ir.Value
    nodes: Sequence[ir.Node]
    walked: Walk
    layouts: dict[ir.Value, Layout]
    grid: tuple[int, ...]
    batched: bool
    psi: str
    profile: str
    settings: Any
    certificate: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    carried: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def gradient(self) -> ir.Value:
        """Cotangent of the input, float32 or wider."""
        return aggregate.at_least_float32(self.op, self.walked.cotangents[self.x])

    @cached_property
    def terms(self) -> list[PlacedTerm]:
        """The terms of the decomposition, the input first."""
        placed = aggregate.placed_terms(
            self.op,
            self.x,
            self.walked.cotangents[self.x],
            self.walked.terms,
            self.layouts,
            len(self.grid),
            batched=self.batched,
            profile=self.profile,
        )
        if self.profile != "full":
            return placed
        return aggregate.at_steps(placed, self.walked.terms, steps.cells(self.nodes, self.layouts, len(self.grid)))

    def place(self, v: ir.Value) -> Placement:
        """Return how to bring a value to (N, channels, *grid)."""
        placement = place(self.layouts[v], len(self.grid), self.batched)
        if placement is None:
            raise BatchLostError(str(v.name))
        return placement

    def attributed(self, attribution: ir.Value) -> dict[str, Written]:
        """Offer an attribution of the input's shape and its map: psi of every entry, summed over channels."""
        op, placed = self.op, self.place(self.x)
        v = op.Abs(attribution) if self.psi == ABS else op.Relu(attribution) if self.psi == POSITIVE else attribution
        saliency = op.Reshape(cell_sums(op, matrix(op, Signed(v, placed))), [-1, *self.grid])
        dims = tuple(int(d) for d in self.op.dims(self.x)[1:])  # type: ignore[arg-type]
        return {"saliency": Written(saliency, self.grid), "attribution": Written(attribution, dims)}


@dataclass(frozen=True)
class Sample:
    """One sample, and a way to run the model on variations of it.

    Attributes
    ----------
    x : numpy array of float64, (1, ...)
        The explained input.
    index : int
        Its position in the batch; random draws depend on it and on the seed alone.
    layout : str
        Axes of the input.
    step : int
        Largest number of variations in one run.
    clean : mapping of str to numpy array
        Results of the graph for the sample itself, one row each.
    psi, profile : str
        Options of the explanation.
    run : callable
        Takes variations (n, ...), n up to `step`, and names of results of the graph; returns these, n rows each.
    compute : callable
        Takes another graph, of the method's own, and its inputs by name; returns its outputs by name.
    """

    x: Array
    index: int
    layout: str
    step: int
    clean: Mapping[str, Array]
    psi: str
    profile: str
    run: Callable[[Array, Sequence[str]], dict[str, Array]]
    compute: Compute

    @property
    def spatial(self) -> tuple[int, ...]:
        """Spatial axes of the input."""
        return tuple(i for i, letter in enumerate(self.layout[: self.x.ndim]) if letter in "DHWF")

    @property
    def grid(self) -> tuple[int, ...]:
        """Spatial sizes of the input."""
        return tuple(self.x.shape[i] for i in self.spatial)

    @property
    def score(self) -> float:
        """The score of the sample itself."""
        return float(self.clean["score"][0])

    def scores(self, variations: Array) -> Array:
        """Return the scores of variations (n, ...) of the sample, any number of them, as (n,) of float64."""
        return self._of_all(variations, "score")

    def gradients(self, variations: Array) -> Array:
        """Return the gradients of their scores with respect to the variations, (n, ...) of float64.

        Raises
        ------
        OptionError
            The method was registered without ``gradient=True``.
        """
        if "attribution" not in self.clean:
            raise OptionError("gradients are computed for methods that ask for them: @fgonnx.method(gradient=True)")
        return self._of_all(variations, "attribution")

    def _of_all(self, variations: Array, name: str) -> Array:
        given = np.asarray(variations, np.float64)
        if given.shape[1:] != self.x.shape[1:]:
            raise OptionError(f"variations have the shape (n, {str(self.x.shape[1:])[1:-1]}); this is {given.shape}")
        found = [self.run(given[part], [name])[name] for part in self.parts(len(given))]
        return np.concatenate(found).astype(np.float64) if found else np.empty((0,), np.float64)

    def parts(self, count: int) -> Iterator[slice]:
        """Split a number of variations into runs."""
        for start in range(0, count, self.step):
            yield slice(start, min(start + self.step, count))

    def generator(self, random_state: int) -> np.random.Generator:
        """Return a random generator for this sample."""
        return np.random.default_rng([random_state, self.index])

    def column(self, values: Array) -> Array:
        """Reshape one number per variation to (n, 1, ...)."""
        return values.reshape(-1, *([1] * (self.x.ndim - 1)))

    def spread(self, maps: Array) -> Array:
        """Reshape maps (n, *grid) so that they broadcast to the input's shape."""
        shape = [len(maps), *([1] * (self.x.ndim - 1))]
        for axis in self.spatial:
            shape[axis] = self.x.shape[axis]
        return maps.reshape(shape)

    def rectified(self, signed: Array) -> Array:
        """Apply psi, entry by entry."""
        return np.abs(signed) if self.psi == ABS else np.maximum(signed, 0) if self.psi == POSITIVE else signed

    def attributed(self, attribution: Array) -> dict[str, Array]:
        """Return an attribution (1, ...) with its map: psi of every entry, summed over channels."""
        v = self.rectified(attribution)
        channels = tuple(i for i in range(1, v.ndim) if i not in self.spatial)
        return {"saliency": v.sum(axis=channels), "attribution": attribution}

    def baseline(self, given: Any) -> Array:
        """Return a baseline, a number or an array of one sample's shape, as (1, ...)."""
        array = np.asarray(given, np.float64)
        if array.ndim and array.shape not in (self.x.shape, self.x.shape[1:]):
            raise OptionError(f"the baseline has the shape {array.shape}; give a number or one of {self.x.shape[1:]}")
        return np.broadcast_to(array, self.x.shape)


Write = Callable[[View], Mapping[str, Written]]
Drive = Callable[[Sample, Any], dict[str, Array]]


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes
    ----------
    name : str
        Its name, as in `Explainer(method=)`.
    note, source : str
        What it computes, in one line, and where it was published.
    cost : str
        Passes through the network with default settings.
    write : callable
        Writes into the graph and returns the values it offers as outputs, by name.
    writes : tuple of str
        Those names.
    drive : callable, optional
        Computes the map of one sample from several runs; None where the graph itself computes it.
    needs : tuple of str
        Outputs of the graph that `drive` uses.
    settings : type
        Dataclass of the method's own settings.
    modify : callable, optional
        Takes the settings and returns how to change rules for the reverse walk.
    gradient : bool
        Whether it needs the reverse walk.
    true_gradient : bool
        Whether what it computes holds for the gradient alone, and for no other backward pass (`Options.backward`).
    sites, certificate : bool
        Whether it is a full-gradient method, with sites; whether the certificate applies to its map.
    psis : tuple of str
        The choices of psi that are meaningful for it.
    """

    name: str
    note: str
    source: str
    cost: str
    write: Write
    writes: tuple[str, ...] = ("saliency",)
    drive: Drive | None = None
    needs: tuple[str, ...] = ()
    settings: type = Plain
    modify: Callable[[Any], Modify] | None = None
    gradient: bool = True
    true_gradient: bool = False
    sites: bool = False
    certificate: bool = False
    psis: tuple[str, ...] = aggregate.PSIS

    def set(self, given: Mapping[str, Any]) -> Any:
        """Return the settings.

        Raises
        ------
        OptionError
            The method has no such setting, needs one that is not given, or a value has another type than the setting
            or is out of range.
        """
        self._check_names(given)
        for f in fields(self.settings):
            if f.name not in given and f.default is MISSING and f.default_factory is MISSING:
                raise OptionError(f"{self.name} needs {parameter(f.name)}; give it")
        return self.settings(**checked(self.settings, given))

    def _check_names(self, given: Iterable[str]) -> None:
        known = [f.name for f in fields(self.settings)]
        for name in given:
            if name not in known:
                has = f"it has: {', '.join(known)}{near(name, known)}" if known else "it has none"
                raise OptionError(f"{self.name} has no setting '{name}'; {has}")

    def parse(self, texts: Sequence[str]) -> dict[str, Any]:
        """Parse settings given as NAME=VALUE; a VALUE that ends in .npy is the file of an array.

        Raises
        ------
        OptionError
            One is not of that form, is unknown, or its value has the wrong type.
        """
        kinds = {f.name: str(f.type) for f in fields(self.settings)}
        self._check_names(text.partition("=")[0].strip() for text in texts)
        example = " or ".join(f"{name}=..." for name in kinds)
        return {name: self._value_of(name, text, kinds[name]) for name, text in pairs(texts, example).items()}

    def _value_of(self, name: str, text: str, kind: str) -> Any:
        if kind.startswith("str"):
            return text
        if text.endswith(".npy") and not kind.startswith(("int", "bool")):
            return read_named(text)
        if kind.startswith("bool") and text.lower() in _SWITCHES:
            return _SWITCHES[text.lower()]
        try:
            return int(text) if kind.startswith("int") else float(text)
        except ValueError:
            wanted = next((words for k, words in _WANTED.items() if kind.startswith(k)), "a number or a .npy file")
            raise OptionError(f"{name} of {self.name} cannot be {text!r}; give {wanted}") from None


_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_WANTED = {"int": "a whole number", "bool": "true or false"}


_METHODS: dict[str, Method] = {}

_ROLLOUT = (
    "weights of attention say where a layer looks, whatever is explained; they are the same for every class, leave out "
    "values, perceptrons and residual paths, and have no certificate. The backward pass 'libra' holds attention fixed "
    f"and goes through all of it ({parameter('backward', 'libra')})"
)
_REFUSED = dict.fromkeys(("attention-rollout", "rollout", "attention", "raw-attention"), _ROLLOUT)
"""Methods that are asked for and not offered, and why."""


def written(name: str, *, source: str, cost: str = "1 forward, 1 backward", **fields_: Any) -> Callable[[Write], Write]:
    """Register a method that is a single feed-forward graph; the first line of the docstring becomes its note.

    Parameters
    ----------
    name, source, cost : str
        Fields of `Method`.
    **fields_
        Further fields.

    Examples
    --------
    >>> import fgonnx
    >>> @fgonnx.methods.written("squared-gradient", source="An example.", writes=("saliency", "attribution"))
    ... def squared_gradient(view):
    ...     '''The square of the gradient.'''
    ...     return view.attributed(view.op.Mul(view.gradient, view.gradient))
    >>> fgonnx.methods.find("squared-gradient").note
    'The square of the gradient.'
    >>> model = fgonnx.rewrite("examples/shapes.onnx", method="squared-gradient")
    """

    def register(write: Write) -> Write:
        _METHODS[name] = Method(name, _first_line(write), source, cost, write, **fields_)
        return write

    return register


def driven(
    name: str, write: Write, needs: tuple[str, ...] = (), *, source: str, cost: str, **fields_: Any
) -> Callable[[Drive], Drive]:
    """Register a method that needs several runs of the graph that `write` writes.

    Parameters
    ----------
    name, source, cost : str
        Fields of `Method`.
    write : callable
        Writes the graph.
    needs : tuple of str
        Outputs of the graph that the method reads.
    **fields_
        Further fields of `Method`.

    Examples
    --------
    The gradient of a sample and of its mirror image, averaged:

    >>> import numpy as np
    >>> import fgonnx
    >>> gradient = fgonnx.methods.find("gradient").write
    >>> @fgonnx.methods.driven("mirrored", gradient, ("attribution",), source="An example.", cost="2 passes")
    ... def mirrored(sample, settings):
    ...     '''The mean gradient of a sample and of its mirror image.'''
    ...     found = sample.run(np.concatenate([sample.x, sample.x[..., ::-1]]), ["attribution"])["attribution"]
    ...     return sample.attributed((found[:1] + found[1:, ..., ::-1]) / 2)
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> fgonnx.Explainer("examples/shapes.onnx", method="mirrored")(x).saliency.shape
    (2, 64, 64)
    """

    def register(drive: Drive) -> Drive:
        _METHODS[name] = Method(
            name, _first_line(drive), source, cost, write, writes=needs, drive=drive, needs=needs, **fields_
        )
        return drive

    return register


def nothing(view: View) -> Mapping[str, Written]:
    """Write nothing: for methods that need the score alone."""
    return {}


def _first_line(f: Callable[..., Any]) -> str:
    return (inspect.getdoc(f) or "").split("\n")[0]


def find(name: str) -> Method:
    """Return a method.

    Raises
    ------
    OptionError
        There is no method of that name.
    """
    if isinstance(name, str) and name in _REFUSED:
        raise OptionError(f"there is no method {name!r}: {_REFUSED[name]}")
    check_choice("method", name, _METHODS)
    return _METHODS[name]


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(_METHODS)


def describe(name: str) -> str:
    """Return what a method computes, and its source, in one line."""
    m = find(name)
    return f"{m.note} {m.source}"
