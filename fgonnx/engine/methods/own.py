"""Methods of one's own: a function of a sample becomes a method with a name, settings and checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np

from fgonnx.engine.methods import gradients, registry
from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.engine.methods.view import Write
from fgonnx.errors import NumericError, OptionError
from fgonnx.fields import accepted
from fgonnx.wording import parameter

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = {kind.__name__: kind for kind in (bool, int, float, str)}
_FUNCTIONS: dict[Callable[..., Any], str] = {}
"""Names of the methods that are functions of the user's own."""


@overload
def method(name: F, /) -> F: ...


@overload
def method(
    name: str | None = None, *, gradient: bool = False, source: str = "", cost: str = "several passes"
) -> Callable[[F], F]: ...


def method(
    name: Any = None, *, gradient: bool = False, source: str = "", cost: str = "several passes"
) -> Callable[[F], F] | Callable[..., Any]:
    """Register a function as a method: `Explainer(model, method=NAME)`, `compare`, `evaluate` and records then know it.

    The function takes a `fgonnx.methods.Sample`, one sample and ways to run the model on variations of it, and returns
    an array: an attribution, of the sample's shape, or a map, of the sizes of its grid. Its further parameters are the
    method's settings, and their defaults the defaults. The first line of its docstring is the note of
    `fgonnx.methods.describe`.

    A function that was not registered may be given as it is, `method=function`, where it needs no gradient.
    `fgonnx.methods.written` registers a method that writes its map into the graph, for files that explain themselves.

    Parameters
    ----------
    name : str, optional
        Its name; by default that of the function, with dashes. A name of one's own that is registered again is the new
        function's; names of fgonnx's methods are taken. ``@fgonnx.method`` without parentheses takes the function.
    gradient : bool
        Whether it uses `Sample.gradients`.
    source : str
        Where it was published.
    cost : str
        Passes through the network with default settings.

    Returns
    -------
    callable
        The decorator, which returns the function as it is; without parentheses, the function.

    Raises
    ------
    OptionError
        The name belongs to one of fgonnx's own methods, or the function takes no sample.

    Examples
    --------
    How much the score drops when columns are hidden:

    >>> import numpy as np
    >>> import fgonnx
    >>> @fgonnx.method("columns")
    ... def columns(sample, step: int = 8):
    ...     '''How much the score drops when columns are hidden.'''
    ...     hidden = [sample.x.copy() for _ in range(0, sample.x.shape[-1], step)]
    ...     for i, x in enumerate(hidden):
    ...         x[..., i * step : (i + 1) * step] = 0
    ...     drops = sample.score - sample.scores(np.concatenate(hidden))
    ...     return np.broadcast_to(np.repeat(drops, step)[: sample.grid[1]], sample.grid)
    >>> e = fgonnx.explain("examples/shapes.onnx", "examples/images/star.png", method="columns", step=16)
    >>> e.saliency.shape
    (1, 64, 64)
    """

    def register(function: F) -> F:
        _register(function, _name_of(function) if given is None else given, gradient, source, cost)
        return function

    if callable(name):
        given = None
        return register(name)
    given = None if name is None else accepted("name", name, str)
    return register


def named(given: Any) -> Any:
    """Return the name of a method that is given as a function, registered if it is not yet; anything else as it is.

    The name of a function may be written with its underscores.
    """
    if isinstance(given, str) and given not in registry.names():
        dashed = given.strip("_").replace("_", "-")
        return dashed if dashed in _FUNCTIONS.values() else given
    if isinstance(given, str) or not callable(given):
        return given
    if _FUNCTIONS.get(given) not in registry.names():
        name = _name_of(given)
        others = [n for n in registry.names() if n == name or n.startswith(f"{name}-")]
        free = (f"{name}-{i}" for i in range(2, len(others) + 3))
        taken = name in others and name in _FUNCTIONS.values()
        _register(given, next(n for n in free if n not in others) if taken else name, False, "", "several passes")
    return _FUNCTIONS[given]


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "own" if name == "<lambda>" else name.strip("_").replace("_", "-")


