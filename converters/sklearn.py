"""From scikit-learn: multi-layer perceptrons and pipelines that end in one, through skl2onnx."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from fgonnx.errors import InputError, ModelError

from .finish import finish
from .network import Array, Inputs, Network, as_inputs, example_of, exporting, needs, reason, refused_code
from .options import Conversion, ConversionOptions
from .report import ConversionReport

with needs("sklearn", "scikit-learn with skl2onnx"):
    import joblib
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import BaseEstimator, is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

OPSET = 18


def convert(
    model: Any,
    path: str | Path,
    *,
    example_input: Any = None,
    allow_pickle: bool = False,
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a fitted scikit-learn estimator and prove the result.

    Parameters
    ----------
    model : estimator or path
        Fitted; or a joblib or pickle file (`allow_pickle`).
    path : path-like
        The .onnx file to write.
    example_input : array, (N, features)
        Seeded random numbers by default.
    allow_pickle : bool
        Whether a file may be loaded. That runs whatever code it names.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport
        A classifier's outputs are its probabilities, labelled with its own classes where no labels are given. There
        is no autograd to compare gradients with.

    Raises
    ------
    FgonnxError
        If the source is a pickle and that is not allowed, is not fitted, or cannot be exported.
    """
    conversion = Conversion(**options)
    if isinstance(model, str | Path):
        model = load(Path(model), allow_pickle=allow_pickle)
    if not isinstance(model, BaseEstimator):
        raise InputError(f"a scikit-learn estimator is needed, not {type(model).__name__}")
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ModelError(f"the {type(model).__name__} is not fitted: call fit before it is converted") from error
    features = int(model.n_features_in_)
    example = as_inputs(example_input) if example_input is not None else (example_of((None, features)),)
    if len(example) != 1 or example[0].ndim != 2 or example[0].shape[1] != features:
        raise InputError(f"the {type(model).__name__} takes (N, {features}), the example has {example[0].shape}")
    classifier = is_classifier(model)
    with exporting("skl2onnx"):
        proto = skl2onnx.convert_sklearn(
            model,
            initial_types=[("input", FloatTensorType([None, features]))],
            target_opset=conversion.opset or OPSET,
            options={id(model): {"zipmap": False}} if classifier else None,
            black_op={"Scaler"},  # of the ML domain, where subtracting and dividing would do
        )
    notes = []
    if classifier:
        del proto.graph.output[0]
        notes.append("the label is left out: it is the name (labels) of the largest probability")
    if conversion.labels is None and classifier:
        conversion = replace(conversion, labels=[str(c) for c in model.classes_])
    network = Network(
        "sklearn",
        type(model).__name__,
        "skl2onnx",
        _runner(model, classifier),
        None,
        packages=("scikit-learn", "skl2onnx"),
        notes=tuple(notes),
    )
    return finish(proto, network, path, example, conversion)


def load(path: Path, *, allow_pickle: bool = False) -> Any:
    """Load a joblib or pickle file, where that is allowed.

    Raises
    ------
    ModelError
        If it is not, or the file cannot be read.
    """
    if not allow_pickle:
        raise ModelError(refused_code(path))
    try:
        return joblib.load(path)
    except Exception as error:  # what unpickling raises depends on the file
        raise ModelError(f"'{path}' cannot be loaded by joblib: {reason(error)}") from error


def _runner(model: Any, classifier: bool) -> Callable[[Inputs], list[Array]]:
    def run(inputs: Inputs) -> list[Array]:
        found = model.predict_proba(inputs[0]) if classifier else model.predict(inputs[0])
        return [np.asarray(found, np.float32).reshape(len(inputs[0]), -1)]

    return run
