"""FullGrad as published, written out slowly in torch, for the engine's maps to be held against.

Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019. Nothing is shared,
fused or reordered: every channel of every bias-gradient is upsampled for itself, and all arithmetic is float64.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.witness.autograd import Target, pick, prepare

Psi = Literal["abs", "positive"]
Profile = Literal["reference", "paper"]
Float64 = NDArray[np.float64]

SPATIAL = (nn.Conv2d, nn.BatchNorm2d)
BIASED = (*SPATIAL, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class _Site:
    """One call of a module that has a bias: its output y, ds/dy, and the bias broadcastable to y."""

    output: Tensor
    gradient: Tensor
    bias: Tensor

    @property
    def bias_gradient(self) -> Tensor:
        return self.gradient * self.bias


@dataclass(frozen=True)
class _Linearisation:
    """A network at one input: s of shape (N,), x and ds/dx, and the sites in forward order."""

    score: Tensor
    x: Tensor
    gradient: Tensor
    sites: list[_Site]


def _effective_bias(module: Any, rank: int) -> Tensor | None:
    """Return what the module adds to its linear part, broadcastable to an output of this rank; None if nothing."""
    if isinstance(module, nn.BatchNorm2d):
        # gamma * (v - mean) / sd + beta = (gamma / sd) * v + (beta - gamma * mean / sd)
        mean, variance = module.running_mean, module.running_var
        assert mean is not None
        assert variance is not None
        slope = module.weight / torch.sqrt(variance + module.eps)
        bias: Tensor = module.bias - slope * mean
    elif module.bias is None:
        return None
    else:
        bias = module.bias
    if isinstance(module, nn.Linear):
        return bias
    return bias.reshape(-1, *[1] * (rank - 2))


def _linearise(module: nn.Module, x: NDArray[np.floating], target: Target, kinds: tuple[type, ...]) -> _Linearisation:
    twin, leaf = prepare(module, x)
    calls: list[tuple[nn.Module, Tensor]] = []

    def keep(m: nn.Module, _args: Any, output: Tensor) -> None:
        calls.append((m, output))

    for m in twin.modules():
        if isinstance(m, kinds):
            m.register_forward_hook(keep)
    score = pick(twin(leaf), target)
    gradient, *outputs = torch.autograd.grad(score.sum(), [leaf, *(y for _, y in calls)])
    sites = [
        _Site(y, g, bias)
        for (m, y), g in zip(calls, outputs, strict=True)
        if (bias := _effective_bias(m, y.dim())) is not None
    ]
    return _Linearisation(score, leaf.detach(), gradient, sites)


def _consumers(score_fn: Any) -> dict[Any, list[Any]]:
    """Map every node of an autograd graph to the nodes that read its value, one entry per edge."""
    readers: dict[Any, list[Any]] = defaultdict(list)
    seen, stack = {score_fn}, [score_fn]
    while stack:
        reader = stack.pop()
        for node, _ in reader.next_functions:
            if node is None:
                continue
            readers[node].append(reader)
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return readers


def _blocks(lin: _Linearisation) -> list[Tensor]:
    """Sum the bias-gradients of a convolution into those of the BatchNormalization that alone reads it."""
    readers = _consumers(lin.score.grad_fn)
    blocks: dict[Any, Tensor] = {site.output.grad_fn: site.bias_gradient for site in lin.sites}
    for node in list(blocks):
        reader = readers[node][0]
        if "Convolution" in node.name() and len(readers[node]) == 1 and "BatchNorm" in reader.name():
            blocks[reader] = blocks.pop(node) + blocks[reader]
    return list(blocks.values())


def _maps(lin: _Linearisation, profile: Profile) -> list[Tensor]:
    """List the signed maps that a profile aggregates: x * ds/dx, then one per site."""
    if profile == "reference":
        sites = [site.bias_gradient for site in lin.sites]
    elif profile == "paper":
        sites = _blocks(lin)
    else:
        raise ValueError(f"no such profile: {profile!r}")
    return [lin.x * lin.gradient, *sites]


def _psi(a: Tensor, kind: Psi, eps: float) -> Tensor:
    """Drop the sign, then rescale every sample of (N, C, H, W) to [0, 1]; without eps a constant becomes zero."""
    if kind == "abs":
        a = a.abs()
    elif kind == "positive":
        a = a.clamp(min=0)
    else:
        raise ValueError(f"no such psi: {kind!r}")
    low, high = a.amin((1, 2, 3), keepdim=True), a.amax((1, 2, 3), keepdim=True)
    span = high - low + eps
    return torch.where(span > 0, (a - low) / span, torch.zeros_like(a))


def _aggregate(maps: list[Tensor], profile: Profile, psi: Psi) -> Float64:
    """Post-process the input's map, then every channel of every site, and add them all up at the input's size."""
    eps = 1e-6 if profile == "reference" else 0.0
    at_input, *at_sites = maps
    size = at_input.shape[2:]
    total = _psi(at_input, psi, eps).sum(1)
    for site in at_sites:
        upsampled = F.interpolate(
            _psi(site, psi, eps), size=size, mode="bilinear", align_corners=profile == "reference"
        )
        total = total + upsampled.sum(1)
    return total.detach().numpy()


def full_gradient_decompose(
    module: nn.Module, x: NDArray[np.floating], target: Target
) -> tuple[Float64, list[Float64]]:
    """Split a logit into the input-gradient and the per-neuron bias-gradients of the spatial layers.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    target : int or ints of shape (N,)
        The class explained.

    Returns
    -------
    input_gradient : ndarray of float64, shape (N, C, H, W)
        ``ds/dx``, not multiplied by x.
    bias_gradients : list of ndarray of float64, each of shape (N, C_l, H_l, W_l)
        ``ds/dy * b`` for every call of a Conv2d with a bias and of a BatchNorm2d, in forward order.
    """
    lin = _linearise(module, x, target, SPATIAL)
    return lin.gradient.numpy(), [site.bias_gradient.detach().numpy() for site in lin.sites]


def saliency(
    module: nn.Module,
    x: NDArray[np.floating],
    target: Target,
    profile: Profile = "reference",
    psi: Psi = "abs",
) -> Float64:
    """Compute the FullGrad saliency map.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    target : int or ints of shape (N,)
        The class explained.
    profile : {"reference", "paper"}
        "reference": every Conv2d bias and every BatchNorm2d is a site, the rescaling has eps = 1e-6, the upsampling
        aligns corners. "paper": a Conv2d read only by a BatchNorm2d forms one site with it, no eps, half-pixel centres.
    psi : {"abs", "positive"}
        What happens to the sign before the rescaling.

    Returns
    -------
    ndarray of float64, shape (N, H, W)
        The map, not rescaled as a whole.
    """
    return _aggregate(_maps(_linearise(module, x, target, SPATIAL), profile), profile, psi)


def simple_fullgrad(module: nn.Module, x: NDArray[np.floating], target: Target, psi: Psi = "abs") -> Float64:
    """Compute the map of the "reference" profile from the sites' gradients, not multiplied by their biases.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    x : ndarray of float, shape (N, C, H, W)
        The input; its own term stays ``x * ds/dx``.
    target : int or ints of shape (N,)
        The class explained.
    psi : {"abs", "positive"}
        What happens to the sign before the rescaling.

    Returns
    -------
    ndarray of float64, shape (N, H, W)
        The map, not rescaled as a whole.
    """
    lin = _linearise(module, x, target, SPATIAL)
    return _aggregate([lin.x * lin.gradient, *(site.gradient for site in lin.sites)], "reference", psi)


def smooth_fullgrad(
    module: nn.Module,
    x: NDArray[np.floating],
    target: Target,
    noise: NDArray[np.floating],
    profile: Profile = "reference",
    psi: Psi = "abs",
) -> Float64:
    """Average the signed maps of noisy copies of the input, then aggregate once.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    target : int or ints of shape (N,)
        The class explained, the same for all noisy copies.
    noise : ndarray of float, shape (S, N, C, H, W)
        Added to x as it is. A noisy copy multiplies its own gradient.
    profile : {"reference", "paper"}
        As in `saliency`.
    psi : {"abs", "positive"}
        What happens to the sign of the mean before the rescaling.

    Returns
    -------
    ndarray of float64, shape (N, H, W)
        The map, not rescaled as a whole.
    """
    # float64 before adding: a float32 sum would be rounded, and the samples would no longer be x + noise
    base = np.asarray(x, np.float64)
    samples = [_maps(_linearise(module, base + n, target, SPATIAL), profile) for n in noise]
    means = [torch.stack(maps).mean(0) for maps in zip(*samples, strict=True)]
    return _aggregate(means, profile, psi)


def completeness(module: nn.Module, x: NDArray[np.floating], target: Target) -> Float64:
    """Compute what the input-gradient and all parameters' biases leave of the logit.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Its biases must be those of Conv2d, ConvTranspose2d, Linear and BatchNorm2d.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    target : int or ints of shape (N,)
        The class explained.

    Returns
    -------
    ndarray of float64, shape (N,)
        ``s - <ds/dx, x> - sum <ds/dy, b>``: rounding in a network of ReLUs, the non-linearities' intercepts elsewhere.
    """
    lin = _linearise(module, x, target, BIASED)
    rest = lin.score.detach() - (lin.x * lin.gradient).flatten(1).sum(1)
    for site in lin.sites:
        rest = rest - site.bias_gradient.flatten(1).sum(1)
    return rest.numpy()
