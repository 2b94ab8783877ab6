"""The score of a rewritten model, and its gradient, as functions of the explained input alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.audit.forward import Forward
from fgonnx.audit.measure import Forwards, Function
from fgonnx.engine.graph.openvino import OpenVinoSession
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import inputs_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.walk import cuts
from fgonnx.explain import batches
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.runtime import hold

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_ROUNDS = ("QuantizeLinear", "DynamicQuantizeLinear", "Round", "Floor", "Ceil")


def function_of(
    loaded: LoadedModel,
    scorer: Rewritten,
    differentiated: Callable[[], Rewritten],
    explanation: Explanation,
    fed: Mapping[str, Array],
    running: Running,
) -> Function:
    """Return score and gradient as functions of the explained input, other inputs and targets fixed.

    Parameters
    ----------
    scorer : Rewritten
        What computes the score.
    differentiated : callable
        Returns what computes score and gradient; called if it is needed.
    running : Running
        What runs the gradient; the score is ONNX Runtime's.
    """
    session = running.session(scorer.model, loaded.folder)

    @cache
    def second() -> tuple[Rewritten, Session | OpenVinoSession]:
        made = differentiated()
        session = running.open(made.model, loaded.folder)
        if isinstance(session, OpenVinoSession) and running.verify:
            session.hold = partial(hold, loaded, made)
        return made, session

    def run(r: Rewritten, session: Session | OpenVinoSession, x: Array, *wanted: str) -> list[Floats]:
        given = {**fed, r.selector: np.asarray(explanation.target, np.int64), r.normal.input_name: x}
        found = batches.run(r, session, given, 1 if by_batch(r) else len(x), [r.names[w] for w in wanted])
        return [found[r.names[w]].astype(np.float64) for w in wanted]

    def score(x: Array) -> Floats:
        return run(scorer, session, x, "score")[0]

    def gradient(x: Array) -> tuple[Floats, Floats]:
        found = run(*second(), x, "score", "input_gradient")
        return found[0], found[1]

    return Function(score, gradient, _last_place(explanation), bool(rounding_operators(scorer)))


def forward_of(
    loaded: LoadedModel, scorer: Rewritten, explanation: Explanation, feeds: Mapping[str, Array]
) -> Forwards:
    """Return slopes of the source, taken forwards through it, as a function of a sample and of directions.

    Parameters
    ----------
    scorer : Rewritten
        What computes the score, of the source's own input.
    feeds : mapping of str to numpy array
        The source's inputs, of all samples.
    """
    witness = Forward(loaded.ir, loaded.folder, scorer, explanation.sites)
    singles = list(batches.cut(scorer, dict(feeds), 1))

    def slopes(i: int, directions: Floats, other: bool) -> tuple[Floats, bool]:
        one = singles[i]
        target = explanation.target
        entry = int(np.asarray(target).reshape(-1)[i]) if target is not None else 0
        given = {name: array for name, array in one.items() if name != scorer.selector}
        return witness.slopes(given, entry, float(explanation.score[i]), directions, other=other)

    return slopes


def _last_place(explanation: Explanation) -> Floats:
    """Return one ulp of every score, (N,), in the coarsest type that can hold them all."""
    types = [a.dtype for a in (explanation.score, *explanation.outputs.values()) if a.dtype.kind == "f"]
    held = [t for t in types if np.array_equal(explanation.score.astype(t), explanation.score)]
    coarsest = max(held, key=lambda t: float(np.finfo(t).eps))
    size = np.abs(explanation.score).astype(np.float64)
    if explanation.contributions is not None:
        # A score that its terms cancel to, down to their rounding, is rounded as they are.
        terms = np.abs(explanation.contributions).max(axis=1, initial=0).astype(np.float64)
        size = np.where(size <= 4 * float(np.finfo(coarsest).eps) * terms, terms, size)
    return np.spacing(size.astype(coarsest)).astype(np.float64)


def rounding_operators(r: Rewritten) -> list[str]:
    """Return the operators that round on the way from the input to the score."""
    graph = r.model.graph
    moving = cuts.dependent(list(graph), [v for v in graph.inputs if v.name == r.normal.input_name])
    found, seen = set(), set()
    stack = [v for v in graph.outputs if v.name == r.names["score"]]
    while stack:
        node = stack.pop().producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        given = [v for v in {*node.inputs, *inputs_of(node)} if v is not None and v in moving]
        stack += given
        if given and (
            node.op_type in _ROUNDS or node.op_type.startswith("QLinear") or _truncates(node) or _drops_bits(node)
        ):
            found.add(node.op_type)
    return sorted(found)


def _truncates(node: ir.Node) -> bool:
    """Tell whether a node casts real numbers to integers."""
    given, made = node.inputs[0], node.outputs[0]
    return node.op_type == "Cast" and bool(
        given is not None and given.dtype and made.dtype and given.dtype.is_floating_point() and made.dtype.is_integer()
    )


def _drops_bits(node: ir.Node) -> bool:
    """Tell whether a node shifts integers to the right."""
    return node.op_type == "BitShift" and node.attributes["direction"].as_string() == "RIGHT"


def by_batch(r: Rewritten) -> bool:
    """Tell whether results depend on the other samples of a batch: scales are taken from all of it."""
    return any(n.op_type == "DynamicQuantizeLinear" for n in r.model.graph)