def _register(function: Callable[..., Any], name: str, gradient: bool, source: str, cost: str) -> None:
    if name in registry.names() and name not in _FUNCTIONS.values():
        raise OptionError(
            f"{parameter('method', name)} is one of fgonnx's own methods; give yours another name: "
            '@fgonnx.method("my-method")'
        )
    settings = _settings_of(function, name)
    write: Write = gradients.gradient if gradient else registry.nothing

    def drive(sample: Sample, given: Any) -> dict[str, Array]:
        watched = _Watched(sample.run)
        made = function(replace(sample, run=watched), **{f: getattr(given, f) for f in settings.__dataclass_fields__})
        results = _results(sample, made, name)
        if not all(map(_is_finite, results.values())):
            found = ", as what the model gave for variations of it" if watched.met else ""
            raise NumericError(
                f"the method '{name}' returned NaN or infinity for sample {sample.index}{found}; return finite numbers"
                f", of float32's range"
            )
        return results

    drive.__doc__, drive.__module__ = inspect.getdoc(function), getattr(function, "__module__", "")
    needs = ("attribution",) if gradient else ()
    registry.driven(
        name, write, needs, source=source, cost=cost, settings=settings, gradient=gradient, true_gradient=gradient
    )(drive)
    for other in [f for f, n in _FUNCTIONS.items() if n == name]:
        del _FUNCTIONS[other]
    _FUNCTIONS[function] = name


class _Watched:
    """Runs of the model that remember whether one gave NaN or infinity."""

    def __init__(self, run: Callable[..., dict[str, Array]]) -> None:
        self._run, self.met = run, False

    def __call__(self, variations: Array, names: Sequence[str]) -> dict[str, Array]:
        found = self._run(variations, names)
        self.met = self.met or not all(map(_is_finite, found.values()))
        return found


def _is_finite(array: Array) -> bool:
    """Tell whether all numbers are finite as float32, which results are."""
    if array.dtype.kind != "f":
        return True
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32)).all())


def _settings_of(function: Callable[..., Any], name: str) -> Any:
    """Return a dataclass of the parameters behind the first."""
    try:
        first, *others = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise OptionError(f"the method '{name}' takes no sample; its function needs a parameter for it") from None
    if first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD, first.VAR_POSITIONAL):
        raise OptionError(f"the method '{name}' takes no sample; the first parameter of its function is for it")
    made: list[tuple[str, Any, Any]] = []
    for p in others:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        written = getattr(p.annotation, "__name__", p.annotation)
        kind = written if written in _KINDS else type(p.default).__name__
        value = field() if p.default is p.empty else field(default=p.default)
        made.append((p.name, kind if kind in _KINDS else "object", value))
    return make_dataclass("Settings", made, frozen=True, kw_only=True)


def _results(sample: Sample, made: Any, name: str) -> dict[str, Array]:
    """Return what a function made as results of the method, one row each."""
    if isinstance(made, Mapping) and "saliency" in made:
        return {k: np.asarray(v) for k, v in made.items()}
    found, shape = np.asarray(made), sample.x.shape[1:]
    if found.dtype.kind not in "biuf":
        raise OptionError(f"the method '{name}' returned {type(made).__name__}; return an array of numbers")
    if found.shape in (shape, (1, *shape)):
        return sample.attributed(found.reshape(sample.x.shape).astype(np.float64))
    if found.shape in (sample.grid, (1, *sample.grid)):
        return {"saliency": sample.rectified(found.astype(np.float64)).reshape(1, *sample.grid)}
    raise OptionError(
        f"the method '{name}' returned an array of the shape {found.shape}; return an attribution of the sample's "
        f"shape, {shape}, or a map of its grid, {sample.grid}"
    )
