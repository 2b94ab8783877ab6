"""compare(a, b, text=...): do two models of texts look at the same words?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.comparison import measures
from fgonnx.audit.comparison.alignment import Point
from fgonnx.audit.comparison.comparer import MEASURES, Comparer, Comparison, parted
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.rewrite.options import Options, with_changes
from fgonnx.errors import InputError, ModelError, OptionError
from fgonnx.explain.targets import Target
from fgonnx.text import asking
from fgonnx.text.explainer import TextExplainer, one_or_all
from fgonnx.text.found import Found, row_of
from fgonnx.text.ids import given_texts
from fgonnx.text.options import Texts
from fgonnx.text.tokens import Tokens

Float = npt.NDArray[np.float64]

_TOP = 0.2  # of the words
TEXT_MEASURES = {
    **{name: MEASURES[name] for name in ("top1", "score_difference")},
    "rank_correlation": "Spearman's rank correlation of what the words add, -1..1",
    "correlation": "Pearson's correlation of what the words add, -1..1",
    "overlap": "share of the strongest fifth of the words, at least one, that they have in common",
    "pointing": "1 where the same word adds most, else 0",
    **{name: MEASURES[name] for name in ("quantisation_a", "quantisation_b", "layer_error")},
}
"""What is measured for every text, and what the number means."""


@dataclass(frozen=True)
class ComparedText:
    """Two models on one text.

    Attributes
    ----------
    a, b : Found
        Both explanations, of the same target.
    choice_a, choice_b : int
        The largest entry of either head; where there is an entry for each token, of no padding.
    measures : dict of str to float
        See `TEXT_MEASURES`.
    whole : Comparison
        The comparison of the texts that ran together.
    row : int
        Which of them this is.
    """

    a: Found
    b: Found
    choice_a: int
    choice_b: int
    measures: Mapping[str, float]
    whole: Comparison
    row: int


class TextComparison(Sequence[ComparedText]):
    """Two models on texts, in their order; of a text in windows, one for each of them."""

    def __init__(self, found: Sequence[ComparedText]) -> None:
        self._found = tuple(found)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Any:
        return TextComparison(self._found[index]) if isinstance(index, slice) else self._found[index]

    def __iter__(self) -> Iterator[ComparedText]:
        return iter(self._found)

    @property
    def measures(self) -> dict[str, Float]:
        """What is measured, (N,); see `TEXT_MEASURES`."""
        return {name: np.array([one.measures[name] for one in self]) for name in TEXT_MEASURES}

    def parted(self) -> list[tuple[Point, float]]:
        """Return the points at which B diverges from A, with the mean error added there, the largest first."""
        points = self[0].whole.points
        rows = [one.whole.added[one.row] for one in self if one.whole.points == points]
        return parted(points, np.mean(rows, axis=0))


class TextComparer:
    """Two models of ids, ready to be compared on texts.

    Parameters
    ----------
    a, b : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model that was approved, and the one that is deployed.
    options, b_options : Options, optional
        What is explained and how, and the same for B where it differs.
    running : Running, optional
        How both run.
    texts : Texts, optional
        How texts become ids: by the tokenizer beside A, or that beside B.
    labels : sequence of str, optional
        Class names.
    given : collection of str, optional
        Fields of the options that were asked for, as for `TextExplainer`.

    Raises
    ------
    ModelError
        One takes no ids, or they take texts of different lengths alone.
    """

    def __init__(
        self,
        a: ModelLike | LoadedModel,
        b: ModelLike | LoadedModel,
        options: Options | None = None,
        b_options: Options | None = None,
        *,
        running: Running | None = None,
        texts: Texts | None = None,
        labels: Sequence[str] | None = None,
        given: Collection[str] | None = None,
    ) -> None:
        texts = texts or Texts()
        self.a = TextExplainer(a, options, running, texts, labels, given=given)
        own = texts if self.a.tokenizer is None else replace(texts, tokenizer=self.a.tokenizer.name)
        self.b = TextExplainer(b, options if b_options is None else b_options, running, own, labels, given=given)
        if self.a.tokenizer is None and self.b.tokenizer is not None:
            own = replace(texts, tokenizer=self.b.tokenizer.name)
            self.a = TextExplainer(a, options, running, own, labels, given=given)
        fixed = {n for side in (self.a, self.b) if (n := side.feeder.fixed) is not None}
        if len(fixed) > 1:
            raise ModelError(
                f"{self.a.loaded.name} takes {self.a.feeder.fixed} tokens and {self.b.loaded.name} "
                f"{self.b.feeder.fixed}: what padding adds differs; export both at one length, or at any"
            )
        self._fixed = next(iter(fixed), None)
        known = [n for side in (self.a, self.b) if (n := side.most) is not None]
        for side in (self.a, self.b):
            side.texts = replace(side.texts, tokens=min(known) if known else None)
            side.feeder.most = side.most
        self.comparer = Comparer(
            self.a.loaded,
            self.b.loaded,
            self.a.explainer.options,
            b_options=self.b.explainer.options,
            running=running,
            labels=labels,
        )

    def cut(self, text: Any, where: str) -> list[Tokens]:
        """Return a text as both models take it; `where` names it in messages."""
        return self.a.cut(text, where)

    def __call__(self, parts: Sequence[Tokens], target: Target = None) -> list[ComparedText]:
        """Compare on texts that are cut."""
        targets = asking.for_each(target, range(len(parts)), len(parts), "target")
        results: dict[int, ComparedText] = {}
        for length, rows in self._groups(parts):
            group = [parts[i] for i in rows]
            for i, one in zip(rows, self._compared(group, length, [targets[i] for i in rows]), strict=True):
                results[i] = one
        return [results[i] for i in range(len(parts))]

    def _groups(self, parts: Sequence[Tokens]) -> Iterator[tuple[int, list[int]]]:
        by_length: dict[int, list[int]] = {}
        for i, part in enumerate(parts):
            by_length.setdefault(self._length(part), []).append(i)
        step = self.a.explainer.running.batch_size
        for length, rows in by_length.items():
            for start in range(0, len(rows), step):
                yield length, rows[start : start + step]

    def _length(self, part: Tokens) -> int:
        if self._fixed is not None:
            return self._fixed
        return min(self.a.feeder.length(part), self.b.feeder.length(part))

    def _compared(self, group: Sequence[Tokens], length: int, targets: Sequence[Any]) -> Iterator[ComparedText]:
        fed = [side.feeder.arrays(group, length) for side in (self.a, self.b)]
        target, _ = self.a.resolved(group, fed[0], targets)
        whole = self.comparer.of_samples_first(fed[0], fed[1], one_or_all(target))
        choices = [side.entries.choices(group, f) for side, f in zip((self.a, self.b), fed, strict=True)]
        for k, part in enumerate(group):
            found = []
            for side, e in ((self.a, whole.a), (self.b, whole.b)):
                if e.saliency.shape[1:] != (length,):
                    raise ModelError(
                        f"{side.loaded.name}: its map has the shape {e.saliency.shape}, and not one value a token"
                    )
                start = side.feeder.start(part, length)
                found.append(Found(part, e.saliency[k, start : start + len(part)], row_of(e, k), (), start))
            made = {name: float(values[k]) for name, values in whole.measures.items() if name in TEXT_MEASURES}
            made |= {"top1": float(choices[0][k] == choices[1][k]), **of_words(found[0], found[1])}
            ordered = {name: made[name] for name in TEXT_MEASURES}
            yield ComparedText(found[0], found[1], choices[0][k], choices[1][k], ordered, whole, k)


def of_words(a: Found, b: Found) -> dict[str, float]:
    """Return how alike two explanations of a text are, by its words without special tokens."""
    first, second = (np.array([v for w, v in f.words if not w.special] or [0.0]) for f in (a, b))
    return {
        "rank_correlation": measures.rank_correlation(first, second),
        "correlation": measures.correlation(first, second),
        "overlap": measures.overlap(first, second, _TOP),
        "pointing": float(first.argmax() == second.argmax()),
    }


def compare_texts(
    a: ModelLike | LoadedModel, b: ModelLike | LoadedModel, text: Any, target: Target = None, **how: Any
) -> TextComparison:
    """Compare two models on texts; see `fgonnx.compare`."""
    if how.pop("x_b", None) is not None:
        raise OptionError("both models take the same texts; leave x_b out")
    own = {f.name: how.pop(f.name) for f in fields(Texts) if f.name in how}
    options, b_options, running = how.pop("options", None), how.pop("b_options", None), how.pop("running", None)
    labels = how.pop("labels", None)
    given = {"psi", "backward"} if options is not None else {*how}
    options, running = with_changes(options, running, how)
    loaded = load(a), load(b)
    comparer = TextComparer(
        *loaded, options, b_options, running=running, texts=Texts(**own), labels=labels, given=given
    )
    read = given_texts(text)
    if not len(read):
        raise InputError("there is no text; give at least one")
    cut = [comparer.cut(one, f"text {i + 1}") for i, one in enumerate(read)]
    owners = [i for i, parts in enumerate(cut) for _ in parts]
    targets = asking.for_each(target, owners, len(read), "target")
    return TextComparison(comparer([part for parts in cut for part in parts], targets))
