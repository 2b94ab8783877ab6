"""Version 1 of the protocol: pictures and arrays in JSON, maps in every form, what is wrong said in a sentence."""

import base64
import io

import cv2
import numpy as np
import pytest

import fgonnx
from tests import skips
from tests.cli_support import IMAGES, SHAPES
from tests.serve_support import STAR, get, picture, post, served

for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    skips.without(package)

RING = IMAGES / "ring.png"


@pytest.fixture(scope="module")
def service():
    with served(SHAPES, max_body=1, max_samples=4, max_pixels=100_000) as service:
        yield service


@pytest.fixture(scope="module")
def right():
    explainer = fgonnx.Explainer(SHAPES, threads=1)
    return {path: explainer(str(path)) for path in (STAR, RING)}


def explain(service, *instances, **parameters):
    body = {"instances": list(instances), **({"parameters": parameters} if parameters else {})}
    return post(service, "/v1/models/shapes:explain", body)


def test_a_picture_is_explained(service, right):
    reply = explain(service, picture(), sites=True)
    (found,), (prediction,) = reply.body["explanations"], reply.body["predictions"]
    expected = right[STAR]
    np.testing.assert_allclose(prediction, expected.outputs["logits"][0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["saliency"]["data"], expected.saliency[0], rtol=0, atol=2e-5)
    assert (found["label"], found["target"]["index"], found["described"]) == ("star", 3, "3 'star', the largest")
    assert found["score"] == pytest.approx(float(expected.score[0]), abs=1e-5)
    assert [entry["label"] for entry in found["top"]][:2] == ["star", "ring"]
    certificate = found["certificate"]
    assert certificate["input"] + certificate["layers"] + certificate["residual"] == pytest.approx(found["score"])
    assert [s["name"] for s in certificate["sites"]] == [s.name for s in expected.sites]


def test_fields_have_the_names_that_vertex_has_where_they_mean_the_same(service, right):
    (one,) = explain(service, picture()).body["explanations"][0]["attributions"]
    e = right[STAR]
    assert one["instanceOutputValue"] == pytest.approx(float(e.score[0]), abs=1e-5)
    assert one["baselineOutputValue"] == pytest.approx(float(e.contributions[0, 1:].sum()), abs=1e-4)
    assert 0 <= one["approximationError"] < 1e-5
    assert (one["outputIndex"], one["outputDisplayName"], one["outputName"]) == ([3], "star", "logits")


@pytest.mark.parametrize("form", ["plain", "nested", "data address", "spaced"])
def test_a_picture_may_be_wrapped(form, service, right):
    text = picture()["b64"]
    instance = {
        "plain": {"b64": text},
        "nested": {"image_bytes": {"b64": text}},
        "data address": {"b64": f"data:image/png;base64,{text}"},
        "spaced": {"b64": "\n".join(text[i : i + 76] for i in range(0, len(text), 76))},
    }[form]
    assert explain(service, instance, map="none").body["explanations"][0]["label"] == "star"


def test_arrays_are_taken_as_they_are(service, right):
    e = right[RING]
    sample = e.origin.samples[0].x
    for instance in (sample.tolist(), {"image": sample.tolist()}):
        reply = post(service, "/v1/models/shapes:predict", {"instances": [instance]})
        np.testing.assert_allclose(reply.body["predictions"], e.outputs["logits"], rtol=0, atol=1e-5)


def test_several_at_once_each_with_its_own_target(service, right):
    reply = explain(service, picture(RING), picture(), target=["ring", 0], map="none")
    assert [e["target"]["index"] for e in reply.body["explanations"]] == [5, 0]


def test_a_map_may_be_a_picture(service):
    for how, shape in (("png", (64, 64, 3)), ("overlay", (256, 256, 3))):
        (found,) = explain(service, picture(), map=how).body["explanations"]
        content = base64.b64decode(found["saliency"]["png"]["b64"])
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == shape
        assert found["saliency"]["shape"] == [64, 64]


def test_a_map_may_be_a_file_of_numpy(service, right):
    (found,) = explain(service, picture(), map="npy").body["explanations"]
    file = io.BytesIO(base64.b64decode(found["saliency"]["npy"]["b64"]))
    np.testing.assert_allclose(np.load(file), right[STAR].saliency[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("condition", "explained"),
    [
        ("predicted == 'star'", [True, False]),
        ("margin > 0", [True, True]),
        ("score < 0", [False, False]),
    ],
)
def test_a_condition_spares_explanations(condition, explained, service):
    reply = explain(service, picture(), picture(RING), explain_if=condition, map="none")
    assert [e is not None for e in reply.body["explanations"]] == explained
    assert len(reply.body["predictions"]) == 2


def test_a_contrast_is_explained(service):
    (found,) = explain(service, picture(), contrast="next").body["explanations"]
    assert (found["target"]["label"], found["contrast"]["label"]) == ("star", "ring")
    assert found["score"] == pytest.approx(found["target"]["score"] - found["contrast"]["score"], abs=1e-5)


def test_models_are_listed(service):
    assert get(service, "/v1/models").body == {"models": ["shapes"]}
    assert get(service, "/v1/models/shapes").body == {"name": "shapes", "ready": True}


def large(pixels):
    return {"b64": base64.b64encode(cv2.imencode(".png", np.zeros((pixels, 1, 3), np.uint8))[1].tobytes()).decode()}


JSON = {"instances": [[[0.0]]]}
EXPLAIN, PREDICT, INFER = "/v1/models/shapes:explain", "/v1/models/shapes:predict", "/v2/models/shapes/infer"
X = {"name": "image", "datatype": "FP32", "shape": [1, 3, 64, 64]}
ZEROS = [0] * (3 * 64 * 64)

#: Requests that are wrong: where they go, their body, the status, and a part of the sentence that says why.
BAD = {
    "no JSON": (EXPLAIN, b"{", 400, "not JSON (line 1"),
    "no text": (EXPLAIN, b"\xff\xfe\x00", 400, "no text in UTF-8"),
    "empty": (EXPLAIN, b"", 400, "not JSON"),
    "a list": (EXPLAIN, [1], 400, "a request is an object"),
    "no instances": (EXPLAIN, {"instances": []}, 400, "a request is an object"),
    "too deep": (EXPLAIN, b"[" * 5000 + b"]" * 5000, 400, "levels of lists"),
    "too long": (EXPLAIN, b" " * 1_000_001, 413, "longer than 1 MB"),
    "too many": (EXPLAIN, {"instances": [[0]] * 5}, 413, "at most 4"),
    "an address": (EXPLAIN, {"instances": ["http://127.0.0.1/cat.png"]}, 400, "not opened"),
    "an address in base64's place": (EXPLAIN, {"instances": [{"b64": "file:///etc/passwd"}]}, 400, "is an address"),
    "a path": (EXPLAIN, {"instances": [{"b64": "/etc/passwd"}]}, 400, "is not base64"),
    "no base64": (EXPLAIN, {"instances": [{"b64": "!"}]}, 400, "is not base64"),
    "an empty picture": (EXPLAIN, {"instances": [{"b64": ""}]}, 400, "an empty picture"),
    "no picture": (EXPLAIN, {"instances": [{"b64": "aGFsbG8="}]}, 400, "cannot be decoded as a picture"),
    "a bomb": (EXPLAIN, {"instances": [large(200_000)]}, 400, "more than the bound of 100,000"),
    "unequal lists": (EXPLAIN, {"instances": [[[0, 1], [2]]]}, 400, "lists of equal lengths"),
    "texts for numbers": (EXPLAIN, {"instances": [[["0"]]]}, 400, "does not hold numbers"),
    "another size": (EXPLAIN, {"instances": [[[0.0]]]}, 400, "must have the shape (N, 3, 64, 64)"),
    "different sizes": (EXPLAIN, {"instances": [[0.0], [0.0, 1.0]]}, 400, "different sizes"),
    "NaN": (EXPLAIN, b'{"instances": [[[[NaN]]]]}', 400, "must have the shape"),
    "a huge number": (EXPLAIN, b'{"instances": [' + b"9" * 5000 + b"]}", 400, "a number has more than 4,300 digits"),
    "a large number among fractions": (EXPLAIN, {"instances": [[0.5, 10**400]]}, 400, "does not hold numbers"),
    "far too deep": (EXPLAIN, b"[" * 100_000 + b"]" * 100_000, 400, "no more than 900 are read at all"),
    "a text of any length among texts": (
        EXPLAIN,
        {"instances": [["a" * 400_000, *["b"] * 2000]]},
        400,
        "does not hold numbers",
    ),
    "texts deep in lists": (EXPLAIN, {"instances": [[[["a"], [0]]]]}, 400, "does not hold numbers"),
    "nothing among numbers": (EXPLAIN, {"instances": [[0, None]]}, 400, "does not hold numbers"),
    "no condition": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"explain_if": "prob <"}},
        400,
        "write for example probability < 0.8",
    ),
    "a switch that is none": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"sites": "yes"}},
        400,
        "true or false",
    ),
    "a misspelt parameter": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"targt": 1}},
        400,
        "did you mean 'target'?",
    ),
    "an unknown label": (EXPLAIN, {"instances": [picture()], "parameters": {"target": "cube"}}, 400, "no label"),
    "a file as a target": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"target": "similar=/tmp/x.npy"}},
        400,
        "names a file",
    ),
    "a file as a region": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"target": "region=/tmp/x.npy"}},
        400,
        "names a file",
    ),
    "a file as a contrast": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"contrast": "seed=/tmp/x.npy"}},
        400,
        "names a file",
    ),
    "code as a condition": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"explain_if": "__import__('os').abort()"}},
        400,
        "no comparison",
    ),
    "a condition on what is not known": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"explain_if": "correct == false"}},
        400,
        "names 'correct'",
    ),
    "a probability of a model without": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"explain_if": "probability < 1"}},
        400,
        "ends in scores",
    ),
    "an unknown parameter": (EXPLAIN, {"instances": [picture()], "parameters": {"psi": 1}}, 400, "have no 'psi'"),
    "an unknown map": (EXPLAIN, {"instances": [picture()], "parameters": {"map": "svg"}}, 400, "no map 'svg'"),
    "the same class twice": (
        EXPLAIN,
        {"instances": [picture()], "parameters": {"target": "star", "contrast": "star"}},
        400,
        "both 3 'star'",
    ),
    "a parameter of a prediction": (
        PREDICT,
        {"instances": [picture()], "parameters": {"target": 1}},
        400,
        "no effect on a prediction",
    ),
    "no such model": ("/v1/models/other:predict", {"instances": [[0]]}, 404, "no model 'other'"),
    "no such address": ("/v3/models", {}, 404, "no such address"),
    "another method": ("/v2", {}, 405, "does not take POST"),
    "a verb that there is not": ("/v1/models/shapes:classify", {"instances": [[0]]}, 404, "no such address"),
    "a model without a verb": ("/v1/models/shapes", {"instances": [[0]]}, 405, "does not take POST"),
    "numbers of twice the size": (
        INFER,
        {"inputs": [{**X, "datatype": "FP64", "data": ZEROS}]},
        400,
        "is FP32, this one is FP64: send FP32",
    ),
    "numbers of half the size": (
        INFER,
        {"inputs": [{**X, "datatype": "FP16", "data": ZEROS}]},
        400,
        "this one is FP16",
    ),
    "no tensors": (INFER, {"instances": [[0]]}, 400, '{"inputs": [...]}'),
    "no such input": (INFER, {"inputs": [{**X, "name": "picture", "data": ZEROS}]}, 400, "no input 'picture'"),
    "a missing input": (INFER, {"inputs": []}, 400, "'image' is missing"),
    "twice the same input": (INFER, {"inputs": [{**X, "data": ZEROS}] * 2}, 400, "given twice"),
    "too few numbers": (INFER, {"inputs": [{**X, "data": [0, 1]}]}, 400, "holds 2 numbers"),
    "a shape below zero": (INFER, {"inputs": [{**X, "shape": [-1, 3, 64, 64], "data": ZEROS}]}, 400, "has the shape"),
    "a shape beyond memory": (INFER, {"inputs": [{**X, "shape": [1 << 30] * 4, "data": [0]}]}, 400, "holds 1 numbers"),
    "no sample of any size": (
        INFER,
        {"inputs": [{**X, "shape": [2**31 - 1] * 3 + [0], "data": []}]},
        400,
        "has the shape",
    ),
    "texts of any length": (
        INFER,
        {"inputs": [{**X, "data": ["a" * 400_000, *["b"] * 2000]}]},
        400,
        "does not hold numbers",
    ),
    "a parameter that is none": (
        INFER,
        {"inputs": [{**X, "data": ZEROS}], "parameters": {"targets": 3}},
        400,
        "have no 'targets' (did you mean 'target'?)",
    ),
    "a parameter of an input that is none": (
        INFER,
        {"inputs": [{**X, "data": ZEROS, "parameters": {"binary_size": 3}}]},
        400,
        "the input 'image' have no 'binary_size' (did you mean",
    ),
    "a parameter of an output that is none": (
        INFER,
        {"inputs": [{**X, "data": ZEROS}], "outputs": [{"name": "logits", "parameters": {"classification": 3}}]},
        400,
        "have no 'classification'",
    ),
    "binary or not": (
        INFER,
        {"inputs": [{**X, "data": ZEROS}], "parameters": {"binary_data_output": "yes"}},
        400,
        "'binary_data_output' is true or false",
    ),
    "no sample": (INFER, {"inputs": [{**X, "shape": [0, 3, 64, 64], "data": []}]}, 400, "holds no sample"),
    "texts": (INFER, {"inputs": [{**X, "datatype": "BYTES", "data": ["a"]}]}, 400, "has the datatype 'BYTES'"),
    "another type": (INFER, {"inputs": [{**X, "datatype": "INT64", "data": ZEROS}]}, 400, "this one is INT64"),
    "raw bytes that are not there": (
        INFER,
        {"inputs": [{**X, "parameters": {"binary_data_size": 49152}}]},
        400,
        "0 raw bytes",
    ),
    "no data": (INFER, {"inputs": [X]}, 400, "has no data"),
    "an unknown output": (
        INFER,
        {"inputs": [{**X, "data": ZEROS}], "outputs": [{"name": "map"}]},
        400,
        "no output 'map'",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_is_told_why(kind, service):
    path, body, status, why = BAD[kind]
    reply = post(service, path, body)
    assert (reply.status, why in reply.error) == (status, True), reply.error
    assert "\n" not in reply.error


@pytest.mark.parametrize(
    ("path", "status"),
    [(PREDICT, 405), (EXPLAIN, 405), (INFER, 405), ("/v1/models/shapes:classify", 404), ("/v1/models/shapes", 200)],
)
def test_a_verb_is_asked_for_by_post(path, status, service):
    reply = get(service, path)
    assert reply.status == status
    assert (reply.headers.get("allow") == "POST") == (status == 405)


@pytest.mark.parametrize(
    ("headers", "status", "why"),
    [
        ({"Content-Encoding": "gzip"}, 415, "not unpacked"),
        ({"Inference-Header-Content-Length": "x"}, 400, "give the bytes"),
        ({"Inference-Header-Content-Length": "99999"}, 400, "give the bytes"),
        ({"Inference-Header-Content-Length": "0" * 12 + "9" * 5000}, 400, "give the bytes"),
        ({"Inference-Header-Content-Length": "2"}, 400, "not JSON"),
    ],
)
def test_bad_headers_are_told_why(headers, status, why, service):
    reply = post(service, INFER, {"inputs": []}, headers)
    assert (reply.status, why in reply.error) == (status, True), reply.error


@pytest.mark.parametrize("each", ["[]", "{}", "[[]]", '{"a":[]}'])
@pytest.mark.parametrize("path", [EXPLAIN, INFER])
def test_lists_beyond_number_are_not_made(each, path, service, monkeypatch):
    from fgonnx.serve import rest

    monkeypatch.setattr(rest, "_MOST_LISTS", 1000)
    reply = post(service, path, f'{{"instances":[{",".join([each] * 1000)}]}}'.encode())
    assert (reply.status, "at most 1,000 are read" in reply.error) == (413, True), reply.error


def test_a_body_without_end_is_cut(service):
    parts = iter([b" " * 100_000] * 20)

    class Endless:
        def read(self, size):
            return next(parts, b"")

    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.putrequest("POST", EXPLAIN)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    try:
        for part in parts:
            connection.send(b"%x\r\n%s\r\n" % (len(part), part))
    except OSError:  # the service has hung up already
        pass
    assert connection.getresponse().status == 413
    connection.close()


def test_nothing_of_that_disturbed_the_service(service, right):
    (found,) = explain(service, picture(RING)).body["explanations"]
    np.testing.assert_allclose(found["saliency"]["data"], right[RING].saliency[0], rtol=0, atol=2e-5)
    page = get(service, "/metrics").body.decode()
    assert 'status="500"' not in page
    assert "fgonnx_requests_active 0.0" in page
