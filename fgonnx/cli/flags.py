"""How parameters in messages are spelled on the command line."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from fgonnx.bounds import Bounds
from fgonnx.fields import spellings

_SPELLED = {
    "example_input": ("input_shape", "--input-shape or --example"),
    "preprocessing": ("preprocess", "--preprocess"),
    "seed": ("target", "--target seed=FILE.npy"),
}
"""Parameters that commands have under another name: that name, and how it is spelled."""

_JOINED = {"span": ":", "part": "/"}
"""What is between the parts of a value, where it is no comma."""

_OF_EXPLAIN = ("axes", "by", "carry", "channel", "channels", "pad", "rate", "slide", "span", "units")
"""Parameters that 'fgonnx explain' has, and not all commands that read the same files."""


def flags_of(function: Callable[..., Any]) -> dict[str, str]:
    """Return the flags of a command, by the names of its parameters; arguments are in capitals, as in its help."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        marks = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is not None else ()
        for mark in marks:
            # typer keeps a single flag where a default would be; one that switches off takes no value
            single = str(getattr(mark, "default", ""))
            texts = (*(getattr(mark, "param_decls", ()) or ()), *(() if single.startswith("--no-") else (single,)))
            declared = [text for text in texts if text.startswith("--")]
            if declared:
                found[name] = declared[0].partition("/")[0]
            elif type(mark).__name__ == "ArgumentInfo":
                found[name] = str(mark.metavar or name.upper())
        found.setdefault(name, f"--{name.replace('_', '-')}")
    return found


def on_the_command_line(name: str, value: str, flags: Mapping[str, str]) -> str:
    """Spell a parameter: ``--psi signed``, or ``--set steps=3`` where it is a setting of the method.

    Parameters
    ----------
    name : str
        The parameter.
    value : str
        Its value as Python writes it, or "".
    flags : mapping of str to str
        The flags of the command.
    """
    shown = _as_typed(value, _JOINED.get(name, ","))
    other, spelled = _SPELLED.get(name, ("", ""))
    flag = flags.get(name, spelled if other in flags else "")
    if flag:
        return f"{flag} {shown}".strip()
    if name in spellings(Bounds):
        return f"--bound {name}={shown}"
    if name in _OF_EXPLAIN:
        return f"'fgonnx explain' with {f'--{name} {shown}'.strip()}"
    return f"--set {name}={shown}" if "settings" in flags else f"{name}={shown}"


def _as_typed(value: str, joined: str = ",") -> str:
    """Return a value as it is typed: texts without quotes, lists with what is between their parts."""
    try:
        found = ast.literal_eval(value) if value else ""
    except (SyntaxError, ValueError):
        return value
    if isinstance(found, Mapping) and found:
        name, one = next(iter(found.items()))
        return f"{name}={_as_typed(repr(one))}"
    if isinstance(found, Sequence) and not isinstance(found, str):
        return joined.join(str(v) for v in found)
    return os.fspath(found) if isinstance(found, str) and found else value
