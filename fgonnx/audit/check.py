"""Checks on one model: its outputs are unchanged, its explanation is complete, its gradient is the derivative.

Completeness cannot see a wrong derivative and finite differences cannot see a forgotten intercept, so both are done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fgonnx.audit import agreement
from fgonnx.engine.graph import probe
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.bind import with_sizes
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.normal.cut import free_input
from fgonnx.engine.rewrite import cache as caches
from fgonnx.engine.rewrite.arranged import arranged, turned
from fgonnx.engine.rewrite.options import Options, require_contributions, with_changes
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import OptionError
from fgonnx.explain import batches
from fgonnx.explain.choice import takes_seed
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.targets import Target
from fgonnx.fields import changed, check_fields, documented, of_kind, option, refuse_idle

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Verdict = Literal["passed", "failed", "undecided"]

# Steps of the finite differences, in units of the input's root mean square. Kinks want them small, rounding large.
_STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
# Along the gradient the signal is strong; across it the score hardly moves and single precision drowns the slope.
_ALONG, _ACROSS = 1e-2, 5e-2
_UNITS = 8  # units in the last place of the score: a change that small is known to an eighth at best
_SMALL_SCORE, _TOLERANCE = 1e-2, 1e-4
_QUANTISERS = ("QuantizeLinear", "DynamicQuantizeLinear", "Round", "Floor", "Ceil")


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    name : str
        What was compared.
    verdict : {"passed", "failed", "undecided"}
        Undecided if the measurement itself is too uncertain.
    value, tolerance : float
        The worst sample's error and the allowed one.
    detail : str
        How it was measured.
    """

    name: str
    verdict: Verdict
    value: float
    tolerance: float
    detail: str


@dataclass(frozen=True)
class CheckResult:
    """All checks of one model.

    Attributes
    ----------
    checks : tuple of Check
        In the order in which they were run.
    explanation : Explanation
        The explanation of the samples.
    notes : tuple of str
        Changes to the model, and limits of the checks.
    """

    checks: tuple[Check, ...]
    explanation: Explanation
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(c.verdict != "failed" for c in self.checks)


@documented
@dataclass(frozen=True, kw_only=True)
class Thoroughness:
    """Number of samples and directions of `check`, and its tolerance."""

    samples: int = option(2, "Random samples, where no pictures are given.", panel="", least=1)
    directions: int = option(8, "Directions of each kind for the slopes.", panel="", least=1)
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
    all contributions; and `<gradient, v>` with central differences of the score, for directions v along and across
    the gradient. The step of the differences is where two successive steps agree best, chosen without a look at the
    gradient: choosing the best match instead would let a gradient pass that is too small by a tenth.

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
    both = changes.get("engine") == "both"
    (effort,), changes = changed(changes, of_kind(thoroughness, Thoroughness))
    options, running = with_changes(options, running, changes | {"engine": "fgonnx"} if both else changes)
    require_contributions(options, "check")
    if x is not None:
        refuse_idle(effort, ["samples"], "samples to check on are given")
    if takes_seed(target):
        raise OptionError("check takes one entry of the head as its target, not a region, a sum or a similarity")
    refuse_idle(options, ("contrast",), "a check explains single entries")
    refuse_idle(options, ("backward",), "a check is about the gradient")
    source = bound_to(load(model), options.bind)
    loaded, options = arranged(source, replace(options, bind=None))
    if x is not None and source.arrangement is None:
        x = turned(loaded, x)
    rng = np.random.default_rng(effort.random_state)
    explainer = Explainer(loaded, replace(options, input_gradient=True), running, labels=labels)
    if isinstance(x, Mapping):
        loaded = with_sizes(loaded, explainer.other_shapes(x))
    elif x is not None:
        options = replace(options, input_shape=options.input_shape or tuple(np.shape(x)))
    options = options.only("target", "score")
    build = caches.builder(running.cache)
    # Differences are taken of the score that fgonnx's own graph computes, whichever engine is checked.
    scorer = build(loaded, replace(options, engine="fgonnx"))
    given = random_inputs(scorer, 1 if scorer.entangled else effort.samples, effort.random_state) if x is None else x
    feeds = batches.feeds(loaded.name, scorer, given)
    explanation = explainer(feeds, target)
    checks = [
        _outputs(loaded, scorer, explanation, feeds, effort.tolerance, running),
        _completeness(explanation, effort.tolerance),
    ]
    others = {n: a for n, a in feeds.items() if n != scorer.normal.input_name}
    point = feeds[scorer.normal.input_name]
    scorer = replace(scorer, normal=free_input(scorer.normal))
    score = _score(loaded, scorer, explanation, others, running)
    point = point.astype(dtype_of(scorer.normal.x).numpy())
    checks += _derivative(score, point, explanation, effort.directions, rng)
    notes = list(scorer.normal.notes)
    steps = sorted({n.op_type for n in scorer.model.graph if n.op_type in _QUANTISERS})
    if steps:
        notes.append(
            f"the graph holds {', '.join(steps)}: a step function has no useful slope, the straight-through one is used"
        )
        checks = [replace(c, verdict="undecided") if c.verdict == "failed" and "slope" in c.name else c for c in checks]
    if both:
        checks += _agreement(loaded, options, feeds, explanation, build)
    return CheckResult(tuple(checks), explanation, tuple(notes))


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


