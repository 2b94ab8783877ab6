"""Measures of explanations of texts: what happens to the probability without words, how few words, how exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.registry import Measured
from fgonnx.audit.evaluate.registry import names as of_pictures
from fgonnx.engine.model.load import LoadedModel, ModelLike
from fgonnx.errors import OptionError
from fgonnx.explain.targets import Target
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found
from fgonnx.text.measures import STEPS, Removal, area, removal
from fgonnx.text.options import Texts
from fgonnx.wording import near

Float = npt.NDArray[np.float64]

_PETSIUK = "Petsiuk, Das and Saenko, RISE, BMVC 2018, section 3.3, with words instead of pixels"
_ERASER = "DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models, ACL 2020, section 5"


@dataclass
class Explained:
    """Explained texts, whose words are replaced once for all measures that ask for it.

    Attributes
    ----------
    explainer : TextExplainer
        What explained them.
    found : sequence of Found
        The explanations.
    """

    explainer: TextExplainer
    found: Sequence[Found]
    _removals: list[Removal] = field(default_factory=list, init=False)

    @property
    def removals(self) -> Sequence[Removal]:
        """How the probability changes as words are replaced by padding, for each text."""
        if not self._removals:
            self._removals = [removal(self.explainer, one) for one in self.found]
        return self._removals


@dataclass(frozen=True)
class TextMeasure:
    """A measure of explanations of texts.

    Attributes
    ----------
    name : str
        Its name.
    function : callable
        What measures.
    meaning : str
        What it measures, in one line.
    better : {"higher", "lower"}
        Which values are better.
    source : str
        Paper and section.
    axes : pair of str
        Labels of the axes of its curve.
    """

    name: str
    function: Callable[[Explained], Measured]
    meaning: str
    better: str
    source: str
    axes: tuple[str, str] = ("", "")

    def __call__(self, texts: Explained) -> Measured:
        """Measure explained texts."""
        return self.function(texts)


def _deletion(texts: Explained) -> Measured:
    return _curve([r.deletion for r in texts.removals])


def _insertion(texts: Explained) -> Measured:
    return _curve([r.insertion for r in texts.removals])


def _curve(curves: Sequence[Float]) -> Measured:
    return Measured({"auc": np.array([area(c) for c in curves])}, np.linspace(0, 1, STEPS + 1), np.array(curves))


def _comprehensiveness(texts: Explained) -> Measured:
    return Measured({"drop": np.array([r.comprehensiveness for r in texts.removals])})


def _sufficiency(texts: Explained) -> Measured:
    return Measured({"drop": np.array([r.sufficiency for r in texts.removals])})


def _sparseness(texts: Explained) -> Measured:
    return Measured({"gini": np.array([_gini([abs(v) for w, v in f.words if not w.special]) for f in texts.found])})


def _gini(values: Sequence[float]) -> float:
    """Return the Gini index of absolute values: 0 where all are equal, towards 1 where a single one is not zero."""
    rising = np.sort(np.asarray(values, np.float64))
    weights = (2 * np.arange(1, rising.size + 1) - rising.size - 1) / max(rising.size, 1)
    return float(rising @ weights / max(rising.sum(), np.finfo(np.float64).tiny))


def _completeness(texts: Explained) -> Measured:
    rows = [_residuals(f) for f in texts.found]
    return Measured({name: np.array([row[i] for row in rows]) for i, name in enumerate(("residual", "rounding"))})


def _residuals(found: Found) -> tuple[float, float]:
    """Return the residual relative to the score, and to the sum of the absolute contributions; NaN for none."""
    e = found.arrays
    if e.delta is not None:
        return float(np.abs(e.delta / e.score)[0]), np.nan
    if e.contributions is None or e.completeness is None:
        return np.nan, np.nan
    return float(e.relative_residual()[0]), float(e.rounding_residual()[0])


_REPLACED = ("share of the words replaced", "probability")

TEXT_MEASURES = {
    m.name: m
    for m in (
        TextMeasure(
            "deletion",
            _deletion,
            "Area under the probability while words are replaced by padding, those that add most first.",
            "lower",
            _PETSIUK,
            _REPLACED,
        ),
        TextMeasure(
            "insertion",
            _insertion,
            "Area under the probability while words are put into padding, those that add most first.",
            "higher",
            _PETSIUK,
            ("share of the words put back", "probability"),
        ),
        TextMeasure(
            "comprehensiveness",
            _comprehensiveness,
            "Fall of the probability without the words on top; mean over 5, 10, 20 and 50 % of the words.",
            "higher",
            _ERASER,
        ),
        TextMeasure(
            "sufficiency",
            _sufficiency,
            "Fall of the probability with the words on top alone; mean over the same shares.",
            "lower",
            _ERASER,
        ),
        TextMeasure(
            "sparseness",
            _sparseness,
            "Gini index of what words add, in absolute values: 0 where all are equal, towards 1 where one stands out.",
            "higher",
            "Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training, ICML 2020, "
            "section 3",
        ),
        TextMeasure(
            "completeness",
            _completeness,
            "Relative difference of the score and the sum of the contributions; for path methods, their convergence "
            "delta.",
            "lower",
            "Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019, "
            "proposition 2",
        ),
    )
}
"""Measures of explanations of texts, by name."""


def of_texts(names: Sequence[str] | None = None) -> list[TextMeasure]:
    """Return measures of texts by name; all by default.

    Raises
    ------
    OptionError
        One does not exist, or measures pictures alone.
    """
    found = []
    for name in dict.fromkeys(TEXT_MEASURES if names is None or tuple(names) == ("all",) else names):
        own, _, settings = name.partition(":")
        if own in TEXT_MEASURES and settings:
            raise OptionError(f"the measure '{own}' of texts takes no settings; leave ':{settings}' out")
        if own not in TEXT_MEASURES:
            why = (
                "moves, fills or looks at pixels, or changes weights; it is not defined for words here"
                if own in of_pictures()
                else f"does not exist{near(own, list(TEXT_MEASURES))}"
            )
            raise OptionError(f"the measure '{own}' {why}; of texts, there are {', '.join(TEXT_MEASURES)}")
        found.append(TEXT_MEASURES[own])
    return found


def text_measures(
    model: ModelLike | LoadedModel | TextExplainer,
    texts: Any,
    target: Target = None,
    measures: Sequence[str] | None = None,
    **how: Any,
) -> dict[str, Measured]:
    """Measure whether the words that an explanation puts on top decide.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model, LoadedModel or TextExplainer
        The model, or what explains it.
    texts : str or sequence
        Texts, as `fgonnx.explain` takes them.
    target : optional
        What is explained; by default the model's own choice of each.
    measures : sequence of str, optional
        Names of measures; all by default.
    **how
        Of a model, options as `fgonnx.explain` takes them for texts: `method`, `tokenizer`, `labels`, ...

    Returns
    -------
    dict of str to Measured
        By measure; one value for each text.

    Raises
    ------
    OptionError
        A measure is not for texts, or what is explained is not a single class.

    Examples
    --------
    >>> from fgonnx import evaluate
    >>> found = evaluate.text_measures("sentiment.onnx", ["a lovely film"], method="occlusion")  # doctest: +SKIP
    >>> found["comprehensiveness"].values["drop"].round(2)  # doctest: +SKIP
    array([0.81])
    """
    chosen = of_texts(measures)
    if not isinstance(model, TextExplainer):
        own = {f.name: how.pop(f.name) for f in fields(Texts) if f.name in how}
        model = TextExplainer(model, texts=Texts(**own), labels=how.pop("labels", None), changes=how)
    elif how:
        raise OptionError(f"{', '.join(how)}: what is given explains with options of its own; leave these out")
    explained = Explained(model, model(texts, target))
    return {m.name: m(explained) for m in chosen}
