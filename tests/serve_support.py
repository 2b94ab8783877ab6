"""A service in a thread of the tests, and plain requests to it."""

import base64
import contextlib
import http.client
import json
import threading
from dataclasses import dataclass

from fgonnx.engine.graph.running import Running
from tests.cli_support import IMAGES, SHAPES

STAR = IMAGES / "star.png"


@dataclass
class Reply:
    """What came back: the status of HTTP, the body parsed, and the headers."""

    status: int
    body: object
    headers: dict

    @property
    def error(self):
        return self.body["error"]


def picture(path=STAR):
    return {"b64": base64.b64encode(path.read_bytes()).decode()}


def ask(service, method, path, body=None, headers=None):
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    with contextlib.closing(connection):
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content, headers or {})
        response = connection.getresponse()
        content = response.read()
        kind = response.headers.get("Content-Type", "")
        parsed = json.loads(content) if kind == "application/json" else content
        return Reply(response.status, parsed, {k.lower(): v for k, v in response.headers.items()})


def get(service, path):
    return ask(service, "GET", path)


def post(service, path, body, headers=None):
    return ask(service, "POST", path, body, headers)


@contextlib.contextmanager
def served(*models, how=None, watch=None, **serving):
    """Serve models in a thread, on free ports."""
    from fgonnx.serve.options import Serving
    from fgonnx.serve.served import How
    from fgonnx.serve.server import Service

    ports = {"grpc_port": 0} if serving.get("grpc", True) else {}
    how = how or How(running=Running(threads=1))
    options = Serving(**{"port": 0, "log": False, "reload": 0, **ports, **serving})
    service = Service([str(m) for m in models or (SHAPES,)], how, options, watch)
    listening = threading.Event()
    failed = []

    def run():
        try:
            service.run(listening.set, signals=False)
        except BaseException as error:
            failed.append(error)
            listening.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert listening.wait(20)
        assert not failed
        yield service
    finally:
        service.stop()
        thread.join(20)
        assert not thread.is_alive()
