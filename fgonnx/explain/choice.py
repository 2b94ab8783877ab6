"""Parse targets, and resolve them for the samples of a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.rewrite.options import NEXT
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import TargetError
from fgonnx.explain.detection import Detection, assumed, unasked
from fgonnx.explain.head import Head
from fgonnx.explain.shapes import checked_seed
from fgonnx.explain.single import Single
from fgonnx.explain.targets import (
    Contrast,
    Cotangent,
    Entry,
    One,
    Region,
    Similarity,
    Slices,
    Target,
)
from fgonnx.fields import pairs
from fgonnx.files import read_array
from fgonnx.wording import near, parameter, whole

Array = npt.NDArray[Any]

_POSITION = re.compile(r"\s*(\d+|\d*:\d*)\s*")
_KEYS = {
    "region": ("region", "class", "reduce"),
    "best": ("best", "column", "first", "by", "objectness"),
    "anchor": ("anchor", "column"),
    "similar": ("similar",),
    "seed": ("seed",),
}


def parse(text: str, *, files: bool = True) -> One:
    """Parse a target.

    Parameters
    ----------
    text : str
        ``7``, ``person``; ``120,4`` or ``:,15``; ``region=x0:y0:x1:y1,class=person,reduce=mean`` or
        ``region=mask.npy``; ``best=person,first=5,column=0,by=scores``; ``anchor=12,column=4``;
        ``similar=reference.npy``; ``seed=weights.npy``.
    files : bool
        Whether files may be named; False for texts that strangers sent.

    Returns
    -------
    int, str, tuple, Region, Detection, Similarity or Cotangent

    Raises
    ------
    TargetError
        A key or a number is wrong, or a file cannot be read, or may not be named.
    """
    if not isinstance(text, str):
        raise TargetError(f"{text!r} is no text of a target; give it as it is, or a text such as best=person")
    parts = text.split(",")
    if (len(parts) > 1 or ":" in text) and all(_POSITION.fullmatch(p) for p in parts):
        return tuple(_position(p.strip()) for p in parts)
    kind = text.partition("=")[0].strip()
    if kind not in _KEYS or "=" not in text:
        return text
    given = pairs(re.split(r",(?=\s*\w+\s*=)", text), "best=person,first=5", TargetError)
    unknown = next((k for k in given if k not in _KEYS[kind]), None)
    if unknown is not None:
        raise TargetError(
            f"target '{text}': '{unknown}' means nothing here; it takes: {', '.join(_KEYS[kind])}"
            f"{near(unknown, _KEYS[kind])}"
        )
    box = _box(given["region"], text) if kind == "region" else None
    if not files and (kind in ("similar", "seed") or (kind == "region" and box is None)):
        raise TargetError(f"target '{text}' names a file, and none is read here; give an index, a label or a box")
    if kind == "region":
        return Region(
            read_array(given["region"], TargetError) if box is None else box,
            given.get("class"),
            given.get("reduce", "mean"),
        )
    if kind == "similar":
        return Similarity(read_array(given["similar"], TargetError))
    if kind == "seed":
        return Cotangent(read_array(given["seed"], TargetError))
    numbers = {k: _whole(given[k], k, text) for k in ("anchor", "column", "first", "objectness") if k in given}
    return Detection(given.get("best"), by=given.get("by"), **numbers)


class SameEntryError(TargetError):
    """The target of a sample is what it was to be compared with."""


@dataclass(frozen=True)
class Resolved:
    """A target resolved for the samples of a batch.

    Attributes
    ----------
    indices : numpy array of int64, (N,), or None
        Flat indices; -1 for the largest entry.
    seed : numpy array, (N, *head), or None
        Cotangents, where the target of a sample is not a single entry.
    described : tuple of str
        Description of the target, one per sample.
    remarks : tuple of str
        What is to be said of it, one per sample, "" for nothing.
    """

    indices: npt.NDArray[np.int64] | None
    seed: Array | None
    described: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def resolve(target: Target, head: Head) -> Resolved:
    """Resolve a target, for all samples or one each; by default the largest entry, or a detector's best detection.

    Raises
    ------
    TargetError
        It is out of range, unknown, does not match the head, or there is not one per sample.
    """
    reading = ""
    if target is None:
        if (best := unasked(head)) is None:
            return Resolved(np.full(head.count, -1, np.int64), None, ())
        target, reading = best, assumed(head, best)
    many = _singles(target, head.count)
    if len(many) != head.count:
        raise TargetError(f"{len(many)} targets were given for {head.count} sample(s); give one, or one per sample")
    found = [one.resolve(head, i) for i, one in enumerate(many)]
    described = tuple(words for _, words in found)
    remarks = tuple("; ".join(filter(None, (one.remark(head, i), reading))) for i, one in enumerate(many))
    if not any(one.seed_needed for one in many):
        return Resolved(np.array([index for index, _ in found], np.int64), None, described, remarks)
    seeds = np.zeros((head.count, *head.shape))
    for seed, one, (what, _) in zip(seeds, many, found, strict=True):
        if one.seed_needed:
            seed[...] = what
        else:
            seed.flat[what] = 1
    return Resolved(None, seeds, described, remarks)


def resolved_for(
    r: Rewritten,
    count: int,
    target: Target,
    seed: Array | None,
    labels: Sequence[str],
    outputs: Callable[[], Mapping[str, Array]],
) -> Resolved:
    """Resolve what is explained by a rewritten graph: a target, or a cotangent; `outputs` are the model's own."""
    if seed is not None:
        return Resolved(None, checked_seed(seed, r, count), ("sum weighted by the seed",) * count)

    def values() -> Array:
        return outputs()[_own_output(r, outputs())].reshape(count, *r.head_shape)

    resolved = resolve(target, Head(r.head_shape, count, r.head_axes, labels, values, outputs))
    if resolved.seed is None:
        return resolved
    return replace(resolved, seed=checked_seed(resolved.seed, r, count))


