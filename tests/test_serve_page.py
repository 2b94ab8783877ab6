"""The page of the service: its lines of curl run, its commands have options that exist, its limits are the defaults."""

import re
import shlex
import subprocess
from dataclasses import fields
from shutil import which

import pytest
import typer

from fgonnx.cli.app import app
from fgonnx.serve.options import Serving
from tests import skips
from tests.cli_support import ROOT, SHAPES
from tests.serve_support import served
from tests.test_printed_blocks import commands

for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    skips.without(package)

PAGE = ROOT / "docs" / "serve.md"
CURL = [line for line in commands(PAGE) if line.startswith("curl")]


@pytest.fixture(scope="module")
def service():
    with served(SHAPES, grpc=False) as service:
        yield service


@skips.when(which("curl") is None or which("base64") is None, skips.SYSTEM)
@pytest.mark.parametrize("line", CURL)
def test_curl_gets_an_answer(line, service):
    asked = line.replace("localhost:8080", f"127.0.0.1:{service.port}").replace("curl -s", "curl -sf")
    done = subprocess.run(["bash", "-c", asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("line", [line for line in commands(PAGE) if line.startswith("fgonnx serve")])
def test_its_commands_have_options_that_exist(line):
    command = typer.main.get_command(app).get_command(None, "serve")
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert [w for w in shlex.split(line) if w.startswith("--") and w not in flags] == []


def test_its_limits_are_the_defaults():
    rows = dict(re.findall(r"^\| `--(max-\w+|timeout)` \| ([\d,]+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    default = {f.name: f.default for f in fields(Serving)}
    assert {k: float(v.replace(",", "")) for k, v in rows.items()} == {
        name: default[name.replace("-", "_")] for name in rows
    }
    assert len(rows) == 6
