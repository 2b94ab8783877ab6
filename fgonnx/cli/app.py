"""The command line: explain, inspect, check, compare, convert, evaluate, rewrite, view, export, audit, report."""

from __future__ import annotations

from typing import Annotated

import typer

from fgonnx._version import __version__
from fgonnx.cli import door, late

COMMANDS = {
    "explain": "Explain decisions on pictures, recordings, tables and texts: a picture, the raw map and a record of "
    "each.",
    "inspect": "Say what a model is, what would be explained, which layers have a part in it, and what cannot be "
    "explained.",
    "check": "Check the explanation of this very model: outputs unchanged, completeness, and the gradient by "
    "differences.",
    "compare": "Compare a deployed model with the approved one: decisions, scores, maps, and the layers where they "
    "part.",
    "convert": "Convert a network of a training framework to ONNX, and prove that nothing changed on the way.",
    "evaluate": "Measure which methods explain a model rightly: results per image, a summary, curves, maps, one HTML "
    "page.",
    "rewrite": "Write a model that explains itself: the same outputs, plus the map and its certificate, in standard "
    "ONNX.",
    "view": "Write a page in which a model explains pictures in the browser: nothing is uploaded, nothing else is "
    "installed.",
    "export": "Write a model repository: the model, and NAME_explained, whose answers carry the map and its "
    "certificate.",
    "serve": "Serve models: predictions as any server gives them, and explanations with map and certificate, by the "
    "same names.",
    "audit": "Audit a model on a data set: a record and a map for each picture, and a report of what the decisions "
    "rest on.",
    "report": "Write the report of an audit again from its records; nothing is run.",
}
"""First sentence of the help of every command, by its name: `fgonnx/cli/NAME.py` is imported when it is called."""

app = typer.Typer(
    name="fgonnx",
    cls=late.group(COMMANDS),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fgonnx {__version__}")
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


def main() -> None:
    """Run the command line."""
    door.run(app)
