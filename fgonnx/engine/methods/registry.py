"""Registry of attribution methods: what each needs, and its settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from fgonnx.engine.maps import aggregate
from fgonnx.engine.methods.sample import Drive
from fgonnx.engine.methods.view import View, Write, Written
from fgonnx.engine.walk.backward import Modify
from fgonnx.errors import OptionError
from fgonnx.fields import check_choice, checked, pairs
from fgonnx.files import read_named
from fgonnx.wording import near, parameter


@dataclass(frozen=True)
class Plain:
    """Settings of a method without any."""


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
