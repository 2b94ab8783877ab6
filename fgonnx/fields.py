"""Fields of option objects: default, help text and spelling on the command line, each stated once.

A field made by `option` documents itself (`documented` writes the Attributes section of its class) and gives every
command that takes the class an option of its own (`fgonnx.cli.options`).
"""

from __future__ import annotations

import difflib
import inspect
import numbers
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fgonnx.errors import FgonnxError, OptionError

T = TypeVar("T")

_KEY = "option"
_WIDTH = 110

EXPLANATION = "What is explained"
MODEL = "What the model takes"
RUNNING = "How it runs"

_HINTS: dict[type, dict[str, Any]] = {}


@dataclass(frozen=True)
class Spelling:
    """How a field is spelled on the command line.

    Attributes
    ----------
    help : str
        Its help text; also the field's documentation.
    panel : str
        Heading of its section in the help.
    metavar : str, optional
        Placeholder of its value in the help.
    flag : str, optional
        Its flag, if not the field's name with two dashes.
    least, most : float, optional
        Bounds of a number.
    parse : callable, optional
        Converts the text, or the list of texts with `many`, to the field's value.
    many : bool
        Whether the flag may be repeated.
    switch : bool
        Whether the flag takes no value; True is parsed then.
    typed : bool
        Whether commands have it; others are for Python alone.
    python : str
        Addition to the help, for Python.
    """

    help: str
    panel: str = EXPLANATION
    metavar: str | None = None
    flag: str | None = None
    least: float | None = None
    most: float | None = None
    parse: Callable[[Any], Any] | None = None
    many: bool = False
    switch: bool = False
    typed: bool = True
    python: str = ""


def option(default: Any, help: str, **spelling: Any) -> Any:
    """Return a dataclass field with its help text; `spelling` are further fields of `Spelling`."""
    return field(default=default, metadata={_KEY: Spelling(help, **spelling)})


def spellings(cls: type) -> dict[str, Spelling]:
    """Return the spelling of every field of an option class."""
    return {f.name: f.metadata[_KEY] for f in fields(cls) if _KEY in f.metadata}


def documented(cls: type[T]) -> type[T]:
    """Add an Attributes section to the docstring of an option class, made of its fields' help texts."""
    kinds = {f.name: str(f.type).replace(" | None", ", optional") for f in fields(cls)}  # type: ignore[arg-type]
    lines = [inspect.getdoc(cls) or "", "", "Attributes", "----------"]
    for name, spelled in spellings(cls).items():
        text = f"{spelled.help} {spelled.python}".strip()
        lines += [
            f"{name} : {kinds[name]}",
            *textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False),
        ]
    cls.__doc__ = "\n".join(lines)
    return cls


def changed(changes: Mapping[str, Any], *objects: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return option objects with the changes of their fields, and the remaining changes.

    Parameters
    ----------
    changes : mapping of str to any
        New values by the name of the field.
    *objects : dataclass instances
        The objects; they are not changed themselves.
    """
    left = dict(changes)
    made = []
    for o in objects:
        own = {f.name: left.pop(f.name) for f in fields(o) if f.name in left}
        made.append(replace(o, **own) if own else o)
    return made, left


def pairs(texts: Iterable[str], example: str, error: type[FgonnxError] = OptionError) -> dict[str, str]:
    """Parse texts of the form NAME=VALUE.

    Parameters
    ----------
    texts : iterable of str
        The texts.
    example : str
        A valid one, for messages.
    error : type
        The exception class to raise.

    Raises
    ------
    FgonnxError
        A text does not have that form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise error(f"'{text}' is not of the form NAME=VALUE; write for example {example}")
        if name in found:
            raise error(f"'{name}' is given twice; keep one")
        found[name] = value
    return found


def check_fields(o: Any) -> None:
    """Refuse values of another type than their field's, and numbers out of its range.

    Raises
    ------
    OptionError
        A field has such a value.
    """
    hints = _hints(type(o))
    for name, spelled in spellings(type(o)).items():
        value = getattr(o, name)
        if not _fits(value, hints[name]):
            kind = str(hints[name]).replace("typing.", "").replace("collections.abc.", "")
            wanted = hints[name].__name__ if isinstance(hints[name], type) else kind
            raise OptionError(f"{name}={value!r} is of the type {type(value).__name__}; give {wanted}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if spelled.least is not None and not value >= spelled.least:
                raise OptionError(f"{name}={value} is out of range; give {spelled.least:g} or more")
            if spelled.most is not None and not value <= spelled.most:
                raise OptionError(f"{name}={value} is out of range; give {spelled.most:g} or less")


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of a class's fields; their annotations are evaluated once."""
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of an annotated type; what containers hold is not looked at."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    cls = get_origin(kind) or kind
    if isinstance(value, bool) or cls is bool:
        return isinstance(value, bool) and cls is bool
    if cls is float:
        return isinstance(value, numbers.Real)
    if cls is int:
        return isinstance(value, numbers.Integral)
    if cls in (tuple, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return isinstance(value, cls)


def check_choices(o: Any, **choices: Iterable[str]) -> None:
    """Refuse values that are not among a field's choices.

    Raises
    ------
    OptionError
        A field has a value that is not among its choices.
    """
    for name, known in choices.items():
        if (value := getattr(o, name)) not in known:
            raise OptionError(f"{name}={value!r} does not exist; choose one of: {', '.join(known)}")


def suggestion(name: str, *classes: type) -> str:
    """Return ``"; did you mean 'threads'?"`` for a misspelt field, or an empty text."""
    names = [f.name for cls in classes for f in fields(cls)]
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
