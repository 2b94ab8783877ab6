"""The help of every command teaches: it ends with exit codes and examples, and the examples are commands that exist."""

import re
import shlex

import pytest
import typer

from fgonnx.cli import app as cli
from fgonnx.cli.app import app
from tests.cli_support import run

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def examples(command):
    return [shlex.split(line) for line in re.findall(r"- `(fgonnx [^`]*)`", GROUP.commands[command].epilog)]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_ends_with_exit_codes_and_examples(command):
    text = run(command, "--help").stdout
    last = text[text.rindex("╰") :]
    assert "Exit code" in last
    assert f"fgonnx {command}" in last
    assert "Examples" not in text[: text.rindex("╰")]


@pytest.mark.parametrize("command", COMMANDS)
def test_its_examples_have_options_of_the_command(command):
    found = examples(command)
    assert len(found) >= 2
    flags = {flag for parameter in GROUP.commands[command].params for flag in parameter.opts}
    for program, name, *words in found:
        assert (program, name) == ("fgonnx", command)
        assert [w for w in words if w.startswith("-") and w not in flags] == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("convert", "stored in the file"),
        ("rewrite", "--method takes the methods that are one graph"),
        ("compare", "there is no --method"),
        ("rewrite", "Class names for --target and --contrast"),
    ],
)
def test_what_is_special_to_a_command_is_said(command, said):
    assert said in " ".join(run(command, "--help").stdout.replace("│", " ").split())


def test_convert_does_not_speak_of_the_metadata_of_a_model():
    assert "the model's metadata" not in " ".join(run("convert", "--help").stdout.replace("│", " ").split())


def test_every_command_is_listed():
    assert cli.app is app
    assert COMMANDS == ["audit", "check", "compare", "convert", "evaluate", "explain", "inspect", "report", "rewrite"]
