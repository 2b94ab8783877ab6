"""Commands that are imported when they are called: listing them needs their names and first sentences alone."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from inspect import getdoc
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fgonnx.cli import door
from fgonnx.errors import FgonnxError

_STARTS = {
    "bash": "~/.bashrc and ~/.bash_completions/",
    "zsh": "~/.zshrc and ~/.zfunc/",
    "fish": "~/.config/fish/completions/",
    "powershell": "your profile, and let scripts run (Set-ExecutionPolicy Unrestricted)",
}
_OTHERWISE = "the start-up files of your shell (bash: {bash}; zsh: {zsh}; fish: {fish}; PowerShell: {powershell})"


def group(listed: Mapping[str, str]) -> type[TyperGroup]:
    """Return a class of groups with commands that are imported when they are called.

    Parameters
    ----------
    listed : mapping of str to str
        First sentences of the help, by the names of the commands: `fgonnx/cli/NAME.py` has the function `command`.
    """

    class Commands(TyperGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            own = self.commands
            self.commands = {name: TyperCommand(name, help=said) for name, said in listed.items()} | own  # type: ignore[operator]
            self._waiting = set(listed)

        def loaded(self, name: str) -> Any:
            """Return a command, imported."""
            if name in self._waiting:
                self.commands[name] = _imported(name)
                self._waiting.discard(name)
            return self.commands[name]

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args and args[0] in self._waiting:
                try:
                    self.loaded(args[0])
                except KeyboardInterrupt as error:
                    typer.echo(door.STOPPED, err=True)
                    raise typer.Exit(door.INTERRUPTED) from error
                except FgonnxError as error:  # a package is missing that every command needs
                    typer.echo(f"error: {error}", err=True)
                    raise typer.Exit(2) from error
            return super().resolve_command(ctx, args)

        def get_params(self, ctx: Any) -> Any:
            found = super().get_params(ctx)
            for parameter in found:
                if parameter.name == "install_completion" and parameter.callback is not None:
                    parameter.callback = _asking(parameter.callback)
            return found

    return Commands


def _imported(name: str) -> Any:
    from fgonnx.cli import guarded

    function = importlib.import_module(f"fgonnx.cli.{name}").command
    beginning, end = _parted(getdoc(function) or "")
    alone = typer.Typer(rich_markup_mode="markdown", add_completion=False, pretty_exceptions_enable=False)
    alone.command(name, help=beginning, epilog=end)(guarded.command(function))
    return typer.main.get_command(alone)


def _parted(text: str) -> tuple[str, str]:
    """Return what the help of a command begins with, and what it ends with: the examples and the exit codes.

    The end is printed behind the options, where a reader's eye is.
    """
    first, _, rest = text.partition("**Examples**")
    examples, _, closing = rest.strip().partition("\n\n")
    return first.strip(), f"{closing}\n\n**Examples**\n\n{examples}"


def _asking(install: Any) -> Any:
    """Have the installation of shell completion ask first, as it writes into start-up files."""
    if getattr(install, "asks", False):
        return install

    def asked(ctx: Any, parameter: Any, value: Any) -> Any:
        if value and not ctx.resilient_parsing:
            where = _STARTS.get(str(value), _OTHERWISE.format(**_STARTS))
            typer.confirm(f"This writes into {where}. --show-completion only prints it. Write?", abort=True, err=True)
        return install(ctx, parameter, value)

    asked.asks = True  # type: ignore[attr-defined]
    return asked
