"""Whether a certificate closes: the contributions sum to the score, but for rounding."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import onnx_ir as ir

from fgonnx.errors import CertificateWarning
from fgonnx.explain.explanation import Explanation

UNCLOSED = "the certificate does not close"
"""What every note about a certificate that does not close says."""

DISTRUST = f"{UNCLOSED}: do not rely on this map"
"""The same for the eye, in a picture."""

ALLOWED = 1e-3
"""Of the absolute contributions, what a residual may be in float32 and wider types."""

_ROUNDING = {ir.DataType.FLOAT16: 2.0**-10, ir.DataType.BFLOAT16: 2.0**-7}
_PLACES = 32  # that a sum may lose in a narrow type


def unclosed(e: Explanation, model: ir.Model) -> list[str]:
    """Return a note for each sample of which the certificate does not close, "" for the others.

    Parameters
    ----------
    e : Explanation
        The explanation; one without a certificate is not spoken of.
    model : ir.Model
        The graph that made it: sums in 16 bits may be off by more.
    """
    if e.contributions is None or e.completeness is None:
        return [""] * len(e)
    missing = e.rounding_residual()
    if (missing > ALLOWED).any():
        allowed = max(ALLOWED, _PLACES * _narrowest(model))
        return [_said(float(share)) if share > allowed else "" for share in missing]
    return [""] * len(e)


def closes(notes: Sequence[str]) -> bool:
    """Tell whether none of the notes on a sample is about a certificate that does not close."""
    return not any(UNCLOSED in note for note in notes)


def warn(said: Sequence[str]) -> None:
    """Warn of the certificates of a call that do not close, in one sentence."""
    found = [(i, text) for i, text in enumerate(said) if text]
    if found:
        i, text = found[0]
        more = f"; so do those of {len(found) - 1} more samples" if len(found) > 1 else ""
        where = f"sample {i}: " if len(said) > 1 else ""
        warnings.warn(where + text + more, CertificateWarning, stacklevel=3)


def _said(share: float) -> str:
    size = "more than they are themselves" if share >= 1 else f"{share:.1%} of their absolute sum"
    return (
        f"{UNCLOSED}: the contributions miss the score by {size}. A term is wrong, or all of them are rounding: do not "
        "rely on this map, and see what fgonnx check finds"
    )


def _narrowest(model: ir.Model) -> float:
    """Return the rounding of the narrowest floating-point type that the graph computes in."""
    kinds = {v.dtype for node in model.graph.all_nodes() for v in node.outputs if v.dtype is not None}
    return max((_ROUNDING.get(kind, 0.0) for kind in kinds), default=0.0)
