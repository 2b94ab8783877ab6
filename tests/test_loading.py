"""What can be explained: models from anywhere, weights beside them, every opset, batch, size, layout, element type."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.model.external import external_tensors
from fgonnx.engine.model.load import load
from fgonnx.errors import InputError, ModelError, NumericError, OptionError
from tests import skips
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(3)
CNN = small_cnn()
SALIENCY = Explainer(CNN)(X).saliency


def saved(folder, proto=CNN):
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return path


def saved_with_external_weights(folder, proto=CNN, location="weights.bin"):
    path = folder / "model.onnx"
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    onnx.save(twin, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


@pytest.mark.parametrize(
    "give",
    [
        saved,
        lambda folder: str(saved(folder)),
        lambda folder: saved(folder).read_bytes(),
        lambda folder: CNN,
        lambda folder: ir.from_proto(CNN),
        lambda folder: load(CNN),
        saved_with_external_weights,
    ],
    ids=["path", "str", "bytes", "ModelProto", "ir.Model", "LoadedModel", "external weights"],
)
def test_a_model_is_taken_as(give, tmp_path):
    np.testing.assert_allclose(Explainer(give(tmp_path))(X).saliency, SALIENCY, rtol=1e-6)


class TestBadFiles:
    def refused(self, given, message):
        with pytest.raises(ModelError, match=message):
            load(given)

    def test_missing(self, tmp_path):
        self.refused(tmp_path / "none.onnx", "no such file")

    def test_folder(self, tmp_path):
        self.refused(tmp_path, "is a folder; give the .onnx file in it")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"\xff\xd8\xff\xe0 a picture", "not an ONNX"),
            (CNN.SerializeToString()[:2000], "truncated"),
            (onnx.ModelProto().SerializeToString() + b"\x08\x08", "holds no graph with outputs"),
        ],
        ids=["empty", "picture", "truncated", "no graph"],
    )
    def test_content(self, tmp_path, content, message):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        self.refused(path, message)

    def test_bytes(self):
        self.refused(b"not a model", "the bytes given")

    def test_no_nodes(self):
        self.refused(model("(float[N,3] x) => (float[N,3] x) {}"), "no nodes")

    def test_old_opset(self):
        self.refused(model("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }", opset=6), "opset 6 is older than 7")


class TestExternalWeights:
    def test_stay_on_disk(self, tmp_path):
        assert len(external_tensors(load(saved_with_external_weights(tmp_path)).ir)) == len(CNN.graph.initializer)

    def test_are_not_copied_into_the_rewritten_model(self, tmp_path):
        rewritten = fgonnx.rewrite(saved_with_external_weights(tmp_path))
        kept = {t.name for t in rewritten.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
        assert {t.name for t in CNN.graph.initializer} <= kept

    def test_serve_a_rewritten_model_beside_them(self, tmp_path):
        path = tmp_path / "explained.onnx"
        path.write_bytes(fgonnx.rewrite(saved_with_external_weights(tmp_path)).SerializeToString())
        np.testing.assert_allclose(run(str(path), {"x": X})["saliency"], SALIENCY, rtol=1e-6)

    def test_of_an_old_opset(self, tmp_path):
        path = saved_with_external_weights(tmp_path, small_cnn(opset=11))
        np.testing.assert_allclose(Explainer(path)(X).saliency, SALIENCY, rtol=1e-6)

    def test_in_a_folder_below(self, tmp_path):
        (tmp_path / "weights").mkdir()
        path = saved_with_external_weights(tmp_path, location="weights/all.bin")
        np.testing.assert_allclose(Explainer(path)(X).saliency, SALIENCY, rtol=1e-6)

    def test_from_another_working_directory(self, tmp_path, monkeypatch):
        saved_with_external_weights(tmp_path)
        monkeypatch.chdir(tmp_path)
        np.testing.assert_allclose(Explainer("model.onnx")(X).saliency, SALIENCY, rtol=1e-6)

    def test_missing(self, tmp_path):
        path = saved_with_external_weights(tmp_path)
        (tmp_path / "weights.bin").unlink()
        with pytest.raises(ModelError, match=r"weights file 'weights.bin' is missing; put it into"):
            load(path)

    def test_truncated(self, tmp_path):
        path = saved_with_external_weights(tmp_path)
        content = (tmp_path / "weights.bin").read_bytes()
        (tmp_path / "weights.bin").write_bytes(content[:-8])
        with pytest.raises(ModelError, match="is truncated"):
            load(path)

    @pytest.mark.parametrize("location", ["../weights.bin", "/weights.bin"], ids=["above", "absolute"])
    def test_outside_of_the_folder(self, tmp_path, location):
        (tmp_path / "inner").mkdir()
        path = saved_with_external_weights(tmp_path / "inner")
        (tmp_path / "inner" / "weights.bin").rename(tmp_path / "weights.bin")
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = location
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelError, match="outside the model's folder"):
            load(path)


class TestWeightsInsideOfTheFile:
    """Large ones are read when a session needs them."""

    LARGE = model(
        """(float[N,3,8,6] x) => (float[N,5] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1)
            b = Relu(a)
            f = Flatten(b)
            y = Gemm(f, w2, b2)
        }""",
        weights=draw(w1=(120, 3, 3, 3), w2=(120 * 48, 5), b2=(5,)),
    )

    def stored(self, folder):
        return saved(folder, self.LARGE)

    def tensor(self, path):
        return load(path).ir.graph.initializers["w2"].const_value

    def test_are_what_the_file_holds(self, tmp_path):
        wanted = numpy_helper.to_array(next(w for w in self.LARGE.graph.initializer if w.name == "w2"))
        np.testing.assert_array_equal(self.tensor(self.stored(tmp_path)).numpy(), wanted)

    def test_are_not_kept(self, tmp_path):
        tensor = self.tensor(self.stored(tmp_path))
        assert tensor.numpy() is not tensor.numpy()

    def test_of_a_file_that_is_gone(self, tmp_path):
        path = self.stored(tmp_path)
        explainer = Explainer(path)
        path.unlink()
        np.testing.assert_allclose(explainer(X).saliency, Explainer(self.LARGE)(X).saliency, rtol=1e-6)

    def test_of_a_file_that_another_has_replaced(self, tmp_path):
        path = self.stored(tmp_path)
        explainer = Explainer(path)
        other = tmp_path / "other"
        other.mkdir()
        saved(other, CNN).replace(path)
        np.testing.assert_allclose(explainer(X).saliency, Explainer(self.LARGE)(X).saliency, rtol=1e-6)

    def test_of_a_file_that_was_written_to(self, tmp_path):
        path = self.stored(tmp_path)
        explainer = Explainer(path)
        saved(tmp_path)
        with pytest.raises(ModelError, match="has been written to since it was loaded; load it again"):
            explainer(X)

    def test_go_into_the_rewritten_file(self, tmp_path):
        path = self.stored(tmp_path)
        rewritten = fgonnx.rewrite(path, outputs=("saliency",))
        path.unlink()
        np.testing.assert_allclose(run(rewritten, {"x": X})["saliency"], Explainer(self.LARGE)(X).saliency, rtol=1e-6)

    @skips.when(not hasattr(os, "mkfifo"), skips.SYSTEM, "no named pipes")
    def test_do_not_come_out_of_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ModelError, match="pipe: is a named pipe; give the"):
            Explainer(tmp_path / "pipe")

    def test_close_the_file_with_the_model(self, tmp_path, monkeypatch):
        closed = []
        monkeypatch.setattr(
            "os.close", lambda descriptor, close=os.close: (closed.append(descriptor), close(descriptor))
        )
        load(self.stored(tmp_path))
        gc.collect()
        assert len(closed) == 1


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
def test_every_opset(opset):
    np.testing.assert_allclose(Explainer(small_cnn(opset=opset))(X).saliency, SALIENCY, rtol=1e-5)


def test_the_newest_opset_that_onnxruntime_takes():
    for opset in range(onnx.defs.onnx_opset_version(), 22, -1):
        source = small_cnn(opset=opset)
        try:
            run(source, {"x": X})
        except Exception:  # this opset is newer than this onnxruntime
            continue
        np.testing.assert_allclose(Explainer(source)(X).saliency, SALIENCY, rtol=1e-5)
        return


def test_weights_among_the_inputs():
    source = small_cnn(opset=8, ir_version=3)
    for tensor in source.graph.initializer:
        source.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    np.testing.assert_allclose(Explainer(source)(X).saliency, SALIENCY, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weights_that_hold_nan_are_named(dtype):
    source = model(
        "(float[N,3] x) => (float[N,2] y) { h = Cast<to=1>(w)\n y = MatMul(x, h) }",
        weights={"w": np.full((3, 2), np.nan, dtype)},
    )
    with pytest.raises(NumericError, match=r"weights 'w' \(used by .*\) hold NaN"):
        Explainer(source)


class TestBatch:
    def test_fixed_to_one_is_made_free(self):
        assert Explainer(small_cnn(batch="1")).engine().rewritten.normal.batched

    def test_fixed_to_one_gives_what_single_samples_give(self):
        together = Explainer(small_cnn(batch="1"))(X)
        alone = [Explainer(small_cnn(batch="1"))(X[i : i + 1]).saliency for i in range(3)]
        np.testing.assert_allclose(together.saliency, np.concatenate(alone), rtol=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
    def test_in_parts_of_any_size(self, batch_size):
        np.testing.assert_allclose(Explainer(CNN, batch_size=batch_size)(X).saliency, SALIENCY, rtol=1e-5)

    def test_fixed_to_more_is_made_free(self):
        np.testing.assert_allclose(Explainer(small_cnn(batch="4"))(X).saliency, SALIENCY, rtol=1e-5)

    # The mean runs over the samples too: two at once would see each other.
    ENTANGLED = """(float[N,3,8,6] x) => (float[N,4] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        mean = ReduceMean<keepdims=1>(a)
        centred = Sub(a, mean)
        r = Relu(centred)
        p = GlobalAveragePool(r)
        y = Flatten(p)
    }"""

    def test_a_graph_that_mixes_samples_explains_one_alone(self):
        source = model(self.ENTANGLED, weights=draw(w=(4, 3, 3, 3), b=(4,)))
        explanation = Explainer(source)(X[:1])
        assert explanation.settings["batch"] == "1"
        np.testing.assert_allclose(explanation.score, run(source, {"x": X[:1]})["y"].max(1), rtol=1e-5)

    def test_a_graph_that_mixes_samples_refuses_several_at_once(self):
        source = model(self.ENTANGLED, weights=draw(w=(4, 3, 3, 3), b=(4,)))
        with pytest.raises(ModelError, match="the samples of a batch influence each other"):
            Explainer(source)(X)

    # A target shape written for batch 1 that cannot be freed: the batch is not first.
    FIXED = """(float[1,3,8,6] x) => (float[1,4] y)
        <int64[4] swapped = {4, 1, 8, 6}, int64[2] flat = {1, 4}, int64[3] axes = {0, 2, 3}> {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        r = Relu(a)
        t = Reshape(r, swapped)
        s = Transpose<perm=[1,0,2,3]>(t)
        m = ReduceMean<keepdims=0>(s, axes)
        y = Reshape(m, flat)
    }"""

    def test_a_graph_written_for_one_sample_runs_them_one_by_one(self):
        source = model(self.FIXED, weights=draw(w=(4, 3, 3, 3), b=(4,)))
        together, alone = Explainer(source)(X), [Explainer(source)(X[i : i + 1]) for i in range(3)]
        np.testing.assert_array_equal(together.saliency, np.concatenate([e.saliency for e in alone]))
        assert together.relative_residual().max() < 1e-5


class TestFreeSizes:
    FREE = """(float[N,3,h,w] x) => (float[N,4] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, k, b)
        r = Relu(a)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        p = GlobalAveragePool(m)
        y = Flatten(p)
    }"""
    SOURCE = model(FREE, weights=draw(k=(4, 3, 3, 3), b=(4,)))

    def test_are_asked_for_when_rewritten(self):
        with pytest.raises(ModelError, match=r"has free sizes; give them \(input_shape="):
            fgonnx.rewrite(self.SOURCE)

    @pytest.mark.parametrize(
        ("declared", "said"),
        [
            ("N,T,32", r"\[N, T, 32\].*input_shape=\(1, 32, 32\)"),
            ("N,L", r"\[N, L\].*input_shape=\(1, 32\)"),
            ("N,H,W", r"\[N, H, W\].*input_shape=\(1, 32, 32\)"),
            ("N,H,W,3", r"\[N, H, W, 3\].*input_shape=\(1, 224, 224, 3\)"),
            ("T", r"float \[T\].*input_shape=\(32,\)"),
        ],
    )
    def test_are_shown_by_an_example_of_the_model_s_own_axes(self, declared, said):
        with pytest.raises(ModelError, match=said):
            fgonnx.check(model(f"(float[{declared}] x) => (float[{declared}] y) {{ y = Sin(x) }}"))

    def test_can_be_given(self):
        found = run(fgonnx.rewrite(self.SOURCE, input_shape=(1, 3, 8, 6)), {"x": X})
        assert found["saliency"].shape == (3, 8, 6)

    def test_given_must_fit_the_others(self):
        with pytest.raises(OptionError, match="does not fit its input"):
            fgonnx.rewrite(self.SOURCE, input_shape=(1, 5, 8, 6))

    @pytest.mark.parametrize("size", [(8, 6), (9, 7), (20, 4)])
    def test_an_explainer_takes_any(self, size):
        e = Explainer(self.SOURCE)(pictures(2, (3, *size)))
        assert e.saliency.shape == (2, *size)
        assert e.relative_residual().max() < 1e-5

    def test_an_explainer_goes_from_one_to_another(self):
        explainer = Explainer(self.SOURCE)
        first = explainer(X).saliency
        for side in (5, 6, 7, 8, 9, 10):
            explainer(pictures(1, (3, side, side)))
        np.testing.assert_array_equal(explainer(X).saliency, first)


class TestLayout:
    SOURCE = small_cnn(layout="NHWC")

    def test_channels_last_gives_the_map_of_channels_first(self):
        found = Explainer(self.SOURCE)(np.ascontiguousarray(X.transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(found.saliency, SALIENCY, rtol=1e-5)

    def test_is_recorded(self):
        assert load(fgonnx.rewrite(self.SOURCE)).ir.metadata_props["fgonnx.layout"] == "NHWC"

    def test_can_be_given(self):
        x = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
        assert Explainer(self.SOURCE, layout="NHWC")(x).saliency.shape == (3, 8, 6)


class TestElementTypes:
    def typed(self, name, array):
        weights = draw(w1=(4, 3, 3, 3), b1=(4,), w3=(192, 5), b3=(5,))
        source = model(
            f"""({name}[N,3,8,6] x) => ({name}[N,5] y) {{
                a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
                b = Sigmoid(a)
                f = Flatten(b)
                y = Gemm(f, w3, b3)
            }}""",
            weights={k: v.astype(array) for k, v in weights.items()},
        )
        return source, X.astype(array)

    def test_float16(self):
        source, x = self.typed("float16", np.float16)
        exact, y = self.typed("float", np.float32)
        expected = Explainer(exact)(y).saliency
        np.testing.assert_allclose(Explainer(source)(x).saliency, expected, atol=0.02 * expected.max())

    def test_float16_keeps_its_outputs_and_sums_in_float32(self):
        e = Explainer(self.typed("float16", np.float16)[0])(X.astype(np.float16))
        assert (e.outputs["y"].dtype, e.contributions.dtype) == (np.float16, np.float32)

    def test_float16_is_complete_in_float16(self):
        e = Explainer(self.typed("float16", np.float16)[0])(X.astype(np.float16))
        assert e.rounding_residual().max() < 5e-3

    def test_float32_pixels_go_into_a_float16_model(self):
        source, x = self.typed("float16", np.float16)
        np.testing.assert_array_equal(Explainer(source)(x.astype(np.float32)).saliency, Explainer(source)(x).saliency)

    def test_float64_that_onnxruntime_runs(self):
        source = model(
            "(double[N,6] x) => (double[N,4] y) { a = MatMul(x, w)\n b = Sigmoid(a)\n y = MatMul(b, v) }",
            weights={k: v.astype(np.float64) for k, v in draw(w=(6, 5), v=(5, 4)).items()},
        )
        e = Explainer(source)(pictures(2, (6,)).astype(np.float64))
        assert e.relative_residual().max() < 1e-12

    UINT8 = """(uint8[N,3,8,6] x) => (float[N,4] y) <float shift = {127.5}, float scale = {58.0}> {
        c = Cast<to=1>(x)
        s = Sub(c, shift)
        d = Div(s, scale)
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, w, b)
        r = Relu(a)
        p = GlobalAveragePool(r)
        y = Flatten(p)
    }"""
    PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 6)).astype(np.uint8)

    def uint8(self):
        return model(self.UINT8, weights=draw(w=(4, 3, 3, 3), b=(4,)))

    def test_uint8_pixels_are_complete(self):
        assert Explainer(self.uint8())(self.PIXELS).relative_residual().max() < 1e-5

    def test_uint8_pixels_have_the_gradient_of_their_float_copy(self):
        by_float = self.uint8()
        by_float.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        expected = Explainer(by_float, input_gradient=True)(self.PIXELS.astype(np.float32))
        found = Explainer(self.uint8(), input_gradient=True)(self.PIXELS)
        np.testing.assert_allclose(found.input_gradient, expected.input_gradient, rtol=1e-6)

    def test_float_pixels_do_not_go_into_a_uint8_model(self):
        with pytest.raises(InputError, match="must be uint8, the array is float32"):
            Explainer(self.uint8())(X)


class TestSeveralInputs:
    SOURCE = model(
        """(float[N,3,8,6] x, float[N,2] extra) => (float[N,4] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
            r = Relu(a)
            p = GlobalAveragePool(r)
            f = Flatten(p)
            m = MatMul(extra, v)
            y = Add(f, m)
        }""",
        weights=draw(w=(4, 3, 3, 3), b=(4,), v=(2, 4)),
    )
    FEEDS = {"x": X, "extra": pictures(3, (2,))}  # noqa: RUF012

    def test_the_picture_is_the_one_that_is_meant(self):
        assert Explainer(self.SOURCE)(self.FEEDS).saliency.shape == (3, 8, 6)

    def test_the_others_count_as_constants(self):
        assert Explainer(self.SOURCE)(self.FEEDS).relative_residual().max() < 1e-5

    def test_another_can_be_chosen(self):
        e = Explainer(self.SOURCE, input="extra", input_gradient=True)(self.FEEDS)
        assert e.input_gradient.shape == (3, 2)

    @pytest.mark.parametrize(
        ("feeds", "message"),
        [({"x": X}, "missing: extra"), ({**FEEDS, "z": X}, "unknown: z"), (X, "missing: extra")],
        ids=["missing", "unknown", "array alone"],
    )
    def test_must_all_be_there(self, feeds, message):
        with pytest.raises(InputError, match=message):
            Explainer(self.SOURCE)(feeds)

    def test_in_parts(self):
        whole, parts = (Explainer(self.SOURCE, batch_size=n)(self.FEEDS) for n in (8, 2))
        np.testing.assert_allclose(whole.saliency, parts.saliency, rtol=1e-6)


def test_several_threads_share_an_explainer():
    explainer = Explainer(TestFreeSizes.SOURCE)
    inputs = [pictures(2, (3, 6 + i % 3, 7), seed=i) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: explainer(x).saliency, inputs))
    for found, x in zip(together, inputs, strict=True):
        np.testing.assert_array_equal(found, Explainer(TestFreeSizes.SOURCE)(x).saliency)


def test_a_models_name_is_its_files(tmp_path):
    assert load(saved(tmp_path)).name == Path("model.onnx").name


def test_a_value_that_nothing_provides_is_named() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { y = Conv (x, w) }""")
    with pytest.raises(ModelError, match="reads 'w', which nothing in the file provides"):
        fgonnx.rewrite(model)


@pytest.mark.parametrize("source", [None, 3, ["model.onnx"]])
def test_what_is_no_model_is_refused(source):
    with pytest.raises(ModelError, match="a model is a path, bytes, an onnx"):
        load(source)
