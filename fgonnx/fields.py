"""Fields of option objects: default, help text and spelling on the command line, each stated once.

A field made by `option` documents itself (`documented` writes the Attributes section of its class) and gives every
command that takes the class an option of its own (`fgonnx.cli.options`).
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from fgonnx import kinds
from fgonnx.errors import FgonnxError, OptionError
from fgonnx.wording import near, parameter

T = TypeVar("T")

_KEY = "option"
_WIDTH = 110

EXPLANATION = "What is explained"
MODEL = "What the model takes"
RUNNING = "How it runs"

MOST_RUNS = 1_000_000
"""Samples, masks, subsets of one explanation or measurement: more would run for days."""

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
    least, above, most : float, optional
        Bounds of a number, or of every number of several; `above` is not allowed itself.
    idle : callable, optional
        Takes the option object; says why the option has no effect beside the others, or returns "" where it has one.
    parse : callable, optional
        Converts the text, or the list of texts with `many`, to the field's value.
    joined : str
        What is between the parts of a value of several.
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
    above: float | None = None
    most: float | None = None
    idle: Callable[[Any], str] | None = None
    parse: Callable[[Any], Any] | None = None
    joined: str = ","
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
    """Add an Attributes section to the docstring of an option class, made of its fields' help texts.

    Made with an option that does not exist, or without names, its objects raise an `OptionError`.
    """
    kinds_of = {f.name: str(f.type).replace(" | None", ", optional") for f in fields(cls)}  # type: ignore[arg-type]
    lines = [inspect.getdoc(cls) or "", "", "Attributes", "----------"]
    for name, spelled in spellings(cls).items():
        text = f"{spelled.help} {spelled.python}".strip()
        lines += [
            f"{name} : {kinds_of[name]}",
            *textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False),
        ]
    cls.__doc__ = "\n".join(lines)
    made = cls.__init__

    @functools.wraps(made)
    def init(self: Any, *values: Any, **named: Any) -> None:
        if values:
            example = next(iter(kinds_of))
            raise OptionError(f"{cls.__name__} takes its options by name: {cls.__name__}({example}={values[0]!r})")
        for name in named:
            if name not in kinds_of:
                raise OptionError(f"{cls.__name__} has no option '{name}'{near(name, kinds_of)}")
        made(self, **named)

    cls.__init__ = init  # type: ignore[method-assign]
    return cls


def arguments(
    o: Any,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    suffix: str = "",
) -> list[str]:
    """Return how the fields of an option object are typed on the command line, without those at their defaults.

    Parameters
    ----------
    o : dataclass instance
        The option object.
    only, without : collection of str
        The only fields that are looked at, or those that are not.
    defaults : mapping of str to any, optional
        Other defaults than the class's own.
    suffix : str
        Behind every flag.
    """
    default = {f.name: f.default for f in fields(o)} | dict(defaults or {})
    found = []
    for name, s in spellings(type(o)).items():
        if s.typed and name not in without and (not only or name in only):
            flag = f"{s.flag or '--' + name.replace('_', '-')}{suffix}"
            found += _typed(flag, s, getattr(o, name), default[name])
    return found


def _typed(flag: str, s: Spelling, value: Any, default: Any) -> list[str]:
    if isinstance(value, Mapping) or is_dataclass(value):
        pairs_ = value.items() if isinstance(value, Mapping) else _changed_fields(value)
        return [text for k, v in pairs_ for text in (flag, f"{k}={_text(v)}" if k else _text(v))]
    if value is None or value == default:
        return []
    if s.switch:
        return [flag]
    if s.many and not all(isinstance(v, int) for v in value):  # several numbers are one value
        return [text for v in value for text in (flag, _text(v))]
    return [flag, _text(value, s.joined)]


def _changed_fields(o: Any) -> list[tuple[str, Any]]:
    """Return the fields of a dataclass that are not at their defaults."""
    values = [(f.name, getattr(o, f.name), f.default) for f in fields(o)]
    return [(name, v) for name, v, default in values if hasattr(v, "shape") or v != default]


def _text(value: Any, joined: str = ",") -> str:
    if isinstance(value, tuple):
        return joined.join(map(_text, value))
    return getattr(value, "file", None) or str(value)


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


def of_kind(given: Any, cls: type[T]) -> T:
    """Return an option object that was given, or one of defaults for None.

    Raises
    ------
    OptionError
        It is something else.
    """
    if given is None:
        return cls()
    if not isinstance(given, cls):
        methods = isinstance(given, str) and "method" in spellings(cls)
        meant = parameter("method", given) if methods else f"fgonnx.{cls.__name__}(...)"
        raise OptionError(f"{given!r} is no fgonnx.{cls.__name__}; {'for a method ' * methods}write {meant}")
    return given


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
    """Check the values of an option object, and turn them into their fields' types.

    Numbers of numpy become Python's, lists tuples, texts paths where the field is one.

    Raises
    ------
    OptionError
        A value has another type than its field, or is out of its range.
    """
    for name, value in checked(type(o), {f.name: getattr(o, f.name) for f in fields(o)}).items():
        object.__setattr__(o, name, value)


def check_idle(o: Any) -> None:
    """Refuse options that have no effect beside the others; their fields say so (`Spelling.idle`).

    Raises
    ------
    OptionError
        There is one.
    """
    default = {f.name: f.default for f in fields(o)}
    for name, spelled in spellings(type(o)).items():
        value = getattr(o, name)
        if spelled.idle is not None and value != default[name] and (why := spelled.idle(o)):
            raise idle(name, value, why)


def idle(name: str, value: Any, why: str) -> OptionError:
    """Return the error for an option that has no effect."""
    return OptionError(f"{parameter(name, value)} has no effect: {why}; leave it out")


def refuse_idle(o: Any, names: Iterable[str], why: str) -> None:
    """Refuse the options, of those named, that are not at their defaults.

    Raises
    ------
    OptionError
        One of them is set; `why` says what it has no effect on.
    """
    default = {f.name: f.default for f in fields(o)}
    for name in names:
        if getattr(o, name) != default[name]:
            raise idle(name, getattr(o, name), why)


def checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for fields of a dataclass, each in its field's type.

    Raises
    ------
    OptionError
        A value has another type than its field, or is out of its range.
    """
    hints, known = _hints(cls), spellings(cls)
    default = {f.name: f.default for f in fields(cls)}
    found = {}
    for name, value in values.items():
        kept = kinds.converted(name, value, hints.get(name, Any))
        if isinstance(kept, tuple) and not kept and default[name] != ():
            raise OptionError(f"{parameter(name, value)} is empty; name at least one, or leave it out")
        several = [v for v in kept.values() if isinstance(v, tuple)] if isinstance(kept, Mapping) else [kept]
        for part in (p for one in several for p in (one if isinstance(one, tuple) else (one,))):
            _check_range(name, value, part, known.get(name))
        found[name] = kept
    return found


