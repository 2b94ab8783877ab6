"""Converters from training frameworks to ONNX files that fgonnx explains (installed as `fgonnx.converters`).

One module per framework, each with a function `convert(model, path, ...)`; a framework is imported only with its
module.
"""

from __future__ import annotations

if __name__ != "fgonnx.converters":
    raise ImportError(
        f"this package is fgonnx.converters; it was imported as {__name__!r}: use 'import fgonnx.converters'"
    )

import importlib
import inspect
from pathlib import Path
from typing import Any

from fgonnx.errors import OptionError
from fgonnx.fields import check_choice
from fgonnx.wording import near, parameter

from .detect import FRAMEWORKS, Kind, of_object, recognise
from .network import MissingFrameworkError
from .options import ConversionOptions
from .report import ConversionReport, Measurement

__all__ = [
    "FRAMEWORKS",
    "ConversionOptions",
    "ConversionReport",
    "Kind",
    "Measurement",
    "MissingFrameworkError",
    "convert",
    "recognise",
]


def convert(source: Any, path: str | Path, framework: str | None = None, **options: Any) -> ConversionReport:
    """Convert a network to an ONNX file and prove that both compute the same.

    Parameters
    ----------
    source : object or path
        A network in its framework, or a file or folder that holds one.
    path : path-like
        The .onnx file to write.
    framework : str, optional
        One of `FRAMEWORKS`; inferred from the object's classes or the file's content by default.
    **options
        `ConversionOptions`, and options of the framework's own `convert`, such as example_input.

    Returns
    -------
    ConversionReport
        `report.passed` tells whether source and file agree.

    Raises
    ------
    MissingFrameworkError
        If the framework or its exporter is not installed; the extra to install is named.
    FgonnxError
        If the source is not a network, or cannot be converted.

    Examples
    --------
    >>> import torch
    >>> from fgonnx import converters
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> report = converters.convert(net, "net.onnx", example_input=torch.zeros(1, 3, 8, 8), exporter="torchscript")
    >>> report.passed
    True
    >>> report.outputs
    {'output': ['N', 2]}
    """
    if framework is None:
        framework = recognise(Path(source)).framework if isinstance(source, str | Path) else of_object(source)
    check_choice("framework", framework, FRAMEWORKS)
    module = importlib.import_module(f"{__name__}.{framework}")
    own = inspect.signature(module.convert).parameters.values()
    known = {*(p.name for p in own if p.kind is p.KEYWORD_ONLY), *ConversionOptions.__annotations__}
    if unknown := sorted(set(options) - known):
        raise OptionError(
            f"{framework} knows no option {parameter(unknown[0])}{near(unknown[0], known)}; it has: "
            f"{', '.join(sorted(known))}"
        )
    report: ConversionReport = module.convert(source, path, **options)
    return report
