"""The FullGrad algorithm written down literally in torch: the yardstick of the speed benchmark.

One term per layer that has biases, each rescaled, every channel brought to the size of the picture, all added up.
Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019, equation 2 with the
bias-gradients and the post-processing of section 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FullGrad:
    """Explains a convolutional network.

    Parameters
    ----------
    module : torch.nn.Module
        A network in eval mode whose logits have the shape (N, classes). Its Conv2d, Linear and BatchNorm2d layers give
        the bias-gradients.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.biases: list[Tensor] = []
        self._values: list[Tensor] = []
        for layer in module.modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False  # type: ignore[assignment]  # would write over the values that are kept
            bias = implicit_bias(layer)
            if bias is not None:
                self.biases.append(bias)
                layer.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: Any, value: Tensor) -> None:
        self._values.append(value)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the saliency maps (N, 1, H, W) of the largest logits for pictures (N, C, H, W)."""
        self._values.clear()
        x = x.detach().requires_grad_()
        score = self.module(x).max(1).values.sum()
        gx, *cotangents = torch.autograd.grad(score, [x, *self._values])
        self._values.clear()
        with torch.no_grad():
            size = x.shape[2:]
            total = spread(gx * x, size)
            for bias, g in zip(self.biases, cotangents, strict=True):
                if g.ndim == 4:
                    last = g.shape[1] != len(bias)  # a Linear layer has its channels behind
                    product = (g * bias).permute(0, 3, 1, 2) if last else g * bias[:, None, None]
                    total += spread(product, size)
        return total


def implicit_bias(layer: nn.Module) -> Tensor | None:
    """Return the bias of a layer; of a BatchNorm what it adds to a multiple of its input; None where there is none."""
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
        shift = layer.running_mean * layer.weight / torch.sqrt(layer.running_var + layer.eps)
        return (layer.bias - shift).detach()
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        return layer.bias.detach()
    return None


def spread(term: Tensor, size: Any) -> Tensor:
    """Return psi(term) summed over channels: absolute value, rescaled to 0..1 per sample, every channel upsampled."""
    term = term.abs()
    flat = term.flatten(1)
    low, high = flat.min(1).values, flat.max(1).values
    term = (term - low[:, None, None, None]) / (high - low + 1e-12)[:, None, None, None]
    return nn.functional.interpolate(term, size, mode="bilinear", align_corners=True).sum(1, keepdim=True)
