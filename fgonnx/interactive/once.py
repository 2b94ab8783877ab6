"""From a model and a picture to an explanation, in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fgonnx.engine import methods
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.explain.targets import Contrast, Target
from fgonnx.explain.written import is_written
from fgonnx.pictures.read.preprocess import Preprocessing

if TYPE_CHECKING:
    from fgonnx.interactive.explainer import Explainer
    from fgonnx.interactive.explanation import Explanation


def explain(
    model: ModelLike | LoadedModel,
    x: Any,
    target: Target = None,
    *,
    contrast: Contrast = None,
    preprocess: str | os.PathLike[str] | Preprocessing | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    **changes: Any,
) -> Explanation:
    """Explain a model's decision on pictures, recordings or arrays.

    For many calls of one model, make an `Explainer` once.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    x : path, picture, array, tensor, mapping of input names to arrays, or several of those
        What is explained, as `Explainer.__call__` takes it.
    target, contrast : optional
        What to explain, as `Explainer.__call__` takes it: the model's own choice by default.
    preprocess, labels : optional
        How a picture becomes numbers and what the classes are called, as `Explainer` takes them: what the model's
        metadata says by default.
    **changes
        Fields of `Options` or `Running`, or settings of the method: `method="grad-cam"`, `psi="signed"`, ...

    Returns
    -------
    Explanation
        Of N samples; a notebook shows it as pictures.

    Raises
    ------
    FgonnxError
        What `Explainer` and its call raise.

    Examples
    --------
    >>> import fgonnx
    >>> e = fgonnx.explain("examples/shapes.onnx", "examples/images/star.png")
    >>> e.described
    ("3 'star', the largest",)
    >>> [path.name for path in e.save("out")]  # doctest: +SKIP
    ['star.png', 'star.npy', 'star.json']
    """
    from fgonnx.interactive.explainer import Explainer  # what draws is imported when it is needed

    loaded = load(model)
    if "scores" not in changes and not is_written(loaded) and not _driven(changes.get("method", "fullgrad")):
        changes["scores"] = True  # the five largest, in pictures and records
    made = Explainer(loaded, preprocess=preprocess, labels=labels, **changes)
    if not is_written(loaded) and (more := _for_columns(made, x, changes)):
        made = Explainer(loaded, preprocess=preprocess, labels=labels, **{**changes, **more})
    return made(x, target, contrast=contrast)


def _driven(method: Any) -> bool:
    """Tell whether a method, by its name or a function, is made of several runs."""
    return methods.find(methods.named(method)).drive is not None


def _for_columns(explainer: Explainer, x: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Return what else is asked for of a series, whose map has a lane for each channel, and of rows of a table."""
    from fgonnx.interactive.given import holds_rows
    from fgonnx.jobs import tabled

    if "input_gradient" not in changes and tabled.wants_gradient(explainer.loaded, explainer.options):
        return {"input_gradient": True}
    signed = tabled.signed(explainer.options).psi
    if "psi" not in changes and signed != explainer.options.psi and holds_rows(x, lambda: explainer.reader.tables):
        return {"psi": signed}
    return {}
