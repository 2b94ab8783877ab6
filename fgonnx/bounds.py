"""How large a thing may be that is read or made: `Bounds`, and those in force.

They are looked at before the work, so that a small file cannot ask for any amount of memory or time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields

from fgonnx.errors import FgonnxError, OptionError
from fgonnx.fields import RUNNING, check_fields, checked, documented, option, pairs, spellings
from fgonnx.wording import near, parameter

__all__ = ["Bounds", "bounded", "check", "check_nesting", "current"]

_FLAG = "bound"
_UNITS = {
    "pixels": "pixels",
    **dict.fromkeys(("model_bytes", "data_bytes", "text_bytes", "metadata_bytes"), "bytes"),
    "nesting": "levels of lists and objects",
    "label_count": "names",
    "label_length": "characters in one name",
    "nodes": "nodes",
    "sample_count": "samples",
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?')


@documented
@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large a thing may be that is read or made.

    Commands take ``--bound NAME=NUMBER``, Python programs `fgonnx.bounded`.
    """

    pixels: int = option(200_000_000, "Pixels of a picture, before it is decoded or drawn.", panel=RUNNING, least=1)
    model_bytes: int = option(
        (1 << 31) - 1,
        "Bytes of a model file, without external weights.",
        panel=RUNNING,
        least=1,
        python="Protobuf reads no more.",
    )
    data_bytes: int = option(
        16 << 30,
        "Bytes of a picture, a recording or an array; of an array in an .npz, once it is unpacked.",
        panel=RUNNING,
        least=1,
    )
    text_bytes: int = option(
        64 << 20, "Bytes of a file of text: labels, preprocessing, a table.", panel=RUNNING, least=1
    )
    metadata_bytes: int = option(64 << 20, "Bytes of one entry of a model's metadata.", panel=RUNNING, least=1)
    nesting: int = option(
        100, "Levels of lists and objects in JSON.", panel=RUNNING, least=1, most=900, python="Python reads no more."
    )
    label_count: int = option(1_000_000, "Names in a list of class names.", panel=RUNNING, least=1)
    label_length: int = option(10_000, "Characters of a class name.", panel=RUNNING, least=1)
    nodes: int = option(
        100_000, "Nodes of a model, once its functions and loops are written out.", panel=RUNNING, least=1
    )
    sample_count: int = option(10_000_000, "Samples in one run: of all files together.", panel=RUNNING, least=1)

    def __post_init__(self) -> None:
        check_fields(self)


_current = Bounds()


def current() -> Bounds:
    """Return the bounds in force."""
    return _current


@contextlib.contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Have other bounds within a block, in the whole process.

    Examples
    --------
    >>> import fgonnx
    >>> with fgonnx.bounded(fgonnx.Bounds(pixels=500_000_000)):
    ...     fgonnx.bounds.current().pixels
    500000000
    """
    global _current
    before, _current = _current, bounds
    try:
        yield
    finally:
        _current = before


def parse(texts: list[str]) -> Bounds:
    """Parse bounds: NAME=NUMBER, where the number may be written 5e8.

    Raises
    ------
    OptionError
        There is no such bound, or it is not a number in its range.
    """
    found: dict[str, int] = {}
    for name, text in pairs(texts, f"--{_FLAG} pixels=5e8").items():
        if name not in spellings(Bounds):
            known = [f.name for f in fields(Bounds)]
            raise OptionError(f"there is no bound '{name}'{near(name, known)}; there are: {', '.join(known)}")
        try:
            number = float(text)
            found[name] = int(text) if text.isdecimal() and len(text) < 20 else int(number)
        except (ValueError, OverflowError):
            raise OptionError(f"the bound '{name}={text}' is not a number; write for example {name}=5e8") from None
    return Bounds(**checked(Bounds, found))


def check(name: str, size: int, who: str, error: type[FgonnxError]) -> None:
    """Refuse what is larger than a bound.

    Parameters
    ----------
    name : str
        The bound.
    size : int
        How large it is.
    who : str
        What the message begins with, such as "'a.png' has"; number and unit follow.
    error : type
        The exception to raise.

    Raises
    ------
    FgonnxError
        It is larger.
    """
    most = getattr(current(), name)
    if size > most:
        shown = f"{size:,}" if size < 10**15 else "far too many" if size >= 10**300 else f"{float(size):.1e}"
        raised = f"if you trust it, raise the bound: {parameter(name, size)}"
        limit = spellings(Bounds)[name].most
        advice = raised if limit is None or size <= limit else f"no more than {limit:,.0f} are read at all"
        raise error(f"{who} {shown} {_UNITS[name]}, more than the bound of {most:,}; {advice}")


def check_nesting(text: str, where: str, error: type[FgonnxError]) -> None:
    """Refuse JSON that is nested deeper than the bound; `where` names it.

    Raises
    ------
    FgonnxError
        It is nested deeper.
    """
    if text.count("[") + text.count("{") <= current().nesting:
        return
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    check("nesting", deepest, f"{where} has", error)
