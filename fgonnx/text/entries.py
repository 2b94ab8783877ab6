"""Which entry of the head is explained of each text: the one asked for, of a token or of an answer, or the largest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import TargetError
from fgonnx.explain.explainer import Explainer
from fgonnx.text import answers, asking
from fgonnx.text.feeding import Feeder
from fgonnx.text.tokens import Tokens

Array = npt.NDArray[Any]


@dataclass
class Entries:
    """Finds the entry of the head that a target of a text means.

    Attributes
    ----------
    explainer : Explainer
        What runs the model.
    feeder : Feeder
        What makes inputs of tokens.
    name : str
        The input of ids.
    written : bool
        Whether the model is a file that fgonnx wrote.
    by_answer : bool
        Whether the head is start and end of answers, and the best answer is explained where nothing is asked.
    """

    explainer: Explainer
    feeder: Feeder
    name: str
    written: bool = False
    by_answer: bool = False

    def resolved(
        self,
        group: Sequence[Tokens],
        fed: dict[str, Array],
        targets: Sequence[Any],
        vector: Callable[[Any], Array],
    ) -> tuple[list[Any], dict[int, Any]]:
        """Return the targets of texts of one padded length, and what the model chose where padding has entries too.

        Parameters
        ----------
        group : sequence of Tokens
            The texts.
        fed : dict of str to numpy array
            Their inputs.
        targets : sequence
            One for each; None for the model's own choice.
        vector : callable
            Makes the sentence vector of a reference text.

        Returns
        -------
        list, dict of int to (target, target)
            The targets; by row, the largest entry and the next one.
        """
        length = fed[self.name].shape[1]

        def of_token(row: int) -> Callable[[int, str], Any]:
            return lambda place, name: self._of_token(place, name, group[row], fed, row)

        resolved = [
            self.answer(one, part, fed, k)
            if answers.asked(one) or (one is None and self.by_answer)
            else asking.meant(one, vector, of_token(k))
            for k, (one, part) in enumerate(zip(targets, group, strict=True))
        ]
        if all(one is not None for one in targets) or self.written or not _hides(group, length):
            return resolved, {}
        chosen = self._choices(group, fed, [k for k, one in enumerate(targets) if one is None])
        return [chosen.get(k, (one, None))[0] for k, one in enumerate(resolved)], chosen

    def choices(self, group: Sequence[Tokens], fed: dict[str, Array]) -> list[int]:
        """Return the largest entry of the head of every text, as a flat index; of no padding."""
        shape = self.head_shape(fed)
        chosen = self._choices(group, fed, range(len(group)))
        if chosen:
            return [int(np.ravel_multi_index(np.atleast_1d(chosen[k][0]), shape)) for k in range(len(group))]
        return [int(i) for i in self.explainer.head(fed).reshape(len(group), -1).argmax(axis=1)]

    def _choices(self, group: Sequence[Tokens], fed: dict[str, Array], rows: Iterable[int]) -> dict[int, Any]:
        """Return the largest entry of some texts and the next one, without the entries that padding has."""
        length = fed[self.name].shape[1]
        if (axis := self.place_axis(fed)) is None:
            return {}
        head = self.explainer.head(fed)
        found = {}
        for k in rows:
            places = self._places(group[k], length)
            first = asking.largest(head[k], axis, places)
            second = asking.largest(head[k], axis, places, first)
            found[k] = asking.position(first, head.shape[1:]), asking.position(second, head.shape[1:])
        return found

    def _places(self, part: Tokens, length: int) -> slice:
        """Return the places of a text's tokens that are no padding."""
        own = [i for i, t in enumerate(part.tokens) if not t.padding] or [0]
        start = self.feeder.start(part, length)
        return slice(start + own[0], start + own[-1] + 1)

    def place_axis(self, fed: Mapping[str, Array]) -> int | None:
        """Return the axis of the head of one text that has an entry for each token; None where there is none."""
        r = self._rewritten(fed)
        return asking.place_axis(r.head_shape, r.head_axes, fed[self.name].shape[1])

    def head_shape(self, fed: Mapping[str, Array]) -> tuple[int, ...]:
        """Return the shape of the head of one text."""
        return tuple(self._rewritten(fed).head_shape)

    def _rewritten(self, fed: Mapping[str, Array]) -> Rewritten:
        others = self.explainer.other_shapes(dict(fed))
        return self.explainer.engine(fed[self.name].shape, others=others, forward=True).rewritten

    def answer(self, target: str | None, part: Tokens, fed: dict[str, Array], row: int) -> answers.Answer:
        """Return an answer as a target, of a head with a start and an end for each token."""
        length = fed[self.name].shape[1]
        r = self._rewritten(fed)
        axis = 0 if self.by_answer else asking.place_axis(r.head_shape, r.head_axes, length)
        if axis is None or sorted(r.head_shape) != sorted((length, 2)):
            raise TargetError(
                f"target '{target}': what is explained is no start and end for each token, its shape is "
                f"{r.head_shape}; the model needs one output (N, T, 2), or two (N, T) named start and end"
            )

        def scores() -> answers.Scores:
            values = self.explainer.head(fed)[row].reshape(r.head_shape)
            return answers.Scores(values.T if axis else values, self.feeder.start(part, length), bool(axis))

        return answers.find(target, part, scores)

    def _of_token(self, place: int, name: str, part: Tokens, fed: dict[str, Array], row: int) -> Any:
        """Return the class of one token as a target: the largest where none is named."""
        length = fed[self.name].shape[1]
        r = self._rewritten(fed)
        axis = asking.place_axis(r.head_shape, r.head_axes, length)
        if axis is None or len(r.head_shape) > 2:
            raise TargetError(
                f"target 'token={place}': what is explained has no entry for each token, its shape is {r.head_shape}"
            )
        if place >= len(part):
            raise TargetError(f"target 'token={place}': the text has the tokens 0 to {len(part) - 1}")
        place += self.feeder.start(part, length)
        if len(r.head_shape) == 1:
            return place
        count = r.head_shape[1 - axis]
        if name:
            entry = asking.class_of(name, self.explainer.labels, count)
        else:
            entry = int(np.take(self.explainer.head(fed)[row], place, axis).argmax())
        return (place, entry) if axis == 0 else (entry, place)


def _hides(group: Sequence[Tokens], length: int) -> bool:
    """Tell whether there is padding in some text."""
    return any(len(part) < length or any(t.padding for t in part.tokens) for part in group)
