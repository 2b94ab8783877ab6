"""What all converters share: sources are recognised by content, files are good, and a difference is found."""

import json
import pickle
import zipfile
from dataclasses import fields, replace

import numpy as np
import onnx
import pytest
from fgonnx.converters import detect, finish, literal, network, parity
from fgonnx.converters.options import Conversion, ConversionOptions

import fgonnx
from fgonnx import converters
from fgonnx.engine.model.load import load
from fgonnx.errors import FgonnxError
from tests import skips
from tests.support import draw, model, pictures, run, small_cnn

# recognition


def archive(*names):
    def write(path):
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"x")

    return write


def content(data):
    return lambda path: path.write_bytes(data)


def folder(*names):
    def write(path):
        path.mkdir()
        for name in names:
            (path / name).write_bytes(b"x")

    return write


def tflite_with_metadata(path):
    """Write a TensorFlow Lite file as TensorFlow Hub has them: labels in a zip archive behind it."""
    archive("labels.txt")(path)
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64) + path.read_bytes())


@pytest.mark.parametrize(
    ("name", "write", "framework", "kind"),
    [
        ("net.pt", archive("net/code/__torch__.py", "net/constants.pkl", "net/data.pkl"), "torch", "TorchScript"),
        ("net.pt2", archive("net/archive_format", "net/models/model.json"), "torch", "ExportedProgram"),
        ("net.pt", archive("net/data.pkl", "net/data/0"), "torch", "pickle"),
        ("net.keras", archive("config.json", "metadata.json", "model.weights.h5"), "keras", ".keras"),
        ("net.bin", content(b"\x89HDF\r\n\x1a\n" + bytes(64)), "keras", "HDF5"),
        ("net.bin", content(b"\x1c\0\0\0TFL3" + bytes(64)), "tflite", "TensorFlow Lite"),
        ("net.tflite", tflite_with_metadata, "tflite", "TensorFlow Lite"),
        ("net.pkl", content(b"\x80\x04csklearn.pipeline\nPipeline\n."), "sklearn", "pickle"),
        ("net.pth", content(b"\x80\x02ctorch.nn\nLinear\n."), "torch", "pickle"),
        ("net.pb", content(b"\n\x05\n\x01xz"), "tensorflow", "frozen graph"),
        ("net.pdmodel", content(b"\n\x05"), "paddle", "inference model"),
        ("net.json", content(b'{"base_code":{"magic":"pir"}}'), "paddle", "inference model"),
        ("saved", folder("saved_model.pb"), "tensorflow", "SavedModel"),
        ("saved", folder("inference.json"), "paddle", "inference model"),
    ],
)
def test_sources_are_recognised_by_their_content(name, write, framework, kind, tmp_path):
    write(tmp_path / name)
    found = converters.recognise(tmp_path / name)
    assert (found.framework, found.kind) == (framework, kind)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("net.onnx", content(b"\x08\x08"), "is an ONNX file already"),
        ("net.safetensors", content(bytes(8) + b'{"a":1}'), "holds only weights"),
        ("net.xyz", content(b"hello"), "is of no known kind"),
        ("net.zip", archive("a.txt"), "zip archive of no known kind"),
        ("folder", folder("a.txt"), "folder without saved_model.pb"),
        ("nothing", lambda path: None, "no such file or folder"),
    ],
)
def test_what_is_no_source_is_refused(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(FgonnxError, match=message):
        converters.convert(tmp_path / name, tmp_path / "out.onnx")


def test_recognising_a_pickle_runs_nothing(tmp_path):
    path = tmp_path / "net.pkl"

    class Trap:
        def __reduce__(self):
            return (path.with_suffix(".ran").touch, ())

    path.write_bytes(pickle.dumps(Trap()))
    converters.recognise(path)
    assert not path.with_suffix(".ran").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "cannot tell the framework of a builtins.int"),
        ({"framework": "caffe"}, "choose one of: torch"),
    ],
)
def test_an_object_of_no_framework_is_refused(options, message, tmp_path):
    with pytest.raises(FgonnxError, match=message):
        converters.convert(3, tmp_path / "out.onnx", **options)


def test_every_documented_option_has_a_default():
    assert list(ConversionOptions.__annotations__) == [f.name for f in fields(Conversion)]


# a file against a source that is itself an ONNX file, run apart


def source(proto, **changes):
    found = network.Network("none", "test", "none", lambda inputs: list(run(proto, {"x": inputs[0]}).values()), None)
    return replace(found, **changes)


