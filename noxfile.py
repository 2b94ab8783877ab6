"""Checks, each in an environment of its own: `nox -s lint`, or `nox` for what is quick; `nox -l` lists all."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
PYTEST = ("pytest", "-n", "auto", "--dist", "loadfile")
PAGES = [f"tests/test_{page}.py" for page in ("api_pages", "contributing", "operators_page", "readme")]

# Tests that `lowest` cannot run: they compare with packages that ask for newer versions of what it holds back, or their
# graphs are written in the notation of onnx 1.18.
NEWER_PEERS = (
    "tests/frameworks",
    "tests/ort_training",
    "tests/witness",
    "tests/test_agreement.py",
    "tests/test_compare.py",
    "tests/test_convert_torch.py",
    "tests/test_evaluate_measures.py",
    "tests/test_evaluate_quantus.py",
    "tests/test_families.py",
    "tests/test_methods_peers.py",
    "tests/test_onnx_ad.py",
    "tests/test_paper.py",
    "tests/test_witness.py",
)


def pinned(*tools: str) -> list[str]:
    """Return the requirements of tools as the test extra states them."""
    return [r for r in PROJECT["optional-dependencies"]["test"] if re.split(r"[<>=]", r)[0] in tools]


def lowest_of(*extras: str) -> list[str]:
    """Return the dependencies, and those of extras, with every lower bound as the version."""
    stated = [*PROJECT["dependencies"], *(r for e in extras for r in PROJECT["optional-dependencies"][e])]
    return [re.sub(r">=([\w.]+).*", r"==\1", r) for r in stated]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install(*pinned("ruff"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", ".[cpu,test]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests, or those that are named: `nox -s tests -- tests/test_rules.py`."""
    session.install("-e", ".[cpu,test]")
    session.run(*PYTEST, "-m", "not slow", *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """All tests."""
    session.install("-e", ".[cpu,test]")
    session.run(*PYTEST, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """All tests, and which lines and branches they reach; fails below the floor that pyproject.toml states."""
    session.install("-e", ".[cpu,test]")
    session.run(*PYTEST, "--cov", "--cov-report=term:skip-covered", "--cov-report=xml", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Pages against what they speak of: examples run, links lead somewhere, the reference is what docstrings say."""
    session.install("-e", ".[cpu,test]")
    session.run("pytest", *PAGES, *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The tests that need no framework, on the lowest version of every dependency."""
    session.install(*lowest_of("cpu", "evaluate"), "pytest", "pyyaml", "setuptools")
    session.install("-e", ".", "--no-deps")
    # Old releases warn about the newer ones that they stand on: no concern of the tests.
    ignored = [f"--ignore={p}" for p in NEWER_PEERS]
    session.run("pytest", "-m", "not slow", "-o", "filterwarnings=", *ignored, *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The distributions: they build, their metadata are right, the wheel explains the example."""
    session.install(*(r for r in PROJECT["optional-dependencies"]["dev"] if r.startswith(("build", "twine"))))
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder / "dist"))
    built = sorted((folder / "dist").iterdir())
    session.run("twine", "check", "--strict", *map(str, built))
    (wheel,) = (b for b in built if b.suffix == ".whl")
    session.install(f"{wheel}[cpu]")
    session.run("fgonnx", "explain", "examples/shapes.onnx", "examples/images", "-o", str(folder / "out"), "--no-cache")
