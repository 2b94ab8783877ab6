"""Checks on one model: its outputs are unchanged, its explanation is complete, its gradient is the derivative.

Completeness cannot see a wrong derivative and finite differences cannot see a forgotten intercept, so both are done.
What could not be measured is undecided, and says what would decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit import agreement, measure
from fgonnx.audit.complete import completeness, unless_rounding
from fgonnx.audit.found import Check, CheckResult
from fgonnx.audit.measure import Verdict
from fgonnx.audit.samples import random_inputs
from fgonnx.audit.score import by_batch, forward_of, function_of, rounding_operators
from fgonnx.audit.slopes import slope
from fgonnx.audit.unchanged import held_again, outputs_unchanged
from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dtype_of, optional
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.bind import with_sizes
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.normal.cut import free_input
from fgonnx.engine.rewrite import cache as caches
from fgonnx.engine.rewrite.arranged import arranged, turned
from fgonnx.engine.rewrite.options import Options, require_contributions, with_changes
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.engine.walk import ENGINES
from fgonnx.errors import OptionError
from fgonnx.explain import batches
from fgonnx.explain.choice import takes_seed
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.ids import Rows
from fgonnx.explain.targets import Target
from fgonnx.fields import MOST_RUNS, changed, check_choice, check_fields, documented, of_kind, option, refuse_idle

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
# Along the gradient the signal is strong; across it the score hardly moves and single precision drowns the slope.
_ALONG, _ACROSS = 1e-2, 5e-2
_MASKS = {"Attention": 3, "MultiHeadAttention": 4, "QAttention": 5}  # where attention reads its mask
_KEEP_MASKS = ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@documented
@dataclass(frozen=True, kw_only=True)
class Thoroughness:
    """Number of samples and directions of `check`, and its tolerance."""

    samples: int = option(2, "Random samples, where no pictures are given.", panel="", least=1, most=MOST_RUNS)
    directions: int = option(8, "Directions of each kind for the slopes.", panel="", least=1, most=MOST_RUNS)
    tolerance: float | None = option(
        None,
        "Allowed relative error of outputs and completeness. Default: 1e-4.",
        panel="",
        above=0,
        python="More in half precision.",
    )
    random_state: int = option(0, "Seed of samples and directions.", panel="", least=0)

    def __post_init__(self) -> None:
        check_fields(self)


def check(
    model: ModelLike | LoadedModel,
    x: Array | Mapping[str, Array] | None = None,
    target: Target = None,
    *,
    options: Options | None = None,
    running: Running | None = None,
    thoroughness: Thoroughness | None = None,
    labels: Sequence[str] | None = None,
    **changes: Any,
) -> CheckResult:
    """Check the explanation of a model on the model itself.

    Three things are compared: the outputs of the rewritten model with those of the source; the score with the sum of
    all contributions; and `<gradient, v>` with differences of the score, for directions v along and across the
    gradient. A slope passes only where its measurement is as good as what is allowed: it has an error bar for rounding
    and for curvature. Where differences do not show it, it is taken forwards through the source, operator by operator
    at the values that the source computes; where that is not possible, the difference over a segment is compared with
    the mean of `<gradient, v>` on it. What could not be measured is undecided.

    What is checked is the gradient of the score, and its certificate. They do not depend on the method of the map.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    x : numpy array or mapping of input names to arrays, optional
        Samples to check on; seeded random ones by default, uniform in 0..1 (0..255 for a uint8 input).
    target : int, str, or sequence of those, optional
        As for `Explainer`.
    options : Options, optional
        Which input, output and head, and by which engine. With ``engine="both"`` (as a keyword), fgonnx's is checked,
        and then every tensor is compared with that of ONNX Runtime's gradient builder.
    running : Running, optional
        How the model runs.
    thoroughness : Thoroughness, optional
        How many samples and directions, and what is allowed.
    labels : sequence of str, optional
        Class names for targets.
    **changes
        Fields of these three objects that differ.

    Returns
    -------
    CheckResult

    Raises
    ------
    FgonnxError
        If the model cannot be explained or the samples do not fit it.

    Examples
    --------
    >>> import fgonnx
    >>> result = fgonnx.check("examples/shapes.onnx", samples=1, directions=2)
    >>> result.passed
    True
    >>> for check in result.checks:
    ...     print(check.name, check.verdict)
    outputs unchanged passed
    completeness passed
    slope along the gradient passed
    slope in random directions passed
    """
    if "engine" in changes:
        check_choice("engine", changes["engine"], (*ENGINES, "both"))
    both = changes.get("engine") == "both"
    (effort,), changes = changed(changes, of_kind(thoroughness, Thoroughness))
    options, running = with_changes(options, running, changes | {"engine": "fgonnx"} if both else changes)
    require_contributions(options, "check")
    if x is not None:
        refuse_idle(effort, ["samples"], "samples to check on are given")
    if takes_seed(target):
        raise OptionError("check takes one entry of the head as its target, not a region, a sum or a similarity")
    refuse_idle(options, ("contrast",), "a check explains single entries")
    refuse_idle(options, ("seed", "outputs"), "a check computes what it compares")
    refuse_idle(options, ("backward",), "a check is about the gradient")
    source = bound_to(load(model), options.bind, options.input_shape)
    loaded, options = arranged(source, replace(options, bind=None))
    if x is not None and source.arrangement is None:
        x = turned(loaded, x)
    options, notes = _of_the_gradient(options)
    rng = np.random.default_rng(effort.random_state)
    explainer = Explainer(loaded, options, replace(running, verify=False), labels=labels)
    explainer.warns = False  # completeness is one of the checks
    if running.verify:  # a runtime that is wrong is not the explanation's fault
        explainer.hold_runtime()
    if x is not None:
        options = replace(options, input_shape=options.explained_shape or explainer.explained_shape(x))
        loaded = with_sizes(loaded, explainer.other_shapes(x))
    build = caches.builder(running.cache)
    # Differences are taken of the score that fgonnx's own graph computes, whichever engine is checked.
    scorer = build(loaded, replace(options.only("target", "score"), engine="fgonnx"))
    count = 1 if scorer.entangled else effort.samples
    given = _shown(loaded, random_inputs(scorer, count, effort.random_state)) if x is None else x
    feeds = batches.feeds(loaded, scorer, given)
    if by_batch(scorer):
        explainer.running = replace(explainer.running, batch_size=1)
    explanation = explainer(feeds, target)
    same = outputs_unchanged(loaded, scorer, explanation, feeds, effort.tolerance, running)
    checks = [
        held_again(same, explainer, explanation, feeds) if running.verify else same,
        unless_rounding(completeness(explanation, effort.tolerance), explainer, explanation, feeds),
    ]
    notes += scorer.normal.notes
    if steps := rounding_operators(scorer):
        notes.append(
            f"the graph holds {', '.join(steps)}: a step function has no useful slope, the straight-through one is used"
        )
    explained, channels = scorer.normal.given, (scorer.normal.axes or scorer.normal.layout).find("C")
    point = feeds[explained]
    fixed = {n: a for n, a in feeds.items() if n != explained or scorer.normal.ids is not None}
    forward = forward_of(loaded, scorer, explanation, feeds)
    if scorer.normal.ids is not None:
        point = Rows(scorer, running, loaded.folder)(feeds)
    scorer = replace(scorer, normal=free_input(scorer.normal))
    point = point.astype(dtype_of(scorer.normal.x).numpy())

    @cache
    def differentiated() -> Rewritten:
        written = replace(options, form=explainer.running.form or options.form)
        made = build(loaded, written.only("target", "score", "input_gradient"))
        # Where integers are computed from the input itself, it stays one.
        return replace(made, normal=free_input(made.normal)) if scorer.normal.input_name != explained else made

    running = replace(explainer.running, verify=running.verify)
    function = function_of(loaded, scorer, differentiated, explanation, fixed, running)
    function = replace(function, forward=forward)
    checks += _derivative(function, point, explanation, effort.directions, rng, channels if channels > 0 else None)
    if both:
        checks += _agreement(loaded, options, feeds, explanation, build)
    untested = ["where the map puts the contributions, which 'fgonnx evaluate' measures"]
    if steps:
        untested.insert(0, f"slopes across the steps of {', '.join(steps)}: they have none; roundings were held")
    return CheckResult(tuple(checks), explanation, tuple(dict.fromkeys(notes)), tuple(untested))


def _shown(loaded: LoadedModel, drawn: dict[str, Array]) -> dict[str, Array]:
    """Return inputs of which no mask of whole numbers that an attention reads hides anything, whatever its name."""
    for node in loaded.ir.graph:
        v = optional(node, _MASKS.get(node.op_type, len(node.inputs)))
        while v is not None and (maker := v.producer()) is not None and maker.op_type in _KEEP_MASKS:
            v = maker.inputs[0]
        name = "" if v is None else str(v.name)
        if name in drawn and drawn[name].dtype.kind in "iub":
            drawn[name] = np.ones_like(drawn[name])
    return drawn


def _of_the_gradient(options: Options) -> tuple[Options, list[str]]:
    """Return options that give gradient and certificate, and what is said of those that were asked for."""
    asked = methods.find(options.method)
    options = replace(options, outputs=None, expose=(), seed=False)
    if asked.drive is None:
        return replace(options, input_gradient=True), []
    return replace(options, method="fullgrad", settings=None, input_gradient=True), [
        f"{asked.name} is a mean over several runs: checked are the gradient and the certificate of one, of fullgrad"
    ]


def _agreement(
    loaded: LoadedModel,
    options: Options,
    feeds: Mapping[str, Array],
    explanation: Explanation,
    build: Callable[[LoadedModel, Options], Rewritten],
) -> list[Check]:
    checks = []
    for d in agreement.compare(loaded, options, feeds, explanation.target, build):
        detail = f"largest difference of {d.count} tensor(s)" + (f", in '{d.where}'" if d.where else "")
        verdict: Verdict = "passed" if d.value <= agreement.TOLERANCE else "failed"
        checks.append(Check(f"engines agree: {d.group}", verdict, d.value, agreement.TOLERANCE, detail))
    return checks


def _derivative(
    f: measure.Function,
    x: Array,
    explanation: Explanation,
    directions: int,
    rng: np.random.Generator,
    channels: int | None,
) -> list[Check]:
    assert explanation.input_gradient is not None
    gradient = explanation.input_gradient.astype(np.float64)
    # Random halves of the gradient: every part of it is tested, each with a strong signal.
    strong = gradient if gradient.any() else rng.standard_normal(x.shape)
    along = [strong * (rng.random(x.shape) < 0.5) for _ in range(directions)]
    across = [x.astype(np.float64), *(rng.standard_normal(x.shape) for _ in range(directions - 1))]
    tied = measure.tied_directions(x, channels, directions, rng)
    groups = (("slope along the gradient", along, _ALONG), ("slope in random directions", across, _ACROSS))
    found = ((name, slope(f, x, gradient, moves, allowed, tied)) for name, moves, allowed in groups)
    return [Check(name, s.verdict, s.value, s.tolerance, s.detail, s.decides) for name, s in found]
