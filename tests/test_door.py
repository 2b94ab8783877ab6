"""How the command line ends: one line for what was not foreseen, whatever stdout is, and on Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fgonnx.audit import inspection
from fgonnx.cli import door
from fgonnx.cli.app import app
from tests import skips
from tests.cli_support import SHAPES

ROOT = Path(__file__).resolve().parents[1]
CODE = "from fgonnx.cli import main; main()"


def process(code: str = CODE, *arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}  # type: ignore[dict-item]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        **streams,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("debug", [False, True])
def test_what_was_not_foreseen_is_one_line_and_a_hint(debug: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object, **named: object) -> None:
        raise KeyError("some\x1b[2J name")

    monkeypatch.setattr(inspection, "inspected", fails)
    result = CliRunner().invoke(app, ["inspect", str(SHAPES), *["--debug"] * debug])
    assert result.exit_code == door.UNEXPECTED
    assert ("Traceback" in result.stderr) == debug
    assert "\x1b" not in result.stderr
    if not debug:
        first, second = result.stderr.strip().splitlines()
        assert first.startswith("unexpected error: KeyError: 'some")
        assert "Please report it" in second
        assert "--debug" in second


def test_memory_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object, **named: object) -> None:
        raise MemoryError

    monkeypatch.setattr(inspection, "inspected", fails)
    result = CliRunner().invoke(app, ["inspect", str(SHAPES)])
    assert result.exit_code == 2
    assert "not enough memory" in result.stderr


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with process(CODE, "inspect", str(SHAPES), stdout=writing) as ended:
        os.close(writing)
        said = ended.stderr.read() if ended.stderr is not None else ""
        ended.wait()
    assert ended.returncode in (1, 2)
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@skips.when(not Path("/dev/full").exists(), skips.SYSTEM, "Linux alone has a device that is full")
def test_a_full_disk_behind_stdout_is_said() -> None:
    with open("/dev/full", "w") as full, process(CODE, "inspect", str(SHAPES), stdout=full) as ended:
        said = ended.stderr.read() if ended.stderr is not None else ""
    assert (ended.returncode, said.strip()) == (2, "error: the output cannot be written: No space left on device")


def test_no_stdout_at_all() -> None:
    code = f"import os, sys; os.close(1); sys.stdout = None; sys.argv[0] = 'fgonnx'; {CODE}"
    with process(code, "inspect", str(SHAPES)) as ended:
        said = ended.stderr.read() if ended.stderr is not None else ""
    assert (ended.returncode, said) == (0, "")


def test_a_terminal_of_ascii_alone(tmp_path: Path) -> None:
    picture = tmp_path / "K\u00e4se \U0001f9c0.png"
    picture.write_bytes((ROOT / "examples/images/circle.png").read_bytes())
    given = ["explain", str(SHAPES), str(picture), "-o", str(tmp_path / "out"), "--preprocess", "unit", "--no-cache"]
    with process(CODE, *given, env={"PYTHONIOENCODING": "ascii"}) as ended:
        out, said = ended.communicate()
    assert (ended.returncode, said) == (0, "")
    assert "K\\xe4se" in out


INTERRUPTED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "fgonnx"
interrupt = lambda *given, **named: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]

class Finder:
    def find_spec(self, name, *rest):
        if name == "fgonnx.audit.check":
            interrupt()

if "{when}" == "import":
    sys.meta_path.insert(0, Finder())
from fgonnx.cli import main
from fgonnx.audit import inspection
inspection.inspected = interrupt
main()
"""


@pytest.mark.parametrize("when", ["import", "work"])
def test_interrupts_end_in_one_line(when: str) -> None:
    code = INTERRUPTED.format(when=when)
    with process(code, "inspect", str(SHAPES)) as ended:
        _, said = ended.communicate()
    assert ended.returncode in (door.INTERRUPTED, -signal.SIGINT)
    assert "Traceback" not in said
    assert "interrupted" in said


def test_what_was_typed_does_not_reach_the_terminal_raw() -> None:
    with process(CODE, "inspect", "--\x1b[2J", "\x1b]0;x\x07") as ended:
        out, said = ended.communicate()
    assert ended.returncode == 2
    assert "\x1b" not in out + said