def _own_output(r: Rewritten, outputs: Mapping[str, Array]) -> str:
    """Return the output that is computed from the head: the one chosen, else the first floating-point one."""
    floating = next((n for n, a in outputs.items() if a.dtype.kind == "f"), r.source_outputs[0])
    return r.options.output or floating


def resolve_contrast(contrast: Contrast, target: Target, head: Head) -> npt.NDArray[np.int64]:
    """Return the flat index of what is subtracted from the target, for all samples or one each; -1 for the next.

    Raises
    ------
    TargetError
        It is out of range, unknown, the target itself, or there is not one per sample; or target or contrast are not
        single entries of one axis of classes, nor positions.
    """
    others = _singles(contrast, head.count)
    if len(others) != head.count:
        raise TargetError(f"{len(others)} contrasts were given for {head.count} sample(s); give one, or one per sample")
    targets = [None] * head.count if target is None else _singles(target, head.count)
    for one in [*targets, *others]:
        _check_comparable(one, head)
    try:
        found = [-1 if _is_next(one) else one.resolve(head, i)[0] for i, one in enumerate(others)]
    except TargetError as error:
        said = str(error)
        raise TargetError(f"contrast{said[6:]}" if said.startswith("target") else f"contrast: {said}") from None
    for i, (one, other) in enumerate(zip(targets, found, strict=True)):
        if one is not None and one.resolve(head, i)[0] == other:
            raise SameEntryError(_same(head, i, other))
    return np.array(found, np.int64)


def _check_comparable(one: Single | None, head: Head) -> None:
    """Refuse what is no class; in a head of several axes, what is no position."""
    classes = sum(size > 1 for size in head.shape) < 2
    if isinstance(one, Slices) and not one.seed_needed:
        return
    if classes and (one is None or isinstance(one, Entry)):
        return
    if classes:
        raise TargetError(
            "a contrast compares two single entries; give a class for both, or weight the entries yourself "
            f"({parameter('seed')})"
        )
    raise TargetError(
        f"a contrast compares two classes, and the head has the shape {head.shape}; give target and contrast as "
        f"positions such as {','.join('0' * len(head.shape))}, or weight the entries yourself ({parameter('seed')})"
    )


def contrasted(head: Head, targets: Array, others: Array) -> tuple[str, ...]:
    """Describe what is explained and what it is compared with, one per sample.

    Raises
    ------
    TargetError
        The two are the same: the model's own choice is what it was to be compared with.
    """
    for i, (target, other) in enumerate(zip(targets, others, strict=True)):
        if target == other:
            raise SameEntryError(_same(head, i, int(other)))
    return tuple(f"{head.name(int(t))} rather than {head.name(int(o))}" for t, o in zip(targets, others, strict=True))


def _same(head: Head, sample: int, index: int) -> str:
    """Return the message for a contrast that is the target itself."""
    return (
        f"sample {sample}: target and contrast are both {head.name(index)}, so there is nothing to explain; give "
        f"another target, or contrast '{NEXT}'"
    )


def _is_next(one: Single) -> bool:
    return isinstance(one, Entry) and isinstance(one.given, str) and one.given.strip().lower() == NEXT


def takes_seed(target: Target) -> bool:
    """Tell whether a target needs a cotangent: whether it covers more than one entry of the head."""
    return target is not None and any(one.seed_needed for one in _singles(target))


def _singles(target: Target, count: int = 1) -> list[Single]:
    """Return a target for every sample: those of a list, or a single one repeated."""
    given: Any = getattr(target, "tolist", lambda: target)()  # of numpy, torch, pandas
    several = isinstance(given, Sequence) and not isinstance(given, (str, tuple))
    return [_single(one) for one in given] if several else [_single(given)] * count


def _single(given: Any) -> Single:
    meant = parse(given) if isinstance(given, str) else given
    if isinstance(meant, Single):
        return meant
    return Slices(meant) if isinstance(meant, tuple) else Entry(meant)


def _position(text: str) -> int | slice:
    if ":" not in text:
        return _number(text)
    start, _, stop = text.partition(":")
    return slice(_number(start) if start else None, _number(stop) if stop else None)


def _number(text: str) -> int:
    found = whole(text)
    if found is None:
        raise TargetError(f"'{text}' is no position: it is not a whole number of at most 18 digits")
    return found


def _box(text: str, whole: str) -> tuple[float, ...] | None:
    """Parse x0:y0:x1:y1; None for the name of a file."""
    if text.lower().endswith(".npy"):
        return None
    try:
        return tuple(float(p) for p in text.split(":"))
    except ValueError:
        raise TargetError(
            f"target '{whole}': '{text}' is neither a box such as 0.2:0.1:0.8:0.9 nor a .npy file"
        ) from None


def _whole(text: str, key: str, target: str) -> int:
    number = whole(text)
    if number is None or number < 0:
        raise TargetError(f"target '{target}': {key}={text} is not a whole number of 0 or more")
    return number
