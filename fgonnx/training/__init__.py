"""Training from an ONNX graph alone: ONNX Runtime's gradient builder differentiates with respect to the weights."""

from __future__ import annotations

from fgonnx.training.data import Batches
from fgonnx.training.initial import reinitialise
from fgonnx.training.loop import Epoch, Rate, accuracy, fit
from fgonnx.training.network import Network
from fgonnx.training.optimisers import SGD, AdamW, Optimiser

__all__ = ["SGD", "AdamW", "Batches", "Epoch", "Network", "Optimiser", "Rate", "accuracy", "fit", "reinitialise"]
