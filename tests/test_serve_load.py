"""Under load: nobody waits without a limit, strangers in one batch do not meet, and a stop leaves nobody unanswered."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import fgonnx
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import Options
from tests import skips
from tests.cli_support import IMAGES, ROOT, SHAPES, refused
from tests.serve_support import STAR, ask, get, picture, post, served
from tests.support import draw, model, run, small_cnn

for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    skips.without(package)

EXPLAIN = "/v1/models/shapes:explain"


def body(path=STAR, **parameters):
    return {"instances": [picture(path)], "parameters": {"map": "none", **parameters}}


def until(condition):
    """Return once it holds; the service is polled, not slept upon."""
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    pytest.fail("it never came")


class Held:
    """Runs of a model that wait until they are let go."""

    def __init__(self, service, monkeypatch, name="shapes"):
        served_ = service.catalogue.entries[name].served
        self.begun, self.go, self.batches = threading.Semaphore(0), threading.Event(), []
        own = served_.run

        def held(jobs):
            self.batches.append([job.count for job in jobs])
            self.begun.release()
            assert self.go.wait(20)
            return own(jobs)

        monkeypatch.setattr(served_, "run", held)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_more_than_may_wait_are_turned_away_at_once(monkeypatch, threads):
    with served(SHAPES, max_queue=2) as service:
        held = Held(service, monkeypatch)
        first = threads.submit(post, service, EXPLAIN, body())
        assert held.begun.acquire(timeout=20)
        waiting = [threads.submit(post, service, EXPLAIN, body()) for _ in range(2)]
        lane = service.catalogue.entries["shapes"].lanes["explain"]
        until(lambda: lane.waiting >= 2)
        away = post(service, EXPLAIN, body())
        assert (away.status, away.headers["retry-after"]) == (429, "1")
        assert "2 samples wait" in away.error
        assert 'fgonnx_queue_samples{model="shapes",verb="explain"} 2.0' in get(service, "/metrics").body.decode()
        held.go.set()
        assert [f.result().status for f in (first, *waiting)] == [200] * 3
        assert held.batches[1] == [1, 1]  # those that waited were run together


def test_more_than_may_be_at_work_are_turned_away_and_the_healthy_seen(monkeypatch, threads):
    with served(SHAPES, max_requests=1) as service:
        held = Held(service, monkeypatch)
        first = threads.submit(post, service, EXPLAIN, body())
        assert held.begun.acquire(timeout=20)
        assert post(service, EXPLAIN, body()).status == 503
        rpc = skips.without("tritonclient.grpc")
        client = rpc.InferenceServerClient(f"127.0.0.1:{service.grpc_port}")
        x = rpc.InferInput("image", [1, 3, 64, 64], "FP32")
        x.set_data_from_numpy(np.zeros((1, 3, 64, 64), np.float32))
        with pytest.raises(rpc.InferenceServerException, match="UNAVAILABLE"):
            client.infer("shapes", [x])
        client.close()
        assert get(service, "/v2/health/ready").body == {"ready": True}
        held.go.set()
        assert first.result().status == 200


def test_what_takes_too_long_is_given_up(monkeypatch, threads):
    with served(SHAPES, timeout=0.2) as service:
        held = Held(service, monkeypatch)
        late = post(service, EXPLAIN, body())
        assert (late.status, "within 0.2 seconds" in late.error) == (504, True)
        assert post(service, EXPLAIN, body()).status == 504  # given up before its turn
        held.go.set()
        assert service.catalogue.entries["shapes"].lanes["explain"].waiting == 0


def test_predictions_do_not_wait_for_explanations(monkeypatch, threads):
    with served(SHAPES) as service:
        explain = service.catalogue.entries["shapes"].served.explain
        go = threading.Event()
        begun = threading.Event()

        def slow(*given):
            begun.set()
            assert go.wait(20)
            return explain(*given)

        monkeypatch.setattr(service.catalogue.entries["shapes"].served, "explain", slow)
        first = threads.submit(post, service, EXPLAIN, body())
        assert begun.wait(20)
        predicted = post(service, "/v1/models/shapes:predict", {"instances": [picture()]})
        assert (predicted.status, first.done()) == (200, False)
        go.set()
        assert first.result().status == 200


def test_strangers_in_one_batch_get_their_own_answers(monkeypatch, threads):
    names = ["circle", "cross", "ring", "square", "star", "triangle"]
    explainer = fgonnx.Explainer(SHAPES, threads=1)
    with served(SHAPES) as service:
        held = Held(service, monkeypatch)
        threads.submit(post, service, EXPLAIN, body())
        assert held.begun.acquire(timeout=20)
        lane = service.catalogue.entries["shapes"].lanes["explain"]
        asked = {}
        for i, name in enumerate(names):
            path = IMAGES / f"{name}.png"
            # one of them asks for what cannot be explained: its error is nobody else's
            wrong = {"contrast": "next", "target": "star"} if name == "cross" else {}
            asked[name] = threads.submit(post, service, EXPLAIN, body(path, map="array", **wrong))
            until(lambda waiting=i + 1: lane.waiting >= waiting)
        held.go.set()
        assert asked.pop("cross").result().status == 200
        assert [sum(b) for b in held.batches].count(5) == 1
        for name, reply in asked.items():
            expected = explainer(str(IMAGES / f"{name}.png"))
            (found,) = reply.result().body["explanations"]
            np.testing.assert_allclose(found["saliency"]["data"], expected.saliency[0], rtol=0, atol=2e-5)


def test_a_request_may_wait_for_others(threads):
    with served(SHAPES, max_wait=10_000) as service:  # far longer than eight need to come together
        replies = [threads.submit(post, service, EXPLAIN, body()) for _ in range(8)]
        assert {r.result().status for r in replies} == {200}
        assert 'fgonnx_batch_samples_sum{model="shapes",verb="explain"} 64.0' in get(service, "/metrics").body.decode()


def test_a_condition_of_the_service_counts_unless_a_request_has_its_own():
    with served(SHAPES, explain_if="score > 1e9", grpc=False) as service:
        assert post(service, EXPLAIN, body()).body["explanations"] == [None]
        assert post(service, EXPLAIN, body(explain_if="score > 0")).body["explanations"][0]["label"] == "star"


def test_an_error_of_one_in_a_batch_is_its_own(monkeypatch, threads):
    with served(SHAPES) as service:
        held = Held(service, monkeypatch)
        threads.submit(post, service, EXPLAIN, body())
        assert held.begun.acquire(timeout=20)
        lane = service.catalogue.entries["shapes"].lanes["explain"]
        good = threads.submit(post, service, EXPLAIN, body(IMAGES / "ring.png", contrast="star"))
        until(lambda: lane.waiting >= 1)
        bad = threads.submit(post, service, EXPLAIN, body(contrast="star"))  # it is a star
        until(lambda: lane.waiting >= 2)
        held.go.set()
        assert good.result().body["explanations"][0]["label"] == "ring"
        assert (bad.result().status, "both 3 'star'" in bad.result().error) == (400, True)
        assert [1, 1] in held.batches


def test_what_is_not_foreseen_is_one_answer(monkeypatch):
    log = StringIO()
    from fgonnx.serve.watch import Watch

    with served(SHAPES, watch=Watch(True, log)) as service:
        with monkeypatch.context() as patch:
            patch.setattr(service.catalogue.entries["shapes"].served, "explain", lambda *given: 1 / 0)
            failed = post(service, EXPLAIN, body())
        assert (failed.status, failed.error) == (500, "the service failed at this request, and has logged why")
        assert post(service, EXPLAIN, body()).status == 200
    assert "ZeroDivisionError" in log.getvalue()


def test_a_line_for_each_request_without_its_content():
    log = StringIO()
    from fgonnx.serve.watch import Watch

    with served(SHAPES, watch=Watch(True, log)) as service:
        post(service, EXPLAIN, body())
        post(service, EXPLAIN, body(target="cube"))
        page = get(service, "/metrics").body.decode()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    done, wrong = [line for line in lines if line["event"] == "request"]
    assert (done["status"], done["targets"], done["model"]) == (200, [3], "shapes")
    assert set(done["seconds"]) == {"read", "wait", "run", "write"}
    assert (wrong["status"], "no label" in wrong["error"]) == (400, True)
    assert [line["event"] for line in lines] == ["started", "request", "request", "stopped"]
    assert max(len(line) for line in log.getvalue().splitlines()) < 600
    assert picture()["b64"][:40] not in log.getvalue()
    assert 'fgonnx_relative_residual_count{model="shapes"} 1.0' in page
    for stage in ("read", "wait", "run", "write"):
        assert f'fgonnx_stage_seconds_count{{model="shapes",stage="{stage}",verb="explain"}} 1.0' in page


def spoken(service, content):
    """Send bytes as they are, and return what comes back until the service hangs up or answers."""
    import socket

    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(content)
        return connection.recv(65536)


HEAD = f"POST {EXPLAIN} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".encode()


def test_connections_that_misbehave_disturb_nobody():
    import socket

    log = StringIO()
    from fgonnx.serve.watch import Watch

    with served(SHAPES, watch=Watch(True, log), timeout=0.5, grpc=False) as service:
        assert spoken(service, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert spoken(service, HEAD + b"{").startswith(b"HTTP/1.1 408")  # a body that does not come
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(HEAD + b"{")  # and hangs up
        until(lambda: '"status": 499' in log.getvalue())
        until(lambda: "fgonnx_requests_active 0.0" in get(service, "/metrics").body.decode())
        assert post(service, EXPLAIN, body()).status == 200
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines].count("unexpected") == 0
    assert {line["said"] for line in lines if line["event"] == "connection"} == {"Invalid HTTP request received."}


def test_a_stop_answers_what_was_taken_on(monkeypatch, threads):
    with served(SHAPES) as service:
        held = Held(service, monkeypatch)
        first = threads.submit(post, service, EXPLAIN, body())
        assert held.begun.acquire(timeout=20)
        service.stop()
        until(lambda: get(service, "/v2/health/ready").status == 503)
        assert (post(service, EXPLAIN, body()).status, get(service, "/v2/health/live").status) == (503, 200)
        held.go.set()
        assert first.result().status == 200


def test_a_stop_does_not_wait_for_ever(monkeypatch, threads):
    with served(SHAPES, grace=0.1) as service:
        held = Held(service, monkeypatch)
        first = threads.submit(post, service, EXPLAIN, body())
        assert held.begun.acquire(timeout=20)
        service.stop()
        assert (first.result().status, first.result().error) == (503, "the service is stopping")
        held.go.set()


def version(folder, number, seed):
    (folder / str(number)).mkdir(parents=True)
    onnx.save(small_cnn(seed=seed), folder / str(number) / "model.onnx")


X = np.random.default_rng(0).normal(size=(1, 3, 8, 6)).astype(np.float32)


def predicted(service):
    reply = post(service, "/v1/models/net:predict", {"instances": X.tolist()})
    return reply.body["predictions"][0]


def test_a_new_version_takes_over_and_a_broken_one_does_not(tmp_path):
    folder = tmp_path / "net"
    version(folder, 1, seed=0)
    log = StringIO()
    from fgonnx.serve.watch import Watch

    with served(folder, reload=0.02, watch=Watch(True, log)) as service:
        first = predicted(service)
        version(folder, 2, seed=1)
        until(lambda: get(service, "/v2/models/net").body["versions"] == ["2"])
        assert not np.allclose(predicted(service), first)
        (folder / "3").mkdir()
        (folder / "3" / "model.onnx").write_bytes(b"no model")
        until(lambda: "not loaded" in log.getvalue())
        assert get(service, "/v2/models/net/versions/2").status == 200
        assert get(service, "/v2/models/net/versions/1").status == 404
        shutil.rmtree(folder / "3")
        shutil.rmtree(folder / "2")  # back to the one before
        until(lambda: get(service, "/v2/models/net").body["versions"] == ["1"])
        np.testing.assert_allclose(predicted(service), first)
    assert log.getvalue().count("not loaded") == 1


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio switches Nagle's algorithm off for sockets that say that they are of TCP."""
    import socket

    from fgonnx.serve.server import _listening

    with _listening("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_several_models_stand_side_by_side(tmp_path):
    onnx.save(small_cnn(), tmp_path / "net.onnx")
    with served(SHAPES, f"other={tmp_path / 'net.onnx'}", grpc=False) as service:
        assert get(service, "/v1/models").body == {"models": ["shapes", "other"]}
        assert len(post(service, "/v1/models/other:predict", {"instances": X.tolist()}).body["predictions"][0]) == 5
        assert post(service, EXPLAIN, body()).status == 200


#: Models and methods that need more than the usual path: what is asked, and how the model is served.
OTHERS = {
    "one sample at a time": (small_cnn(batch=1), {}, {}),
    "another method": (small_cnn(), {"method": "grad-cam"}, {}),
    "a method that draws": (small_cnn(), {"method": "smooth-fullgrad", "settings": {"samples": 2}}, {}),
    "a class": (small_cnn(), {}, {"target": "2"}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_served(kind, tmp_path):
    proto, options, parameters = OTHERS[kind]
    onnx.save(proto, tmp_path / "net.onnx")
    from fgonnx.serve.served import How

    how = How(Options(**options), Running(threads=1))
    expected = fgonnx.Explainer(tmp_path / "net.onnx", **options)(np.concatenate([X, X]), parameters.get("target"))
    with served(tmp_path / "net.onnx", how=how, grpc=False) as service:
        instances = np.concatenate([X, X]).tolist()
        reply = post(service, "/v1/models/net:explain", {"instances": instances, "parameters": parameters})
        assert reply.status == 200, reply.body
        for found, row in zip(reply.body["explanations"], expected.saliency, strict=True):
            np.testing.assert_allclose(found["saliency"]["data"], row, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_predictions_of_int8_models_are_onnxruntimes_to_the_bit(shared):
    """Its optimiser fuses layers that the rewritten graph keeps apart, which rounds to other steps."""
    path = shared / "models" / "squeezenet1_1_qdq_int8.onnx"
    from fgonnx.serve.served import How, Served

    x = np.random.default_rng(0).random((2, 3, 224, 224)).astype(np.float32)
    found = Served("net", "1", path, How(running=Running(threads=1))).predict({"input": x})
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(2)])
    np.testing.assert_array_equal(found["output"], expected)


#: Models whose samples influence each other, which must not meet strangers' samples.
MIXING = {
    "less their mean": "m = ReduceMean<keepdims=1>(g, zero)  y = Sub(g, m)",
    "the largest of them": "m = ReduceMax<keepdims=1>(g, zero)  y = Add(g, m)",
    "summed up": "i = Squeeze(zero)  y = CumSum(g, i)",
    "softmax over them": "y = Softmax<axis=0>(g)",
}


@pytest.mark.parametrize("kind", MIXING)
def test_samples_that_influence_each_other_meet_no_strangers(kind, tmp_path, threads):
    graph = f"(float[N,1,6,6] x) => (float[N,3] y) {{ f = Flatten(x)  g = MatMul(f, w)  {MIXING[kind]} }}"
    weights = {**draw(w=(36, 3)), **({} if "zero" not in graph else {"zero": np.array([0])})}
    proto = model(graph, weights=weights)
    onnx.save(proto, tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(4, 1, 6, 6)).astype(np.float32)
    with served(tmp_path / "net.onnx", max_wait=50, grpc=False) as service:
        path = "/v1/models/net:predict"
        alone = [threads.submit(post, service, path, {"instances": x[i : i + 1].tolist()}) for i in range(4)]
        for i, reply in enumerate(alone):
            expected = run(proto, {"x": x[i : i + 1]})["y"]
            np.testing.assert_allclose(reply.result().body["predictions"], expected, rtol=0, atol=1e-5)
        together = post(
            service, path, {"instances": x.tolist()}
        )  # they were sent together: so does the model take them
        np.testing.assert_allclose(together.body["predictions"], run(proto, {"x": x})["y"], rtol=0, atol=1e-5)


def test_an_output_without_a_row_for_each_sample_is_given_whole(tmp_path):
    body = "f = Flatten(x)  y = MatMul(f, w)  s = ReduceSum<keepdims=0>(y, zero)"
    graph = f"(float[N,1,6,6] x) => (float[N,3] y, float[3] s) {{ {body} }}"
    onnx.save(model(graph, weights={**draw(w=(36, 3)), "zero": np.array([0])}), tmp_path / "net.onnx")
    with served(tmp_path / "net.onnx", grpc=False) as service:
        one = {"instances": np.ones((1, 1, 6, 6)).tolist()}
        for verb in ("predict", "explain"):
            (found,) = post(service, f"/v1/models/net:{verb}", one).body["predictions"]
            np.testing.assert_allclose(found["s"], found["y"], rtol=0, atol=1e-6)
        three = post(service, "/v1/models/net:predict", {"instances": np.ones((3, 1, 6, 6)).tolist()}).body[
            "predictions"
        ]
        for found in three:  # its three entries are not the three instances'
            np.testing.assert_allclose(found["s"], np.multiply(found["y"], 3), rtol=0, atol=1e-5)
        assert [o["shape"] for o in get(service, "/v2/models/net").body["outputs"]][:2] == [[-1, 3], [3]]


def test_free_sizes_are_served_as_they_come(tmp_path):
    graph = "(float[N,1,H,W] x) => (float[N,2] y) { c = Conv(x, w)  p = GlobalAveragePool(c)  y = Flatten(p) }"
    onnx.save(model(graph, weights=draw(w=(2, 1, 3, 3))), tmp_path / "net.onnx")
    with served(tmp_path / "net.onnx", grpc=False) as service:
        assert get(service, "/v2/models/net").body["inputs"][0]["shape"] == [-1, 1, -1, -1]
        for size in (5, 7):
            (found,) = post(service, "/v1/models/net:explain", {"instances": [np.ones((1, size, size)).tolist()]}).body[
                "explanations"
            ]
            assert found["saliency"]["shape"] == [size, size]


REFUSED = {
    "no such file": (("none.onnx",), "none.onnx"),
    "a folder without versions": ((IMAGES,), "holds no version"),
    "two of one name": ((SHAPES, SHAPES), "two models are called 'shapes'"),
    "an address that is none": ((SHAPES, "--host", "nowhere.invalid"), "cannot be listened on"),
    "a condition that is none": ((SHAPES, "--explain-if", "truth == 1"), "names 'truth'"),
    "a port out of range": ((SHAPES, "--port", "70000"), "65535"),
    "a port of what is not served": ((SHAPES, "--no-grpc", "--grpc-port", "9000"), "--grpc-port 9000 has no effect"),
    "a wait for nobody": ((SHAPES, "--max-wait", "5"), "--max-wait 5.0 has no effect: --batch-size 1"),
    "a name that is no part of an address": ((f"a/b={SHAPES}",), "is no name of a model"),
}


def test_what_is_not_installed_is_named(monkeypatch):
    from fgonnx.cli import serve

    monkeypatch.setattr(serve, "find_spec", lambda module: None)
    assert "needs starlette, uvicorn, grpcio, prometheus-client: pip install" in refused("serve", SHAPES)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused(kind):
    given, why = REFUSED[kind]
    assert why in refused("serve", *given)


def test_a_file_that_explains_itself_is_refused(tmp_path):
    onnx.save(fgonnx.rewrite(SHAPES), tmp_path / "r.onnx")
    assert "explains itself" in refused("serve", tmp_path / "r.onnx")


@skips.when(sys.platform == "win32", skips.SYSTEM)
def test_a_process_ends_with_its_signal(tmp_path):
    command = [sys.executable, "-m", "fgonnx", "serve", str(SHAPES), "--port", "0", "--no-grpc", "--no-cache"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = [process.stdout.readline() for _ in range(2)]
    port = re.search(r"http://127.0.0.1:(\d+)", said[1])[1]

    class At:
        pass

    At.port = int(port)
    assert ask(At, "GET", "/v2/health/ready").body == {"ready": True}
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["started", "stopped"]


def test_a_region_is_a_target_of_segmentation(tmp_path):
    graph = "(float[N,1,6,6] x) => (float[N,2,6,6] y) { c = Conv<pads=[1,1,1,1]>(x, w)  y = Tanh(c) }"
    onnx.save(model(graph, weights=draw(w=(2, 1, 3, 3))), tmp_path / "net.onnx")
    x = np.random.default_rng(1).normal(size=(1, 1, 6, 6)).astype(np.float32)
    expected = fgonnx.Explainer(tmp_path / "net.onnx")(x, "region=0:0:0.5:1,class=1")
    with served(tmp_path / "net.onnx", grpc=False) as service:
        sent = {"instances": x.tolist(), "parameters": {"target": "region=0:0:0.5:1,class=1"}}
        (found,) = post(service, "/v1/models/net:explain", sent).body["explanations"]
    np.testing.assert_allclose(found["saliency"]["data"], expected.saliency[0], rtol=0, atol=1e-6)
    assert found["target"] is None
    assert found["described"] == expected.described[0]
