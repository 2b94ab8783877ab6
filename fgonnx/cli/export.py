"""`fgonnx export`: a model and its explained twin, laid out for a model server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgonnx.cli import terminal
from fgonnx.cli.options import Group, ModelPath, takes
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import OptionError
from fgonnx.jobs.export import CONFIG, export_triton
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.triton import ONE_REQUEST, Exporting, batches

_KINDS = ("triton",)
_HELPS = {
    "verify": "Do not run the explained file, and do not hold its outputs against the model's, before it gets its "
    "name.",
    "labels": "Class names: .txt (one a line), .csv or .json, for labels.txt, --target and --contrast. Default: the "
    "model's metadata.",
}


@takes(
    exporting=Group(Exporting),
    options=Group(Options),
    running=Group(Running, only=("verify",), helps=_HELPS),
    reading=Group(Reading, only=("labels",), helps=_HELPS),
)
def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="For which server: triton (others read it as well).")],
    model: ModelPath,
    repository: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="REPOSITORY", help="The folder of models; it may exist.")
    ],
    target: Annotated[
        str,
        typer.Option(
            metavar="CLASS",
            help="What the explained model explains: input, what a required input target_index (N,) says, -1 for the "
            "largest; argmax or a class, and it has the model's own inputs alone.",
        ),
    ] = "input",
    *,
    exporting: Exporting,
    options: Options,
    running: Running,
    reading: Reading,
) -> None:
    """Write a model repository: the model, and NAME_explained, whose answers carry the map and its certificate.

    **Examples**

    - `fgonnx export triton resnet.onnx -o models --labels synset.txt`
    - `fgonnx export triton resnet.onnx -o models --target argmax --outputs saliency,score` : clients need not change
    - `fgonnx export triton resnet.onnx -o models --device gpu --max-batch 32 --max-delay 2`
    - `fgonnx export triton resnet.onnx -o models --form portable` : for OpenVINO Model Server

    Both models have a config.pbtxt with dynamic batching, and a version folder; exported again, they get the next
    version, which a running server takes up. docs/serve.md says which servers read what. Exit code: 0, or 2 where model
    or options are wrong.
    """
    if kind not in _KINDS:
        raise OptionError(f"there is no export for '{kind}'; there is: {', '.join(_KINDS)}")
    if options.seed:
        raise OptionError("a server's clients choose a class, not a cotangent; leave out --seed")
    written = export_triton(model, repository, options, reading, exporting, target=target, verify=running.verify)
    for folder in written:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        how = f"batches of up to {exporting.max_batch}" if batches(text) else "one request at a time"
        version = max(int(p.name) for p in folder.iterdir() if p.name.isdecimal())
        terminal.say("written", f"{folder}/  (version {version}, {how})")
    if not batches(text):  # of the explained model, the last one
        terminal.notes([ONE_REQUEST])
