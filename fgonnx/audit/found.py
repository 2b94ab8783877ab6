"""What checks on a model found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fgonnx.audit.measure import Verdict
from fgonnx.explain.explanation import Explanation

TOLERANCE = 1e-4
"""The usual relative error that is allowed of outputs and completeness."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    name : str
        What was compared.
    verdict : {"passed", "failed", "undecided"}
        Undecided if the measurement itself is too uncertain: nothing passes that was not measured.
    value, tolerance : float
        The worst sample's error and the allowed one.
    detail : str
        How it was measured, and how well; or what could not be.
    decides : str
        Where nothing was decided, what would decide it.
    """

    name: str
    verdict: Verdict
    value: float
    tolerance: float
    detail: str
    decides: str = ""


@dataclass(frozen=True)
class CheckResult:
    """All checks of one model.

    Attributes
    ----------
    checks : tuple of Check
        In the order in which they were run.
    explanation : Explanation
        The explanation of the samples.
    notes : tuple of str
        Changes to the model, choices that are held fixed, and limits of the checks.
    untested : tuple of str
        What the verdict is not about.
    """

    checks: tuple[Check, ...]
    explanation: Explanation
    notes: tuple[str, ...]
    untested: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Failed where a check failed; otherwise undecided where one is; otherwise passed."""
        found = {c.verdict for c in self.checks}
        return "failed" if "failed" in found else "undecided" if "undecided" in found else "passed"

    @property
    def passed(self) -> bool:
        """Whether every check passed: none failed, and none was left undecided."""
        return self.verdict == "passed"


def usual_tolerance(dtype: np.dtype[Any]) -> float:
    """Return the allowed relative error of sums in a type."""
    return max(TOLERANCE, 32 * float(np.finfo(dtype).eps))
