"""A bridge to Quantus (Hedström et al., JMLR 24, 2023): its metrics on an ONNX file.

Quantus takes models of PyTorch and TensorFlow; `model` wraps an explainer in a PyTorch module whose forward pass runs
in ONNX Runtime, and `explain` is the callable that Quantus gets maps from. Needs `pip install quantus torch`; metrics
that change weights or inspect hidden layers need a native model of the framework.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fgonnx.audit.evaluate.data import Array
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.explainer import Explainer


def model(explainer: Explainer) -> Any:
    """Return a model for Quantus.

    Parameters
    ----------
    explainer : Explainer
        The method, on a model of pictures.

    Returns
    -------
    torch.nn.Module
        In evaluation mode. It takes pictures as (N, C, H, W), whatever the layout of the ONNX file, and returns the
        logits, (N, classes); Quantus applies a softmax on request.

    Raises
    ------
    OptionError
        PyTorch is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise OptionError("the bridge to Quantus needs PyTorch: pip install quantus torch") from error

    class OnnxModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.explainer = explainer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            head = explainer.head(_own_layout(explainer, x.detach().cpu().numpy()))
            return torch.from_numpy(head.reshape(len(head), -1))

    return OnnxModel().eval()


def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Array:
    """Explain pictures for Quantus: pass it to a metric as `explain_func`.

    Parameters
    ----------
    model : torch.nn.Module
        Made by `fgonnx.audit.evaluate.quantus.model`.
    inputs : array-like, (N, C, H, W)
        Pictures.
    targets : array-like of int, (N,)
        Classes.

    Returns
    -------
    numpy array, (N, 1, H, W)
    """
    explainer: Explainer = model.explainer
    x = _own_layout(explainer, np.asarray(inputs))
    return explainer(x, np.asarray(targets).tolist()).saliency[:, None]


def _own_layout(explainer: Explainer, x: Array) -> Array:
    """Bring (N, C, H, W) to the layout of the model."""
    if x.ndim != 4:
        raise InputError(f"the bridge to Quantus takes pictures, (N, C, H, W); these inputs have the shape {x.shape}")
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    shape = x.shape if explainer.options.layout != "NHWC" else channels_last.shape
    return channels_last if explainer.engine(shape).rewritten.normal.layout == "NHWC" else x
