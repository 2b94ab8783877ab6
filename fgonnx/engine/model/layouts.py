"""Names of layouts: which axis of an input is the batch, which are channels, and which make up the map."""

from __future__ import annotations

from fgonnx.errors import OptionError
from fgonnx.wording import parameter

LAYOUTS = {
    1: ("T", "F"),
    2: ("NF", "NT", "FN", "TN", "HW", "TF", "FT", "TC", "CT"),
    3: ("NCW", "NWC", "NHW", "NCT", "NTC", "NFT", "NTF", "TNF", "TNC", "HWN", "CTN", "TCN", "CHW", "HWC", "DHW"),
    4: ("NCHW", "NHWC", "NDHW", "CHWN", "HWCN", "CDHW", "DHWC", "DCHW"),
    5: ("NCDHW", "NDHWC", "NDCHW"),
}
"""The layouts an input may have, by its number of axes.

N is the batch, absent where the input is a single sample; C (F beside T) are channels, D, H, W (T for time, or F alone)
the grid of the map.
"""

GRID = "DHWF"
"""Letters of axes that the map has, of a layout with samples first."""


def check_layout(layout: str, rank: int, where: str) -> None:
    """Check that a layout exists and fits an input.

    Raises
    ------
    OptionError
        If there is no such layout of that many axes.
    """
    known = LAYOUTS.get(rank, ())
    if layout not in known:
        choice = ", ".join(known) or "none"
        raise OptionError(
            f"{where}: {parameter('layout', layout)} is none of an input of {rank} axes; choose one of: {choice}"
        )


def batch_axis(layout: str) -> int | None:
    """Return which axis is the batch; None for the layout of a single sample."""
    return layout.index("N") if "N" in layout else None


def plain(layout: str) -> str:
    """Return a layout in the letters N, C, D, H, W; F where that is the only axis besides the batch."""
    if len(layout.replace("N", "")) == 1:
        return layout.replace("T", "F")
    if any(letter in "DHWT" for letter in layout):
        layout = layout.replace("F", "C")
    return layout.replace("T", "W")


def samples_first(layout: str) -> str:
    """Return the layout of the same axes with the batch in front, in the letters of `plain`."""
    return "N" + plain(layout).replace("N", "")


def own_layout(layout: str, axis: int | None, reads: str = "") -> str:
    """Return the name of a layout whose batch is another axis, or none.

    Parameters
    ----------
    layout : str
        With samples first, such as "NCHW".
    axis : int or None
        Which axis the batch is.
    reads : str
        "T" where the only axis of the grid is known to be time.
    """
    rest = layout[1:]
    if axis == 0:
        return layout
    if rest == "F":
        rest = reads or rest
    elif "H" not in rest and "D" not in rest:
        rest = rest.replace("W", "T").replace("C", "F" if axis is not None else "C")
    return rest if axis is None else f"{rest[:axis]}N{rest[axis:]}"
