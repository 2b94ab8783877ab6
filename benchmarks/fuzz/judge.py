"""What becomes of one graph: explained, refused, discarded, or wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import fgonnx
from benchmarks.fuzz.builder import Array, open_session
from benchmarks.fuzz.draw import Drawn
from benchmarks.fuzz.witness import Witness
from fgonnx.engine.graph.emit import PREFIX
from fgonnx.errors import CertificateWarning, FgonnxError, NumericError, UnsupportedError

EXPLAINED, REFUSED, DISCARDED, WRONG = "explained", "refused", "discarded", "wrong"

_DIRECTIONS = 3
#: Allowed error of outputs, of completeness and of slopes, by the type of the graph.
_OUTPUTS = {"float64": 1e-6, "float32": 1e-3, "float16": 4e-2}
_RESIDUAL = {"float64": 1e-8, "float32": 1e-3, "float16": 4e-2}
_OF_BYTES = 1e-6
_SLOPES = {"float64": 1e-5, "float32": 3e-3, "float16": 3e-2}
_STEPS = 0.1
#: What leaves a quantised value the same number, but for a scale.
_READ = ("Cast", "DequantizeLinear", "Div", "Flatten", "Identity", "Mul", "Neg", "Reshape", "Transpose")
#: Rounding of what a slope is computed from, such as 1 - p of a probability near 1, in units of the score.
_ULPS = {"float64": 1e-12, "float32": 4e-6, "float16": 2e-3}
#: Rounding of the input: kinks nearer than that may lie on the other side.
_NEAR = {"float64": 1e-12, "float32": 3e-6, "float16": 3e-3}


@dataclass(frozen=True)
class Verdict:
    """What became of a graph.

    Attributes
    ----------
    outcome : {"explained", "refused", "discarded", "wrong"}
        In one word.
    reason : str
        Why, in words that do not depend on names and numbers.
    detail : str
        The whole message, or the numbers.
    witness : str
        What its slopes were held against: "float64", "float32", or "" where nothing could be.
    """

    outcome: str
    reason: str = ""
    detail: str = ""
    witness: str = ""


def judge(drawn: Drawn) -> Verdict:
    """Explain a graph, and hold what comes out against the graph itself."""
    try:
        session = open_session(drawn.model)
        here = session.run(None, drawn.feeds)
        if _hangs_on_rounding(drawn, session, here):
            return Verdict(DISCARDED, "rounding of the input changes the outputs")
    except Exception as error:  # onnxruntime has a family of exceptions of its own
        return Verdict(DISCARDED, "onnxruntime does not run it", str(error))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CertificateWarning)  # the identity is held below
            explanation, axes = _explained(drawn)
    except NumericError as error:
        if "samples influence each other" in str(error) and _mixes(drawn, session, here):
            return Verdict(REFUSED, general(str(error)), str(error))
        return Verdict(WRONG, f"held against the source: {general(str(error))}", str(error))
    except FgonnxError as error:
        bad = "a fault of its own" if "a fault of fgonnx" in str(error) else _unclean(drawn, error)
        return Verdict(WRONG, bad, str(error)) if bad else Verdict(REFUSED, reason(error), str(error))
    except Exception as error:
        return Verdict(WRONG, f"a foreign exception: {type(error).__name__}", repr(error))
    return _held(drawn, session, explanation, axes)


def _hangs_on_rounding(drawn: Drawn, session: Any, here: Any) -> bool:
    """Tell whether a graph answers otherwise where its input is rounded otherwise, as the sign of a difference of 0."""
    x = drawn.feeds[drawn.input]
    kind = _kind(drawn)
    if x.dtype.kind != "f" or kind == "float16":
        return False
    allowed = _STEPS if _quantised(drawn) else _OUTPUTS[kind]
    for seed in range(3):
        noise = np.random.default_rng(seed).uniform(-1, 1, x.shape) * np.finfo(x.dtype).eps * np.abs(x)
        there = session.run(None, {**drawn.feeds, drawn.input: (x + noise).astype(x.dtype)})
        if any(a.shape != b.shape or _apart(a, b) > allowed for a, b in zip(here, there, strict=True)):
            return True
    return False


def _mixes(drawn: Drawn, session: Any, here: Any) -> bool:
    """Tell whether onnxruntime gives another result for the samples of a free batch together than one by one."""
    count = len(drawn.feeds[drawn.input])
    if drawn.form != "free" or count < 2:
        return False
    alone = _truth(drawn, session, count)
    rows = zip(here, alone.values(), strict=True)
    return any(a.shape != b.shape or _apart(a, b) > _OUTPUTS[_kind(drawn)] for a, b in rows)


def _quantised(drawn: Drawn) -> bool:
    return any("Quantize" in o or "QLinear" in o or "Integer" in o for o in drawn.operators)


def _explained(drawn: Drawn) -> tuple[Any, tuple[int, int]]:
    """Return the explanation, and where the samples lie in the input and in the output."""
    explainer = fgonnx.Explainer(
        drawn.model,
        input=drawn.input,
        head=drawn.head,
        output=drawn.model.graph.output[0].name,
        input_gradient=True,
        cache=False,
        threads=1,
    )
    found = explainer(dict(drawn.feeds))
    known = explainer.loaded.arrangement
    axes = (0, 0) if known is None else (known.axis or 0, known.outputs.get(drawn.model.graph.output[0].name) or 0)
    return found, axes


def _held(drawn: Drawn, session: Any, e: Any, axes: tuple[int, int]) -> Verdict:
    kind = _kind(drawn)
    alone = e.settings["batch"] == "1" and drawn.form == "free"
    count = len(e.score)
    truth = _truth(drawn, session, count if alone else 1)
    allowed = _STEPS if _quantised(drawn) else _OUTPUTS[kind]
    for name, right in truth.items():
        if name not in e.outputs:
            if any(note.startswith("left out of the outputs") and f"'{name}'" in note for note in e.notes):
                continue
            return Verdict(WRONG, "an output is missing", name)
        ours = np.asarray(e.outputs[name])
        if ours.size != right.size:
            return Verdict(WRONG, "an output of another shape", f"{name}: {ours.shape}, the model's {right.shape}")
        apart = _apart(ours.reshape(right.shape), right)
        if apart > allowed:
            return Verdict(WRONG, "outputs differ", f"{name}: {apart:.3g}")
    size = np.abs(e.contributions).sum(1) + np.abs(e.score) + 1e-3
    residual = float((np.abs(e.completeness) / size).max())
    # The real numbers that whole ones stand for are float32, as is the gradient with respect to them.
    of_bytes = kind == "float64" and drawn.feeds[drawn.input].dtype.kind != "f"
    if not residual <= (_OF_BYTES if of_bytes else _RESIDUAL[kind]):
        return Verdict(WRONG, "the identity does not hold", f"residual {residual:.3g} of {size.max():.3g}")
    try:
        chosen = [int(t) for t in e.target]
        rests = _rests(drawn.model, e.notes)
        witness = Witness(
            drawn.model, drawn.feeds, drawn.input, _head(drawn, e), chosen, alone=alone, axes=axes, rests=rests
        )
    except Exception as error:
        return Verdict(EXPLAINED, detail=f"no witness: {error}")
    if not witness.kind:
        return Verdict(EXPLAINED)
    return _slopes(drawn, e, witness, kind)


def _rests(model: Any, notes: Any) -> frozenset[str]:
    """Return the quantisers that are said to be constant between their steps, and whose rest the graph does compute.

    What they round is subtracted from in the graph: x - s round(x / s) has the slope of x, where a straight-through
    gradient would be 0.
    """
    said = "constant between its steps"
    found = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and any(said in n and f"'{node.name}'" in n for n in notes if node.name):
            reached = {node.output[0]}
            for other in model.graph.node:
                if not reached & set(other.input):
                    continue
                if other.op_type in ("Sub", "Add", "Sum") and node.input[0] in other.input:
                    found.add(node.name)
                elif other.op_type in (*_READ, "Sub", "Add"):
                    reached |= set(other.output)
    return frozenset(found)


def _slopes(drawn: Drawn, e: Any, witness: Witness, kind: str) -> Verdict:
    rng = np.random.default_rng([drawn.seed, drawn.index, 2])
    g = np.moveaxis(np.asarray(e.input_gradient, np.float64), witness.axes[0], 0).reshape(len(e.score), -1)
    if not np.isfinite(g).all():
        return Verdict(WRONG, "the gradient is not finite", witness=witness.kind)
    x = witness.point
    size = np.linalg.norm(g, axis=1)
    tolerance = _SLOPES[kind] if witness.kind == "float64" else 3e-2
    unit = 255.0 if drawn.feeds[drawn.input].dtype == np.uint8 else 1.0
    for i in range(_DIRECTIONS):
        v = rng.standard_normal(x.shape) * unit
        claimed = (g * np.moveaxis(v, witness.axes[0], 0).reshape(g.shape)).sum(1)
        slope = witness.slope(v)
        allowed = tolerance * (size * unit + np.maximum(np.abs(slope.low), np.abs(slope.high)))
        allowed = allowed + _ULPS[kind] * (witness.size + np.abs(e.score)) + 1e-9
        if witness.kind == "float32" and (slope.error > 0.02 * np.maximum(np.abs(slope.low), np.abs(slope.high))).any():
            return Verdict(EXPLAINED)  # steps that cross jumps measure nothing
        missed = slope.misses(claimed, allowed)
        if missed.any():
            missed = np.where(_nearby(witness, (rng, v, claimed), kind, allowed), missed, 0)
        if missed.any() and (leaning := witness.leaning(v)) is not None:
            missed = np.where(leaning.misses(claimed, allowed) > 0, missed, 0)
        if missed.any():
            at = int(missed.argmax())
            return Verdict(
                WRONG,
                "a slope differs",
                f"direction {i}, sample {at}: {claimed[at]:.6g}, measured {slope.low[at]:.6g} to {slope.high[at]:.6g} "
                f"within {slope.error[at]:.2g}; |gradient| {size[at]:.3g}",
                witness.kind,
            )
    return Verdict(EXPLAINED, witness=witness.kind)


def _nearby(witness: Witness, direction: tuple[Any, Any, Any], kind: str, allowed: Array) -> Array:
    """Return whether a claimed slope is also missed within the rounding of the input, where a kink may be nearer."""
    rng, v, claimed = direction
    low, high = np.full(len(claimed), np.inf), np.full(len(claimed), -np.inf)
    error = np.zeros(len(claimed))
    scale = float(np.abs(witness.point).max(initial=0)) or 1.0
    for radius in (1, 1, 1, 10, 10, 10, 30, 30):
        moved = witness.point + radius * _NEAR[kind] * scale * rng.standard_normal(witness.point.shape)
        slope = witness.slope(v, moved)
        low, high = np.minimum(low, slope.low), np.maximum(high, slope.high)
        error = np.maximum(error, slope.error)
    width = high - low
    return np.maximum(low - claimed, claimed - high) > allowed + 2 * width + 2 * error


def _head(drawn: Drawn, e: Any) -> str:
    """Return the tensor of the source that is explained; one computed in another type has a name of its own."""
    made = {o for n in drawn.model.graph.node for o in n.output}
    if e.head in made:
        return str(e.head)
    if not e.head_stripped:
        return str(drawn.model.graph.output[0].name)
    last = next(n for n in drawn.model.graph.node if drawn.model.graph.output[0].name in n.output)
    return str(last.input[0])


def _kind(drawn: Drawn) -> str:
    """Return the narrowest floating-point type in a graph."""
    kinds = {i.type.tensor_type.elem_type for i in drawn.model.graph.input}
    kinds |= {t.data_type for t in drawn.model.graph.initializer}
    casts = {a.i for n in drawn.model.graph.node for a in n.attribute if a.name == "to"}
    kinds |= {t.t.data_type for n in drawn.model.graph.node for t in n.attribute if t.name == "value"} | casts
    # Its statistics are float32 in a graph of float64, as the standard says and onnxruntime does.
    kinds |= {1} if "GroupNormalization" in drawn.operators else set()
    return "float16" if 10 in kinds else "float32" if 1 in kinds else "float64"


def _truth(drawn: Drawn, session: Any, runs: int) -> dict[str, Array]:
    """Return the model's outputs, of all samples at once or one by one."""
    names = [o.name for o in session.get_outputs()]
    if runs == 1:
        return dict(zip(names, session.run(None, drawn.feeds), strict=True))
    parts = []
    for i in range(runs):
        cut = {k: v[i : i + 1] if v.ndim and len(v) == runs else v for k, v in drawn.feeds.items()}
        parts.append([np.atleast_1d(a) for a in session.run(None, cut)])
    return {n: np.concatenate([p[j] for p in parts]) for j, n in enumerate(names)}