def random_inputs(r: Rewritten, samples: int, random_state: int = 0) -> dict[str, Array]:
    """Return seeded random samples for all inputs of a rewritten model."""
    graph = r.model.graph
    x = next(v for v in graph.inputs if v.name == r.normal.input_name)
    return probe.random_feeds(graph, x, r.normal.input_shape, samples, random_state)


def _outputs(
    loaded: LoadedModel,
    r: Rewritten,
    explanation: Explanation,
    feeds: Mapping[str, Array],
    tolerance: float | None,
    running: Running,
) -> Check:
    """Compare the outputs with those of the source, run untouched, one sample at a time."""
    floats = [a.dtype for a in explanation.outputs.values() if a.dtype.kind == "f"]
    allowed = tolerance if tolerance is not None else max(map(_usual, floats), default=_TOLERANCE)

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
    verdict: Verdict = "passed" if found <= allowed else "failed"
    return Check("outputs unchanged", verdict, found, allowed, detail + (f"; worst: '{where}'" if where else ""))


def _largest_difference(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> tuple[float, str]:
    """Return the largest difference, relative to the largest of theirs, and the output it is in ("" for none)."""
    worst, where = 0.0, ""
    for output, array in ours.items():
        a = array.astype(np.float64).reshape(-1)
        b = theirs[output].astype(np.float64).reshape(-1)
        error = float(np.abs(a - b).max(initial=0) / max(float(np.abs(b).max(initial=0)), 1e-30))
        if error > worst:
            worst, where = error, output
    return worst, where


def _completeness(explanation: Explanation, tolerance: float | None) -> Check:
    """Compare the residual with the score, or with the sum of absolute contributions where the score is small."""
    relative, rounding = explanation.relative_residual(), explanation.rounding_residual()
    allowed = tolerance if tolerance is not None else _usual(explanation.score.dtype)
    # |score| / sum |contributions|
    share = np.divide(rounding, relative, out=np.ones_like(rounding), where=relative > 0)
    small = share < _SMALL_SCORE
    errors = np.where(small, 10 * rounding, relative)
    worst = int(errors.argmax())
    detail = "|score - sum of contributions| / |score|"
    value = float(relative[worst])
    if small[worst]:
        detail = "|score - sum| / sum of |contributions|, as the score is below 1 % of that sum"
        value, allowed = float(rounding[worst]), allowed / 10
    return Check("completeness", "passed" if value <= allowed else "failed", value, allowed, detail)


def _usual(dtype: np.dtype[Any]) -> float:
    """Return the allowed relative error of sums in a type."""
    return max(_TOLERANCE, 32 * float(np.finfo(dtype).eps))


def _score(
    loaded: LoadedModel,
    scorer: Rewritten,
    explanation: Explanation,
    feeds: Mapping[str, Array],
    running: Running,
) -> Callable[[Array], Floats]:
    """Return the score as a function of the explained input, other inputs and targets fixed: (N, ...) to (N,)."""
    session = running.session(scorer.model, loaded.folder)
    assert explanation.target is not None
    fixed = {**feeds, scorer.selector: np.asarray(explanation.target, np.int64)}
    name = scorer.names["score"]

    def score(x: Array) -> Floats:
        fed = {**fixed, scorer.normal.input_name: x}
        return batches.run(scorer, session, fed, len(x), [name])[name].astype(np.float64)

    return score


def _derivative(
    score: Callable[[Array], Floats], x: Array, explanation: Explanation, directions: int, rng: np.random.Generator
) -> list[Check]:
    assert explanation.input_gradient is not None
    gradient = explanation.input_gradient.astype(np.float64)
    clean = x.astype(np.float64)
    scale = np.sqrt(_mean(clean**2)) + 1e-12
    unit = _last_place(explanation)
    # Random halves of the gradient: every part of it is tested, each with a strong signal.
    strong = gradient if gradient.any() else rng.standard_normal(x.shape)
    along = [strong * (rng.random(x.shape) < 0.5) for _ in range(directions)]
    across = [clean, *(rng.standard_normal(x.shape) for _ in range(directions - 1))]
    return [
        _slopes("slope along the gradient", score, x, gradient, scale, along, unit, _ALONG),
        _slopes("slope in random directions", score, x, gradient, scale, across, unit, _ACROSS),
    ]


def _slopes(
    name: str,
    score: Callable[[Array], Floats],
    x: Array,
    gradient: Floats,
    scale: Floats,
    directions: Sequence[Floats],
    unit: Floats,
    tolerance: float,
) -> Check:
    """Compare slopes of the score with those the gradient promises, all directions together.

    Steps are left out at which the score neither moves nor should move by some units in its last place: there rounding
    is measured, and two steps that measure no difference at all would agree best.
    """
    predicted, central, nearest = _differences(score, x, gradient, scale, directions)
    # The larger of predicted and measured slope: a zero gradient predicts nothing.
    size = np.sqrt(np.maximum(predicted**2, (predicted + central) ** 2).mean(1)) + 1e-300
    visible = 2 * np.array(_STEPS)[:, None] * size >= _UNITS * unit
    visible |= ~(predicted.any((0, 1)) | central.any((0, 1)))  # no slope predicted, and none found at any step
    uncertain = np.sqrt(((central[1:] - central[:-1]) ** 2).mean(1)) / size[1:]
    uncertain[~(visible[1:] & visible[:-1])] = np.inf
    steady = uncertain.argmin(0)
    rows = np.arange(len(x))
    doubt = uncertain[steady, rows]
    errors = np.sqrt((nearest**2).mean(1)) / size
    error = np.minimum(errors[steady, rows], errors[steady + 1, rows])
    measured = doubt < 1
    worst = int((np.where(measured, error, -1.0) if measured.any() else error).argmax())
    value = float(error[worst])
    if not measured[worst]:
        detail = (
            f"{len(directions)} directions; no two steps agree at which the score moves by {_UNITS} units in its last "
            "place or more"
        )
        return Check(name, "undecided", value, tolerance, detail)
    verdict: Verdict = "passed" if value <= tolerance else "undecided" if value <= 5 * doubt[worst] else "failed"
    detail = (
        f"{len(directions)} directions, step {_STEPS[int(steady[worst]) + 1]:.0e} of the input's size; "
        f"the measurement itself is good to {doubt[worst]:.1e}"
    )
    if not measured.all():
        verdict = "undecided" if verdict == "passed" else verdict
        detail += f"; {int((~measured).sum())} sample(s) could not be measured"
    return Check(name, verdict, value, tolerance, detail)


def _differences(
    score: Callable[[Array], Floats], x: Array, gradient: Floats, scale: Floats, directions: Sequence[Floats]
) -> tuple[Floats, Floats, Floats]:
    """Return slopes, (steps, directions, N): predicted ones; the errors of central, and of the nearest, differences."""
    shape = (len(_STEPS), len(directions), len(x))
    predicted, central, nearest = np.empty(shape), np.empty(shape), np.empty(shape)
    here = score(x)
    for k, direction in enumerate(directions):
        v = direction / (np.sqrt(_mean(direction**2)) + 1e-300)
        for j, step in enumerate(_STEPS):
            ahead, behind = (batches.typed(x + sign * step * scale * v, x.dtype) for sign in (1, -1))
            up, down = score(ahead) - here, here - score(behind)
            # The actual steps, after rounding to the input's type.
            up_predicted, down_predicted = _dot(ahead, x, gradient), _dot(x, behind, gradient)
            predicted[j, k] = (up_predicted + down_predicted) / (2 * step)
            central[j, k] = (up + down) / (2 * step) - predicted[j, k]
            # At a kink the gradient is one-sided: one side has to agree.
            sides = np.stack([central[j, k], (up - up_predicted) / step, (down - down_predicted) / step])
            nearest[j, k] = np.take_along_axis(sides, np.abs(sides).argmin(0)[None], 0)[0]
    return predicted, central, nearest


def _last_place(explanation: Explanation) -> Floats:
    """Return one ulp of every score, (N,), in the coarsest type that it may come from."""
    types = [a.dtype for a in (explanation.score, *explanation.outputs.values()) if a.dtype.kind == "f"]
    coarsest = max(types, key=lambda t: float(np.finfo(t).eps))
    return np.spacing(np.abs(explanation.score).astype(coarsest)).astype(np.float64)


def _dot(after: Array, before: Array, gradient: Floats) -> Floats:
    """Return `<gradient, after - before>` of every sample."""
    products = (after.astype(np.float64) - before.astype(np.float64)) * gradient
    return np.asarray(products.reshape(len(products), -1).sum(axis=1))


def _mean(values: Floats) -> Floats:
    """Return the mean of every sample, keeping axes."""
    mean: Floats = values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
    return mean
