"""Class activation maps as their papers define them, written out slowly in torch for the engine's to be held against.

`a` and `g` are the activations of a layer and the gradient of the score with respect to them, (K, H, W), in float64.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

Float64 = NDArray[np.float64]
Summed = Callable[[Tensor, Tensor], Tensor]


def grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Weight every channel by its pooled gradient."""
    return sum(g[k].mean() * a[k] for k in range(len(a)))


def grad_cam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """Weight every channel by the sum of alpha relu(g); alpha of powers of the gradient, as printed."""
    total = torch.zeros_like(a[0])
    for k in range(len(a)):
        alpha = g[k] ** 2 / (2 * g[k] ** 2 + a[k].sum() * g[k] ** 3)
        alpha = torch.where(g[k] == 0, torch.zeros_like(alpha), alpha)
        total += (alpha * g[k].clamp(min=0)).sum() * a[k]
    return total


def xgrad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Weight every channel by its gradient, averaged with the activations as weights."""
    return sum((g[k] * a[k] / a[k].sum()).sum() * a[k] for k in range(len(a)) if a[k].any())


def layer_cam(a: Tensor, g: Tensor) -> Tensor:
    """Weight every place of every channel by its positive gradient."""
    return sum(g[k].clamp(min=0) * a[k] for k in range(len(a)))


def hires_cam(a: Tensor, g: Tensor) -> Tensor:
    """Multiply every place of every channel by its gradient."""
    return sum(g[k] * a[k] for k in range(len(a)))


def eigen_cam(a: Tensor, g: Tensor) -> Tensor:
    """Project every place's channels on the first eigenvector of their covariance over places."""
    rows = a.flatten(1).T
    direction = torch.linalg.eigh(torch.cov(rows.T)).eigenvectors[:, -1]
    projected = ((rows - rows.mean(0)) @ direction).reshape(a.shape[1:])
    return projected if projected.max() > -projected.min() else -projected


CAMS: dict[str, Summed] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "xgrad-cam": xgrad_cam,
    "layer-cam": layer_cam,
    "hires-cam": hires_cam,
    "eigen-cam": eigen_cam,
}


def saliency(module: nn.Module, layer: int, x: Float64, target: list[int], name: str) -> Float64:
    """Return the maps (N, H, W) of a sequential network, from the output of one of its children."""
    module = module.double()
    try:
        return np.stack(
            [_one(module, layer, torch.from_numpy(s[None]), t, name) for s, t in zip(x, target, strict=True)]
        )
    finally:
        module.float()


def _one(module: nn.Module, layer: int, x: Tensor, target: int, name: str) -> Float64:
    a = module[: layer + 1](x).detach().requires_grad_()  # type: ignore[index]
    score = module[layer + 1 :](a)[0, target]  # type: ignore[index]
    (g,) = torch.autograd.grad(score, a)
    summed = _score_cam(module, x, a[0].detach(), target) if name == "score-cam" else CAMS[name](a[0].detach(), g[0])
    enlarged = F.interpolate(summed.clamp(min=0)[None, None], x.shape[2:], mode="bilinear", align_corners=False)
    return enlarged[0, 0].numpy()


def _score_cam(module: nn.Module, x: Tensor, a: Tensor, target: int) -> Tensor:
    """Weight every channel by a softmax of the score of the input masked with it (algorithm 1)."""
    scores = []
    for channel in a:
        mask = F.interpolate(channel[None, None], x.shape[2:], mode="bilinear", align_corners=True)
        mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-30)
        with torch.no_grad():
            scores.append(module(x * mask)[0, target])
    weights = torch.stack(scores).softmax(0)
    return sum(w * channel for w, channel in zip(weights, a, strict=True))