def _check_range(name: str, value: Any, part: Any, spelled: Spelling | None) -> None:
    """Refuse empty texts, numbers that are not finite, and those out of range."""
    if isinstance(part, str) and not part.strip():
        raise OptionError(f"{parameter(name, value)} is empty; give a text, or leave it out")
    if not isinstance(part, (int, float)) or isinstance(part, bool):
        return
    bounds = () if spelled is None else (spelled.least, spelled.above, spelled.most)
    if why := kinds.out_of_range(part, *bounds):
        raise OptionError(f"{parameter(name, value)} is out of range; give {why}")


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of a class's fields; their annotations are evaluated once."""
    if cls not in _HINTS:
        try:
            _HINTS[cls] = get_type_hints(cls)
        except NameError:  # a class of the user's own, whose annotations name what is not in its module
            _HINTS[cls] = {}
    return _HINTS[cls]


def accepted(
    name: str,
    value: Any,
    kind: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    error: type[FgonnxError] = OptionError,
) -> Any:
    """Return a parameter's value in the form of its annotated type, checked as the fields of option objects are.

    Raises
    ------
    FgonnxError
        Of the given type: it has another type, or is out of range.
    """
    try:
        kept = kinds.converted(name, value, kind)
        for part in kept if isinstance(kept, tuple) else (kept,):
            _check_range(name, value, part, Spelling("", least=least, above=above, most=most))
    except OptionError as refused:
        raise error(*refused.args) from None
    return kept


def check_choices(o: Any, **choices: Iterable[str]) -> None:
    """Refuse values that are not among a field's choices.

    Raises
    ------
    OptionError
        A field has a value that is not among its choices.
    """
    for name, known in choices.items():
        check_choice(name, getattr(o, name), known)


def check_choice(name: str, value: Any, known: Iterable[str], error: type[FgonnxError] = OptionError) -> None:
    """Refuse a value that is not among the choices of a parameter, and name the one that it is like.

    Raises
    ------
    FgonnxError
        Of the given type.
    """
    choices = tuple(known)
    if not isinstance(value, str) or value not in choices:
        like = near(value, choices) if isinstance(value, str) else ""
        raise error(f"{parameter(name, value)} does not exist; choose one of: {', '.join(choices)}{like}")


def suggestion(name: str, *classes: type) -> str:
    """Return ``"; did you mean 'threads'?"`` for a misspelt field, or an empty text."""
    return near(name, [f.name for cls in classes for f in fields(cls)])
