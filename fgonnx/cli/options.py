"""Arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgonnx.presets import PRESETS

EXPLANATION, PICTURES, RUNNING = "What is explained", "What the model takes", "How it runs"

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file; external weights lie beside it.")]
Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES",
        help="Pictures, folders of pictures, patterns such as 'photos/*.jpg', or .npy arrays that are ready.",
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
        metavar="CLASS",
        help="What to explain: an index or a label. Default: the model's own choice.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        rich_help_panel=EXPLANATION,
        help="fullgrad; simple-fullgrad (no bias in the map, no certificate); smooth-fullgrad (mean of noisy copies).",
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
Threads = Annotated[
    int | None, typer.Option(rich_help_panel=RUNNING, min=1, help="Threads within an operator. Default: all cores.")
]
