"""Clients that others wrote get what an Explainer gives: Triton's, over HTTP and gRPC, with JSON and raw bytes."""

import numpy as np
import pytest

import fgonnx
from tests import skips
from tests.cli_support import IMAGES, SHAPES
from tests.serve_support import served

for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    skips.without(package)
web = skips.without("tritonclient.http")
rpc = skips.without("tritonclient.grpc")

NAMES = ("circle", "star", "ring")
EXPLAINED = ("saliency", "target", "score", "completeness", "contributions")
CLIENTS = ("http", "grpc")


@pytest.fixture(scope="module")
def service():
    with served(SHAPES) as service:
        yield service


@pytest.fixture(scope="module")
def pictures():
    reader = fgonnx.Explainer(SHAPES).reader
    from fgonnx.jobs.samples import Source

    return np.stack([reader.read(Source(IMAGES / f"{n}.png", None, n)).x for n in NAMES])


@pytest.fixture(scope="module")
def right(pictures):
    explainer = fgonnx.Explainer(SHAPES, threads=1)
    return {t: explainer(pictures, t) for t in (None, "star", 5)}


@pytest.fixture(params=CLIENTS)
def client(request, service):
    if request.param == "http":
        made = web.InferenceServerClient(f"127.0.0.1:{service.port}")
        yield web, made
    else:
        made = rpc.InferenceServerClient(f"127.0.0.1:{service.grpc_port}")
        yield rpc, made
    made.close()


def infer(client, x, name="shapes", outputs=(), target=None, **asked):
    library, connection = client
    inputs = [library.InferInput("image", list(x.shape), "FP32")]
    inputs[0].set_data_from_numpy(x)
    if target is not None:
        inputs.append(library.InferInput("target_index", [len(x)], "INT64"))
        inputs[1].set_data_from_numpy(np.array(target, np.int64))
    wanted = [library.InferRequestedOutput(o) for o in outputs] or None
    return connection.infer(name, inputs, outputs=wanted, **asked)


def same(found, explanation, rows=slice(None)):
    for name in EXPLAINED:
        expected = getattr(explanation, name)[rows]
        np.testing.assert_allclose(found.as_numpy(name), expected, rtol=0, atol=2e-5, err_msg=name)


def test_the_service_is_there(client):
    _, connection = client
    assert connection.is_server_live()
    assert connection.is_server_ready()
    assert connection.is_model_ready("shapes")
    assert not connection.is_model_ready("other")


def test_a_model_says_what_it_takes_and_gives(client):
    library, connection = client
    found = connection.get_model_metadata("shapes", **({} if library is web else {"as_json": True}))
    assert [i["name"] for i in found["inputs"]] == ["image"]
    assert [o["name"] for o in found["outputs"]] == ["logits", *EXPLAINED]
    assert found["platform"] == "onnx_onnxv1"
    server = connection.get_server_metadata(**({} if library is web else {"as_json": True}))
    assert (server["name"], server["version"]) == ("fgonnx", fgonnx.__version__)


def test_a_prediction_is_the_models(client, pictures, right):
    found = infer(client, pictures)
    assert found.as_numpy("saliency") is None
    np.testing.assert_allclose(found.as_numpy("logits"), right[None].outputs["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ({"name": "shapes_explained"}, None),
        ({"outputs": ("logits", *EXPLAINED)}, None),
        ({"name": "shapes_explained", "parameters": {"target": "star"}}, "star"),
        ({"name": "shapes_explained", "parameters": {"target": 5}}, 5),
        ({"name": "shapes_explained", "target": [5, 5, 5]}, 5),
        ({"name": "shapes_explained", "target": [-1, -1, -1]}, None),
    ],
)
def test_an_explanation_is_an_explainers(asked, target, client, pictures, right):
    found = infer(client, pictures, **asked)
    same(found, right[target])
    np.testing.assert_allclose(found.as_numpy("logits"), right[target].outputs["logits"], rtol=0, atol=1e-5)


def test_every_sample_has_a_target_of_its_own(client, pictures, right):
    found = infer(client, pictures, "shapes_explained", target=[-1, 3, 5])
    for i, target in enumerate((None, "star", 5)):
        np.testing.assert_allclose(found.as_numpy("saliency")[i], right[target].saliency[i], rtol=0, atol=2e-5)
        assert found.as_numpy("target")[i] == right[target].target[i]


def test_only_what_is_asked_for_comes_back(client, pictures):
    found = infer(client, pictures[:1], outputs=("score",))
    assert found.as_numpy("score").shape == (1,)
    assert found.as_numpy("logits") is None


@pytest.mark.parametrize(("least", "explained"), [(1e9, False), (0.0, True)])
def test_a_condition_spares_explanations(least, explained, client, pictures):
    found = infer(client, pictures, "shapes_explained", parameters={"explain_if": f"score > {least}"})
    assert (found.as_numpy("saliency") is not None) == explained
    assert found.as_numpy("logits").shape == (3, 6)


def test_a_contrast_is_one_of_two_classes(client, pictures):
    parameters = {"target": "star", "contrast": "ring"}
    found = infer(client, pictures, "shapes_explained", parameters=parameters)
    expected = fgonnx.Explainer(SHAPES, threads=1)(pictures, "star", contrast="ring")
    np.testing.assert_allclose(found.as_numpy("saliency"), expected.saliency, rtol=0, atol=2e-5)


