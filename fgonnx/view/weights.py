"""One file of weights for several graphs of one model: every tensor is stored once, whoever reads it."""

from __future__ import annotations

import hashlib

import onnx
from onnx import numpy_helper

from fgonnx.errors import ModelError

NAME = "weights.bin"
MOST_BYTES = 2_000_000_000
"""Of the file: browsers hold no larger array."""

_LEAST = 1024  # bytes; smaller tensors stay in the graph, where shapes and axes are looked for
_ALIGNED = 64


class Weights:
    """Collects the large tensors of graphs.

    Attributes
    ----------
    content : bytearray
        The file.
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self._places: dict[bytes, int] = {}

    def take(self, graph: onnx.GraphProto) -> None:
        """Move the large initializers of a graph to the file, which the graph then names.

        Raises
        ------
        ModelError
            The file would be larger than a browser can hold.
        """
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.STRING:
                continue
            raw = tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()
            if len(raw) < _LEAST:
                continue
            offset = self._place(raw)
            emptied = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            emptied.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", NAME), ("offset", str(offset)), ("length", str(len(raw)))):
                emptied.external_data.add(key=key, value=value)
            tensor.CopyFrom(emptied)

    def _place(self, raw: bytes) -> int:
        key = hashlib.sha256(raw).digest()
        if key not in self._places:
            start = -(-len(self.content) // _ALIGNED) * _ALIGNED
            if start + len(raw) > MOST_BYTES:
                raise ModelError(
                    f"its weights have more than {MOST_BYTES:,} bytes, and browsers hold no larger array; convert the "
                    "model to float16 or int8"
                )
            self.content.extend(b"\0" * (start - len(self.content)))
            self.content.extend(raw)
            self._places[key] = start
        return self._places[key]
