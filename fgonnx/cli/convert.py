"""`fgonnx convert`: from a training framework to a file that fgonnx explains, with proof."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from fgonnx.cli import terminal
from fgonnx.cli.options import Group, Json, takes
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.sizes import parse_shape
from fgonnx.errors import FgonnxError, InputError, OptionError
from fgonnx.fields import MODEL, check_choice
from fgonnx.files import read_array
from fgonnx.jobs.reading import Reading
from fgonnx.pictures.read import presets

_EXPORT, _PROOF = "How it is exported", "The proof"
_VERDICTS = {"passed": "green", "failed": "bold red", "undecided": "yellow"}

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="TorchScript or .pt2 file, SavedModel folder, frozen .pb, .keras, .h5, .tflite, .joblib, .pdmodel; or "
        "'net.py:model', an object or a function without arguments in Python code of yours.",
    ),
]
Pictures = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGES", help="Pictures to compare source and file on as well; needs --preprocess."),
]
Out = Annotated[Path, typer.Option("--output-file", "-o", metavar="OUT.onnx", help="The file to write.")]


_HELPS = {
    "head": "logits: add the values before a final Softmax or Sigmoid as an output; output: leave the outputs alone.",
    "preprocess": "How a picture becomes numbers, stored in the file: a preset "
    f"({', '.join(presets.PRESETS)}), changes to one (imagenet,size=256), numbers (scale=1/255,mean=0.5,std=0.5) or a "
    ".json file. Default: nothing is stored.",
    "labels": "Class names, stored in the file: .txt (one a line), .csv or .json. Default: nothing is stored.",
}


@takes(
    options=Group(Options, only=("head",), helps=_HELPS),
    reading=Group(Reading, only=("preprocess", "labels"), helps=_HELPS),
)
def command(
    source: Source,
    pictures: Pictures = None,
    *,
    out: Out,
    framework: Annotated[
        str | None,
        typer.Option(help="torch, tensorflow, keras, tflite, jax, sklearn, paddle. Default: told from the content."),
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=MODEL,
            metavar="1,3,224,224",
            help="Shape of the input, where the source does not say it. Repeatable, for several inputs.",
        ),
    ] = None,
    example: Annotated[
        list[Path] | None,
        typer.Option(rich_help_panel=MODEL, metavar="X.npy", help="An example input with a batch axis. Repeatable."),
    ] = None,
    opset: Annotated[int | None, typer.Option(min=7, rich_help_panel=_EXPORT, help="Operator set version.")] = None,
    exporter: Annotated[
        str | None, typer.Option(rich_help_panel=_EXPORT, help="torch: dynamo, torchscript; keras: tf2onnx, keras.")
    ] = None,
    fold: Annotated[
        bool | None,
        typer.Option(
            "--fold/--no-fold",
            rich_help_panel=_EXPORT,
            help="torch: fold BatchNormalization into the convolution before it; the map may depend on it.",
        ),
    ] = None,
    signature: Annotated[
        str | None, typer.Option(rich_help_panel=_EXPORT, help="tensorflow: which signature of a SavedModel.")
    ] = None,
    simplify: Annotated[
        bool, typer.Option("--simplify", rich_help_panel=_EXPORT, help="Let onnxslim simplify the graph.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Load a pickle, TorchScript or .pt2. That runs whatever code the file names: only if you trust it.",
        ),
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(min=0, rich_help_panel=_PROOF, help="Allowed difference of outputs, relative to the largest."),
    ] = 1e-5,
    random_state: Annotated[int, typer.Option(min=0, rich_help_panel=_PROOF, help="Seed of random samples.")] = 0,
    as_json: Json = False,
    options: Options,
    reading: Reading,
) -> None:
    """Convert a network of a training framework to ONNX, and prove that nothing changed on the way.

    **Examples**

    - `fgonnx convert net.pt2 -o net.onnx --allow-pickle --preprocess imagenet --labels synset.txt`
    - `fgonnx convert scripted.pt -o net.onnx --allow-pickle --input-shape 1,3,224,224`
    - `fgonnx convert net.keras photos/ -o net.onnx --preprocess tf` : compared on photos, too
    - `fgonnx convert saved_model/ -o net.onnx`
    - `fgonnx convert int8.tflite -o net.onnx`
    - `fgonnx convert my_net.py:build -o net.onnx --input-shape 1,3,64,64` : a network in your own code

    Source and file are run on the same inputs; outputs, input-gradients and the published FullGrad map are compared, as
    far as the framework has autograd. The report is stored in the file. Exit code: 0, 1 where the comparison fails (the
    file is written nevertheless), 2 where source or options are wrong.
    """
    from fgonnx.converters import FRAMEWORKS, convert  # with what it needs of the engine, only where it is asked for

    if os.path.isdir(out):
        raise OptionError(f"'{out}' is a folder; give a file name such as {out / 'model.onnx'}")
    if framework is not None:
        check_choice("framework", framework, FRAMEWORKS)
    own = {"exporter": exporter, "fold": fold, "signature": signature, "allow_pickle": allow_pickle or None}
    report = convert(
        _source(source),
        out,
        framework,
        example_input=_example(example or (), input_shape or ()),
        opset=opset,
        preprocessing=presets.parse(str(reading.preprocess)) if reading.preprocess is not None else None,
        labels=reading.names(),
        head=options.head,
        simplify=simplify,
        pictures=pictures or (),
        tolerance=tolerance,
        random_state=random_state,
        **{k: v for k, v in own.items() if v is not None},
    )
    if as_json:
        typer.echo(report.to_json())
    else:
        _show(source, report)
    if not report.passed:
        raise typer.Exit(1)


def _source(text: str) -> Any:
    """Return a path, or the object named by 'file.py:name' or 'package.module:name'."""
    place, colon, name = text.rpartition(":")
    if os.path.exists(text) or not colon or not name.isidentifier():
        return Path(text)
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        found = getattr(module, name)
        built = found() if isinstance(found, type) or type(found).__name__ == "function" else found
    except FgonnxError:
        raise
    except Exception as error:  # the user's own code
        raise InputError(f"'{text}' gives no network: {type(error).__name__}: {error}") from error
    return built


def _example(files: Sequence[Path], shapes: Sequence[str]) -> Any:
    """Return example inputs from arrays or, seeded and normal, from shapes; None if neither is given."""
    if files and shapes:
        raise OptionError("give --example or --input-shape, not both")
    if files:
        return tuple(read_array(file, InputError) for file in files)
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(parse_shape(text)).astype(np.float32) for text in shapes) or None


def _show(source: str, report: Any) -> None:
    terminal.say("source", f"{source}  ({report.framework}: {report.source})")
    terminal.say(
        "written", f"{report.path}  ({terminal.file_size(report.path)}, opset {report.opset}, {report.exporter})"
    )
    for kind, faces in (("input", report.inputs), ("output", report.outputs)):
        for name, dims in faces.items():
            terminal.say(kind, f"{name}  [{', '.join(map(str, dims))}]")
    if report.head:
        behind = f", before the final {report.head_stripped}" if report.head_stripped else ""
        terminal.say("explained", f"{report.head}{behind}")
    terminal.notes(report.notes)
    terminal.notes(dict.fromkeys(f"{m.quantity}: {m.detail}" for m in report.measurements if m.detail))
    made = terminal.table(
        "compared",
        "samples",
        "difference",
        "relative",
        "allowed",
        "result",
        numbers=("difference", "relative", "allowed"),
    )
    for m in report.measurements:
        unit = " steps" if m.unit != "relative" else ""
        verdict = Text(m.verdict, style=_VERDICTS[m.verdict])
        terminal.row(
            made,
            m.quantity,
            m.samples,
            f"{m.maximum:.1e}{unit}",
            f"{m.relative:.1e}",
            f"{m.allowed:.0e}{unit}",
            verdict,
        )
    terminal.show(made)
    terminal.out().print(
        Text("passed" if report.passed else "failed", style="bold green" if report.passed else "bold red")
    )
