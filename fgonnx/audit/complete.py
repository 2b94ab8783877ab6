"""Whether an explanation is complete: its contributions sum to the score, up to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.found import Check, usual_tolerance
from fgonnx.audit.samples import nudged
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation

Array = npt.NDArray[Any]

_SMALL_SCORE = 1e-2  # of the sum of absolute contributions


def completeness(explanation: Explanation, tolerance: float | None) -> Check:
    """Compare the residual with the score, or with the sum of absolute contributions where the score is small."""
    relative, rounding = explanation.relative_residual(), explanation.rounding_residual()
    allowed = tolerance if tolerance is not None else usual_tolerance(explanation.score.dtype)
    # |score| / sum |contributions|
    share = np.divide(rounding, relative, out=np.ones_like(rounding), where=relative > 0)
    small = share < _SMALL_SCORE
    errors = np.where(small, 10 * rounding, relative)
    worst = int(errors.argmax())
    detail = "|score - sum of contributions| / |score|"
    value = float(relative[worst])
    if small[worst]:
        detail = "|score - sum| / sum of |contributions|, as the score is below 1 % of that sum"
        value, allowed = float(rounding[worst]), allowed / 10
    return Check("completeness", "passed" if value <= allowed else "failed", value, allowed, detail)


def unless_rounding(found: Check, explainer: Explainer, explanation: Explanation, feeds: Mapping[str, Array]) -> Check:
    """Leave undecided what fails where the contributions are rounding: hardly visible steps aside, they are others."""
    if found.verdict != "failed" or explanation.contributions is None or explanation.completeness is None:
        return found
    r = explainer.engine(explainer.explained_shape(feeds), others=explainer.other_shapes(feeds)).rewritten
    targets = None if explanation.target is None else [int(t) for t in explanation.target]
    beside = (explainer(nudged(feeds, r.normal.input_name, units), targets) for units in (8.0, 80.0))
    here = explanation.contributions
    moved = [np.abs(e.contributions - here).sum(axis=1) for e in beside if e.contributions is not None]
    missing = np.abs(explanation.completeness)
    if (missing > np.max(moved, axis=0)).any():
        return found
    return replace(
        found,
        verdict="undecided",
        detail=f"{found.detail}; the contributions themselves move by as much with the last places of the input",
        decides="samples on which the score is not lost in rounding, or the model in float64",
    )
