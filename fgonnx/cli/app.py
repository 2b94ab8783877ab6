"""The command line: explain, inspect, check, compare, convert, evaluate, rewrite."""

from __future__ import annotations

from typing import Annotated

import typer

from fgonnx._version import __version__
from fgonnx.cli import check, compare, convert, evaluate, explain, inspect, rewrite, terminal

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


for module in (explain, inspect, check, compare, convert, evaluate, rewrite):
    app.command(module.__name__.rpartition(".")[2])(terminal.command(module.command))


def main() -> None:
    """Run the command line."""
    app(prog_name="fgonnx")
