"""The command line: explain, inspect, check, compare, convert, evaluate, rewrite, audit, report."""

from __future__ import annotations

from inspect import getdoc
from typing import Annotated

import typer

from fgonnx._version import __version__
from fgonnx.cli import audit, check, compare, convert, door, evaluate, explain, inspect, report, rewrite, terminal

app = typer.Typer(
    name="fgonnx",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        terminal.out().print(f"fgonnx {__version__}")
        raise typer.Exit


@app.callback()
def fgonnx(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Explain what an ONNX network sees, with full-gradients: a saliency map, and a certificate that it is complete.

    Start with `fgonnx inspect model.onnx`, then `fgonnx explain model.onnx photo.jpg -o out --preprocess imagenet`.
    """


def _parted(text: str) -> tuple[str, str]:
    """Return what the help of a command begins with, and what it ends with: the examples and the exit codes.

    The end is printed behind the options, where a reader's eye is.
    """
    first, _, rest = text.partition("**Examples**")
    examples, _, closing = rest.strip().partition("\n\n")
    return first.strip(), f"{closing}\n\n**Examples**\n\n{examples}"


for module in (explain, inspect, check, compare, convert, evaluate, rewrite, audit, report):
    beginning, end = _parted(getdoc(module.command) or "")
    name = module.__name__.rpartition(".")[2]
    app.command(name, help=beginning, epilog=end)(terminal.command(module.command))


def main() -> None:
    """Run the command line."""
    door.run(app)
