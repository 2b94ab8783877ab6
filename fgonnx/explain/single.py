"""What every target is: something to explain of one sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from fgonnx.explain.head import Head


class Single(ABC):
    """What to explain of one sample."""

    seed_needed: ClassVar[bool] = True
    """Whether it covers more than one entry of the head, so that the graph takes a cotangent."""

    @abstractmethod
    def resolve(self, head: Head, sample: int) -> tuple[Any, str]:
        """Return a flat index or (if `seed_needed`) a cotangent of the head's shape, and a description."""

    def remark(self, head: Head, sample: int) -> str:
        """Return what is to be said of this choice, "" where it is nothing."""
        return ""
