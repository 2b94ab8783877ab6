"""Packages and where they lie; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fgonnx", "fgonnx.*"]), "fgonnx.converters"],
    package_dir={"fgonnx.converters": "converters"},
    package_data={"": ["py.typed", "*.html", "*.schema.json", "*.ttf", "*.LICENSE"], "fgonnx.view": ["page/*"]},
)
