"""Measures of the maps of an audit, picture by picture: those of `fgonnx evaluate` that one map has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit import evaluate
from fgonnx.errors import FgonnxError, OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.jobs.audit import evidence
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

_NOT_HERE = {
    "model": "it changes the model, which says more of the method than of one picture; fgonnx evaluate has it",
    "parts": "it needs pictures without each part; fgonnx evaluate has it",
}


def chosen(names: Sequence[str], *, masks: bool) -> tuple[evaluate.Measure, ...]:
    """Return measures by their names.

    Parameters
    ----------
    names : sequence of str
        As `fgonnx.evaluate.get` takes them.
    masks : bool
        Whether the data say where the object is.

    Raises
    ------
    OptionError
        There is no such measure, or an audit cannot take it.
    """
    found = tuple(evaluate.get(name) for name in dict.fromkeys(names))
    for measure in found:
        why = _NOT_HERE.get(measure.needs, "")
        if measure.needs == "masks" and not masks:
            why = f"it needs to know where the object is: give {parameter('objects')}"
        if why:
            raise OptionError(f"the measure '{measure.name}' cannot be taken in an audit: {why}")
    return found


def check(measures: Sequence[evaluate.Measure], layout: str) -> None:
    """Refuse measures that have no meaning for samples of a layout.

    Raises
    ------
    OptionError
        One of them has none.
    """
    for measure in measures:
        if why := measure.misfit(layout):
            raise OptionError(why)


def taken(
    measures: Sequence[evaluate.Measure],
    explainer: Explainer,
    x: Array,
    explanation: Explanation,
    numbers: Sequence[int],
    masks: Sequence[Array | None],
    black: Array | float,
    seed: int,
) -> tuple[list[dict[str, float | None]], list[str]]:
    """Measure the maps of a batch.

    Parameters
    ----------
    measures : sequence of Measure
        The measures.
    explainer : Explainer
        The method on the model.
    x : numpy array, (N, ...)
        The inputs.
    explanation : Explanation
        Their maps.
    numbers : sequence of int
        Numbers of the rows, which seed the noise.
    masks : sequence of numpy array of bool or None
        Where the objects are.
    black, seed
        As `fgonnx.evaluate.Data` has them.

    Returns
    -------
    values : list of dict
        Of every row, by measure and quantity; None where there is none.
    notes : list of str
        Why measures were not taken.
    """
    values: list[dict[str, float | None]] = [{} for _ in numbers]
    if not measures:
        return values, []
    if explanation.target is None:
        return values, ["measures: none were taken, as the target is no entry of the head"]
    notes = []
    try:
        data = evaluate.Data.of(
            explainer, x, explanation.target, numbers=numbers, black=black, seed=seed, saliency=explanation.saliency
        )
        if any(measure.needs == "masks" for measure in measures):
            none = np.zeros(data.grid, bool)
            fitted = [none if mask is None else evidence.fitted(mask, data.grid) for mask in masks]
            data = replace(data, masks=np.stack(fitted))
    except FgonnxError as error:
        return values, [f"measures: none were taken ({error})"]
    for measure in measures:
        try:
            found = measure(explainer, data).values
        except FgonnxError as error:
            notes.append(f"measures: {measure.name} was not taken ({error})")
            continue
        for quantity, of_rows in found.items():
            for row, value in zip(values, of_rows.tolist(), strict=True):
                row[f"{measure.name}.{quantity}"] = value if np.isfinite(value) else None
    return values, notes
