"""`fgonnx check`: the explanation of a model, checked on the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer
from rich.text import Text

from fgonnx.audit.check import Thoroughness
from fgonnx.audit.check import check as run_checks
from fgonnx.audit.found import CheckResult
from fgonnx.cli import terminal
from fgonnx.cli.options import Group, Json, ModelPath, SomeImages, Target, takes
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.fields import RUNNING
from fgonnx.jobs.check import check_samples, described, not_tested
from fgonnx.jobs.joining import by_columns
from fgonnx.jobs.reading import OF_FORMS, SOUND, Reading

_NOT = (
    "method",
    "settings",
    "profile",
    "psi",
    "contrast",
    "backward",
    "engine",
    *FILE,
)  # what is checked does not depend on these

_EXIT = {"failed": 1, "undecided": 3}
_VERDICTS = {"passed": "green", "failed": "bold red", "undecided": "yellow"}


@takes(
    options=Group(Options, without=_NOT),
    thoroughness=Group(Thoroughness),
    running=Group(Running, defaults={"cache": True}),
    reading=Group(Reading, without=[name for name in SOUND if name not in OF_FORMS]),
)
def command(
    model: ModelPath,
    inputs: SomeImages = None,
    target: Target = None,
    engine: Annotated[
        str,
        typer.Option(
            rich_help_panel=RUNNING, help="What is checked: fgonnx, ort-training, or both and that they agree."
        ),
    ] = "fgonnx",
    as_json: Json = False,
    *,
    options: Options,
    thoroughness: Thoroughness,
    running: Running,
    reading: Reading,
) -> None:
    """Check the explanation of this very model: outputs unchanged, completeness, and the gradient by differences.

    **Examples**

    - `fgonnx check model.onnx`
    - `fgonnx check model.onnx photos/ --preprocess imagenet`
    - `fgonnx check model.onnx --engine both` : every tensor against ONNX Runtime's own gradient graph

    Nothing passes that was not measured: a slope that is lost in rounding, in kinks or in steps of quantisation is not
    decided, and the output says what would decide it.

    Exit code: 0 where all checks pass, 1 where one fails, 2 where input or options are wrong, 3 where none fails but
    one is not decided.
    """
    loaded = binding.bind(load(model), options.bind, options.input_shape)
    loaded, reading = by_columns(loaded, reading, inputs or (), options.input)
    loaded, options = arranged(loaded, replace(options, bind=None))
    x, layout, said = check_samples(loaded, inputs or (), options, reading, thoroughness)
    for label, text in said:
        terminal.say(label, text)
    with terminal.working("checking"):
        result = run_checks(
            loaded,
            x,
            target,
            options=replace(options, layout=layout),
            running=running,
            thoroughness=thoroughness if x is None else replace(thoroughness, samples=Thoroughness().samples),
            labels=reading.names(),
            engine=engine,
        )
    untested = not_tested(result, drawn=not inputs)
    if as_json:
        terminal.show_json(described(loaded, result, untested, said))
    else:
        _show(result, untested)
    if not result.passed:
        raise typer.Exit(_EXIT[result.verdict])


def _show(result: CheckResult, untested: Sequence[str]) -> None:
    """Print the result of `check`, and what it is not about."""
    terminal.notes(result.notes)
    made = terminal.table("check", "result", "error", "allowed", "how it was measured", numbers=("error", "allowed"))
    for c in result.checks:
        verdict = Text(c.verdict, style=_VERDICTS[c.verdict])
        terminal.row(made, c.name, verdict, f"{c.value:.1e}", f"{c.tolerance:.0e}", c.detail)
    terminal.show(made)
    for c in result.checks:
        if c.verdict == "undecided":
            terminal.say("not decided", f"{c.name}; what would decide it: {c.decides}")
    for what in untested:
        terminal.say("not tested", what)
    words = {"passed": "passed", "failed": "failed", "undecided": "not decided"}
    style = "bold green" if result.passed else "bold yellow" if result.verdict == "undecided" else "bold red"
    terminal.out().print(Text(words[result.verdict], style=style))
