"""Compare the two engines on one model, every tensor of an explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.session import Session
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.options import CERTIFICATE, Options
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.walk.witness import ort_training
from fgonnx.explain import batches

Array = npt.NDArray[Any]

TOLERANCE = 1e-5
GROUPS = ("input gradient", "cotangents of sites", "bias-gradients of sites", "contributions", "map")
_OUTPUTS = (*CERTIFICATE, "input_gradient", "bias_gradients")


@dataclass(frozen=True)
class Difference:
    """The difference of the engines in one group of tensors.

    Attributes
    ----------
    group : str
        One of `GROUPS`.
    value : float
        Largest |ours - theirs| of a tensor, relative to its largest |ours|, over the tensors of the group.
    where : str
        The tensor with the largest difference.
    count : int
        Number of tensors compared.
    """

    group: str
    value: float
    where: str
    count: int


def compare(
    loaded: LoadedModel,
    options: Options,
    feeds: Mapping[str, Array],
    targets: Sequence[int] | Array | None = None,
    build: Callable[[LoadedModel, Options], Rewritten] = build,
) -> list[Difference]:
    """Explain the same samples by both engines and compare.

    onnxruntime's optimiser is left out: both graphs then compute the forward pass by the same kernels, so that no
    pre-activation is on one side of a kink for one engine and on the other for the other.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    options : Options
        What is explained; its engine, outputs and exposed values are ignored.
    feeds : mapping of str to numpy array
        Samples for all inputs of the model.
    targets : sequence of int, optional
        What to explain of each sample; the largest entry by default.
    build : callable
        The function that rewrites: `fgonnx.engine.rewrite.rewrite.build`, or a caching one.

    Returns
    -------
    list of Difference
        One for each of `GROUPS`.

    Raises
    ------
    ProviderError
        If the training build is not installed.
    UnsupportedError
        If one of the engines cannot explain the model.
    """
    ort_training.require()
    options = replace(options, engine="fgonnx", outputs=_OUTPUTS, expose=())
    sites = [s.name for s in build(loaded, options).sites if s.kind != "input"]
    known = {s.partition("[")[0] for s in sites}
    options = replace(options, expose=tuple(f"gradient:{s}" for s in sites if s in known))
    ours = build(loaded, options)
    theirs = build(loaded, replace(options, engine="ort-training", one_by_one=not ours.normal.batched))
    if ours.normal.batched and not theirs.normal.batched:
        ours = build(loaded, replace(options, one_by_one=True))
    chosen = np.full(len(feeds[ours.normal.input_name]), -1) if targets is None else np.asarray(targets)
    first, second = (_run(loaded, r, feeds, chosen.astype(np.int64)) for r in (ours, theirs))
    worst = {group: Difference(group, 0.0, "", 0) for group in GROUPS}
    for name, a in first.items():
        if (group := _group(name)) is None:
            continue
        b = second[name]
        value = float(np.abs(a - b).max(initial=0) / max(float(np.abs(a).max(initial=0)), 1e-30))
        before = worst[group]
        worst[group] = Difference(
            group, max(value, before.value), name if value > before.value else before.where, before.count + 1
        )
    return list(worst.values())


def _group(name: str) -> str | None:
    kind = name.partition(":")[0]
    return {
        "input_gradient": "input gradient",
        "gradient": "cotangents of sites",
        "contributions": "contributions",
        "bias_gradient": "bias-gradients of sites",
        "saliency": "map",
    }.get(kind)


def _run(loaded: LoadedModel, r: Rewritten, feeds: Mapping[str, Array], targets: Array) -> dict[str, Array]:
    """Run a rewritten model; results by fgonnx's names."""
    session = Session(r.model, folder=loaded.folder, providers=["cpu"], optimise=False)
    found = batches.run(r, session, {**feeds, r.selector: targets}, len(targets), list(r.names.values()))
    return {ours: found[theirs].astype(np.float64) for ours, theirs in r.names.items()}
