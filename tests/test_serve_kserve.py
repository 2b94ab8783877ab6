"""The client of KServe's SDK, which is installed with 60 other packages: `nox -s kserve`."""

import asyncio

import numpy as np

import fgonnx
from tests import skips
from tests.cli_support import SHAPES
from tests.serve_support import STAR, picture, served

kserve = skips.without("kserve")

OUTPUTS = ["logits", "saliency", "target", "score", "completeness", "contributions"]
X = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)


def tensor(binary):
    made = kserve.InferInput("image", list(X.shape), "FP32")
    made.set_data_from_numpy(X, binary_data=binary)
    return made


def same(found):
    expected = fgonnx.Explainer(SHAPES)(X)
    assert [o.name for o in found.outputs] == OUTPUTS
    np.testing.assert_allclose(found.outputs[1].as_numpy(), expected.saliency, rtol=0, atol=2e-5)


async def over_http(base):
    first = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v1", timeout=20))
    body = {"instances": [picture(STAR)]}
    assert await first.is_model_ready(base, "shapes")
    predicted = await first.infer(base, body, model_name="shapes")
    explained = await first.explain(base, "shapes", body)
    assert explained["predictions"] == predicted["predictions"]
    assert explained["explanations"][0]["label"] == "star"
    second = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=20))
    assert await second.is_server_ready(base)
    for binary in (False, True):
        asked = kserve.InferRequest(model_name="shapes_explained", infer_inputs=[tensor(binary)])
        same(await second.infer(base, asked, model_name="shapes_explained"))


async def over_grpc(address):
    client = kserve.InferenceGRPCClient(address)
    assert await client.is_model_ready("shapes")
    for binary in (False, True):
        same(await client.infer(kserve.InferRequest(model_name="shapes_explained", infer_inputs=[tensor(binary)])))
    await client.close()


def test_it_gets_what_an_explainer_gives():
    with served(SHAPES) as service:
        asyncio.run(over_http(f"http://127.0.0.1:{service.port}"))
        asyncio.run(over_grpc(f"127.0.0.1:{service.grpc_port}"))
