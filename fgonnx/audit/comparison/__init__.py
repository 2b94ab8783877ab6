"""compare(a, b, x): do two models that should be equivalent look at the same thing, and if not, where do they part?"""

from __future__ import annotations

from typing import Any, overload

from fgonnx.audit.comparison.comparer import (
    MEASURES,
    NOTICEABLE,
    SMALLER_IS_BETTER,
    Comparer,
    Comparison,
    Given,
    check_scales,
    parted,
)
from fgonnx.audit.comparison.texts import TextComparison, compare_texts
from fgonnx.engine.model.load import LoadedModel, ModelLike
from fgonnx.errors import InputError

__all__ = [
    "MEASURES",
    "NOTICEABLE",
    "SMALLER_IS_BETTER",
    "Comparer",
    "Comparison",
    "check_scales",
    "compare",
    "parted",
]


@overload
def compare(
    a: ModelLike | LoadedModel,
    b: ModelLike | LoadedModel,
    x: Given,
    x_b: Given | None = None,
    target: Any = None,
    *,
    text: None = None,
    **how: Any,
) -> Comparison: ...


@overload
def compare(
    a: ModelLike | LoadedModel,
    b: ModelLike | LoadedModel,
    x: None = None,
    x_b: None = None,
    target: Any = None,
    *,
    text: Any,
    **how: Any,
) -> TextComparison: ...


def compare(
    a: ModelLike | LoadedModel,
    b: ModelLike | LoadedModel,
    x: Given | None = None,
    x_b: Given | None = None,
    target: Any = None,
    *,
    text: Any = None,
    **how: Any,
) -> Comparison | TextComparison:
    """Compare two models on a batch: decisions, scores, maps, and the layers where they diverge.

    Parameters
    ----------
    a : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model that was approved.
    b : the same
        The one that is deployed.
    x : numpy array, or mapping of input names to arrays, optional
        The samples as A takes them.
    x_b : the same, optional
        The same samples for B, if it takes other inputs.
    target : optional
        What to explain in both, as for `fgonnx.Explainer`; by default A's prediction.
    text : str, tuple of two str, bytes, sequence of int, or a list of those, optional
        Texts instead of `x`, for models of texts, as `fgonnx.explain` takes them.
    **how
        Options, as for `Comparer`; with texts also those of texts, such as `tokenizer`.

    Returns
    -------
    Comparison, or TextComparison of texts

    Raises
    ------
    ModelError, InputError, NumericError
        If a model cannot be explained, the heads have different numbers of entries, or a scale is no scale.

    Examples
    --------
    >>> import numpy as np
    >>> import fgonnx
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> found = fgonnx.compare("examples/shapes.onnx", "examples/shapes.onnx", x)
    >>> found.measures["rank_correlation"].round(6)
    array([1., 1.])
    >>> found.parted()
    []
    >>> fgonnx.compare("float.onnx", "int8.onnx", text="a lovely film").measures["pointing"]  # doctest: +SKIP
    array([1.])
    """
    if text is not None:
        if x is not None:
            raise InputError("give samples or text=, not both")
        return compare_texts(a, b, text, target, x_b=x_b, **how)
    if x is None:
        raise InputError("there is nothing to compare on: give samples, or text= for models of texts")
    return Comparer(a, b, **how)(x, x_b, target)
