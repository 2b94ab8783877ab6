"""Bad input gets one message that says what, where and what to do, exit code 2, and not even an output folder."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli_support import CIRCLE, CUSTOM, HEADER, SHAPES, SMALL, model, refused, run, written


@pytest.fixture
def small(tmp_path):
    return model(SMALL, tmp_path / "small.onnx")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


class TestRefusals:
    def explain(self, path, out, *args, inputs=(CIRCLE,)):
        message = refused("explain", path, *inputs, "-o", out, "--preprocess", "unit", *args)
        assert written(out) == []
        for command in ("check", "rewrite", "inspect") if path != SHAPES else ():
            # Whatever these say of the same file, they do not crash.
            extra = ("-o", out / "r.onnx") if command == "rewrite" else ()
            assert run(command, path, *extra).exit_code in (0, 2)
        return message

    def test_no_such_model(self, tmp_path, out):
        assert "none.onnx: no such file" in self.explain(tmp_path / "none.onnx", out)

    @pytest.mark.parametrize(
        ("written_as", "said"),
        [
            ("shape.onnx", "no such file (did you mean 'shapes.onnx'?)"),
            ("Shapes.onnx", "no such file (did you mean 'shapes.onnx'?)"),
            ("shapes.onx", "no such file"),
            ("else.onnx", "no such file"),
        ],
    )
    def test_a_misspelt_model_is_told_what_lies_there(self, written_as, said, tmp_path, out):
        (tmp_path / "shapes.onnx").write_bytes(SHAPES.read_bytes())
        assert self.explain(tmp_path / written_as, out).rstrip().endswith(said)

    def test_a_misspelt_folder_is_told_what_lies_there(self, tmp_path, out):
        (tmp_path / "pictures").mkdir()
        message = self.explain(SHAPES, out, inputs=(tmp_path / "pictres",))
        assert "does not exist (did you mean 'pictures'?): check the spelling" in message

    def test_every_engine_that_check_takes_is_named(self):
        message = refused("check", SHAPES, "--engine", "bth", "--no-cache")
        assert "choose one of: fgonnx, ort-training, both (did you mean 'both'?)" in message

    def test_not_an_onnx_file(self, tmp_path, out):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"this is not a model")
        assert "m.onnx: is not an ONNX file, or is truncated" in self.explain(path, out)

    def test_a_truncated_file(self, small, out):
        small.write_bytes(small.read_bytes()[:-40])
        assert "small.onnx: is not an ONNX" in self.explain(small, out)

    def beside(self, small, location):
        proto = onnx.load(small)
        w = next(t for t in proto.graph.initializer if t.name == "w")
        w.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(w), "w"))
        onnx.external_data_helper.set_external_data(w, location)
        w.ClearField("raw_data")
        w.data_location = onnx.TensorProto.EXTERNAL
        small.write_bytes(proto.SerializeToString())

    def test_missing_external_data(self, small, out):
        self.beside(small, "w.bin")
        assert "its weights file 'w.bin' is missing; put it into" in self.explain(small, out)

    def test_external_data_outside_of_the_folder(self, small, out):
        self.beside(small, "../w.bin")
        assert "point outside the model's folder ('../w.bin')" in self.explain(small, out)

    def test_all_operators_without_a_rule_are_named(self, tmp_path, out):
        text = """g (float[N,3,8,8] x) => (float[N,3,8,8] y) {
          [first] a = com.microsoft.Inverse(x)
          [second] b = com.microsoft.Inverse(x)
          y = Add(a, b) }"""
        path = model(CUSTOM + text, tmp_path / "m.onnx")
        message = self.explain(path, out)
        assert "2 node(s)" in message
        assert "node 'first' (com.microsoft.Inverse" in message
        assert "node 'second' (com.microsoft.Inverse" in message

    def test_no_input_is_a_picture(self, tmp_path, out):
        text = HEADER + "g (int64[N,4] ids) => (int64[N,4] y) { y = Identity(ids) }"
        message = self.explain(model(text, tmp_path / "m.onnx"), out)
        assert "no input is an array of floats or of uint8" in message
        assert "ids (int64 [N, 4])" in message

    def test_several_inputs_could_be_meant(self, tmp_path, out):
        text = HEADER + "g (float[N,3,8,8] a, float[N,3,8,8] b) => (float[N,3,8,8] y) { y = Add(a, b) }"
        message = self.explain(model(text, tmp_path / "m.onnx"), out)
        assert "several inputs could be explained; name one (--input), or fix the others (--bind): a" in message

    @pytest.mark.parametrize("target", ["6", "-1", "1000"])
    def test_a_target_out_of_range(self, target, out):
        assert f"target {target} is out of range" in self.explain(SHAPES, out, "--target", target)

    def test_an_unknown_label(self, out):
        message = self.explain(SHAPES, out, "--target", "sircle")
        assert "'sircle' is no label of this model: did you mean 0 'circle'?" in message

    def test_labels_that_do_not_fit(self, out, tmp_path):
        (tmp_path / "names.txt").write_text("a\nb\n")
        message = self.explain(SHAPES, out, "--labels", tmp_path / "names.txt")
        assert "2 labels do not fit a model with 6 classes" in message

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"", "is empty (0 bytes)"), (b"\x89PNG\r\n\x1a\nbroken", "cannot be decoded as a picture")],
    )
    def test_a_picture_that_is_none(self, content, why, out, tmp_path):
        (tmp_path / "p.png").write_bytes(content)
        message = self.explain(SHAPES, out, inputs=[tmp_path / "p.png"])
        assert "p.png'" in message
        assert why in message

    def test_a_missing_picture(self, out, tmp_path):
        assert "none.png' does not exist" in self.explain(SHAPES, out, inputs=[tmp_path / "none.png"])

    @pytest.mark.parametrize(
        ("array", "why"),
        [
            (np.zeros((8, 8), np.float32), "holds an array of shape (8, 8): the model's input has 4 axes"),
            (np.zeros((2, 3, 8, 9), np.float32), "sample 0, has the shape (3, 8, 9): one sample of the input"),
            (np.zeros((1, 3, 8, 8), np.int32), "is int32: the input 'x' is float32; convert it with array.astype"),
            (np.full((1, 3, 8, 8), np.nan, np.float32), "holds NaN or infinity, first at (0, 0, 0)"),
            (np.zeros((0, 3, 8, 8), np.float32), "its batch is empty"),
            (np.array([{}], dtype=object), "cannot be read: it is not a numeric .npy array"),
        ],
        ids=["rank", "shape", "dtype", "nan", "empty", "objects"],
    )
    def test_an_array_that_does_not_fit(self, array, why, small, out, tmp_path):
        np.save(tmp_path / "x.npy", array)
        message = self.explain(small, out, inputs=[tmp_path / "x.npy"])
        assert "x.npy'" in message
        assert why in message

    def test_nan_in_the_weights(self, tmp_path, out):
        path = model(SMALL, tmp_path / "m.onnx", b=np.array([0, np.nan, 0, 0], np.float32))
        message = self.explain(path, out)
        assert "weights 'b'" in message
        assert "hold NaN" in message

    def test_an_output_that_does_not_depend_on_the_input(self, tmp_path, out):
        text = (
            HEADER
            + """g (float[N,3,8,8] x) => (float[1,2] y) <float[1,2] k = {1.0, 2.0}>
        { r = Relu(x)  y = Identity(k) }"""
        )
        assert "does not depend on the input" in self.explain(model(text, tmp_path / "m.onnx"), out)

    def test_a_provider_that_is_not_there(self, out):
        message = self.explain(SHAPES, out, "--providers", "abacus")
        assert "the execution provider 'abacus' is not available" in message
        assert "it has:" in message

    def test_preprocessing_is_not_guessed(self, small, out):
        message = refused("explain", small, CIRCLE, "-o", out)
        assert "does not say how its pictures were prepared" in message
        assert "--preprocess imagenet" in message
        assert written(out) == []

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (("--preprocess", "imagnet"), "did you mean 'imagenet'?"),
            (("--preprocess", "size=32"), "size 32x32 does not fit the model's input"),
            (("--psi", "absolute"), "choose one of: abs, positive, signed"),
            (("--profile", "best"), "choose one of: full, reference, paper"),
            (("--method", "lime"), "--method lime does not exist"),
            (("--picture", "poster"), "choose one of: panel, overlay, heat"),
            (("--output", "probs"), "has no output 'probs'; it has: logits"),
            (("--input", "picture"), "has no input 'picture'; it has: image"),
        ],
        ids=lambda o: "".join(o).strip("-") if isinstance(o, tuple) else "",
    )
    def test_options_that_do_not_exist(self, options, why, out):
        assert why in refused("explain", SHAPES, CIRCLE, "-o", out, *options)
        assert written(out) == []

    def test_an_output_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "f").write_text("mine")
        assert "is a file; give a folder" in refused("explain", SHAPES, CIRCLE, "-o", tmp_path / "f")
        assert (tmp_path / "f").read_text() == "mine"


def test_names_in_a_file_do_not_steer_the_terminal(tmp_path):
    path = model(SMALL, tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.metadata_props.add(key="fgonnx.labels", value='["\\u001b[2J\\u202ecat", "b", "c", "d"]')
    proto.graph.node[1].name = "a\x1b]0;title\x07"
    onnx.save(proto, path)
    result = run("inspect", path)
    assert r"\x1b[2J\u202ecat, b, c, d" in result.output
    assert not {"\x1b", "\x07", "\u202e"} & set(result.output)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((CIRCLE,), "there is no folder for the results; give one (-o out)"),
        (("none.png",), "'none.png' does not exist"),
        ((), "there is nothing to explain"),
    ],
)
def test_explain_without_a_folder_says_what_to_give(inputs, message):
    assert message in refused("explain", SHAPES, *inputs)