#: Requests that clients are told to mend.
WRONG = {
    "another shape": ({"x": np.zeros((1, 3, 8, 8), np.float32)}, "must have the shape"),
    "no such output": ({"outputs": ("map",)}, "no output 'map'"),
    "a class that does not exist": ({"name": "shapes_explained", "target": [9, 0, 0]}, "out of range"),
    "a label that does not exist": ({"name": "shapes_explained", "parameters": {"target": "cube"}}, "no label"),
    "no such model": ({"name": "other"}, "no model 'other'"),
    "no such version": ({"model_version": "7"}, "version 1 alone"),
    "a misspelt parameter": ({"parameters": {"trget": 1}}, "have no 'trget'.*did you mean 'target'"),
    "a target of a prediction": ({"parameters": {"target": 1}}, "no effect"),
    "a file as a target": ({"name": "shapes_explained", "parameters": {"target": "seed=/etc/passwd"}}, "names a file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said(kind, client, pictures):
    asked, why = WRONG[kind]
    library, _ = client
    error = web.InferenceServerException if library is web else rpc.InferenceServerException
    with pytest.raises(error, match=why):
        infer(client, **{"x": pictures, **asked})


def test_what_clients_send_by_themselves_is_taken(client, pictures, right):
    asked = {"sequence_id": 1, "sequence_start": True, "priority": 1, "timeout": 20_000_000}
    found = infer(client, pictures, outputs=("score",), **asked).as_numpy("score")
    np.testing.assert_allclose(found, right[None].score, rtol=0, atol=2e-5)


def test_numbers_may_be_sent_in_json(service, pictures, right):
    inputs = [web.InferInput("image", [1, 3, 64, 64], "FP32")]
    inputs[0].set_data_from_numpy(pictures[:1], binary_data=False)
    outputs = [web.InferRequestedOutput(o, binary_data=False) for o in EXPLAINED]
    connection = web.InferenceServerClient(f"127.0.0.1:{service.port}")
    same(connection.infer("shapes", inputs, outputs=outputs, request_id="a"), right[None], slice(1))
    connection.close()


def called(service, **fields):
    """Call the service with a message of its own making."""
    import grpc

    from fgonnx.serve.messages import MESSAGES, SERVICE

    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            MESSAGES["ModelInferRequest"].SerializeToString,
            MESSAGES["ModelInferResponse"].FromString,
        )
        try:
            return call(MESSAGES["ModelInferRequest"](**{"model_name": "shapes", **fields}))
        except grpc.RpcError as error:
            return error.code().name, error.details()


ZEROS = {"name": "image", "datatype": "FP32", "shape": [1, 3, 64, 64]}
NUMBERS = {"fp32_contents": [0.0] * 3 * 64 * 64}

#: Messages that no client library sends.
ODD = {
    "no inputs": ({}, "the input 'image' is missing"),
    "raw contents for one of two": ({"inputs": [ZEROS, ZEROS], "raw_input_contents": [b""]}, "for 1 of 2 inputs"),
    "twice the same": ({"inputs": [{**ZEROS, "contents": NUMBERS}] * 2}, "given twice"),
    "contents of another type": ({"inputs": [{**ZEROS, "contents": {"int_contents": [0]}}]}, "holds 0 numbers"),
    "too few bytes": ({"inputs": [ZEROS], "raw_input_contents": [b"0000"]}, "has 4 bytes"),
    "no such type": ({"inputs": [{**ZEROS, "datatype": "FP8"}], "raw_input_contents": [b""]}, "the datatype 'FP8'"),
    "a shape below zero": ({"inputs": [{**ZEROS, "shape": [-1]}], "raw_input_contents": [b""]}, "has the shape"),
    "no sample of any size": (
        {"inputs": [{**ZEROS, "shape": [(1 << 31) - 1] * 3 + [0]}], "raw_input_contents": [b""]},
        "has the shape",
    ),
    "texts of any length": (
        {"inputs": [{**ZEROS, "datatype": "BYTES", "contents": {"bytes_contents": [b"a" * 400_000, *[b"b"] * 2000]}}]},
        "the datatype 'BYTES'",
    ),
    "too many samples": (
        {"inputs": [{**ZEROS, "shape": [33, 3, 64, 64]}], "raw_input_contents": [bytes(33 * 4 * 3 * 64 * 64)]},
        "at most 32",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_messages_are_told_why(kind, service):
    fields, why = ODD[kind]
    code, said = called(service, **fields)
    assert (code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), why in said) == (True, True), said


def test_a_message_that_is_too_long_is_refused(service):
    assert called(service, id="x" * 17_000_000)[0] == "RESOURCE_EXHAUSTED"


def test_numbers_may_be_sent_in_messages(service):
    found = called(service, inputs=[{**ZEROS, "contents": NUMBERS}])
    expected = fgonnx.Explainer(SHAPES, threads=1)(np.zeros((1, 3, 64, 64), np.float32)).outputs["logits"]
    np.testing.assert_allclose(np.frombuffer(found.raw_output_contents[0], np.float32), expected[0], rtol=0, atol=1e-5)


def test_messages_are_those_of_the_protocol():
    pb2 = skips.without("tritonclient.grpc.service_pb2")
    from fgonnx.serve.messages import MESSAGES

    def fields(descriptor):
        rows = {}
        for field in descriptor.fields:
            rows[field.name] = (field.number, field.type, field.is_repeated)
            if field.message_type is not None:
                rows.update({f"{field.name}.{k}": v for k, v in fields(field.message_type).items()})
        return rows

    ours = {name: fields(message.DESCRIPTOR) for name, message in MESSAGES.items()}
    assert ours == {name: fields(getattr(pb2, name).DESCRIPTOR) for name in MESSAGES}
