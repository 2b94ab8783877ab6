"""Samples to measure on, with their targets and masks, and a method on its model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import Options, with_changes
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.fields import refuse_idle

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

SPATIAL = "DHWF"
"""Letters of the axes of a map."""

QUANTITIES = ("logit", "probability")

_SAME = ("head", "output", "input", "input_shape", "layout", "bind")  # options that say what the score is
_CHUNK = 32  # variants of one sample that are in memory at once
_ALTERED_BYTES = 256_000_000  # weights of altered models that are kept


class Explains(Protocol):
    """What a measure needs: maps, and the scores of changed inputs. `fgonnx.Explainer` is one."""

    def __call__(self, x: Array, target: Any = None, /) -> Explanation:
        """Explain a batch."""

    def head(self, x: Array, /) -> Array:
        """Return the tensor whose entries are explained, (N, ...)."""


class Subject:
    """A method on a model, which can be applied to another model too: what `fgonnx evaluate` measures.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    method : str, optional
        As for `fgonnx.Explainer`; that of the options by default.
    forward : Explainer, optional
        Computes scores instead of the method's own explainer, so that many methods share one session.
    options, running, labels, **changes
        As for `fgonnx.Explainer`; the cache is used for this model alone, as altered ones are used once.
    """

    def __init__(
        self,
        model: ModelLike | LoadedModel,
        method: str | None = None,
        *,
        forward: Explainer | None = None,
        options: Options | None = None,
        running: Running | None = None,
        labels: Sequence[str] | None = None,
        **changes: Any,
    ) -> None:
        named = {} if method is None else {"method": method}
        options, self._running = with_changes(options, running, {**changes, **named})
        self.method = options.method
        self.loaded, self._options = arranged(load(model), options)
        refuse_idle(self._options, ("contrast",), "measures ask for the score of one class")
        self._labels = labels
        self._explainer = Explainer(self.loaded, self._options, self._running, labels=labels)
        self._forward = forward or self._explainer
        self._gradient: Explainer | None = None
        self._altered: dict[Hashable, Explainer] = {}
        weights = (
            v.const_value.nbytes for v in self.loaded.ir.graph.initializers.values() if v.const_value is not None
        )
        self._kept = max(1, _ALTERED_BYTES // max(1, sum(weights)))

    def __call__(self, x: Array, target: Any = None, /) -> Explanation:
        """Explain a batch."""
        return self._explainer(x, target)

    def head(self, x: Array, /) -> Array:
        """Return the tensor whose entries are explained, (N, ...)."""
        return self._forward.head(x)

    def on(self, model: LoadedModel) -> Explainer:
        """Return the same method on another model."""
        return Explainer(model, self._options, replace(self._running, cache=False, verify=False), labels=self._labels)

    def altered(self, key: Hashable, make: Callable[[], LoadedModel]) -> Explainer:
        """Return the method on a model made from this one; a bounded number of them is kept."""
        if key not in self._altered:
            while len(self._altered) >= self._kept:
                self._altered.pop(next(iter(self._altered)))
            self._altered[key] = self.on(make())
        return self._altered[key]

    def gradient(self, x: Array, target: Any) -> Array:
        """Return the gradient of the score with respect to the input, of the input's shape."""
        if self._gradient is None:
            plain = Options(input_gradient=True, certificate=False)
            same = {name: getattr(self._options, name) for name in _SAME}
            self._gradient = Explainer(self.loaded, replace(plain, **same), self._running, labels=self._labels)
        gradient = self._gradient(x, target).input_gradient
        assert gradient is not None
        return gradient


