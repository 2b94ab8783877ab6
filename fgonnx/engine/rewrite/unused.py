"""Where an option has no effect, and why: a function for each, "" where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgonnx.engine import methods
from fgonnx.engine.maps.psi import SIGNED
from fgonnx.wording import parameter

if TYPE_CHECKING:
    from fgonnx.engine.rewrite.options import Options


def psi(o: Options) -> str:
    """Tell of which part is summed over channels."""
    if o.psi not in (psis := methods.find(o.method).psis):
        return f"the map of {o.method} is made with {' or '.join(psis)}"
    return "" if o.outputs is None or "saliency" in o.outputs else f"there is no map among the {parameter('outputs')}"


def profile(o: Options) -> str:
    """Tell of which layers the map shows."""
    return "" if methods.find(o.method).sites else f"{o.method} shows no layers"


def engine(o: Options) -> str:
    """Tell of where gradients come from."""
    method = methods.find(o.method)
    if method.modify is not None:
        return f"{o.method} changes the rules, which only fgonnx's own engine has"
    return "" if method.gradient else f"{o.method} needs no gradient"


def backward(o: Options) -> str:
    """Tell of what goes back through the network."""
    method = methods.find(o.method)
    if method.modify is not None or not method.gradient:
        return f"{o.method} {'has rules of its own' if method.gradient else 'needs no gradient'}"
    if method.true_gradient:
        return f"{o.method} is defined by the gradient"
    return "" if o.engine == "fgonnx" else "only fgonnx's own engine has it"


def certificate(o: Options) -> str:
    """Tell of whether contributions are computed."""
    if o.outputs is not None:
        return f"{parameter('outputs')} says what is computed"
    return "" if methods.find(o.method).certificate else f"{o.method} has no certificate"


def target(o: Options) -> str:
    """Tell of the entry that a file explains."""
    return "the cotangent says what is explained" if o.seed else ""


def contrast(o: Options) -> str:
    """Tell of the class that is subtracted."""
    if o.seed:
        return "the cotangent says what is explained"
    return (
        "" if SIGNED in methods.find(o.method).psis else f"a difference has a sign, and the map of {o.method} has none"
    )
