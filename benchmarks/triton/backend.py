"""ONNX Runtime behind Triton's Python backend, in the place of the backend `onnxruntime`, which is in no package.

Triton imports this file, in an environment of its own, for every model whose configuration names that backend; it makes
the batches, checks and reshapes tensors, and gives each client its rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).with_name("packages")))

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """A model, as Triton calls it."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Return the configuration as it is."""
        return config

    def initialize(self, arguments: dict[str, str]) -> None:
        """Open the version of the model that Triton loads."""
        config = json.loads(arguments["model_config"])
        self.batched = config["max_batch_size"] > 0
        file = Path(arguments["model_repository"], arguments["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.inputs = [one["name"] for one in config["input"]]
        self.outputs = [one["name"] for one in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests: all at once, where the model takes a batch."""
        given = [{n: pb.get_input_tensor_by_name(r, n).as_numpy() for n in self.inputs} for r in requests]
        print(f"requests together: {len(requests)}", flush=True)
        groups = [given] if self.batched else [[one] for one in given]
        responses = []
        for group in groups:
            found = self.session.run(self.outputs, {n: np.concatenate([x[n] for x in group]) for n in self.inputs})
            start = 0
            for one in group:
                end = start + len(one[self.inputs[0]])
                rows = slice(start, end) if self.batched else slice(None)
                tensors = zip(self.outputs, found, strict=True)
                parts = [pb.Tensor(name, np.ascontiguousarray(array[rows])) for name, array in tensors]
                responses.append(pb.InferenceResponse(parts))
                start = end
        return responses