@dataclass(frozen=True)
class Data:
    """N samples of a classifier's input.

    Attributes
    ----------
    x : numpy array, (N, ...)
        Inputs of the model.
    target : numpy array of int64, (N,)
        The entry of the head that is explained, and whose score is measured.
    layout : str
        Axes of x, such as "NCHW"; maps have the axes D, H, W and F of them.
    numbers : numpy array of int64, (N,)
        Seeds noise together with `seed`: the number of a sample in its set, so that results do not depend on how
        samples are grouped.
    masks : numpy array of bool, (N, H, W), or None
        Where the true evidence is; all False if unknown.
    black : numpy array
        The input of a black pixel, to be broadcast to one sample.
    activation : {"softmax", "sigmoid"}
        Turns the head into probabilities.
    seed : int
        Seed of all noise.
    saliency : numpy array, (N, H, W), or None
        Maps, if they have been computed already.
    without : numpy array, (N, K, ...), or None
        Each sample without each of its K parts, and otherwise the same; equal to the sample for parts that it does not
        have.
    """

    x: Array
    target: npt.NDArray[np.int64]
    layout: str
    numbers: npt.NDArray[np.int64]
    masks: Bool | None = None
    black: Array | float = 0.0
    activation: str = "softmax"
    seed: int = 0
    saliency: Array | None = None
    without: Array | None = None

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        x: Array,
        target: npt.ArrayLike | None = None,
        *,
        masks: Bool | None = None,
        numbers: npt.ArrayLike | None = None,
        black: Array | float = 0.0,
        seed: int = 0,
        saliency: Array | None = None,
    ) -> Data:
        """Make data for a model: its layout, and by default the largest entry of each sample as the target.

        Parameters
        ----------
        explainer : Explainer
            The model.
        x, masks, numbers, black, seed, saliency
            Fields of `Data`; samples are numbered from 0 by default.
        target : array-like of int, (N,), optional
            Entries of the head.

        Raises
        ------
        InputError
            Masks or targets do not fit the samples.
        """
        x = np.asarray(explainer.samples_first(np.asarray(x)))
        explainer = explainer.for_samples_first()
        rewritten = explainer.engine(x.shape, forward=True).rewritten
        if target is None:
            target = explainer.head(x).reshape(len(x), -1).argmax(axis=1)
        chosen = np.asarray(target, np.int64)
        if chosen.shape != (len(x),):
            raise InputError(f"there are {len(x)} samples and targets of shape {chosen.shape}; give one per sample")
        numbered = np.arange(len(x)) if numbers is None else np.asarray(numbers, np.int64)
        entries = int(np.prod(rewritten.head_shape, initial=1))
        activation = "sigmoid" if rewritten.stripped == "Sigmoid" or entries == 1 else "softmax"
        return cls(x, chosen, rewritten.normal.layout, numbered, masks, black, activation, seed, saliency)

    def __post_init__(self) -> None:
        if self.masks is not None and self.masks.shape != (len(self), *self.grid):
            raise InputError(f"masks must have the shape {(len(self), *self.grid)}, they have {self.masks.shape}")
        if self.without is not None and (self.without.shape[:1] + self.without.shape[2:]) != self.x.shape:
            wanted = ", ".join(map(str, (len(self), "parts", *self.x.shape[1:])))
            raise InputError(f"pictures without parts must have the shape ({wanted}), they have {self.without.shape}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of one map."""
        return tuple(s for s, letter in zip(self.x.shape, self.layout, strict=True) if letter in SPATIAL)

    def maps(self, explainer: Explains) -> Float:
        """Return the maps of a method, (N, H, W): `saliency`, or computed if it is None.

        Raises
        ------
        InputError
            The maps do not have the size of the input, or hold NaN or infinity.
        """
        found = self.saliency if self.saliency is not None else explainer(self.x, self.target.tolist()).saliency
        if found.shape != (len(self), *self.grid):
            raise InputError(f"maps must have the shape {(len(self), *self.grid)}, they have {found.shape}")
        if not np.isfinite(found).all():
            raise InputError("a map holds NaN or infinity")
        return np.asarray(found, np.float64)

    def explained(self, explainer: Explains) -> Data:
        """Return the same samples with the maps of a method."""
        return replace(self, saliency=self.maps(explainer))

    def rng(self, i: int, purpose: str) -> np.random.Generator:
        """Return a generator for one sample and one purpose."""
        return np.random.default_rng([self.seed, int(self.numbers[i]), *purpose.encode()])

    def onto(self, mask: Array) -> Array:
        """Reshape an array over the map's grid so that it broadcasts to one sample."""
        sizes = iter(mask.shape)
        return mask.reshape([next(sizes) if letter in SPATIAL else 1 for letter in self.layout[1:]])

    def as_input(self, values: Array) -> Array:
        """Cast numbers to the type of x; for integers, rounded and clipped to their range."""
        if self.x.dtype.kind in "ui":
            bounds = np.iinfo(self.x.dtype)
            values = np.clip(np.rint(values), bounds.min, bounds.max)
        return values.astype(self.x.dtype)

    def order(self, saliency: Float, i: int) -> npt.NDArray[np.int64]:
        """Return the positions of one map, the least salient first; ties are in random order."""
        flat = saliency.ravel()
        return np.lexsort((self.rng(i, "ties").random(flat.size), flat))

    def score(self, head: Array, i: int, of: str) -> Float:
        """Return the logit or the probability of sample i's target.

        Parameters
        ----------
        head : numpy array, (K, ...)
            The head of K forms of the sample.
        i : int
            Which sample.
        of : {"logit", "probability"}
            The quantity.

        Returns
        -------
        numpy array of float64, (K,)
        """
        values = head.reshape(len(head), -1).astype(np.float64)
        logit = values[:, self.target[i]]
        if of == "logit":
            return logit
        if of != "probability":
            raise OptionError(f"of='{of}' is no quantity; choose one of: {', '.join(QUANTITIES)}")
        if self.activation == "sigmoid":
            return np.asarray(1.0 / (1.0 + np.exp(-logit)))
        return np.asarray(1.0 / np.exp(values - logit[:, None]).sum(axis=1))

    def scores(self, explainer: Explains, variants: Callable[[int], Iterable[Array]], of: str) -> Float:
        """Return the scores of changed samples.

        Parameters
        ----------
        explainer : Explains
            Computes heads.
        variants : callable
            Yields the K variants of sample i.
        of : {"logit", "probability"}
            The quantity.

        Returns
        -------
        numpy array of float64, (N, K)
        """
        rows = []
        for i in range(len(self)):
            heads = [explainer.head(np.stack(part)) for part in _chunks(variants(i))]
            rows.append(self.score(np.concatenate(heads), i, of))
        return np.stack(rows)


def ratio(a: npt.ArrayLike, b: npt.ArrayLike) -> Float:
    """Return a / b for b of at least 0; NaN where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)


def _chunks(items: Iterable[Array]) -> Iterator[list[Array]]:
    iterator = iter(items)
    while part := list(islice(iterator, _CHUNK)):
        yield part