def finished(proto, path, *, of=None, x=None, **options):
    example = (pictures(2) if x is None else x,)
    return finish.finish(proto, of or source(proto), path, example, Conversion(**options))


def softmax_net(batch="N"):
    return model(
        f"""(float[{batch},3,8,6] x) => (float[{batch},4] p) {{
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
            r = Relu(a)
            g = GlobalAveragePool(r)
            f = Flatten(g)
            p = Softmax(f)
        }}""",
        weights=draw(0, w=(4, 3, 3, 3), b=(4,)),
    )


def test_a_good_file(tmp_path):
    how = fgonnx.Preprocessing(scale=1 / 255)
    report = finished(softmax_net(), tmp_path / "net.onnx", preprocessing=how, labels=list("abcd"))
    saved = onnx.load(tmp_path / "net.onnx")
    assert report.passed
    assert report.inputs == {"input": ["N", 3, 8, 6]}
    assert report.outputs == {"output": ["N", 4], "logits": ["N", 4]}
    assert [o.name for o in saved.graph.output] == ["output", "logits"]
    known = {p.key: json.loads(p.value) for p in saved.metadata_props}
    assert known["fgonnx.labels"] == list("abcd")
    assert known["fgonnx.preprocessing"]["size"] == [8, 6]
    assert known["fgonnx.conversion"]["passed"] is True
    assert known["fgonnx.conversion"]["head_stripped"] == "Softmax"
    assert "Outputs differ from the source's by" in saved.doc_string


def test_the_output_stays_alone_where_that_is_asked_for(tmp_path):
    assert list(finished(softmax_net(), tmp_path / "net.onnx", head="output").outputs) == ["output"]


def test_a_fixed_batch_is_freed_where_the_graph_allows_it(tmp_path):
    report = finished(small_cnn(batch=1), tmp_path / "net.onnx", of=source(small_cnn()))
    assert report.inputs == {"input": ["N", 3, 8, 6]}
    assert any("it is free in the file" in note for note in report.notes)


def test_a_batch_that_the_graph_needs_stays(tmp_path):
    fixed = model(
        "(float[1,3,8,6] x) => (float[1,144] y) { y = Reshape(x, s) }", weights={"s": np.array([1, 144], np.int64)}
    )
    report = finished(fixed, tmp_path / "net.onnx")
    assert report.inputs == {"input": [1, 3, 8, 6]}
    assert any("cannot do without" in note for note in report.notes)


@pytest.mark.parametrize("size", [1e-4, 1e-2])
def test_another_weight_is_found(size, tmp_path):
    proto, other = small_cnn(), small_cnn()
    bias = next(t for t in other.graph.initializer if t.name == "b3")
    moved = onnx.numpy_helper.to_array(bias) + np.float32(size)
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, "b3"))
    report = finished(other, tmp_path / "net.onnx", of=source(proto))
    assert not report.passed
    assert (
        '"passed": false'
        in {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}["fgonnx.conversion"]
    )


def linearised(gradient):
    return lambda inputs, seed: network.Linearised(gradient(inputs[0], seed), None)


def test_another_gradient_is_found(tmp_path):
    def of_the_file(x, seed):
        g = fgonnx.Explainer(small_cnn(), input_gradient=True)(x, seed=seed.weights).input_gradient
        return g * np.float32(1.001)

    report = finished(small_cnn(), tmp_path / "net.onnx", of=source(small_cnn(), linearise=linearised(of_the_file)))
    assert {m.quantity: m.verdict for m in report.measurements} == {
        "output output": "passed",
        "input-gradient": "failed",
    }


