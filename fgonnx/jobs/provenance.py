"""What results were made from and with: the model and its files, the machine, hashes of arrays."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.external import external_tensors
from fgonnx.engine.model.load import LoadedModel
from fgonnx.jobs.samples import digest

_FEATURES = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "fma", "f16c", "asimd", "sve")
_TF32 = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


def now() -> str:
    """Return the time in UTC, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def model_of(loaded: LoadedModel, path: Path | str | None) -> dict[str, Any]:
    """Return what identifies a model: its hash and those of its external weights, and what the file says of itself."""
    graph = loaded.ir
    folder = loaded.folder
    files = sorted({str(t.location) for t in external_tensors(graph)})
    producer = " ".join(filter(None, (graph.producer_name, graph.producer_version)))
    return {
        "path": str(path) if path is not None else None,
        "sha256": loaded.sha256,
        "external": [{"path": f, "sha256": digest(folder / f)} for f in files] if folder is not None else [],
        "name": graph.graph.name or None,
        "version": str(graph.model_version) if graph.model_version else None,
        "producer": producer or None,
        "opset": loaded.opset,
    }


def environment(running: Running) -> dict[str, Any]:
    """Return the machine and the build of the runtime that compute results."""
    providers = running.used_providers
    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor()[0],
        "features": list(_processor()[1]),
        "runtime_build": onnxruntime.get_build_info(),
        "device": onnxruntime.get_device(),
        "threads": running.threads,
        "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE") != "0" if set(providers) & set(_TF32) else None,
    }


def about(running: Running) -> dict[str, Any]:
    """Return the keys of a record that say when and where it was made."""
    return {"time": now(), "environment": environment(running)}


def array_of(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the hash of an array's bytes in C order, with its shape and type."""
    whole = np.ascontiguousarray(array)
    return {"sha256": hashlib.sha256(whole.data).hexdigest(), "shape": list(whole.shape), "dtype": str(whole.dtype)}


def identity(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # names that are not UTF-8 hold lone surrogates, which become what JSON writes for them
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


@cache
def _processor() -> tuple[str | None, tuple[str, ...]]:
    """Return the processor's name and those of its features that change which kernels run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine() or None, ()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return (name[1].strip() if name else platform.machine() or None), tuple(f for f in _FEATURES if f in known)
