"""`fgonnx inspect`: what a model is, and what of it can be explained."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from fgonnx.audit import inspection
from fgonnx.cli import terminal
from fgonnx.cli.flags import flags_of, on_the_command_line
from fgonnx.cli.options import Group, Json, ModelPath, takes
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import FILE, Options


@takes(options=Group(Options, without=("contrast", *FILE)))
def command(
    model: ModelPath,
    everything: Annotated[bool, typer.Option("--all", help="Show long lists in full.")] = False,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Say what a model is, what would be explained, which layers have a part in it, and what cannot be explained.

    **Examples**

    - `fgonnx inspect model.onnx`
    - `fgonnx inspect segmenter.onnx --input-shape 1,3,512,512 --all`
    - `fgonnx inspect model.onnx --json | jq .explanation.sites`

    Exit code: 0 also where the model cannot be explained (that is the answer), 2 where it cannot be loaded.
    """
    spelling = partial(on_the_command_line, flags=flags_of(command))
    found = inspection.inspected(load(model), options, str if as_json else lambda error: error.spelled(spelling))
    if as_json:
        terminal.show_json(found)
    else:
        terminal.show_inspection(found, everything=everything)
