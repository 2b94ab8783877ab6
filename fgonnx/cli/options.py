"""Options that commands share, generated from the fields of option objects with their help texts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from fgonnx.fields import EXPLANATION, MODEL, Spelling, spellings

T = TypeVar("T")

_GIVEN = ("COMMANDLINE", "ENVIRONMENT", "PROMPT")

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file; external weights are next to it.")]
SomeImages = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IMAGES", help="Pictures, recordings, tables or .npy arrays to check on. Default: seeded random ones."
    ),
]
SomeInputs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[INPUTS]",
        help="Pictures, .wav recordings, .csv tables, folders of them, patterns such as 'photos/*.jpg', or .npy arrays "
        "that are ready. For models of texts: .txt, .jsonl, .csv, .parquet.",
    ),
]
Folder = Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder for the results.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Target = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=EXPLANATION,
        metavar="WHAT",
        help="What to explain: an index or a label; 120,4; best=person,first=5; region=0.2:0.1:0.8:0.9,class=3; "
        "similar=reference.npy; seed=weights.npy; answer=Paris, of texts. Default: the model's own choice. "
        "docs/targets.md has all of it.",
    ),
]
Typed = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="TEXT", help="A text, for models of texts. Repeatable.", rich_help_panel=MODEL),
]


@dataclass(frozen=True)
class Group:
    """The fields of an option object that are options of a command.

    Attributes
    ----------
    cls : type
        The option class.
    without : sequence of str
        Fields that mean nothing for the command.
    defaults : mapping of str to any
        Other defaults than the class's own.
    suffix : str
        Behind every flag, such as "-b"; of such a group, fields that are not given are left to the main one.
    only : sequence of str
        The only fields it has, where it has few.
    shortcuts : mapping of str to type
        Options that stand for a setting of the method: ``--samples 3`` for ``--set samples=3``.
    helps : mapping of str to str
        Other help texts, of fields that mean something else for the command.
    """

    cls: type
    without: Sequence[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ""
    only: Sequence[str] = ()
    shortcuts: Mapping[str, Any] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the fields that are options of the command."""
        found = [name for name, s in spellings(self.cls).items() if s.typed and name not in self.without]
        return [name for name in found if not self.only or name in self.only]

    def parameters(self) -> list[inspect.Parameter]:
        """Return parameters for typer, one per field."""
        known = spellings(self.cls)
        types = get_type_hints(self.cls)
        given = {f.name: f.default for f in fields(self.cls)} | dict(self.defaults)
        made = []
        for name in self.names():
            s = known[name]
            default = given[name]
            if s.switch:
                kind, default = bool, False
            elif s.parse is not None or s.many or isinstance(default, tuple):
                kind, default = (list[str] if s.many else str) | None, None  # type: ignore[assignment]
            else:
                kind = types[name]
            if self.suffix:
                kind, default = kind | None, None  # type: ignore[assignment]
            flag = f"{s.flag or '--' + name.replace('_', '-')}{self.suffix}"
            made.append(
                inspect.Parameter(
                    self._own(name),
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=Annotated[kind, self._option(name, flag, s)],
                )
            )
        for name, kind in self.shortcuts.items():
            made.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
        return made

    def _option(self, name: str, flag: str, s: Spelling) -> Any:
        who = f"For {self.suffix.strip('-').upper()}: " if self.suffix else ""
        least, most = (s.least, s.most) if s.parse is None else (None, None)
        return typer.Option(
            flag,
            help=who + self.helps.get(name, s.help),
            metavar=s.metavar,
            min=least,
            max=most,
            rich_help_panel=s.panel or None,
        )

    def _own(self, name: str) -> str:
        return f"{name}{self.suffix.replace('-', '_')}"

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Pop the fields from the command's arguments and return them parsed, without those that were not given."""
        known = spellings(self.cls)
        found = {}
        for name in self.names():
            value = values.pop(self._own(name))
            if value is None:
                continue
            parse = known[name].parse
            found[name] = parse(value) if parse is not None else value
        typed = {name: values.pop(name) for name in self.shortcuts}
        if texts := [f"{name}={value}" for name, value in typed.items() if value is not None]:
            found["settings"] = [*found.get("settings", ()), *texts]
        return found


def typed(call: typer.Context, *names: str) -> set[str]:
    """Return which parameters of the command that runs were given, whether or not they have their defaults."""
    return {n for n in names if (source := call.get_parameter_source(n)) is not None and source.name in _GIVEN}


def takes(**groups: Group) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command the options of option objects: the command line has the fields, the function gets the objects.

    Parameters
    ----------
    **groups : Group
        By the name of the command's parameter that gets the object. One with a suffix gets a dict of what was typed.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        hints = get_type_hints(function, include_extras=True)
        own = [
            p.replace(annotation=hints[name])
            for name, p in inspect.signature(function).parameters.items()
            if name not in groups
        ]
        generated = [p for group in groups.values() for p in group.parameters()]

        @functools.wraps(function)
        def wrapper(**values: Any) -> T:
            objects = {}
            for name, group in groups.items():
                found = group.read(values)
                objects[name] = found if group.suffix else group.cls(**found)
            return function(**values, **objects)

        positional = [p for p in own if p.default is inspect.Parameter.empty]
        rest = [p for p in own if p.default is not inspect.Parameter.empty]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*positional, *rest, *generated]]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        del wrapper.__wrapped__  # typer would look through to the function's own signature
        return wrapper

    return decorate
