"""Shapes of inputs as texts."""

from __future__ import annotations

from collections.abc import Sequence

from fgonnx.errors import OptionError
from fgonnx.fields import pairs
from fgonnx.wording import whole

EXPLAINED = ""
"""The explained input, among the shapes of several."""

_MOST_SIZE = (1 << 31) - 1  # along one axis


def parse_shape(text: str) -> tuple[int, ...]:
    """Parse sizes: ``1,3,224,224`` or ``1x3x224x224``.

    Raises
    ------
    OptionError
        The text is not a list of sizes above 0.
    """
    sizes = [whole(part) for part in text.replace("x", ",").split(",")]
    shape = tuple(size for size in sizes if size is not None and 1 <= size <= _MOST_SIZE)
    if len(shape) < len(sizes):
        raise OptionError(f"input shape '{text}' is not a list of sizes; write for example 1,3,224,224")
    return shape


def parse_shapes(texts: Sequence[str]) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """Parse shapes: of the explained input ``1,20,3``, of others by name ``mask=1,20``.

    Raises
    ------
    OptionError
        A text is not a list of sizes, or a shape is given twice.
    """
    plain = [text for text in texts if "=" not in text]
    if len(plain) > 1:
        raise OptionError(f"the shapes {' and '.join(plain)} are of one input; name the others, as mask={plain[1]}")
    named = {k: parse_shape(v) for k, v in pairs([t for t in texts if "=" in t], "mask=1,20").items()}
    if not named:
        return parse_shape(plain[0]) if plain else None
    return {**({EXPLAINED: parse_shape(plain[0])} if plain else {}), **named}
