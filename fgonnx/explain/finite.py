"""Whose NaN or infinity it is, in weights and in results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.blame import first_not_finite, first_zero
from fgonnx.engine.graph.values import content_of, inputs_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import NumericError
from fgonnx.explain import batches

Array = npt.NDArray[Any]

_ROOTS = ("Sqrt", "ReduceL2", "Pow")  # of infinite slope at 0


def check_weights(loaded: LoadedModel) -> None:
    """Raise a NumericError if weights hold NaN."""
    for name, value in loaded.ir.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
            continue
        array = tensor.numpy()
        # Attention masks contain infinities on purpose, but never NaN. A sum finds it in one pass without a copy.
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.sum(array, dtype=np.float64 if array.dtype == np.float16 else None)
        if array.size and np.isnan(total) and np.isnan(array).any():
            users = ", ".join(f"'{n.name or n.op_type}'" for n in value.consumers()[:3])
            raise NumericError(
                f"{loaded.name}: its weights '{name}' (used by {users}) hold NaN; export the model again"
            )


def blamed(loaded: LoadedModel, r: Rewritten, fed: Mapping[str, Array], name: str, result: Array) -> str:
    """Describe where a non-finite result arises: the first such node of the source, and the sample."""
    said = f"{loaded.name}: its {_result(r, name, result)} holds NaN or infinity"
    own = {n: array for n, array in fed.items() if n not in (r.selector, r.contrast)}
    try:
        found = first_not_finite(loaded.ir, batches.cut(r, own, 1), loaded.folder)
        root = first_zero(r.model, batches.cut(r, fed, 1), _ROOTS, loaded.folder) if found is None else None
    except Exception:  # the search is a courtesy: types that cannot be outputs must not hide the real message
        return said
    if found is not None and _masks(found[1]):
        try:
            culprit = first_not_finite(
                loaded.ir, batches.cut(r, own, 1), loaded.folder, allowed=(float("inf"), -float("inf"))
            )
        except Exception:  # as above
            culprit = None
        first = "" if culprit is None else f", first in {_shown(culprit[1])}"
        return (
            f"{said} for sample {found[0]}: {_shown(found[1])} masks with infinity, and a slope or a value behind it "
            f"is NaN, as of 0 times infinity{first}. Mask with a large finite number instead, such as -10000"
        )
    if name not in r.source_outputs and (blame := found or root) is not None:
        sample, slope = blame
        node = next((n for n in loaded.ir.graph if n.outputs[0].name == slope.outputs[0].name), None)
        if node is not None and (choice := _choice_behind(node)) is not None:
            return (
                f"{said} for sample {sample}, while the model's own results are finite: the slope of {_shown(node)} is "
                f"infinite or NaN, and {_shown(choice)} behind it chooses between it and another value. Where it "
                "chooses the other, 0 times that slope is NaN, as for every automatic derivative. Choose before, so "
                "that it is never computed there: Where(x > 0, Log(Where(x > 0, x, 1)), 0)"
            )
    if root is not None:
        what = f"'{root[1].name}' ({root[1].op_type})"
        return (
            f"{said} for sample {root[0]}, while the model's own values are finite: {what} takes a root of exactly "
            "0, where its slope is infinite, as in silence or on a flat ground. There is no gradient there; "
            "explain a sample that is not, or add a little noise to it"
        )
    if found is None:
        return (
            f"{said}, while the model's own values are finite: the gradient or a term of the sum overflows. Scale the "
            "input or the weights down"
        )
    sample, node = found
    return f"{said} for sample {sample}; the first node to produce one is {_shown(node)}"


def _result(r: Rewritten, name: str, result: Array) -> str:
    if name != r.names.get("contributions") or result.shape[-1] != len(r.sites):
        return f"result '{name}'"
    site = r.sites[int(np.argmin(np.isfinite(result).reshape(-1, len(r.sites)).all(axis=0)))]
    of = "the input" if site.kind == "input" else f"'{site.node}' ({site.op_type})"
    return f"result '{name}', in the {site.kind} term of {of},"


def _masks(node: ir.Node) -> bool:
    """Tell whether a node takes infinity from a constant."""
    arrays = (content_of(v) for v in inputs_of(node))
    return any(a is not None and a.dtype.kind == "f" and bool(np.isinf(a).any()) for a in arrays)


def _shown(node: ir.Node) -> str:
    return f"'{node.name or node.outputs[0].name}' ({node.op_type})"


def _choice_behind(node: ir.Node, depth: int = 8) -> ir.Node | None:
    """Return the Where that may leave out what a node computes, None if there is none near it."""
    for v in node.outputs:
        for user, slot in v.uses():
            if user.op_type == "Where" and not user.domain:
                if slot:
                    return user
            elif depth and (found := _choice_behind(user, depth - 1)) is not None:
                return found
    return None