def _apart(ours: Array, right: Array) -> float:
    """Return the largest difference, relative to the largest number; of whole numbers, as a share of 255."""
    if right.dtype.kind == "b":
        return float((ours != right).mean())
    a, b = ours.astype(np.float64), right.astype(np.float64)
    if not np.isfinite(a).all():
        return float("inf")
    scale = max(float(np.abs(b).max(initial=0)), 1e-3, 255.0 if right.dtype.kind in "iu" else 0.0)
    return float(np.abs(a - b).max(initial=0)) / scale


def general(text: str) -> str:
    """Return a message without names and numbers, so that alike ones are counted together."""
    text = re.sub(r"^[\w.-]+: ", "", text.split("\n")[0])
    text = re.sub(r"'[^']*'", "'...'", text)
    text = re.sub(r"\([^()]*\)", "(...)", text)
    return re.sub(r"\d[\d.e+-]*", "#", text)[:160]


def reason(error: FgonnxError) -> str:
    """Return why a graph is refused, in words that do not depend on its names."""
    if isinstance(error, UnsupportedError):
        first = error.refusals[0]
        return f"{first.op_type}: {general(first.why)}"
    return general(str(error))


def _unclean(drawn: Drawn, error: FgonnxError) -> str:
    """Return what is wrong with a message: a node that is none of the model's, or a name of fgonnx's own."""
    text = str(error)
    if PREFIX in text or "::" in text or "dequantised/" in text or "fg_" in text:
        return "a message names what fgonnx wrote"
    if isinstance(error, UnsupportedError):
        known, unnamed = _names(drawn)
        for r in error.refusals:
            if not any(k in r.node for k in known) and not r.node.startswith(unnamed):
                return "a message names a node that is none of the model's"
    return ""


def _names(drawn: Drawn) -> tuple[set[str], tuple[str, ...]]:
    """Return the names of nodes and of their results, and how those begin that nodes without one are given."""
    found: set[str] = set()
    unnamed: set[str] = set()
    graphs: list[Any] = [drawn.model.graph, *drawn.model.functions]
    for graph in graphs:
        for node in graph.node:
            found |= {node.name, *node.output}
            unnamed |= {f"{node.op_type}_"} if not node.name else set()
            graphs += [a.g for a in node.attribute if a.HasField("g")]
    return found - {""}, tuple(unnamed)


def quantities(verdicts: Mapping[str, Verdict]) -> dict[str, int]:
    """Return how many graphs came to what."""
    found = dict.fromkeys((EXPLAINED, REFUSED, DISCARDED, WRONG), 0)
    for v in verdicts.values():
        found[v.outcome] += 1
    return found
