"""scikit-learn: perceptrons and pipelines."""

import numpy as np
import pytest

import fgonnx
from fgonnx import converters
from fgonnx.errors import FgonnxError
from tests.frameworks import agrees, needed, noise

_, skl2onnx, joblib = needed("sklearn", "skl2onnx", "joblib")

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.linear_model import LogisticRegression, SGDClassifier  # noqa: E402
from sklearn.multiclass import OneVsRestClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

X = noise(200, 12)
CLASSES = np.array(["ant", "bee", "cat"])[X[:, :3].argmax(1)]


def pipeline():
    return make_pipeline(StandardScaler(), MLPClassifier((16, 8), max_iter=40, random_state=0)).fit(5 * X + 3, CLASSES)


@pytest.mark.parametrize(
    "build",
    [
        lambda: MLPClassifier((16,), max_iter=40, random_state=0).fit(X, CLASSES),
        lambda: MLPClassifier((8,), activation="tanh", max_iter=40, random_state=0).fit(X, X[:, 0] > 0),
        lambda: MLPRegressor(hidden_layer_sizes=(8,), max_iter=40, random_state=0).fit(X, X[:, :2]),
        pipeline,
    ],
    ids=["three classes", "two classes", "regression", "pipeline"],
)
def test_the_file_is_the_estimator(build, tmp_path):
    report = converters.convert(build(), tmp_path / "net.onnx")
    agrees(report, explained=False)
    explanation = fgonnx.Explainer(tmp_path / "net.onnx")(X[:2])
    assert explanation.rounding_residual().max() < 1e-5


def test_its_classes_are_the_labels(tmp_path):
    report = converters.convert(pipeline(), tmp_path / "net.onnx", example_input=X[:4])
    assert report.head_stripped == "Softmax"
    assert fgonnx.Explainer(tmp_path / "net.onnx").labels == ("ant", "bee", "cat")


def test_a_pickle_is_loaded_only_where_that_is_allowed(tmp_path):
    joblib.dump(pipeline(), tmp_path / "net.joblib")
    with pytest.raises(FgonnxError, match="runs whatever code it names"):
        converters.convert(tmp_path / "net.joblib", tmp_path / "net.onnx")
    assert converters.convert(tmp_path / "net.joblib", tmp_path / "net.onnx", allow_pickle=True).passed


def test_an_estimator_that_is_not_fitted_is_refused(tmp_path):
    with pytest.raises(FgonnxError, match="the MLPRegressor is not fitted"):
        converters.convert(MLPRegressor(), tmp_path / "net.onnx")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_classifier_is_explained_before_its_probabilities(classes):
    """Each feature adds its weight times its distance from the mean; the exporter's own sum of one is no head."""
    y = (X[:, :3].argmax(1) if classes == 3 else X[:, 0] > 0).astype(int)
    scaler, linear = StandardScaler(), LogisticRegression()
    fitted = make_pipeline(scaler, linear).fit(5 * X + 3, y)
    rows = (5 * X[:4] + 3).astype(np.float32)
    source = skl2onnx.to_onnx(fitted, rows[:1], options={"zipmap": False})
    e = fgonnx.Explainer(source, psi="signed", output="probabilities")(rows, 1)
    weights = linear.coef_[1 if classes == 3 else 0]
    np.testing.assert_allclose(e.saliency, (rows - scaler.mean_) / scaler.scale_ * weights, rtol=1e-3, atol=1e-4)
    scores = fitted.decision_function(rows)
    np.testing.assert_allclose(e.score, scores[:, 1] if classes == 3 else scores, rtol=1e-4, atol=1e-4)
    assert e.head_stripped == ("Softmax" if classes == 3 else "Sigmoid")


TWO = X[:, 0] > 0
LOGITS = {
    "perceptron": (lambda: MLPClassifier((8,), max_iter=40, random_state=0).fit(X, TWO), 1, "Sigmoid"),
    "gradient descent": (lambda: SGDClassifier(loss="log_loss", random_state=0).fit(X, TWO), 1, "Sigmoid"),
    "gradient descent, three": (lambda: SGDClassifier(loss="log_loss", random_state=0).fit(X, CLASSES), 2, "Sigmoid"),
    "one against the rest": (lambda: OneVsRestClassifier(LogisticRegression()).fit(X, CLASSES), 2, "Sigmoid"),
    "calibrated": (lambda: CalibratedClassifierCV(LogisticRegression(), ensemble=False).fit(X, CLASSES), 2, "Sigmoid"),
    "calibrated, mean": (lambda: CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, TWO), 1, ""),
}


@pytest.mark.parametrize("case", LOGITS)
def test_what_is_before_the_sigmoid_is_explained(case, tmp_path):
    build, entry, stripped = LOGITS[case]
    estimator = build()
    converters.convert(estimator, tmp_path / "net.onnx", example_input=X[:4])
    found = fgonnx.Explainer(tmp_path / "net.onnx")(X[:4], entry)
    assert found.head_stripped == stripped
    if hasattr(estimator, "decision_function"):  # linear, so the score is the estimator's own
        own = estimator.decision_function(X[:4])
        np.testing.assert_allclose(found.score, own if own.ndim == 1 else own[:, entry], rtol=1e-4, atol=1e-4)
