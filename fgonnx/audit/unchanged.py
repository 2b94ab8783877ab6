"""Whether the outputs of a rewritten model are those of its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.found import TOLERANCE, Check, usual_tolerance
from fgonnx.audit.measure import Verdict
from fgonnx.audit.samples import nudged
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.half import is_half
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import NumericError
from fgonnx.explain import batches
from fgonnx.explain.exact import Witness
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.source import allowed_difference

Array = npt.NDArray[Any]


def outputs_unchanged(
    loaded: LoadedModel,
    r: Rewritten,
    explanation: Explanation,
    feeds: Mapping[str, Array],
    tolerance: float | None,
    running: Running,
) -> Check:
    """Compare the outputs with those of the source, run untouched, one sample at a time."""
    floats = [a.dtype for a in explanation.outputs.values() if a.dtype.kind == "f"]
    allowed = tolerance if tolerance is not None else max(map(usual_tolerance, floats), default=TOLERANCE)
    if tolerance is None and is_half(loaded.ir.graph):  # inside of a float32 model, too
        allowed = max(allowed, allowed_difference(loaded.ir.graph))

    def error(optimise: bool) -> tuple[float, str]:
        session = running.session(loaded.ir, loaded.folder, optimise=optimise)
        return _largest_difference(explanation.outputs, batches.run(r, session, feeds, 1))

    found, where = error(True)
    detail = "largest difference to the source model, relative to its largest output"
    if found > allowed:
        # onnxruntime fuses quantised layers into integer kernels with other rounding than the operators' definitions.
        plain, plain_where = error(False)
        if plain <= allowed:
            detail = f"to the source run without onnxruntime's fusions, which alone move its outputs by {found:.1e}"
            found, where = plain, plain_where
    if found > allowed and tolerance is None:
        # What rounds badly in the source itself is no fault of the rewritten graph.
        session = running.session(loaded.ir, loaded.folder)
        own = batches.run(r, session, feeds, 1)
        shaken = batches.run(r, session, nudged(feeds, r.normal.input_name), 1)
        moves = _largest_difference(shaken, own)[0]
        if found <= moves:
            allowed = moves
            detail += f"; the source's own move by {moves:.1e} with the last places of its input"
    verdict: Verdict = "passed" if found <= allowed else "failed"
    return Check("outputs unchanged", verdict, found, allowed, detail + (f"; worst: '{where}'" if where else ""))


def held_again(found: Check, explainer: Explainer, explanation: Explanation, feeds: Mapping[str, Array]) -> Check:
    """Let outputs fail, too, where the source gives others on exactly this input, or another score."""
    explained = explainer.explained_shape(feeds)
    r = explainer.engine(explained, others=explainer.other_shapes(feeds)).rewritten
    results = {**explanation.outputs, r.names["score"]: explanation.score}
    if explanation.target is not None:
        results[r.names["target"]] = explanation.target
    try:
        Witness(explainer.loaded).hold(explainer.loaded, r, feeds, results, first=True)
    except NumericError as error:
        value = found.value if found.verdict == "failed" else 1.0
        return replace(found, verdict="failed", value=value, detail=str(error))
    return found


def _largest_difference(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> tuple[float, str]:
    """Return the largest difference, relative to the largest of theirs, and the output it is in ("" for none)."""
    worst, where = 0.0, ""
    for output, array in ours.items():
        error = relative_difference(array, theirs[output])
        if error > worst:
            worst, where = error, output
    return worst, where


def relative_difference(ours: Array, theirs: Array) -> float:
    """Return the largest difference of two arrays, relative to the largest of the second.

    Names, booleans and whole numbers are the same or not: a class beside the right one is no nearer to it than any
    other. What is not the same, or is not finite in one of the two alone, differs by 1.
    """
    a, b = ours.reshape(-1), theirs.reshape(-1)
    if {a.dtype.kind, b.dtype.kind} & set("OSUTbiu"):
        return 0.0 if np.array_equal(a, b) else 1.0
    if a.size != b.size:
        return 1.0
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return 1.0
    return float(np.abs(x[finite] - y[finite]).max(initial=0) / max(float(np.abs(y)[finite].max(initial=0)), 1e-30))
