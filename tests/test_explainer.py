"""Arrays in, explanations out: targets, seeds, what is asked for, what is refused, and smooth-fullgrad's noise."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fgonnx import Explainer
from fgonnx.engine.graph.session import Session
from fgonnx.errors import InputError, NumericError, OptionError, ProviderError, TargetError
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(4)
CNN = small_cnn()
LABELS = ("tabby, tabby cat", "Egyptian cat", "espresso", "pelican", "missile")


@pytest.fixture(scope="module")
def explainer():
    return Explainer(CNN, labels=LABELS)


class TestTargets:
    def test_default_is_the_largest_entry_of_each(self, explainer):
        e = explainer(X)
        np.testing.assert_array_equal(e.target, e.outputs["y"].argmax(1))

    @pytest.mark.parametrize(
        ("target", "meant"),
        [
            (3, [3, 3, 3, 3]),
            (np.int64(2), [2, 2, 2, 2]),
            ([0, 1, 4, 2], [0, 1, 4, 2]),
            (np.array([4, 4, 1, 0]), [4, 4, 1, 0]),
            (np.array(1), [1, 1, 1, 1]),
            ("espresso", [2, 2, 2, 2]),
            ("Tabby_Cat", [0, 0, 0, 0]),
            ("4", [4, 4, 4, 4]),
            (["pelican", 1, "missile", "0"], [3, 1, 4, 0]),
        ],
        ids=str,
    )
    def test_can_be(self, explainer, target, meant):
        np.testing.assert_array_equal(explainer(X, target).target, meant)

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (5, "target 5 is out of range: the model has 5 entries, 0 to 4"),
            (-1, "out of range"),
            ([1, 2], "2 targets were given for 4 sample"),
            ("cat", "fits 2 classes"),
            ("zebra", "no label of this model"),
            (1.5, "not an index or a label"),
            (True, "not an index or a label"),
        ],
    )
    def test_are_refused(self, explainer, target, message):
        with pytest.raises(TargetError, match=message):
            explainer(X, target)

    def test_by_name_need_labels(self):
        with pytest.raises(TargetError, match="the model has no labels"):
            Explainer(CNN)(X, "pelican")

    def test_by_name_take_the_models_own_labels(self):
        source = small_cnn()
        onnx.helper.set_model_props(source, {"fgonnx.labels": json.dumps(LABELS)})
        assert Explainer(source)(X, "pelican").target[0] == 3

    def test_by_name_skip_a_background_class(self):
        labels = ("__background__", *LABELS)
        assert Explainer(CNN, labels=labels)(X, "pelican").target[0] == 3

    def test_by_name_do_not_take_labels_of_another_model(self):
        with pytest.raises(TargetError, match="2 labels do not fit a model with 5 classes"):
            Explainer(CNN, labels=("no", "yes"))(X, "yes")

    def test_in_a_larger_head_are_flat_indices(self):
        source = model(
            "(float[N,3,8,6] x) => (float[N,2,8,6] y) { y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }",
            weights=draw(w=(2, 3, 3, 3), b=(2,)),
        )
        e = Explainer(source)(X, int(np.ravel_multi_index((1, 4, 2), (2, 8, 6))))
        np.testing.assert_array_equal(e.score, e.outputs["y"][:, 1, 4, 2])


class TestSeeds:
    SEED = np.random.default_rng(5).standard_normal((4, 5)).astype(np.float32)

    def test_explain_their_product_with_the_head(self, explainer):
        e = explainer(X, seed=self.SEED)
        np.testing.assert_allclose(e.score, (self.SEED * e.outputs["y"]).sum(1), rtol=1e-4, atol=1e-6)

    def test_are_complete(self, explainer):
        assert explainer(X, seed=self.SEED).rounding_residual().max() < 1e-6

    def test_of_one_sample_serve_all(self, explainer):
        one, all_ = explainer(X, seed=self.SEED[0]), explainer(X, seed=np.tile(self.SEED[0], (4, 1)))
        np.testing.assert_array_equal(one.saliency, all_.saliency)

    def test_have_no_target(self, explainer):
        assert explainer(X, seed=self.SEED).target is None

    @pytest.mark.parametrize(
        ("seed", "message"),
        [(np.ones((4, 6)), r"must have the head's shape \(4, 5\), it has \(4, 6\)"), (np.full(5, np.nan), "NaN")],
    )
    def test_are_checked(self, explainer, seed, message):
        with pytest.raises(TargetError, match=message):
            explainer(X, seed=seed)

    def test_exclude_a_target(self, explainer):
        with pytest.raises(OptionError, match="a target or a seed, not both"):
            explainer(X, 1, seed=self.SEED)


class TestInputs:
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (X[0, 0], r"must have the shape \(N, 3, 8, 6\), the array has \(8, 6\)"),
            (X[:, :2], "must have the shape"),
            (X[:0], "the batch is empty"),
            ((X * 20).astype(np.uint8), "must be float32, the array is uint8"),
            (np.where(X > 2, np.nan, X), "holds NaN or infinity, first at"),
            ({"y": X}, "takes the inputs x; missing: x; unknown: y"),
        ],
        ids=["no channels", "channels", "empty", "dtype", "nan", "name"],
    )
    def test_that_do_not_fit_are_refused(self, explainer, x, message):
        with pytest.raises(InputError, match=message):
            explainer(x)

    def test_in_float64_are_taken(self, explainer):
        np.testing.assert_array_equal(explainer(X.astype(np.float64)).saliency, explainer(X).saliency)

    def test_by_name_are_taken(self, explainer):
        np.testing.assert_array_equal(explainer({"x": X}).saliency, explainer(X).saliency)

    def test_are_not_written_to(self, explainer):
        x = X.copy()
        explainer(x)
        np.testing.assert_array_equal(x, X)


class TestWhatIsAskedFor:
    def test_by_default_is_the_map_and_the_certificate(self, explainer):
        e = explainer(X)
        assert (e.input_gradient, e.bias_gradients, e.exposed) == (None, {}, {})
        assert e.contributions is not None

    def test_without_a_certificate_there_is_none(self):
        with pytest.raises(ValueError, match="holds no certificate"):
            Explainer(CNN, certificate=False)(X).relative_residual()

    def test_input_gradient(self):
        # <g_x, x> is the first contribution
        e = Explainer(CNN, input_gradient=True)(X)
        np.testing.assert_allclose((e.input_gradient * X).sum((1, 2, 3)), e.contributions[:, 0], rtol=1e-4, atol=1e-6)

    def test_bias_gradients(self):
        e = Explainer(CNN, bias_gradients=True)(X)
        assert {k: v.shape for k, v in e.bias_gradients.items()} == {"a": (4, 4, 8, 6), "d": (4, 6, 4, 3), "y": (4, 5)}

    def test_exposed_values(self):
        e = Explainer(CNN, expose=["b", "gradient:d"])(X)
        assert {k: v.shape for k, v in e.exposed.items()} == {"b": (4, 4, 8, 6), "gradient:d": (4, 6, 4, 3)}

    def test_certificate_adds_up(self, explainer):
        e = explainer(X)
        np.testing.assert_allclose(e.contributions.sum(1) + e.completeness, e.score, rtol=1e-5)

    def test_table_pairs_sites_with_contributions(self, explainer):
        e = explainer(X)
        assert [(s.name, v) for s, v in e.table(2)] == [
            (s.name, float(v)) for s, v in zip(e.sites, e.contributions[2], strict=True)
        ]

    def test_localised_share_leaves_the_dense_layer_out(self, explainer):
        weights = np.abs(explainer(X).contributions)
        expected = weights[:, :3].sum(1) / weights.sum(1)
        np.testing.assert_allclose(explainer(X).localised_share(), expected, rtol=1e-6)

    def test_length_is_the_batchs(self, explainer):
        assert len(explainer(X)) == 4

    def test_settings_say_how(self, explainer):
        settings = explainer(X).settings
        expected = {"method": "fullgrad", "profile": "full", "psi": "abs", "head": "logits", "batch": "any"}
        assert {k: settings[k] for k in expected} == expected

    def test_simple_fullgrad_claims_no_completeness(self):
        assert Explainer(CNN, method="simple-fullgrad")(X).completeness is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, OptionError, "batch_size=0 is out of range; give 1 or more"),
        ({"method": "lime"}, OptionError, "method='lime' does not exist"),
        ({"providers": ["quantum"]}, ProviderError, "'quantum' is not available"),
        ({"method": "smooth-fullgrad", "samples": 0}, OptionError, "samples=0 is out of range; give 1 or more"),
        ({"method": "smooth-fullgrad", "sigma": -0.1}, OptionError, "sigma=-0.1 is out of range; give 0 or more"),
        ({"method": "smooth-fullgrad", "input_gradient": True}, OptionError, "has no input_gradient"),
        ({"method": "smooth-fullgrad", "expose": ["b"]}, OptionError, "or exposed values"),
    ],
)
def test_options_are_checked_at_once(options, error, message):
    with pytest.raises(error, match=message):
        Explainer(CNN, **options)


class TestSmooth:
    def smooth(self, x=X, **options):
        return Explainer(CNN, method="smooth-fullgrad", **{"samples": 5, **options})(x)

    def test_is_what_the_seed_says(self):
        np.testing.assert_array_equal(self.smooth().saliency, self.smooth().saliency)

    def test_changes_with_the_seed(self):
        assert np.abs(self.smooth().saliency - self.smooth(random_state=1).saliency).max() > 1e-3

    def test_does_not_depend_on_the_batch_size(self):
        np.testing.assert_allclose(self.smooth(batch_size=2).saliency, self.smooth().saliency, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
    @pytest.mark.parametrize("profile", ["full", "reference", "paper"])
    def test_without_noise_is_fullgrad(self, profile, psi):
        found = self.smooth(sigma=0, profile=profile, psi=psi).saliency
        expected = Explainer(CNN, profile=profile, psi=psi)(X).saliency
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_of_a_flat_picture_has_no_noise(self):
        flat = np.full_like(X[:1], 0.3)
        np.testing.assert_allclose(self.smooth(flat).saliency, Explainer(CNN)(flat).saliency, rtol=1e-4, atol=1e-5)

    def test_keeps_the_target_of_the_clean_input(self):
        e = self.smooth(sigma=2.0)
        np.testing.assert_array_equal(e.target, run(CNN, {"x": X})["y"].argmax(1))

    def test_outputs_are_those_of_the_clean_input(self):
        np.testing.assert_allclose(self.smooth(sigma=2.0).outputs["y"], run(CNN, {"x": X})["y"], rtol=1e-5)

    def test_certificate_is_the_mean_of_the_noisy_ones(self):
        assert self.smooth().rounding_residual().max() < 1e-5

    def test_of_a_model_that_takes_one_sample_at_a_time(self):
        source = model(
            """(float[1,3,8,6] x) => (float[1,4] y) {
                a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
                mean = ReduceMean<keepdims=1>(a)
                centred = Sub(a, mean)
                p = GlobalMaxPool(centred)
                y = Flatten(p)
            }""",
            weights=draw(w=(4, 3, 3, 3), b=(4,)),
        )
        assert np.isfinite(Explainer(source, method="smooth-fullgrad", samples=3)(X).saliency).all()


class TestNumericTrouble:
    OVERFLOW = model(
        """(float[N,3,8,6] x) => (float[N,4] y) {
            a = Conv<kernel_shape=[3,3]>(x, w, b)
            [blast] e = Exp(a)
            p = GlobalAveragePool(e)
            y = Flatten(p)
        }""",
        weights=draw(w=(4, 3, 3, 3), b=(4,)),
    )

    def test_names_the_node_and_the_sample(self):
        x = X.copy()
        x[2] *= 1e4
        with pytest.raises(NumericError, match=r"for sample 2; the first node to produce one is 'blast' \(Exp\)"):
            Explainer(self.OVERFLOW)(x)

    def test_ordinary_inputs_pass(self):
        assert Explainer(self.OVERFLOW)(X).relative_residual().max() < 1e-5


def test_a_model_that_also_says_the_name_of_the_class_is_explained():
    names = numpy_helper.from_array(np.array(["cat", "dog", "owl"], dtype=object), "names")
    proto = model(
        """(float[N,4] x) => (string[N] label, float[N,3] y) {
            y = MatMul(x, w)
            best = ArgMax<axis=1, keepdims=0>(y)
            label = Gather(names, best)
        }""",
        weights=draw(w=(4, 3)),
    )
    proto.graph.initializer.append(names)
    explanation = Explainer(proto)(pictures(5, (4,)))
    assert explanation.outputs["label"].tolist() == [["cat", "dog", "owl"][i] for i in explanation.target]


def test_a_kept_result_does_not_keep_the_memory_of_its_session():
    # An array in onnxruntime's arena keeps all of the arena alive, even when the session is gone.
    found = Session(CNN, providers=["cpu"]).run({"x": X})["y"]
    assert found.flags.owndata
