"""Execution providers of ONNX Runtime: which there are, how they are set, and that they start."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from fgonnx.errors import ProviderError
from fgonnx.wording import near, parameter

try:
    import onnxruntime as ort
    from onnxruntime.capi import _pybind_state as native
except ImportError as error:  # any of the three wheels provides it, none is a hard dependency
    raise ProviderError(
        "ONNX Runtime is missing. Install one of its wheels, never two in one environment: "
        'pip install onnxruntime, or "onnxruntime-gpu[cuda,cudnn]" for NVIDIA GPUs'
    ) from error

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "TRAINING",
    "VERSION",
    "choose_providers",
    "native",
    "ort",
    "with_settings",
]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

#: The version of ONNX Runtime.
VERSION: str = ort.__version__

#: Whether this is the build with a gradient builder (onnxruntime-training).
TRAINING: bool = hasattr(native, "GradientGraphBuilder")

_LIBRARIES = {CUDA: "onnxruntime_providers_cuda", TENSORRT: "onnxruntime_providers_tensorrt"}


def choose_providers(requested: Sequence[str] | None = None) -> list[str]:
    """Return the execution providers to use.

    Parameters
    ----------
    requested : sequence of str, optional
        Full names ("CUDAExecutionProvider") or short ones ("cuda", "cpu"). Default: CUDA where it starts, then CPU; CPU
        alone with the training build.

    Raises
    ------
    ProviderError
        If one is not available in the installed onnxruntime, or does not start.
    """
    available = list(ort.get_available_providers())
    if not requested and TRAINING:  # it lists CUDA even without its libraries
        return [CPU]
    if not requested:
        return [p for p in (CUDA, CPU) if p in available and not _failure(p)] or available
    by_short = {p.removesuffix("ExecutionProvider").lower(): p for p in available}
    chosen = []
    for name in requested:
        full = name if name in available else by_short.get(name.removesuffix("ExecutionProvider").lower())
        if full is None:
            raise ProviderError(
                f"the execution provider '{name}' is not available in this onnxruntime {ort.__version__}; "
                f"it has: {', '.join(sorted(by_short))}{near(name, by_short)}"
            )
        if why := _failure(full):
            raise ProviderError(
                f"the execution provider '{name}' does not start: {why}. Install what it "
                f'needs (pip install "onnxruntime-gpu[cuda,cudnn]"), or run on the processor '
                f"({parameter('providers', 'cpu')})"
            )
        chosen.append(full)
    return chosen


def with_settings(providers: Sequence[str], *, tf32: bool = False) -> list[str | tuple[str, dict[str, str]]]:
    """Return providers with their options: for CUDA, real float32, and a choice of convolutions without trials.

    Parameters
    ----------
    providers : sequence of str
        Full names.
    tf32 : bool
        Whether CUDA may round factors to TF32, ten bits of them.
    """
    settings = {CUDA: {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}}
    return [(name, settings[name]) if name in settings else name for name in providers]


@cache
def _failure(provider: str) -> str:
    """Return why a provider does not start; "" if it does. ONNX Runtime takes another one without an error."""
    if provider == CPU:
        return ""
    _preload()
    if missing := _missing_library(provider):
        return missing
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "trial", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=with_settings([provider]), enable_fallback=0
            )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        return str(error).strip().splitlines()[0]
    return "" if provider in session.get_providers() else "ONNX Runtime takes another one in its place"


@cache
def _preload() -> None:
    """Load the libraries of CUDA and cuDNN that are installed as Python packages."""
    preload: Any = getattr(ort, "preload_dlls", None)
    if preload is not None and CUDA in ort.get_available_providers():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            preload(directory="")


def _missing_library(provider: str) -> str:
    """Return which library a provider does not find; "" if none is missing."""
    if provider not in _LIBRARIES:
        return ""
    begin, end = ("", ".dll") if sys.platform == "win32" else ("lib", ".so")
    path = Path(native.__file__).with_name(f"{begin}{_LIBRARIES[provider]}{end}")
    if not path.exists():
        return "this build of onnxruntime does not have it"
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        text = str(error)
        return f"{text.partition(':')[0]} is missing" if "cannot open shared object" in text else ""
    return ""
