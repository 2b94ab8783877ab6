"""Registry of measures: name, source, which direction is better."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.data import SPATIAL, Data, Explains
from fgonnx.errors import OptionError
from fgonnx.fields import pairs
from fgonnx.kinds import converted, in_words
from fgonnx.wording import near

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Results of a measure on N samples.

    Attributes
    ----------
    values : dict of str to numpy array, (N,)
        By quantity, first the one to compare methods by; NaN for samples without a value (no mask, no certificate).
    at : numpy array, (K,), or None
        Positions of the curve, such as shares of pixels.
    curve : numpy array, (N, K), or None
        The curve of every sample.
    """

    values: Mapping[str, Float]
    at: Float | None = None
    curve: Float | None = None


F = TypeVar("F", bound=Callable[..., Measured])


@dataclass(frozen=True)
class Measure:
    """A measure, callable as `measure(explainer, data, **options) -> Measured`.

    Attributes
    ----------
    name : str
        Its name; options that differ from the defaults are part of it, as in "deletion:fill=black".
    function : callable
        The function that measures.
    better : {"higher", "lower", ""}
        Which values of the first quantity are better; "" for neither.
    source : str
        Paper and section.
    runs : int
        Approximate runs of the model per sample, for estimates of time.
    needs : {"", "masks", "parts", "model"}
        What it requires: masks of the true evidence, pictures without each part, or a `Subject`, whose model can be
        changed.
    axes : pair of str
        Labels of the axes of its curve.
    options : dict
        Options that differ from the defaults.
    pictures : bool
        Whether it measures pictures alone.

    Examples
    --------
    >>> import numpy as np
    >>> from fgonnx import Explainer, evaluate
    >>> explainer = Explainer("examples/shapes.onnx")
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> measure = evaluate.get("deletion:fill=black:steps=5")
    >>> measure.better, measure.meaning
    ('lower', 'Area under the probability while pixels are removed, the most salient first.')
    >>> measure(explainer, evaluate.Data.of(explainer, x)).values["auc"].shape
    (2,)
    """

    name: str
    function: Callable[..., Measured]
    better: str
    source: str
    runs: int
    needs: str = ""
    axes: tuple[str, str] = ("", "")
    options: Mapping[str, Any] = field(default_factory=dict)
    pictures: bool = False

    def __call__(self, explainer: Explains, data: Data, **options: Any) -> Measured:
        """Measure a method on samples.

        Parameters
        ----------
        explainer : Explainer or Subject
            The method. A `Subject`, which holds the model too, where `needs` is "model".
        data : Data
            Samples. With masks where `needs` is "masks", with `without` where it is "parts".
        **options
            Keyword arguments of the function.

        Returns
        -------
        Measured

        Raises
        ------
        OptionError
            An option is none of the measure's, or has no meaning for such samples (`misfit`).
        """
        given = {**self.options, **checked_options(self, options)}
        if why := replace(self, options=given).misfit(data.layout):
            raise OptionError(why)
        return self.function(explainer, data, **given)

    def misfit(self, layout: str) -> str:
        """Return why it has no meaning for samples of a layout, such as "NCDHW"; "" where it has one."""
        space = sum(letter in SPATIAL for letter in layout[1:])
        if self.pictures and not (space == 2 and len(layout) == 4):
            return f"the measure '{self.name}' imputes pictures from their neighbours; leave it out for other inputs"
        if {**_defaults(self), **self.options}.get("fill") == "blur" and space > 2:
            return (
                f"the measure '{self.name}': fill='blur' is for pictures and sequences; choose mean, black or noise "
                "for volumes"
            )
        return ""

    @property
    def meaning(self) -> str:
        """What it measures, in one line."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


_MEASURES: dict[str, Measure] = {}


def measure(
    name: str,
    *,
    better: str,
    source: str,
    runs: int,
    needs: str = "",
    axes: tuple[str, str] = ("", ""),
    pictures: bool = False,
    **options: Any,
) -> Callable[[F], F]:
    """Register a function `(explainer, data, *, ...) -> Measured` under a name, with some of its options set.

    The function's first two parameters are those of `Measure`; its options, keyword-only and with a default of the type
    that a text is turned into, are its own.

    Parameters
    ----------
    name, better, source, runs, needs, axes, pictures
        See `Measure`.
    **options
        Options of the function that differ from its defaults under this name.

    Returns
    -------
    callable
        A decorator, which leaves the function as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from fgonnx import Explainer, evaluate
    >>> @evaluate.measure("mean", better="", source="An example.", runs=0)
    ... def mean(explainer, data):
    ...     '''The mean of the map.'''
    ...     return evaluate.Measured({"mean": data.maps(explainer).mean(axis=(1, 2))})
    >>> explainer = Explainer("examples/shapes.onnx")
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> evaluate.get("mean")(explainer, evaluate.Data.of(explainer, x)).values["mean"].shape
    (2,)
    """

    def register(function: F) -> F:
        _MEASURES[name] = Measure(name, function, better, source, runs, needs, axes, options, pictures)
        return function

    return register


def names() -> tuple[str, ...]:
    """Return the names of all measures."""
    return tuple(sorted(_MEASURES))


def get(text: str) -> Measure:
    """Return a measure by its name, with options as in "pixel-perturbation:fill=blur:of=probability".

    Raises
    ------
    OptionError
        There is no such measure or option, or the option's value is of another type.
    """
    if not isinstance(text, str):
        raise OptionError(f"{text!r} is no measure; give the name of one")
    name, *settings = text.split(":")
    if name not in _MEASURES:
        raise OptionError(f"there is no measure '{name}'{near(name, _MEASURES)}; there are: {', '.join(names())}")
    found = _MEASURES[name]
    defaults = _defaults(found)
    options = dict(found.options)
    for key, value in pairs(settings, f"{name}:{next(iter(defaults), 'option')}=...").items():
        _check_name(found, key, defaults)
        try:
            options[key] = type(defaults[key])(value)
        except ValueError as error:
            wanted = in_words(type(defaults[key])).removeprefix("a ")
            raise OptionError(
                f"'{key}={value}' of the measure '{name}' is no {wanted}; its default is {defaults[key]}"
            ) from error
    return replace(found, name=text, options=checked_options(found, options))


def checked_options(measure: Measure, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a measure in the types of its function's parameters; their bounds and choices are checked.

    Raises
    ------
    OptionError
        The measure has no such option, or a value is none of it.
    """
    defaults = _defaults(measure)
    try:
        hints = get_type_hints(measure.function, include_extras=True)
    except NameError:  # a measure of the user's own, whose annotations name what is not in its module
        hints = {}
    found = {}
    for name, value in options.items():
        _check_name(measure, name, defaults)
        kind = hints.get(name, Any)
        try:
            found[name] = converted(name, value, kind)
            for rule in getattr(kind, "__metadata__", ()):
                rule.check(name, found[name])
        except OptionError as error:
            raise OptionError(f"the measure '{measure.name}': {error.args[0]}") from error
    return found


def _check_name(measure: Measure, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        has = ", ".join(known) or "none"
        raise OptionError(f"the measure '{measure.name}' has no option '{name}'; it has: {has}{near(name, known)}")


def _defaults(measure: Measure) -> dict[str, Any]:
    parameters = inspect.signature(measure.function).parameters.items()
    return {name: p.default for name, p in parameters if p.kind is p.KEYWORD_ONLY}
