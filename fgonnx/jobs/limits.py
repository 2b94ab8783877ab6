"""Limits that a comparison must keep to pass."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.comparison import SMALLER_IS_BETTER
from fgonnx.fields import check_choices, check_fields, check_idle, documented, option

Float = npt.NDArray[np.float64]

LIMITS = "What must hold (exit code 1 where it does not)"
SHARES = ("top1", "pointing")
JUDGED = ("worst", "mean")


@dataclass(frozen=True)
class Limit:
    """A bound that a measure must keep.

    Attributes
    ----------
    measure : str
        Key of `MEASURES`.
    bound : float
        At most, for measures of difference; at least, for measures of agreement.
    judged : {"worst", "mean"}
        Whether every picture must keep it, or the mean over all.
    """

    measure: str
    bound: float
    judged: str

    @property
    def at_most(self) -> bool:
        """Whether the bound is an upper one."""
        return self.measure in SMALLER_IS_BETTER

    def check(self, values: Float) -> dict[str, Any]:
        """Return the verdict for the record."""
        worst = float(values.max() if self.at_most else values.min())
        found = float(values.mean()) if self.judged == "mean" else worst
        return {
            "measure": self.measure,
            "bound": self.bound,
            "kind": "at most" if self.at_most else "at least",
            "judged": self.judged,
            "found": found,
            "holds": found <= self.bound if self.at_most else found >= self.bound,
        }


def _idle_judge(limits: Limits) -> str:
    return "" if any(limit.measure not in SHARES for limit in limits.all()) else "it judges limits, and none is set"


@documented
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What must hold for a comparison to pass; nothing by default."""

    min_top1: float | None = option(
        None, "Share of pictures on which both make the same decision.", panel=LIMITS, least=0, most=1
    )
    min_rank_correlation: float | None = option(None, "Rank correlation of the maps.", panel=LIMITS, least=-1, most=1)
    min_correlation: float | None = option(None, "Correlation of the maps.", panel=LIMITS, least=-1, most=1)
    min_ssim: float | None = option(None, "Structural similarity of the maps.", panel=LIMITS, least=-1, most=1)
    min_overlap: float | None = option(
        None, "Common share of the strongest 5 % of the maps.", panel=LIMITS, least=0, most=1
    )
    min_pointing: float | None = option(
        None, "Share of pictures on which the maps peak alike.", panel=LIMITS, least=0, most=1
    )
    max_score_difference: float | None = option(
        None, "Score difference, as a share of A's largest score.", panel=LIMITS, least=0
    )
    max_quantisation: float | None = option(
        None, "Share of rounding in B's absolute contributions.", panel=LIMITS, least=0, most=1
    )
    max_layer_error: float | None = option(
        None, "Relative error that one segment between layers adds.", panel=LIMITS, least=0
    )
    judge: str = option(
        "worst",
        "Limits hold for the worst picture, or for the mean. Shares of pictures are means always.",
        panel=LIMITS,
        idle=_idle_judge,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, judge=JUDGED)
        check_idle(self)

    def all(self) -> list[Limit]:
        """Return the limits that are set."""
        found = []
        for f in fields(self):
            bound = getattr(self, f.name)
            if f.name != "judge" and bound is not None:
                measure = f.name.partition("_")[2]
                measure = "quantisation_b" if measure == "quantisation" else measure
                found.append(Limit(measure, bound, "mean" if measure in SHARES else self.judge))
        return found
