"""Models of other kinds: outputs without rows, several inputs, pictures nobody says how to prepare, broken versions."""

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.graph.running import Running
from fgonnx.errors import InputError
from tests import skips
from tests.serve_support import picture, post, served
from tests.support import draw, model, run, small_cnn

for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    skips.without(package)

X = np.random.default_rng(0).normal(size=(3, 1, 6, 6)).astype(np.float32)


def net(more, outputs):
    graph = f"(float[N,1,6,6] x) => (float[N,3] y, {outputs}) {{ f = Flatten(x)  y = MatMul(f, w)  {more} }}"
    return model(graph, weights={**draw(w=(36, 3), a=(5, 2)), "zero": np.array([0]), "one": np.float32(1)})


#: Outputs that have no row for each sample.
WHOLE = {
    "a mean": net("s = ReduceMean<keepdims=0>(y)", "float s"),
    "a largest entry": net("s = ReduceMax<keepdims=0>(y)", "float s"),
    "a number that is fixed": net("s = Identity(one)", "float s"),
    "a number of samples": net("h = Shape(y)  i = Constant<value_int=0>()  s = Gather(h, i)", "int64 s"),
    "a table": net("s = Identity(a)", "float[5,2] s"),
    "what is found": net("r = Relu(y)  s = NonZero(r)", "int64[2,K] s"),
}


