"""What an option of a measure accepts, stated in the annotation of its parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fgonnx.audit.evaluate.data import QUANTITIES
from fgonnx.audit.evaluate.fill import FILLS
from fgonnx.errors import OptionError
from fgonnx.fields import MOST_RUNS, check_choice
from fgonnx.kinds import out_of_range
from fgonnx.wording import parameter


@dataclass(frozen=True)
class OneOf:
    """The choices of an option."""

    names: tuple[str, ...]

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that is not among them."""
        check_choice(name, value, self.names)


@dataclass(frozen=True)
class Within:
    """The bounds of an option."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def check(self, name: str, value: Any) -> None:
        """Refuse a number that is not between them."""
        if why := out_of_range(value, self.least, self.above, self.most):
            raise OptionError(f"{parameter(name, value)} is out of range; give {why}")


Fill = Annotated[str, OneOf(FILLS)]
Quantity = Annotated[str, OneOf(QUANTITIES)]
Count = Annotated[int, Within(least=1, most=MOST_RUNS)]
Amount = Annotated[float, Within(least=0)]
Share = Annotated[float, Within(least=0, most=1)]
