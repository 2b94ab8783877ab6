"""`fgonnx rewrite`: a model that explains itself, as a file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import onnx
import typer

from fgonnx import files
from fgonnx.cli import terminal
from fgonnx.cli.options import Group, ModelPath, takes
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model import save
from fgonnx.engine.model.bind import bind
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import NEXT, TARGETS, Options
from fgonnx.engine.rewrite.rewrite import rewrite
from fgonnx.engine.rewrite.rewritten import sites_of
from fgonnx.errors import OptionError
from fgonnx.explain.proof import prover
from fgonnx.fields import refuse_idle
from fgonnx.jobs.reading import Reading, targeted

_HELPS = {
    "verify": "Do not run the file, and do not hold its outputs against the model's, before it gets its name.",
    "labels": "Class names for --target and --contrast: .txt (one a line), .csv or .json. Default: the model's "
    "metadata.",
}


@takes(
    options=Group(Options),
    running=Group(Running, only=("verify",), helps=_HELPS),
    reading=Group(Reading, only=("labels",), helps=_HELPS),
)
def command(
    model: ModelPath,
    out: Annotated[Path, typer.Option("--output-file", "-o", metavar="OUT.onnx", help="The file to write.")],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="What the file explains: argmax (the largest entry) or a class, with the model's own inputs alone; "
            "input, a required input target_index. Default: target_index may be left out, in ONNX Runtime's Python "
            "package.",
        ),
    ] = None,
    *,
    options: Options,
    running: Running,
    reading: Reading,
) -> None:
    """Write a model that explains itself: the same outputs, plus the map and its certificate, in standard ONNX.

    **Examples**

    - `fgonnx rewrite model.onnx -o explained.onnx`
    - `fgonnx rewrite model.onnx -o explained.onnx --outputs saliency,score --psi positive`
    - `fgonnx rewrite model.onnx -o explained.onnx --method grad-cam` : another method
    - `fgonnx rewrite model.onnx -o contrast.onnx --contrast next` : what speaks for a class and not for the next one
    - `fgonnx rewrite detector.onnx -o explained.onnx --seed --input-shape 1,3,416,416`
    - `fgonnx rewrite model.onnx -o explained.onnx --form portable --target argmax` : for any runtime

    --method takes the methods that are one graph (docs/methods.md marks them). docs/runtimes.md has what was measured
    where: other runtimes than ONNX Runtime want the portable form, and a target. Exit code: 0, or 2 where model or
    options are wrong.
    """
    if os.path.isdir(out):
        raise OptionError(f"'{out}' is a folder; give a file name such as {out / 'explained.onnx'}")
    files.destination(out)
    if os.path.exists(out) and os.path.exists(model) and os.path.samefile(out, model):
        raise OptionError(f"'{out}' is the source model; write to another file")
    loaded = bind(load(model), options.bind, options.input_shape)
    options = replace(options, bind=None)
    contrasted = isinstance(options.contrast, str) and options.contrast != NEXT
    if (target is None or target in TARGETS) and not contrasted:
        refuse_idle(reading, ["labels"], "they are for a target or a contrast that is named")
    options = targeted(options, target, reading.names() or loaded.labels() or ())
    proto = rewrite(loaded, options=options)
    prove = prover(loaded, proto) if running.verify else None
    written = save.save(proto, out, folder=loaded.folder, prove=prove)
    known = {p.key: p.value for p in proto.metadata_props}
    for file in written:
        terminal.say("written", f"{file}  ({terminal.file_size(file)})")
    terminal.say("from", f"{model}  ({terminal.file_size(model)}, sha256 {loaded.sha256[:12]})")
    stripped = known.get("fgonnx.head_stripped")
    terminal.say("explained", known["fgonnx.head_value"] + (f", before the final {stripped}" if stripped else ""))
    terminal.say("sites", f"{len(sites_of(proto))}, listed in the metadata entry fgonnx.sites")
    terminal.notes(_optional(proto))
    table = terminal.table("", "name", "type", "shape")
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            terminal.row(table, kind, value.name, *_type_and_shape(value))
    terminal.show(table)


def _optional(proto: onnx.ModelProto) -> list[str]:
    """Say of inputs with a default value where they work."""
    names = [v.name for v in proto.graph.input if any(t.name == v.name for t in proto.graph.initializer)]
    if not names:
        return []
    return [
        f"{' and '.join(names)} may be left out, and given, in ONNX Runtime's Python package; other runtimes ignore or "
        "refuse such inputs: write --target argmax, input or a class for them"
    ]


def _type_and_shape(value: onnx.ValueInfoProto) -> tuple[str, str]:
    tensor = value.type.tensor_type
    dims = ", ".join(d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in tensor.shape.dim)
    return onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), f"[{dims}]"