def tensor(x, name="x"):
    return {"name": name, "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}


@pytest.mark.parametrize("kind", WHOLE)
def test_outputs_without_rows_are_the_files(kind, tmp_path):
    onnx.save(WHOLE[kind], tmp_path / "net.onnx")
    with served(tmp_path / "net.onnx", grpc=False) as service:
        for count in (1, 3):
            expected = run(WHOLE[kind], {"x": X[:count]})["s"]
            body = {"inputs": [tensor(X[:count])]}
            least = {"explain_if": "score > -1e9"}  # predicted before it is explained
            for name, parameters in (("net", {}), ("net_explained", {}), ("net_explained", least)):
                reply = post(service, f"/v2/models/{name}/infer", {**body, "parameters": parameters})
                assert reply.status == 200, reply.body
                (found,) = (o for o in reply.body["outputs"] if o["name"] == "s")
                assert found["shape"] == list(expected.shape)
                np.testing.assert_allclose(found["data"], expected.ravel(), rtol=0, atol=1e-5)
            for found in post(service, "/v1/models/net:predict", {"instances": X[:count].tolist()}).body["predictions"]:
                np.testing.assert_allclose(found["s"], expected, rtol=0, atol=1e-5)


def pair(batch, more=""):
    body = f"f = Flatten(x)  z = MatMul(f, w)  u = MatMul(t, v)  {more or 'y = Add(z, u)'}"
    graph = f"(float[{batch[0]},1,6,6] x, float[{batch[1]},5] t) => (float[{batch[0]},3] y) {{ {body} }}"
    return model(graph, weights={**draw(w=(36, 3), v=(5, 3)), "zero": np.array([0])})


def given(x, t):
    return {"x": np.ones((x, 1, 6, 6), np.float32), "t": np.ones((t, 5), np.float32)}


#: Models with two inputs, how many rows each is given, and whether that is refused.
COUNTS = {
    "two for three": (pair("NN"), (3, 2), True),
    "one for two": (pair("NN"), (2, 1), True),
    "two for one": (pair("NN"), (1, 2), True),
    "thousands for one": (pair("NN"), (1, 20_000), True),
    "axes of other names": (pair("NK"), (3, 2), True),
    "three for three": (pair("NN"), (3, 3), False),
    "a row for all": (pair("N1"), (3, 1), False),
    "one sample at a time": (pair("11"), (3, 3), False),
    "two rows of a state": (pair("N2", "s = ReduceSum<keepdims=1>(u, zero)  y = Add(z, s)"), (3, 2), False),
    "two rows of a state, twice": (pair("N2", "s = ReduceSum<keepdims=1>(u, zero)  y = Add(z, s)"), (2, 2), False),
}


@pytest.mark.parametrize("kind", COUNTS)
def test_inputs_have_as_many_samples(kind):
    proto, counts, wrong = COUNTS[kind]
    explainer = fgonnx.Explainer(proto)
    for call in (explainer, explainer.head):
        if wrong:
            with pytest.raises(InputError, match=rf"input 't' has {counts[1]} rows?, 'x' has {counts[0]}"):
                call(given(*counts))
        else:
            assert len(call(given(*counts))) == counts[0]


@pytest.mark.parametrize("kind", COUNTS)
def test_requests_have_as_many_samples(kind, tmp_path):
    proto, counts, wrong = COUNTS[kind]
    onnx.save(proto, tmp_path / "net.onnx")
    body = {"inputs": [tensor(array, name) for name, array in given(*counts).items()]}
    with served(tmp_path / "net.onnx", grpc=False) as service:
        for name in ("net", "net_explained"):
            reply = post(service, f"/v2/models/{name}/infer", body)
            if wrong:
                assert (reply.status, f"input 't' has {counts[1]}" in reply.error) == (400, True), reply.error
            else:
                assert reply.body["outputs"][0]["shape"] == [counts[0], 3]


#: One instance of a model with two inputs, and what is said of it; nothing if it is answered.
INSTANCES = {
    "a picture": ({"x": picture(), "t": [1] * 5}, ""),
    "numbers": ({"x": np.ones((1, 6, 6)).tolist(), "t": [1] * 5}, ""),
    "a picture where none belongs": ({"x": picture(), "t": picture()}, "only 'x' takes a picture"),
    "one of two": ({"x": picture()}, "lacks the input 't'"),
    "an address": ({"x": {"b64": "http://a/b.png"}, "t": [1] * 5}, "the input 'x', is an address"),
}


@pytest.mark.parametrize("kind", INSTANCES)
def test_one_of_several_inputs_may_be_a_picture(kind, tmp_path):
    from fgonnx.jobs.reading import Reading
    from fgonnx.serve.served import How

    onnx.save(pair("NN"), tmp_path / "net.onnx")
    instance, why = INSTANCES[kind]
    how = How(running=Running(threads=1), reading=Reading(preprocess="gray,size=6"))
    with served(tmp_path / "net.onnx", how=how, grpc=False) as service:
        reply = post(service, "/v1/models/net:explain", {"instances": [instance]})
        assert (reply.status, why in reply.body.get("error", "")) == (400 if why else 200, True), reply.body


def test_a_picture_nobody_can_prepare_is_told_the_servers_option(tmp_path):
    onnx.save(small_cnn(), tmp_path / "net.onnx")
    with served(tmp_path / "net.onnx", grpc=False) as service:
        reply = post(service, "/v1/models/net:explain", {"instances": [picture()]})
    assert (reply.status, "--preprocess imagenet suits" in reply.error) == (400, True), reply.error
    assert "preprocess=" not in reply.error


def test_without_the_newest_the_next_that_loads_is_served(tmp_path):
    from fgonnx.serve.catalogue import Catalogue
    from fgonnx.serve.options import Serving
    from fgonnx.serve.served import How

    folder, said = tmp_path / "net", []
    for version in ("1", "2", "3"):
        (folder / version).mkdir(parents=True)
        onnx.save(small_cnn(seed=int(version)), folder / version / "model.onnx")
    (folder / "2" / "model.onnx").write_bytes(b"no model")
    catalogue = Catalogue([str(folder)], How(running=Running(threads=1)), Serving())
    entry = catalogue.entries["net"]

    def tell(event, **more):
        said.append((event, more["version"]))

    catalogue._renew(entry, tell)
    assert (entry.served.version, said) == ("3", [])
    (folder / "3" / "model.onnx").unlink()
    for _ in range(2):
        catalogue._renew(entry, tell)
    assert (entry.served.version, said) == ("1", [("not loaded", "2"), ("loaded", "1")])
    onnx.save(small_cnn(seed=2), folder / "2" / "model.onnx")
    catalogue._renew(entry, tell)
    assert entry.served.version == "2"
