"""Importing fgonnx: what it brings along, what it says where something is missing."""

import subprocess
import sys
from pathlib import Path

import fgonnx.converters
import pytest

import fgonnx

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "numpy",
    "onnx",
    "onnx_ir",
    "sympy",
    "onnxruntime",
    "cv2",
    "matplotlib",
    "scipy",
    "torch",
    "PIL",
    "pandas",
    "rich",
)
LIGHT = {"fgonnx._checkout", "fgonnx._interrupts", "fgonnx._version", "fgonnx.explain"}
USED = "fgonnx.explain, fgonnx.check, fgonnx.rewrite"


def python(code):
    """Run code in a fresh interpreter; return what it prints, or the last line of its error."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def modules(code):
    """Return the modules that there are after some code."""
    return set(python(f"{code}\nimport sys; print(*sys.modules)").split())


def test_the_package_alone_brings_nothing_heavy():
    there = modules("import fgonnx; fgonnx.__version__; dir(fgonnx)")
    assert sorted(there & set(HEAVY)) == []
    assert {m for m in there if m.startswith("fgonnx.")} - {"fgonnx._built"} == LIGHT  # that is of built packages


def test_the_list_of_commands_brings_nothing_heavy():
    there = modules(
        "from fgonnx.cli.app import app\nimport sys, io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()): app(['--help'], standalone_mode=False)"
    )
    assert sorted(there & (set(HEAVY) - {"rich"})) == []


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("import fgonnx", 100),
        (
            "import contextlib, io\nfrom fgonnx.cli.app import app\n"
            "with contextlib.redirect_stdout(io.StringIO()): app(['--help'], standalone_mode=False)",
            450,
        ),
    ],
    ids=["import fgonnx", "fgonnx --help"],
)
def test_starting_takes_few_modules(code, most):
    # Half as many again as there are. Each takes about half a millisecond; numpy alone is 140, onnx 300, cv2 180.
    assert len(modules(code) - modules("pass")) <= most


@pytest.fixture(scope="module")
def brought():
    """The modules that the usual names bring when what fgonnx depends on is there already."""
    code = "import sys, numpy, onnx, onnx_ir, onnx_ir.passes.common, onnxruntime, cv2; there = set(sys.modules)"
    return set(python(f"{code}; import fgonnx; {USED}; print(*set(sys.modules) - there)").split())


def test_the_usual_names_bring_no_package_beyond_its_dependencies(brought):
    assert {m.partition(".")[0] for m in brought} - sys.stdlib_module_names == {"fgonnx"}


def test_they_bring_no_heavy_part_of_its_dependencies(brought):
    assert not brought & {"onnx.reference", "onnx.backend", "onnxruntime.quantization", "onnxruntime.training"}


@pytest.mark.parametrize("part", ["cli", "jobs", "training", "converters", "pictures.show", "audit.evaluate"])
def test_they_leave_the_parts_that_few_need(part, brought):
    assert [m for m in brought if f"{m}.".startswith(f"fgonnx.{part}.")] == []


def test_the_name_of_the_function_stays_when_the_package_is_imported():
    code = "import fgonnx; fgonnx.Explainer; import fgonnx.explain.explainer, fgonnx.explain; print(fgonnx.explain)"
    assert python(code).startswith("<function explain")


@pytest.mark.parametrize("name", ["evaluate", "errors", "methods", "rules", "targets", "bounds"])
def test_public_modules_need_no_import_of_their_own(name):
    assert python(f"import fgonnx; print(fgonnx.{name}.__name__)") == f"fgonnx.{name}"


def test_a_name_that_there_is_not_is_an_attribute_error():
    said = python("import fgonnx; fgonnx.explane")
    assert said.startswith("AttributeError: module 'fgonnx' has no attribute 'explane'")


def test_without_onnxruntime_says_what_to_install():
    message = python("import sys; sys.modules['onnxruntime'] = None; import fgonnx; fgonnx.rewrite")
    assert message.startswith("fgonnx.errors.ProviderError: ONNX Runtime is missing.")
    assert "pip install onnxruntime," in message


@pytest.mark.parametrize(("module", "advice"), [("onnxruntime", "onnxruntime"), ("cv2", "opencv-python-headless")])
def test_the_command_line_says_what_is_missing_in_one_line(module, advice):
    code = f"import sys; sys.modules['{module}'] = None; from fgonnx.cli import main; sys.argv[1:] = ['explain', 'x']"
    done = subprocess.run([sys.executable, "-c", f"{code}; main()"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert advice in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_public_names_are_there():
    assert [n for n in fgonnx.__all__ if not hasattr(fgonnx, n)] == []


def test_converters_are_a_package_of_fgonnx():
    assert fgonnx.converters.__name__ == "fgonnx.converters"


def test_converters_refuse_another_name():
    message = python("import converters")
    assert message.startswith("ImportError: this package is fgonnx.converters; it was imported as 'converters'")


@pytest.mark.parametrize("name", ["fgonnx.engine.rewrite.rewrite", "fgonnx.pictures.show.visual"])
def test_modules_import_on_their_own(name):
    assert python(f"import {name}; print('fine')") == "fine"
