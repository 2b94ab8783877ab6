"""`fgonnx view`: a page in which the model and its explanation run."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from fgonnx.cli import terminal
from fgonnx.cli.options import Group, ModelPath, takes
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import OptionError
from fgonnx.jobs.reading import Reading
from fgonnx.view import server
from fgonnx.view.build import PageJob
from fgonnx.view.options import PAGE, PageOptions

_HELPS = {
    "verify": "Do not run the first graph, and do not hold its outputs against the model's, before it is written."
}


@takes(
    options=Group(Options, only=("head", "output", "input", "input_shape", "layout", "bind", "backward")),
    running=Group(Running, only=("verify",), helps=_HELPS),
    reading=Group(Reading, only=("preprocess", "labels")),
    page=Group(PageOptions),
)
def command(
    model: ModelPath,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", metavar="DIR", help="Folder for the page. With --serve, a temporary one by default."
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve the page on this machine until Ctrl-C.", rich_help_panel=PAGE),
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port of --serve; 0 for a free one.", min=0, max=65535, rich_help_panel=PAGE)
    ] = 0,
    *,
    options: Options,
    running: Running,
    reading: Reading,
    page: PageOptions,
) -> None:
    """Write a page in which a model explains pictures in the browser: nothing is uploaded, nothing else is installed.

    **Examples**

    - `fgonnx view squeezenet.onnx --serve --preprocess imagenet --labels synset.txt`
    - `fgonnx view examples/shapes.onnx -o site` : for any web server
    - `fgonnx view examples/shapes.onnx -o site --single-file` : one file, which opens by a double click
    - `fgonnx view resnet.onnx --serve --preprocess imagenet --methods fullgrad,grad-cam --profiles full,paper`
    - `fgonnx view resnet.onnx -o site --preprocess imagenet --ort-web node_modules/onnxruntime-web`

    The model's input has to be one picture. docs/view.md says how the files of onnxruntime-web come. Exit code: 0, also
    when a server is stopped by Ctrl-C; 2 where model or options are wrong.
    """
    if folder is None and not serve:
        raise OptionError("say where the page goes (-o DIR), or show it at once (--serve)")
    if port and not serve:
        raise OptionError("--port has no effect without --serve; leave it out")
    if serve and page.single_file:
        raise OptionError("--single-file is for opening without a server; leave out one of it and --serve")
    job = PageJob(model, options, reading, page, running.verify, say=lambda text: terminal.say("", text))
    terminal.say("model", f"{model}  (sha256 {job.loaded.sha256[:12]})")
    terminal.say("preprocessing", f"{job.preprocessing.describe()}  (from: {job.origin})")
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        written = job.write(Path(place))
        size = sum(path.stat().st_size for path in written)
        terminal.say("written", f"{written[0]}  ({len(written)} file(s), {size / 1e6:.1f} MB)")
        if serve:
            with server.serving(Path(place), port) as running_server:
                terminal.say("page", f"{server.address(running_server)}  (Ctrl-C ends it)")
                with suppress(KeyboardInterrupt):
                    running_server.serve_forever()
