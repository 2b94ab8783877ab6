"""Arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgonnx.engine import methods
from fgonnx.pictures.read.presets import PRESETS

EXPLANATION, PICTURES, RUNNING = "What is explained", "What the model takes", "How it runs"

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file; external weights lie beside it.")]
Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES",
        help="Pictures, .wav recordings, folders of them, patterns such as 'photos/*.jpg', or .npy arrays that are "
        "ready.",
    ),
]
SomeImages = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGES", help="Pictures or .npy arrays to check on. Default: seeded random ones."),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PICTURES,
        metavar="HOW",
        help=f"How a picture becomes numbers: a preset ({', '.join(PRESETS)}), changes to one (imagenet,size=256), "
        "numbers (scale=1/255,mean=0.5,std=0.5) or a .json file. Default: the model's metadata; it is never guessed.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=PICTURES,
        metavar="FILE",
        help="Class names: .txt (one a line), .csv or .json. Default: the model's metadata.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=EXPLANATION,
        metavar="WHAT",
        help="What to explain: an index or a label; 120,4; best=person,first=5; region=0.2:0.1:0.8:0.9,class=3; "
        "similar=reference.npy; seed=weights.npy. Default: the model's own choice. docs/targets.md has all of it.",
    ),
]
Bind = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=PICTURES,
        metavar="NAME=VALUE",
        help="Fix an input of a model with several: a number, zeros, or a .npy file. Repeatable.",
    ),
]
Rate = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=PICTURES,
        min=1,
        metavar="HZ",
        help="Samples per second that the model takes; recordings of another rate are refused. Default: the metadata.",
    ),
]
Channel = Annotated[int | None, typer.Option(rich_help_panel=PICTURES, min=0, help="Channel of a recording, from 0.")]
Span = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PICTURES, metavar="FIRST:END", help="Samples of a recording to explain, such as 4000:4576."
    ),
]
Method = Annotated[
    str,
    typer.Option(
        rich_help_panel=EXPLANATION,
        help=f"How the map is made: {', '.join(methods.names())}. Only fullgrad and smooth-fullgrad are certified; "
        "docs/methods.md says what each computes.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel=EXPLANATION,
        metavar="NAME=VALUE",
        help="A setting of the method, such as steps=100, layer=conv5 or references=inputs.npy. Repeatable.",
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        rich_help_panel=EXPLANATION,
        help="Which layers the map shows: full (all with a place in the picture), reference (biases of Conv and "
        "BatchNormalization, as the authors' code), paper (one per linear block).",
    ),
]
Psi = Annotated[
    str,
    typer.Option(
        rich_help_panel=EXPLANATION,
        help="abs (what matters), positive (what speaks for it), signed (for and against, unscaled).",
    ),
]
Head = Annotated[
    str,
    typer.Option(
        rich_help_panel=EXPLANATION,
        help="logits: explain what stands before a final Softmax or Sigmoid; output: the output itself.",
    ),
]
Output = Annotated[
    str | None, typer.Option(rich_help_panel=EXPLANATION, metavar="NAME", help="Output to explain. Default: the first.")
]
Input = Annotated[
    str | None,
    typer.Option(rich_help_panel=EXPLANATION, metavar="NAME", help="Input to explain, where several could be meant."),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PICTURES, metavar="1,3,224,224", help="Shape of the input, for models with free sizes."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PICTURES, metavar="NCHW", help="Axes of the input, such as NCHW or NHWC. Default: found out."
    ),
]
Providers = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RUNNING,
        metavar="cuda,cpu",
        help="Execution providers. Default: cuda where it is there, then cpu.",
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache", rich_help_panel=RUNNING, help="Rewrite the model, even where a kept rewrite would serve."
    ),
]
Threads = Annotated[
    int | None, typer.Option(rich_help_panel=RUNNING, min=1, help="Threads within an operator. Default: all cores.")
]
