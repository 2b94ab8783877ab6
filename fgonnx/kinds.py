"""Values of options: what fits an annotated type, in which form it is kept, and how the type is called in messages."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np

from fgonnx.errors import OptionError
from fgonnx.wording import parameter

_MISFIT = object()
_NUMERIC = "biuf"
_ELEMENTS: dict[type, str] = {int: "whole numbers", float: "numbers", str: "texts"}
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    type(None): "None",
    Path: "a path",
    os.PathLike: "a path",
    np.ndarray: "an array of finite numbers",
    Mapping: "a mapping of names to values",
}


def converted(name: str, value: Any, kind: Any) -> Any:
    """Return a value in the form in which an option of that type is kept.

    Parameters
    ----------
    name : str
        The option, for messages.
    value : any
        What was given.
    kind : type
        The annotated type.

    Raises
    ------
    OptionError
        It does not fit.
    """
    found = _converted(value, kind)
    if found is _MISFIT:
        raise OptionError(f"{parameter(name, value)} is of the type {type(value).__name__}; give {in_words(kind)}")
    return found


def in_words(kind: Any) -> str:
    """Return what a type is called: "a whole number or None"."""
    if get_origin(kind) is Annotated:
        return in_words(get_args(kind)[0])
    if _is_union(kind):
        return " or ".join(dict.fromkeys(in_words(one) for one in get_args(kind)))
    cls = get_origin(kind) or kind
    if cls in (tuple, Sequence):
        inner = get_args(kind)
        count = "" if not inner or inner[-1] is ... or cls is Sequence else f"{len(inner)} "
        return f"{count}{_ELEMENTS.get(inner[0], 'values') if inner else 'values'} as a tuple or list"
    return _WORDS.get(cls, getattr(cls, "__name__", str(cls)))


def out_of_range(
    value: float, least: float | None = None, above: float | None = None, most: float | None = None
) -> str:
    """Return what is allowed where a number is not, else an empty text."""
    if not math.isfinite(value):
        return "a finite number"
    fits = (least is None or value >= least) and (above is None or value > above) and (most is None or value <= most)
    if fits:
        return ""
    lower = f"{least:g} or more" if least is not None else f"a number above {above:g}" if above is not None else ""
    if most is None:
        return lower
    upper = f"{most:g} or less"
    return upper if value > most or not lower else lower


def _is_union(kind: Any) -> bool:
    return isinstance(kind, UnionType) or get_origin(kind) is Union


def _converted(value: Any, kind: Any) -> Any:
    if kind is Any:
        return value
    if get_origin(kind) is Annotated:
        return _converted(value, get_args(kind)[0])
    if _is_union(kind):
        return next((v for one in get_args(kind) if (v := _converted(value, one)) is not _MISFIT), _MISFIT)
    cls = get_origin(kind) or kind
    convert = _CONVERTED.get(cls)
    if convert is not None:
        return convert(value)
    if cls in (tuple, Sequence):
        return _several(value, get_args(kind), fixed=cls is tuple)
    if cls is Mapping:
        return _mapping(value, get_args(kind))
    return value if isinstance(value, cls) else _MISFIT


def _bool(value: Any) -> Any:
    return bool(value) if isinstance(value, (bool, np.bool_)) else _MISFIT


def _int(value: Any) -> Any:
    return int(value) if not isinstance(value, bool) and isinstance(value, numbers.Integral) else _MISFIT


def _float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return _MISFIT
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _str(value: Any) -> Any:
    return str(value) if isinstance(value, np.str_) else value if isinstance(value, str) else _MISFIT


def _path(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        return Path(value)
    return Path(value) if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str) else _MISFIT


def _array(value: Any) -> Any:
    try:
        array = np.asanyarray(value)
    except ValueError:  # lists of different lengths
        return _MISFIT
    return array if array.dtype.kind in _NUMERIC and array.ndim and np.isfinite(array).all() else _MISFIT


def _several(value: Any, inner: tuple[Any, ...], *, fixed: bool) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return _MISFIT
    if fixed and inner and inner[-1] is not ...:
        wanted = inner
        if len(value) != len(wanted):
            return _MISFIT
    else:
        wanted = (inner[0] if inner else Any,) * len(value)
    found = tuple(_converted(v, one) for v, one in zip(value, wanted, strict=True))
    return _MISFIT if any(v is _MISFIT for v in found) else found


def _mapping(value: Any, inner: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping):
        return _MISFIT
    key, item = inner or (Any, Any)
    found = {_converted(k, key): _converted(v, item) for k, v in value.items()}
    return _MISFIT if any(k is _MISFIT or v is _MISFIT for k, v in found.items()) else found


_CONVERTED: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    np.ndarray: _array,
}
