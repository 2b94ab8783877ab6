"""Weights that look trained, and pictures to look at: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pictures(count: int, shape: Sequence[int], seed: int = 0) -> Array:
    """Return seeded pictures (count, C, H, W) with structure at all scales, of mean 0 and deviation 1."""
    import cv2

    rng = np.random.default_rng(seed)
    channels, h, w = shape
    total = np.zeros((count, channels, h, w), np.float32)
    cells = 2
    while cells <= max(h, w):
        layer = rng.standard_normal((count, channels, cells, cells)).astype(np.float32)
        for i in range(count):
            for c in range(channels):
                total[i, c] += cv2.resize(layer[i, c], (w, h), interpolation=cv2.INTER_LINEAR) / np.sqrt(cells)
        cells *= 2
    axes = (1, 2, 3)
    result: Array = (total - total.mean(axes, keepdims=True)) / total.std(axes, keepdims=True)
    return result


def realistic(net: Any, x: Array, seed: int = 0) -> None:
    """Give a torch network weights that look trained, in place.

    Normalisations get the statistics of their own activations on pictures, moved a little; scales near 1, biases,
    tokens, positions and layer scales different from 0. Networks without any normalisation have every layer scaled to
    an output of deviation 1. The last layer is scaled so that logits have a deviation of 2.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    norms = [m for m in net.modules() if hasattr(m, "running_mean") and m.running_mean is not None]
    others = [m for m in net.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
    for m in net.modules():
        for name, p in m.named_parameters(recurse=False):
            p.requires_grad_(False)
            if m in layers and name == "weight":
                if isinstance(m, nn.Linear):
                    nn.init.xavier_normal_(p)
            elif name in ("bias", "weight") and (m in norms or m in others):
                p.add_(0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.add_(0.1 * torch.randn_like(p))
            elif "gamma" in name or "scale" in name:
                p.uniform_(0.1, 0.5)
            elif p.numel() > 1:
                p.add_(0.1 * torch.randn_like(p))
    hooks = [m.register_forward_pre_hook(_calibrate) for m in norms]
    if not norms and not others:
        hooks += [m.register_forward_hook(_unit_deviation) for m in layers]
    with torch.no_grad():
        net(torch.from_numpy(x))
        for hook in hooks:
            hook.remove()
        logits = net(torch.from_numpy(x))
        if logits.ndim == 2:
            _scale(layers[-1], 2.0 / float(logits.std(1).mean()))


def _calibrate(m: Any, inputs: tuple[Any, ...]) -> None:
    import torch

    axes = [i for i in range(inputs[0].ndim) if i != 1]
    mean, var = inputs[0].mean(axes), inputs[0].var(axes, unbiased=False) + 1e-3
    m.running_mean.copy_(mean + 0.1 * var.sqrt() * torch.randn_like(mean))
    m.running_var.copy_(var * torch.exp(0.2 * torch.randn_like(var)))


def _unit_deviation(m: Any, _: tuple[Any, ...], y: Any) -> Any:
    factor = 1.0 / float(y.std())
    _scale(m, factor)
    return y * factor


def _scale(m: Any, factor: float) -> None:
    m.weight *= factor
    if m.bias is not None:
        m.bias *= factor


def realistic_keras(net: Any, x: Array) -> None:
    """Give a keras network weights that look trained, in place."""
    import keras

    rng = np.random.default_rng(0)
    for layer in net.layers:
        for weight in layer.trainable_weights:
            value = np.asarray(weight)
            if value.ndim <= 1 or "gamma" in weight.name:
                start = np.full_like(value, 0.3) if np.abs(value).max() < 1e-3 and "gamma" in weight.name else value
                weight.assign(start + 0.1 * rng.standard_normal(value.shape))
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # moving statistics become those of this batch
    net(x, training=True)
    for layer in norms:
        mean, var = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance) + 1e-3
        layer.moving_mean.assign(mean + 0.1 * np.sqrt(var) * rng.standard_normal(mean.shape))
        layer.moving_variance.assign(var * np.exp(0.2 * rng.standard_normal(var.shape)))
    logits = np.asarray(net(x, training=False))
    last = next(layer for layer in reversed(net.layers) if layer.trainable_weights)
    for weight in last.trainable_weights:
        weight.assign(weight * 2.0 / logits.std(1).mean())
