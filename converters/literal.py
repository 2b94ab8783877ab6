"""FullGrad as published, in numpy, from a framework's autograd: the map that the file has to reproduce.

Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019, section 4.
It shares nothing with fgonnx's graphs: every channel is rescaled and upsampled by itself, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .network import Array, Linearised

Floats = npt.NDArray[np.float64]
Profile = Literal["reference", "paper"]


def maps(x: Array, found: Linearised, channel: int) -> Iterator[tuple[Profile, str, Floats]]:
    """Yield the published maps of a network at one input: (profile of fgonnx, which biases, map (N, ...)).

    Parameters
    ----------
    x : numpy array
        The input.
    found : Linearised
        Its gradient and blocks.
    channel : int
        Axis of the channels in x.

    Notes
    -----
    Absolute values are not additive: a convolution with a bias followed by BatchNormalization has another map than the
    convolution that an exporter folds both into. So there are two maps of the authors' code, and one of the paper,
    where a linear block is one site.
    """
    at_input = np.moveaxis(x.astype(np.float64) * found.gradient, channel, 1)
    blocks = [b for b in found.blocks or () if b.parts[0].ndim == x.ndim]
    every = [p.astype(np.float64) for b in blocks for p in b.parts[b.transposed :]]
    sums = [np.stack(b.parts).sum(axis=0, dtype=np.float64) for b in blocks]
    folded = [s for b, s in zip(blocks, sums, strict=True) if not b.transposed]
    yield "reference", "every bias a site", _total(at_input, every, "reference")
    if len(folded) < len(every):
        yield "reference", "BatchNormalization folded", _total(at_input, folded, "reference")
    yield "paper", "one site per linear block", _total(at_input, sums, "paper")


def _total(at_input: Floats, sites: Sequence[Floats], profile: Profile) -> Floats:
    total = _psi(at_input, profile).sum(axis=1)
    for site in sites:
        upsampled = _psi(site, profile)
        for axis in range(2, site.ndim):
            upsampled = np.moveaxis(
                np.moveaxis(upsampled, axis, -1) @ interpolation(site.shape[axis], at_input.shape[axis], profile).T,
                -1,
                axis,
            )
        total = total + upsampled.sum(axis=1)
    return total


def _psi(a: Floats, profile: Profile) -> Floats:
    """Drop the sign and rescale every sample to 0..1, over channels and positions jointly."""
    a = np.abs(a)
    axes = tuple(range(1, a.ndim))
    low, high = a.min(axes, keepdims=True), a.max(axes, keepdims=True)
    span = high - low + (1e-6 if profile == "reference" else 0.0)
    return np.divide(a - low, span, out=np.zeros_like(a), where=span > 0)


def interpolation(size: int, wanted: int, profile: Profile) -> Floats:
    """Return the matrix (wanted, size) of linear interpolation: aligned corners, or half-pixel centres."""
    if profile == "reference":
        place = np.arange(wanted) * ((size - 1) / max(wanted - 1, 1))
    else:
        place = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(size)))
