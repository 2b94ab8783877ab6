"""From a model and a picture to an explanation, in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fgonnx.engine import methods
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.errors import InputError
from fgonnx.explain.targets import Contrast, Target
from fgonnx.explain.written import is_written
from fgonnx.labels import load as load_labels
from fgonnx.pictures.read.preprocess import Preprocessing

if TYPE_CHECKING:
    from fgonnx.interactive.explainer import Explainer
    from fgonnx.interactive.explanation import Explanation
    from fgonnx.interactive.text import TextExplanation


@overload
def explain(
    model: ModelLike | LoadedModel,
    x: Any,
    target: Target = None,
    *,
    contrast: Contrast = None,
    text: None = None,
    preprocess: str | os.PathLike[str] | Preprocessing | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    **changes: Any,
) -> Explanation: ...


@overload
def explain(
    model: ModelLike | LoadedModel,
    x: None = None,
    target: Target = None,
    *,
    contrast: Contrast = None,
    text: Any,
    preprocess: None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    **changes: Any,
) -> TextExplanation: ...


def explain(
    model: ModelLike | LoadedModel,
    x: Any = None,
    target: Target = None,
    *,
    contrast: Contrast = None,
    text: Any = None,
    preprocess: str | os.PathLike[str] | Preprocessing | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    **changes: Any,
) -> Explanation | TextExplanation:
    """Explain a model's decision on pictures, recordings, arrays or texts.

    For many calls of one model, make an `Explainer` once.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    x : path, picture, array, tensor, mapping of input names to arrays, or several of those
        What is explained, as `Explainer.__call__` takes it.
    target, contrast : optional
        What to explain, as `Explainer.__call__` takes it: the model's own choice by default.
    text : str, tuple of two str, bytes, sequence of int, or a list of those, optional
        Texts instead of `x`, for a model of texts: with the tokenizer.json beside it, or `tokenizer="..."` ("bytes" for
        a model of bytes); pairs that belong together; or ids as they are. `long` says what becomes of texts that are
        too long.
    preprocess, labels : optional
        How a picture becomes numbers and what the classes are called, as `Explainer` takes them: what the model's
        metadata says by default.
    **changes
        Fields of `Options` or `Running`, or settings of the method: `method="grad-cam"`, `psi="signed"`, ...

    Returns
    -------
    Explanation or TextExplanation
        Of N samples; a notebook shows it as pictures, or as words shaded by what they add.

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
    if text is not None:
        return _of_texts(model, (x, text, preprocess), target, contrast, labels, changes)
    if x is None:
        raise InputError("there is nothing to explain: give a picture, an array, a recording, or text=")
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


def _of_texts(
    model: ModelLike | LoadedModel,
    given: tuple[Any, Any, Any],
    target: Target,
    contrast: Contrast,
    labels: Sequence[str] | str | os.PathLike[str] | None,
    changes: dict[str, Any],
) -> TextExplanation:
    from fgonnx.interactive.text import explain_texts

    x, text, preprocess = given
    if x is not None:
        raise InputError("give samples or text=, not both")
    if preprocess is not None:
        raise InputError("texts have no preprocessing; leave it out")
    names = load_labels(Path(labels)) if isinstance(labels, (str, os.PathLike)) else labels
    return explain_texts(model, text, target, contrast, names, dict(changes))
