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
PAGES = [
    *(
        f"tests/test_{page}.py"
        for page in ("api_pages", "contributing", "json", "notebooks", "operators_page", "pages")
    ),
    *(f"tests/test_{page}.py" for page in ("readme", "site", "tutorials")),
]

# Tests that `lowest` leaves out: they compare with packages, or with a version of onnx.reference, that are newer than
# what it holds back.
NEWER_WITNESSES = [
    f"tests/{name}"
    for name in (
        "frameworks",
        "ort_training",
        "witness",
        "test_agreement.py",
        "test_compare.py",
        "test_convert_torch.py",
        "test_evaluate_measures.py",
        "test_evaluate_quantus.py",
        "test_families.py",
        "test_methods_peers.py",
        "test_onnx_ad.py",
        "test_onnx_node_cases.py",
        "test_paper.py",
        "test_rule_mutants.py",
        "test_rules.py",
        "test_witness.py",
    )
]
# What old releases cannot do: OpenCV before 4.10 writes no file of several frames for the test to read; onnxruntime
# before 1.28 does not run the fused convolution that is to be explained.
NOT_YET = ["test_of_several_frames_the_first_is_read", "FusedConv and sum"]
# With onnx 1.17, which paddle2onnx asks for: it has no opset 23, and its parser no names of nodes.
NOT_YET_1_17 = [
    "test_expand and (RMSNormalization or RotaryEmbedding or Attention)",
    "test_of_an_old_opset",
    "test_what_cannot_be_explained_is_an_answer",
    "test_all_operators_without_a_rule_are_named",
    "test_operators_outside_the_standard_are_all_named_before_the_opset_is_raised",
    "test_a_cast_to_float8_is_named_as_what_stands_in_the_way",
    "test_names_every_node_without_a_rule",
]


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
@nox.parametrize("onnx", ["1.17.0", "1.19.0"])
def lowest(session: nox.Session, onnx: str) -> None:
    """The tests that need no framework, on the lowest version of every dependency."""
    session.install(*lowest_of("cpu", "evaluate"), "pytest", "pyyaml", "setuptools", "sympy")
    session.install(f"onnx=={onnx}")
    session.install("-e", ".", "--no-deps")
    ignored = [f"--ignore={path}" for path in NEWER_WITNESSES]
    not_yet = NOT_YET
    if onnx == "1.17.0":
        ignored += ["--ignore=tests/test_explainer.py"]
        not_yet = NOT_YET + NOT_YET_1_17
    left = " and ".join([*(f"not ({name})" for name in not_yet)])
    # Old releases warn about the newer ones that they stand on: no concern of the tests.
    session.run("pytest", "-o", "filterwarnings=", "-m", "not slow", "-k", left, *ignored, *session.posargs)


@nox.session
def kserve(session: nox.Session) -> None:
    """The service with KServe's own client."""
    session.install("-e", ".[cpu,serve]", "kserve>=0.15", "pytest", "sympy")
    session.run("pytest", "-o", "filterwarnings=", "tests/test_serve_kserve.py", *session.posargs)


@nox.session
def exports(session: nox.Session) -> None:
    """Runs of an audit handed to other tools: ViRelAy, MLflow and model-signing themselves read them."""
    session.install("-e", ".[cpu,audit]", "h5py", "mlflow>=2.20", "model-signing>=1.1", "pyopenssl", "virelay>=0.6")
    session.install("pytest", "pyyaml")
    session.run("pytest", "-o", "filterwarnings=", "tests/test_audit_exports.py", *session.posargs)


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
