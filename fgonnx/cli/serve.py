"""`fgonnx serve`: predictions and explanations over HTTP and gRPC."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from fgonnx.cli import terminal
from fgonnx.cli.options import Group, takes
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import OptionError
from fgonnx.jobs.reading import SOUND, Reading
from fgonnx.serve.options import Serving

_HELPS = {
    "batch_size": "Largest number of samples in one run. Above 1, requests that wait are run together, which is "
    "meant for GPUs, and for small models asked by many at once.",
}
_EXTRA = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "grpc": "grpcio",
    "prometheus_client": "prometheus-client",
}


@takes(
    serving=Group(Serving),
    options=Group(Options, without=FILE),
    running=Group(Running, defaults={"cache": True, "batch_size": 1}, helps=_HELPS),
    reading=Group(Reading, without=SOUND),
)
def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help="Models: .onnx files, or folders of versions (NAME/1/model.onnx), whose newest is served and "
            "followed. NAME=PATH gives another name than the file's or the folder's.",
        ),
    ],
    *,
    serving: Serving,
    options: Options,
    running: Running,
    reading: Reading,
) -> None:
    """Serve models: predictions as any server gives them, and explanations with map and certificate, by the same names.

    **Examples**

    - `fgonnx serve resnet.onnx --preprocess imagenet --labels synset.txt`
    - `fgonnx serve old=resnet18.onnx new=resnet50.onnx --preprocess imagenet` : two models
    - `fgonnx serve models/shapes` : the newest version folder, also those to come
    - `fgonnx serve resnet.onnx --explain-if 'probability < 0.8'` : explain doubtful answers alone
    - `fgonnx serve resnet.onnx --host 0.0.0.0 --max-body 4 --max-requests 16 --timeout 10`

    Once it listens, ask it from another window:

    curl localhost:8080/v2/models/resnet

    curl localhost:8080/v1/models/resnet:explain -d '{"instances": [{"b64": "'$(base64 -w0 cat.jpg)'"}]}'

    Any client of the Open Inference Protocol (KServe, Triton, MLServer) works: ask NAME for its outputs, or for
    saliency, score, target, completeness and contributions beside them; NAME_explained gives all of them unasked.
    Pictures go to /v1/models/NAME:explain, in base64: addresses are not opened. /metrics is for Prometheus,
    /v2/health/ready for whoever starts it, stderr has a line of JSON for each request. There is no authentication:
    leave the host as it is, or put a gateway in front. SIGTERM ends it when what was taken on is answered.
    docs/serve.md has the rest. Exit code: 0 when it is stopped, or 2 where models or options are wrong.
    """
    missing = [package for module, package in _EXTRA.items() if find_spec(module) is None]
    if missing:
        raise OptionError(f"'fgonnx serve' needs {', '.join(missing)}: pip install {' '.join(missing)}")
    from fgonnx.serve.served import How
    from fgonnx.serve.server import Service

    service = Service(models, How(options, running, reading), serving)

    def started() -> None:
        for name, entry in service.catalogue.entries.items():
            terminal.say("model", f"{name}  ({entry.served.path}, version {entry.served.version})")
        terminal.say("http", f"http://{serving.host}:{service.port}  (/v2, /v1, /metrics)")
        if serving.grpc:
            terminal.say("grpc", f"{serving.host}:{service.grpc_port}")
        terminal.notes(["stop it with Ctrl-C"])

    service.run(started)
    raise typer.Exit  # what was wrong with an answer is in the answer
