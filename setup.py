"""Packaging of fgonnx: metadata, dependencies and the mapping of `converters/` to `fgonnx.converters`."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent

_match = re.search(r'^__version__ = "([^"]+)"$', (HERE / "fgonnx" / "_version.py").read_text(encoding="utf-8"), re.M)
if _match is None:
    raise SystemExit('fgonnx/_version.py holds no line __version__ = "..."')

ONNXRUNTIME = "1.20"
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "mypy>=1.14",
    "onnxscript>=0.5",
    "onnx-ad==0.3.0",
    "scikit-image>=0.24",
    "torch==2.13.0",
]

setup(
    name="fgonnx",
    version=_match.group(1),
    description="Full-gradient explanations of deployed ONNX networks: saliency map and certificate as one ONNX file",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The fgonnx authors",
    keywords=["onnx", "explainability", "saliency", "full-gradients", "fullgrad", "onnxruntime", "attribution"],
    python_requires=">=3.11",
    packages=[
        "fgonnx",
        "fgonnx.cli",
        "fgonnx.comparison",
        "fgonnx.converters",
        "fgonnx.expand",
        "fgonnx.read",
        "fgonnx.rules",
        "fgonnx.show",
    ],
    package_dir={"fgonnx.converters": "converters"},
    package_data={"fgonnx": ["py.typed"]},
    install_requires=[
        "numpy>=1.26",
        "onnx>=1.17",
        "onnx-ir>=0.1.12,<2",
        "opencv-python>=4.8",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require={
        # The three runtime wheels overwrite one another: one of them in one environment.
        "cpu": [f"onnxruntime>={ONNXRUNTIME}"],
        "gpu": [f"onnxruntime-gpu>={ONNXRUNTIME}"],
        "training": ["onnxruntime-training==1.19.2"],
        "test": TEST,
    },
    entry_points={"console_scripts": ["fgonnx = fgonnx.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