def test_a_kink_is_no_difference(tmp_path):
    """At x = 0 the slope of |x| is +1 or -1, and a source that says so moves by as much when it is nudged."""
    proto = model("(float[N,3,8,6] x) => (float[N,144] y) { a = Abs(x)  y = Flatten(a) }")
    x = np.zeros((2, 3, 8, 6), np.float32)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = 1e-12, -5

    def slope(x, seed):
        return np.where(x > 1e-9, 1, -1).astype(np.float32) * seed.weights.reshape(x.shape)

    first = parity.prove(
        load(proto).ir,
        source(proto, linearise=linearised(slope)),
        {"here": (x,)},
        parity.find_head(load(proto).ir, (x,), "logits"),
    )
    assert {m.verdict for m in first} <= {"passed", "undecided"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "other"}, "choose one of: logits, output"),
        ({"labels": ["a", "b"]}, "2 labels do not fit a model with 5 classes"),
        ({"pictures": ["a.png"]}, "pictures were given without a preprocessing"),
        ({"preprocessing": fgonnx.Preprocessing(size=(9, 9))}, "does not fit the model's input"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(options, message, tmp_path):
    with pytest.raises(FgonnxError, match=message):
        finished(small_cnn(), tmp_path / "net.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_pictures_are_compared_too(tmp_path):
    how = fgonnx.Preprocessing(scale=1 / 255)
    report = finished(small_cnn(), tmp_path / "net.onnx", preprocessing=how, pictures=["examples/images"])
    assert {m.samples for m in report.measurements} == {"example", "random", "pictures"}


# the literal map


@pytest.mark.parametrize("profile", ["reference", "paper"])
def test_enlarging_is_torchs(profile):
    torch = skips.without("torch")
    site = np.random.default_rng(0).random((2, 3, 5, 4))
    rows, columns = literal.interpolation(5, 9, profile), literal.interpolation(4, 11, profile)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(site), (9, 11), mode="bilinear", align_corners=profile == "reference"
    )
    np.testing.assert_allclose(rows @ site @ columns.T, expected.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("tail", "step"),
    [
        ("y = DequantizeLinear(q, s, z)", 0.05),
        ("d = DequantizeLinear(q, s, z) y = Softmax(d)", 0.05),
        ("d = DequantizeLinear(q, s, z) r = Reshape(d, shape) y = Identity(r)", 0.05),
        ("r = Reshape(q, shape) y = DequantizeLinear(r, s, z)", 0.05),
        ("d = DequantizeLinear(q, s, z) y = Mul(d, d)", 0.0),
        ("y = Relu(x)", 0.0),
    ],
)
def test_the_step_of_a_quantised_output(tail, step):
    proto = model(
        f"""(float[N,4] x) => (float[N,4] y)
        <float s = {{0.05}}, int8 z = {{3}}, int64[2] shape = {{-1, 4}}> {{ q = QuantizeLinear(x, s, z) {tail} }}"""
    )
    assert parity.output_steps(proto) == [pytest.approx(step)]


@pytest.mark.parametrize(("steps", "verdict"), [(0.0, "passed"), (0.9, "passed"), (1.2, "failed"), (2.0, "failed")])
def test_a_quantised_output_is_held_to_its_step(steps, verdict, tmp_path):
    proto = model("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    source = network.Network(
        "test", "test", "test", lambda x: [np.maximum(x[0], 0) + np.float32(0.05 * steps)], None, [0.05]
    )
    report = finish.finish(proto, source, tmp_path / "net.onnx", (np.ones((2, 4), np.float32),), Conversion())
    found = [m for m in report.measurements if m.quantity.startswith("output")]
    assert {m.verdict for m in found} == {verdict}
    assert {m.unit for m in found} == {"quantisation steps"}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ('{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {}}]}}', "a Lambda"),
        ('{"class_name":"Functional","config":{"f":{"class_name":"__lambda__","config":{"c":"4w"}}}}', "a __lambda__"),
        ('{"class_name": "TFSMLayer", "config": {"filepath": "/tmp/saved"}}', "a TFSMLayer"),
        ('{"class_name": "Dense", "config": {"name": "Lambda"}}', ""),
    ],
)
def test_code_in_a_keras_file_is_seen_before_it_is_loaded(config, found, tmp_path):
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000) + config.encode() + bytes(100))
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", b"")
    for name in ("net.h5", "net.keras"):
        assert detect.code_in(tmp_path / name) == found


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        ({"class_name": "\\u004cambda"}, "a Lambda"),
        (
            {"class_name": "function", "module": "keras.models", "config": "load_model"},
            "the function keras.models.load_model",
        ),
        ({"class_name": "function", "module": "os", "config": "system"}, "the function os.system"),
        ({"class_name": "function", "module": "builtins", "config": "eval"}, "the function builtins.eval"),
        ({"class_name": "function", "module": "builtins", "config": "my_own"}, ""),
        ({"class_name": "function", "module": "keras.activations", "config": "relu"}, ""),
    ],
)
def test_functions_that_a_keras_description_names(layer, found, tmp_path):
    text = json.dumps({"layers": [{"config": {"activation": layer}}]}).replace("\\\\u", "\\u")
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", text)
    assert detect.code_in(tmp_path / "net.keras") == found
