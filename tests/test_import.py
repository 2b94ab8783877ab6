"""Importing fgonnx: what it brings along, how long it takes, what it says where something is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "tensorflow", "scipy", "typer", "rich", "onnx.reference", "matplotlib", "pandas")


def python(code):
    """Run code in a fresh interpreter; return what it prints, or the last line of its error."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_brings_no_heavy_package_along():
    assert python(f"import sys, fgonnx; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_is_quick_beyond_its_dependencies():
    # the best of three: other processes share the machine
    code = """
import time, numpy, onnx, onnx_ir, onnx_ir.passes.common, onnxruntime, cv2
start = time.perf_counter()
import fgonnx
print(time.perf_counter() - start)
"""
    assert min(float(python(code)) for _ in range(3)) < 1.0


def test_without_onnxruntime_says_what_to_install():
    message = python("import sys; sys.modules['onnxruntime'] = None; import fgonnx")
    assert message.startswith("fgonnx.errors.ProviderError: ONNX Runtime is missing.")
    assert 'pip install "fgonnx[cpu]"' in message


def test_public_names_are_there():
    assert python("import fgonnx; print([n for n in fgonnx.__all__ if not hasattr(fgonnx, n)])") == "[]"


def test_version_is_the_packages():
    assert python("import fgonnx; print(fgonnx.__version__)") == python(
        "from fgonnx._version import __version__ as v; print(v)"
    )


def test_converters_are_a_package_of_fgonnx():
    assert python("import fgonnx.converters as c; print(c.__name__)") == "fgonnx.converters"


def test_converters_refuse_another_name():
    message = python("import converters")
    assert message.startswith("ImportError: this package is fgonnx.converters; it was imported as 'converters'")


@pytest.mark.parametrize("name", ["fgonnx", "fgonnx.engine.rewrite.rewrite", "fgonnx.pictures.show.visual"])
def test_modules_import_on_their_own(name):
    assert python(f"import {name}; print('fine')") == "fine"
