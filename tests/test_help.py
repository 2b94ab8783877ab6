"""The help of every command teaches: it ends with exit codes and examples, and the examples are commands that exist."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import fgonnx
from fgonnx.cli import app as cli
from fgonnx.cli import terminal
from fgonnx.cli.app import app
from tests.cli_support import CIRCLE, ROOT, SHAPES, run

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)
COLUMNS = re.compile(r"│ (\w+ )?|│")


def examples(command):
    return [shlex.split(line) for line in re.findall(r"- `(fgonnx [^`]*)`", GROUP.loaded(command).epilog)]


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
    flags = {flag for parameter in GROUP.loaded(command).params for flag in parameter.opts}
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
    assert COMMANDS == [
        "audit",
        "check",
        "compare",
        "convert",
        "evaluate",
        "explain",
        "export",
        "inspect",
        "report",
        "rewrite",
        "serve",
        "view",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_says_what_their_help_begins_with(command):
    listed = " ".join(COLUMNS.sub(" ", run("--help").stdout).split())
    assert GROUP.loaded(command).help.partition("\n\n")[0].replace("\n", " ") in listed
    assert cli.COMMANDS[command] in listed


def test_a_command_is_imported_when_it_is_called_and_no_other_is():
    code = "import sys; from fgonnx.cli.app import app; app(['--help'], standalone_mode=False)"
    code += "; print(*sorted(m for m in sys.modules if m.startswith('fgonnx.cli.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= {f"fgonnx.cli.{n}" for n in ("app", "door", "escaped", "late")}


def test_completion_asks_before_it_writes(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # the shell is then named
    refused = CliRunner().invoke(app, ["--install-completion", "bash"], input="n\n", prog_name="fgonnx")
    assert "~/.bashrc" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    CliRunner().invoke(app, ["--install-completion", "bash"], input="y\n", prog_name="fgonnx")
    assert {p.name for p in tmp_path.iterdir()} == {".bashrc", ".bash_completions"}


@pytest.mark.parametrize(("surroundings", "moves"), [({}, True), ({"JPY_PARENT_PID": "1"}, False)])
def test_progress_is_drawn_on_a_terminal_and_not_under_a_cell_of_a_notebook(surroundings, moves, monkeypatch, capsys):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    for name, value in {"FORCE_COLOR": "1", **surroundings}.items():
        monkeypatch.setenv(name, value)
    with terminal.working("checking"):
        pass
    assert list(terminal.progress([1, 2], "reading", 2)) == [1, 2]
    assert ("checking" in capsys.readouterr().err) == moves


def test_verbose_tells_what_is_done_and_quiet_tells_errors_alone(tmp_path):
    given = ["explain", str(SHAPES), str(CIRCLE), "-o", str(tmp_path), "--no-cache"]
    usual, said, quiet = (run(*given, *more) for more in ([], ["-v"], ["-q"]))
    assert (usual.exit_code, said.exit_code, quiet.exit_code) == (0, 0, 0)
    assert said.stdout == usual.stdout
    assert usual.stderr == quiet.stdout == quiet.stderr == ""
    assert "shapes.onnx rewritten for fullgrad" in said.stderr
    assert "session" not in said.stderr
    assert "session" in run(*given, "-vv").stderr
    assert run("inspect", "there-is-none.onnx", "-q").stderr.startswith("error: there-is-none.onnx")
    assert "give one of them" in run(*given, "-q", "-v").stderr


def test_quiet_keeps_the_json_that_was_asked_for():
    assert json.loads(run("inspect", SHAPES, "--json", "-q").stdout)["labels"]


def test_the_log_is_named_for_programs_of_ones_own(caplog):
    with caplog.at_level("INFO", logger="fgonnx"):
        fgonnx.rewrite(SHAPES)
    assert {record.name for record in caplog.records} == {
        "fgonnx.engine.model.load",
        "fgonnx.engine.rewrite.rewrite",
    }
