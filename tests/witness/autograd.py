"""Logits and input-gradients from torch's own autograd.

float64 is the truth. In float32 a pre-activation within rounding of zero may fall on the other side of a ReLU, and
two correct engines then disagree by a whole path.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Target = int | Sequence[int] | NDArray[np.integer]


def prepare(module: nn.Module, x: NDArray[np.floating], dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """Copy a module in eval mode with constant parameters, and make its input a leaf.

    Parameters
    ----------
    module : torch.nn.Module
        Left untouched.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    dtype : torch.dtype
        Of the copy and of the leaf.

    Returns
    -------
    module : torch.nn.Module
        The copy; no parameter of it requires a gradient.
    x : Tensor of `dtype`, shape (N, C, H, W)
        Requires a gradient.
    """
    twin = copy.deepcopy(module).to(dtype).eval().requires_grad_(False)
    return twin, torch.tensor(x, dtype=dtype, requires_grad=True)


def pick(logits: Tensor, target: Target) -> Tensor:
    """Take one logit of every sample.

    Parameters
    ----------
    logits : Tensor, shape (N, K)
        One row per sample.
    target : int or ints of shape (N,)
        The class explained, for all samples or for each.

    Returns
    -------
    Tensor, shape (N,)
        ``logits[n, target[n]]``.
    """
    rows = torch.arange(len(logits))
    return logits[rows, torch.as_tensor(np.asarray(target), dtype=torch.long).expand(len(logits))]


def logits(module: nn.Module, x: NDArray[np.floating], *, dtype: torch.dtype = torch.float64) -> NDArray[np.floating]:
    """Evaluate the network.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    dtype : torch.dtype
        Arithmetic of the evaluation, ``torch.float64`` or ``torch.float32``.

    Returns
    -------
    ndarray of `dtype`, shape (N, K)
        The network's output.
    """
    twin, leaf = prepare(module, x, dtype)
    with torch.no_grad():
        return twin(leaf).numpy()


def input_gradient(
    module: nn.Module, x: NDArray[np.floating], target: Target, *, dtype: torch.dtype = torch.float64
) -> NDArray[np.floating]:
    """Differentiate one logit of every sample with respect to that sample.

    Parameters
    ----------
    module : torch.nn.Module
        The network; samples must not influence one another.
    x : ndarray of float, shape (N, C, H, W)
        The input.
    target : int or ints of shape (N,)
        The class explained.
    dtype : torch.dtype
        Arithmetic of the evaluation, ``torch.float64`` or ``torch.float32``.

    Returns
    -------
    ndarray of `dtype`, shape (N, C, H, W)
        ``d logits[n, target[n]] / d x[n]``.
    """
    twin, leaf = prepare(module, x, dtype)
    (gradient,) = torch.autograd.grad(pick(twin(leaf), target).sum(), leaf)
    return gradient.numpy()
