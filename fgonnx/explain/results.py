"""Results of a run, as an explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import NumericError
from fgonnx.explain import batches
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.finite import blamed
from fgonnx.explain.head import LARGEST, ONLY, Head

Array = npt.NDArray[Any]


def explanation_of(
    loaded: LoadedModel,
    r: Rewritten,
    results: Mapping[str, Array],
    fed: Mapping[str, Array],
    described: Sequence[str],
    labels: Sequence[str],
) -> Explanation:
    """Return the results of a run under their names, with what they are results of.

    Raises
    ------
    NumericError
        They hold NaN or infinity.
    """
    named = {ours: results[theirs] for ours, theirs in r.names.items() if theirs in results}
    where = batches.named(r, "saliency")
    certificate = [r.names[n] for n in ("contributions", "completeness", "input_gradient") if n in named]
    for name in (*r.source_outputs, r.names["score"], where, *certificate):
        if results[name].dtype.kind != "f" or np.isfinite(results[name]).all():
            continue
        if name not in r.source_outputs or np.isnan(results[name]).any():  # a masked output holds -infinity
            raise NumericError(blamed(loaded, r, fed, name, results[name]))
    o = r.options
    if not described and "target" in named:
        head = Head(r.head_shape, len(fed[r.normal.input_name]), labels=labels)
        described = tuple(ONLY if head.entries == 1 else f"{head.name(int(i))}{LARGEST}" for i in named["target"])
    return Explanation(
        saliency=results[where],
        target=named.get("target"),
        score=named["score"],
        outputs={name: results[name] for name in r.source_outputs},
        sites=r.sites,
        contributions=named.get("contributions"),
        completeness=named.get("completeness"),
        input_gradient=named.get("input_gradient"),
        attribution=results.get(batches.named(r, "attribution")),
        delta=results.get(batches.named(r, "delta")),
        bias_gradients={n.partition(":")[2]: v for n, v in named.items() if n.startswith("bias_gradient:")},
        exposed={n: named[n] for n in o.expose if n in named},
        scores=named.get("head"),
        head=r.head,
        head_stripped=r.stripped,
        settings={
            **o.to_dict(),
            "engine": o.engine,
            "source_sha256": loaded.sha256,
            "batch": "any" if r.normal.batched else "1",
            "notes": list(r.normal.notes),
            "bound": dict(loaded.bound),
            **r.facts,
        },
        described=tuple(described),
        contrast=named.get("contrast"),
        model_score=results.get(batches.named(r, "model_score")),
        blocks=dict(zip(r.blocks, named["blocks"].T, strict=True)) if "blocks" in named else {},
    )
