"""The device: ONNX Runtime sessions on it with bound inputs and outputs, where their nodes run, memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from benchmarks.sessions import free_dimensions
from fgonnx.engine.graph.providers import CPU, CUDA, TENSORRT, choose_providers, with_settings

Array = npt.NDArray[Any]

DEVICES = ("cuda", "tensorrt", "cpu")
PROVIDERS = {"cuda": [CUDA, CPU], "tensorrt": [TENSORRT, CUDA, CPU], "cpu": [CPU]}


def check(device: str) -> None:
    """Raise a ProviderError that names what is missing, where a device does not start."""
    choose_providers(PROVIDERS[device])


def describe(device: str) -> dict[str, str]:
    """Return the name of the card and its driver, of the processor where that is the device."""
    if device == "cpu":
        return {"name": str(platform.processor() or platform.machine()), "kind": "cpu"}
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    name, driver, memory = (
        subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(", ")
    )
    return {"name": name, "driver": driver, "memory": memory, "kind": device}


class Bound:
    """A session whose inputs and outputs stay on the device.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; its first input takes `x`, a second one an index per sample.
    x : numpy array
        The batch.
    device : str
        One of `DEVICES`.
    tf32, graph, nhwc : bool
        CUDA: whether factors are rounded to TF32, the nodes are launched as one CUDA graph, convolutions have their
        channels last.
    profile : bool
        Whether runs are recorded, for `placement`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        x: Array,
        device: str,
        *,
        tf32: bool = False,
        graph: bool = False,
        nhwc: bool = False,
        profile: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fgonnx-") if profile else None
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_mem_pattern = False
        if self._folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name, "run"))
        providers = []
        for entry in with_settings(PROVIDERS[device], tf32=tf32):
            name, settings = entry if isinstance(entry, tuple) else (entry, {})
            if name == CUDA:
                settings = {**settings, "enable_cuda_graph": str(int(graph)), "prefer_nhwc": str(int(nhwc))}
            providers.append((name, settings))
        if model.producer_name != "fgonnx":  # inference runs fastest with its batch fixed
            for name in free_dimensions(model):
                options.add_free_dimension_override_by_name(name, len(x))
        self.session = ort.InferenceSession(
            _required(model).SerializeToString(), options, providers=providers, enable_fallback=0
        )
        if lost := [p for p in PROVIDERS[device] if p not in self.session.get_providers()]:
            raise RuntimeError(f"{lost[0]} does not run")
        place = ("cpu" if device == "cpu" else "cuda", 0)
        arrays = (x, np.full(len(x), -1, np.int64))
        self._held = [ort.OrtValue.ortvalue_from_numpy(a, *place) for a in arrays]
        self._binding = self.session.io_binding()
        for given, value in zip(self.session.get_inputs(), self._held, strict=False):
            self._binding.bind_ortvalue_input(given.name, value)
        self._run_options = ort.RunOptions()
        self.outputs = [o.name for o in self.session.get_outputs()]
        for name in self.outputs:
            self._binding.bind_output(name, *place)
        if graph:  # a captured graph writes to the same places every time
            self.session.run_with_iobinding(self._binding, self._run_options)
            for name, value in zip(self.outputs, self._binding.get_outputs(), strict=True):
                self._binding.bind_ortvalue_output(name, value)

    def __call__(self) -> None:
        """Run once, to the end."""
        self._binding.synchronize_inputs()
        self.session.run_with_iobinding(self._binding, self._run_options)
        self._binding.synchronize_outputs()

    def results(self) -> dict[str, Array]:
        """Run once and return all outputs as arrays."""
        self()
        return {n: v.numpy() for n, v in zip(self.outputs, self._binding.get_outputs(), strict=True)}

    def placement(self) -> dict[str, int]:
        """Return how many nodes each provider ran, and how many copied values from one device to the other."""
        self()
        path = Path(self.session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        if self._folder is not None:
            self._folder.cleanup()
        nodes = {
            (e["args"]["node_index"], e["args"]["op_name"], e["args"].get("provider", ""))
            for e in events
            if e.get("cat") == "Node" and "op_name" in e.get("args", {})
        }
        counts: Counter[str] = Counter(provider.removesuffix("ExecutionProvider").lower() for *_, provider in nodes)
        return {**counts, "memcpy": sum(1 for _, operator, _ in nodes if operator.startswith("Memcpy"))}


def _required(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose inputs have no default values: these are kept on the processor."""
    taken = {v.name for v in model.graph.input}
    if not any(t.name in taken for t in model.graph.initializer):
        return model
    own = onnx.ModelProto()
    own.CopyFrom(model)
    kept = [t for t in own.graph.initializer if t.name not in taken]
    del own.graph.initializer[:]
    own.graph.initializer.extend(kept)
    return own


def memory(device: str) -> int:
    """Return the bytes that are in use: of the card by this process, of the process's peak on the processor."""
    if device == "cpu":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    asked = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    own = [line.split(", ")[1] for line in lines if line.split(", ")[0] == str(os.getpid())]
    if own:
        return int(own[0]) << 20
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]  # within containers
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]) << 20
