"""A model repository: configurations of Triton's own schema, files that run as these say, versions side by side."""

import numpy as np
import onnx
import pytest
from google.protobuf import text_format

from tests import skips
from tests.cli_support import HEADER, SHAPES, good, refused, written
from tests.support import model, run, small_cnn

model_config = skips.without("tritonclient.grpc.model_config_pb2")

X = np.random.default_rng(0).normal(size=(3, 3, 8, 6)).astype(np.float32)


def config_of(folder):
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config.ModelConfig())


def saved(proto, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
    return path


def fed_as_configured(folder, arrays, version=1):
    """Run a model as Triton would: batches in front, tensors without sizes turned back from [N, 1]."""
    config = config_of(folder)
    inputs = {}
    for one in config.input:
        assert list(one.dims) == list(arrays[one.name].shape[1:]) or one.HasField("reshape")
        inputs[one.name] = arrays[one.name]
    found = run(onnx.load(folder / str(version) / "model.onnx"), inputs)
    for one in config.output:
        sizes = found[one.name].shape[1:] if config.max_batch_size else found[one.name].shape
        assert list(sizes) == ([] if one.HasField("reshape") else list(one.dims))
    return found


def test_both_models_are_there_and_their_configurations_are_tritons(tmp_path):
    text = good("export", "triton", SHAPES, "-o", tmp_path)
    assert "shapes_explained/ (version 1, batches of up to 8)" in text
    plain, explained = (config_of(tmp_path / name) for name in ("shapes", "shapes_explained"))
    assert (plain.name, plain.backend, plain.max_batch_size) == ("shapes", "onnxruntime", 8)
    assert [o.name for o in explained.output][:3] == ["logits", "saliency", "target"]
    assert plain.output[0].label_filename == explained.output[0].label_filename == "labels.txt"
    assert (tmp_path / "shapes" / "labels.txt").read_text().splitlines()[3] == "star"
    assert (tmp_path / "shapes" / "1" / "model.onnx").read_bytes() == SHAPES.read_bytes()
    assert '"layout": "NCHW"' in explained.parameters["fgonnx.preprocessing"].string_value


@pytest.mark.parametrize(
    ("target", "inputs", "asked", "explained"),
    [
        ("input", ["x", "target_index"], [4, -1, 0], (4, "largest", 0)),
        ("argmax", ["x"], None, ("largest",) * 3),
        ("2", ["x"], None, (2, 2, 2)),
    ],
)
def test_every_target_takes_a_batch(target, inputs, asked, explained, tmp_path):
    source = saved(small_cnn(), tmp_path / "net.onnx")
    good("export", "triton", source, "-o", tmp_path / "r", "--target", target)
    folder = tmp_path / "r" / "net_explained"
    config = config_of(folder)
    assert [i.name for i in config.input] == inputs
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (8, True)
    assert not any(i.optional for i in config.input)  # optional inputs would switch batching off
    arrays = {"x": X, **({} if asked is None else {"target_index": np.array(asked)})}
    found = fed_as_configured(folder, arrays)
    largest = found["y"].argmax(1)
    np.testing.assert_array_equal(
        found["target"], [largest[i] if e == "largest" else e for i, e in enumerate(explained)]
    )
    for i in range(len(X)):  # a batch of strangers: each row is what the sample has alone
        alone = fed_as_configured(folder, {name: array[i : i + 1] for name, array in arrays.items()})
        for name, array in alone.items():
            np.testing.assert_allclose(found[name][i : i + 1], array, rtol=0, atol=1e-5, err_msg=name)


#: Graphs, and what their plain model's configuration says of batch and sizes.
BATCHES = {
    "free": ("(float[N,4] x) => (float[N,2] y) { y = MatMul(x, w) }", 8, [[4], [2]]),
    "fixed": ("(float[1,4] x) => (float[1,2] y) { y = MatMul(x, w) }", 0, [[1, 4], [1, 2]]),
    "one output without a batch": (
        "(float[N,4] x) => (float[N,2] y, float s) { y = MatMul(x, w)  s = ReduceSum<keepdims=0>(y) }",
        0,
        [[-1, 4], [-1, 2], [1]],
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_model_is_batched_where_all_of_it_has_a_batch(name, tmp_path):
    graph, batch, sizes = BATCHES[name]
    w = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    source = saved(model(graph, weights={"w": w}), tmp_path / "net.onnx")
    good("export", "triton", source, "-o", tmp_path / "r", "--output", "y")
    config = config_of(tmp_path / "r" / "net")
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (batch, batch > 0)
    assert [list(t.dims) for t in (*config.input, *config.output)] == sizes


#: Models that take a batch of any size, and whether strangers' samples may meet in one.
STRANGERS = {
    "rows of their own": ("y = Relu(x)", True),
    "less their mean": ("m = ReduceMean<axes=[0]>(x)  y = Sub(x, m)", False),
    "summed up": ("i = Constant<value_int=0>()  y = CumSum(x, i)", False),
    "softmax over them": ("y = Softmax<axis=0>(x)", False),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_samples_that_influence_each_other_meet_no_strangers(kind, tmp_path):
    body, may_meet = STRANGERS[kind]
    proto = onnx.parser.parse_model(HEADER.replace("18", "17") + f" net (float[N,2] x) => (float[N,2] y) {{ {body} }}")
    text = good("export", "triton", saved(proto, tmp_path / "net.onnx"), "-o", tmp_path / "r")
    for name in ("net", "net_explained"):
        config = config_of(tmp_path / "r" / name)
        assert (config.max_batch_size > 0, config.HasField("dynamic_batching")) == (may_meet, may_meet)
    assert ("makes no batches of requests" in text) != may_meet


def test_how_it_runs(tmp_path):
    how = ("--max-batch", 32, "--max-delay", 2.5, "--instances", 2, "--device", "gpu", "--no-plain", "--name", "who")
    good("export", "triton", SHAPES, "-o", tmp_path, *how)
    config = config_of(tmp_path / "who_explained")
    assert [p.name for p in tmp_path.iterdir()] == ["who_explained"]
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (32, 2500)
    assert [(g.count, g.kind) for g in config.instance_group] == [(2, model_config.ModelInstanceGroup.KIND_GPU)]


def test_the_next_export_is_the_next_version(tmp_path):
    for _ in range(2):
        good("export", "triton", SHAPES, "-o", tmp_path)
    good("export", "triton", SHAPES, "-o", tmp_path, "--version", 7)
    found = sorted(p.name for p in (tmp_path / "shapes_explained").iterdir())
    assert found == ["1", "2", "7", "config.pbtxt", "labels.txt"]
    assert "is there already" in refused("export", "triton", SHAPES, "-o", tmp_path, "--version", 2)


def test_names_are_quoted(tmp_path):
    odd = 'a "b" \\ é'
    proto = onnx.parser.parse_model(HEADER + " net (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
    proto.graph.output[0].name = proto.graph.node[0].output[0] = odd
    good("export", "triton", saved(proto, tmp_path / "net.onnx"), "-o", tmp_path / "r")
    assert config_of(tmp_path / "r" / "net").output[0].name == odd


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--target", "9"), "out of range"),
        (("--target", "hexagon"), "is no label of this model"),
        (("--name", "a/b"), "is no name of a model"),
        (("--seed",), "choose a class, not a cotangent"),
        (("--output", "none"), "none"),
        (("--device", "tpu"), "auto, cpu"),
    ],
)
def test_refusals_write_no_version(options, why, tmp_path):
    assert why in refused("export", "triton", SHAPES, "-o", tmp_path / "r", *options)
    assert [name for name in written(tmp_path / "r") if name.isdigit()] == []


def test_other_servers_are_named(tmp_path):
    assert "there is: triton" in refused("export", "seldon", SHAPES, "-o", tmp_path)


def test_a_source_inside_the_repository_stays(tmp_path):
    source = saved(small_cnn(), tmp_path / "net" / "1" / "model.onnx")
    assert "is in the repository itself" in refused("export", "triton", source, "-o", tmp_path)
    assert good("export", "triton", source, "-o", tmp_path, "--no-plain").count("net_explained") == 1
