"""Importing fgonnx: what it brings along, what it says where something is missing."""

import subprocess
import sys
from pathlib import Path

import fgonnx.converters
import pytest

import fgonnx

ROOT = Path(__file__).resolve().parents[1]
DEPENDENCIES = "numpy, onnx, onnx_ir, onnx_ir.passes.common, onnxruntime, cv2"


def python(code):
    """Run code in a fresh interpreter; return what it prints, or the last line of its error."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def brought():
    """The modules that `import fgonnx` brings when what it depends on is there already."""
    code = f"import sys, {DEPENDENCIES}; there = set(sys.modules); import fgonnx; print(*set(sys.modules) - there)"
    return set(python(code).split())


def test_brings_no_package_beyond_its_dependencies(brought):
    assert {m.partition(".")[0] for m in brought} - sys.stdlib_module_names == {"fgonnx"}


def test_brings_no_heavy_part_of_its_dependencies(brought):
    assert not brought & {"onnx.reference", "onnx.backend", "onnxruntime.quantization", "onnxruntime.training"}


@pytest.mark.parametrize("part", ["cli", "jobs", "training", "converters", "pictures.show", "audit.evaluate"])
def test_leaves_the_parts_that_few_need(part, brought):
    assert [m for m in brought if f"{m}.".startswith(f"fgonnx.{part}.")] == []


def test_without_onnxruntime_says_what_to_install():
    message = python("import sys; sys.modules['onnxruntime'] = None; import fgonnx")
    assert message.startswith("fgonnx.errors.ProviderError: ONNX Runtime is missing.")
    assert 'pip install "fgonnx[cpu]"' in message


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
