"""Packaging of fgonnx: metadata, dependencies and the mapping of `converters/` to `fgonnx.converters`."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent

_match = re.search(r'^__version__ = "([^"]+)"$', (HERE / "fgonnx" / "_version.py").read_text(encoding="utf-8"), re.M)
if _match is None:
    raise SystemExit('fgonnx/_version.py holds no line __version__ = "..."')

ONNXRUNTIME = "1.20"
EVALUATE = ["jinja2>=3.1", "matplotlib>=3.9", "scipy>=1.15"]
# tensorflow-cpu serves as well; tf2onnx before 1.17 pins protobuf 3, which onnx has left.
TENSORFLOW = ["tensorflow>=2.18", "keras>=3.8", "tf2onnx>=1.17"]
TEST = [
    "captum>=0.8",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "mypy>=1.14",
    "onnxscript>=0.5",
    "onnx-ad==0.3.0",
    "quantus>=0.6",
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
    packages=["fgonnx.converters", *find_packages(include=["fgonnx", "fgonnx.*"])],
    package_dir={"fgonnx.converters": "converters"},
    package_data={"fgonnx": ["py.typed"], "fgonnx.audit.evaluate": ["page.html"]},
    install_requires=[
        "numpy>=1.26",
        "onnx>=1.17",
        "onnx-ir>=0.1.12,<2",
        "opencv-python>=4.8",
        "platformdirs>=4",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require={
        # The three runtime wheels overwrite one another: one of them in one environment.
        "cpu": [f"onnxruntime>={ONNXRUNTIME}"],
        "gpu": [f"onnxruntime-gpu>={ONNXRUNTIME}"],
        # What `fgonnx.converters` needs of each framework. paddle2onnx pins an older onnx: an environment of its own.
        "torch": ["torch>=2.6", "onnxscript>=0.5"],
        "tensorflow": TENSORFLOW,
        "keras": TENSORFLOW,
        "tflite": [*TENSORFLOW, "ai-edge-litert>=2"],
        "jax": ["jax>=0.6", "flax>=0.11", "jax2onnx>=0.12"],
        "sklearn": ["scikit-learn>=1.5", "skl2onnx>=1.18"],
        "paddle": ["paddlepaddle>=3", "paddle2onnx>=2"],
        "simplify": ["onnxslim>=0.1.50"],
        "training": ["onnxruntime-training==1.19.2"],
        "evaluate": EVALUATE,
        "test": [*TEST, *EVALUATE],
        "test-training": ["pytest>=8", "pytest-xdist>=3.6", "torch==2.13.0"],
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
