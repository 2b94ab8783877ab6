"""Similarity of two maps: rank correlation, correlation, SSIM, overlap of the largest values, distance of peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError
from fgonnx.opencv import cv2

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]

TOP = 0.05
"""Share of a map that counts as its strongest part."""

TOLERANCE = 15 / 224
"""Largest distance of two peaks, as a fraction of the longer side: 15 pixels of 224, as in the pointing game."""

_MOST = 1e100  # of a relative difference, so that means over samples stay finite
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def same_size(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Float, Float]:
    """Resize two maps to a common size, the larger one in each direction, by linear interpolation.

    Parameters
    ----------
    a, b : array-like
        Maps; sequences become one row, volumes are summed over depth.

    Raises
    ------
    InputError
        If a map is empty, or holds NaN or infinity.
    """
    maps = [_flat(a), _flat(b)]
    height, width = (max(m.shape[i] for m in maps) for i in (0, 1))
    first, second = (
        m if m.shape == (height, width) else cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR)
        for m in maps
    )
    return np.asarray(first, np.float64), np.asarray(second, np.float64)


def correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return Pearson's correlation, -1..1; 0 where one map is constant, 1 where both are."""
    first, second = (m.ravel() - m.mean() for m in same_size(a, b))
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if not min(norms):
        return float(norms[0] == norms[1])
    return float(np.clip((first / norms[0]) @ (second / norms[1]), -1.0, 1.0))


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation, -1..1; ties get their mean rank."""
    first, second = same_size(a, b)
    return correlation(_ranks(first), _ranks(second))


def ssim(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the mean structural similarity of two maps, each rescaled to 0..1.

    See Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    IEEE Transactions on Image Processing 13(4), 2004, equation 13 with K1 = 0.01, K2 = 0.03, L = 1 and a Gaussian
    window of 11 pixels, sigma 1.5; the mean is over positions where the whole window is inside.

    Parameters
    ----------
    a, b : array-like
        Maps.

    Returns
    -------
    float
        1 for equal maps, about 0 for unrelated ones, less where one is the negative of the other.
    """
    first, second = (_rescaled(m) for m in same_size(a, b))
    c1, c2 = _K1**2, _K2**2

    def mean(m: Float) -> Float:
        blurred = cv2.GaussianBlur(m, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)
        edge = [_WINDOW // 2 if size >= _WINDOW else 0 for size in m.shape]
        inside = blurred[edge[0] : m.shape[0] - edge[0], edge[1] : m.shape[1] - edge[1]]
        return np.asarray(inside, np.float64)

    mu1, mu2 = mean(first), mean(second)
    var1, var2 = mean(first * first) - mu1 * mu1, mean(second * second) - mu2 * mu2
    covariance = mean(first * second) - mu1 * mu2
    numerator = (2 * mu1 * mu2 + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((mu1 * mu1 + mu2 * mu2 + c1) * (var1 + var2 + c2))))


def overlap(a: npt.ArrayLike, b: npt.ArrayLike, share: float = TOP) -> float:
    """Return the overlap of the largest values of two maps, 0..1.

    Parameters
    ----------
    a, b : array-like
        Maps.
    share : float
        Share of the positions with the largest values; at least one position.
    """
    if not 0 < share <= 1:
        raise OptionError(f"share={share} is not a share of a map; give a number above 0, up to 1")
    first, second = same_size(a, b)
    count = max(1, round(share * first.size))
    strongest = [set(np.argsort(-m, axis=None, kind="stable")[:count].tolist()) for m in (first, second)]
    return len(strongest[0] & strongest[1]) / count


def peak_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the distance of the peaks of two maps, as a fraction of the longer side.

    Maps are smoothed by a Gaussian of a third of `TOLERANCE` first, so that a single bright pixel is not a peak. After
    the pointing game of Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, with the peak of
    the other map in place of an annotated object.
    """
    first, second = same_size(a, b)
    side = max(first.shape)
    peaks = [np.array(np.unravel_index(int(_blur(m, TOLERANCE / 3 * side).argmax()), m.shape)) for m in (first, second)]
    return float(np.linalg.norm(peaks[0] - peaks[1])) / side


def relative(difference: float, of: float) -> float:
    """Return a difference as a share of a length: 1 where the length is 0 and the difference is not, always finite."""
    if not difference:
        return 0.0
    return min(difference / of, _MOST) if of else 1.0


def _flat(saliency: npt.ArrayLike) -> Float:
    map_ = np.asarray(saliency, np.float64)
    while map_.ndim > 2:
        map_ = map_.sum(axis=0)
    map_ = np.atleast_2d(map_)
    if not map_.size:
        raise InputError("a map to compare is empty")
    if not np.isfinite(map_).all():
        raise InputError("a map to compare holds NaN or infinity: check the model's weights and its input")
    return map_


def _ranks(m: Float) -> Float:
    _, place, count = np.unique(m.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2.0)[place].reshape(m.shape)


def _rescaled(m: Float) -> Float:
    spread = float(np.ptp(m))
    return (m - m.min()) / spread if spread else np.zeros_like(m)


def _blur(m: Float, sigma: float) -> Float:
    return np.asarray(cv2.GaussianBlur(m, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float64)
