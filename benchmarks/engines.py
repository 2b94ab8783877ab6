"""The two engines compared, where the training build is: `python -m benchmarks.engines > docs/engines.md`.

Models are the example, the trained ones of ../shared where it is there, and the networks of the tests where torch is.
"""

from __future__ import annotations

import importlib.util
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from rich.console import Console

from fgonnx.audit import agreement, check
from fgonnx.engine import rules
from fgonnx.engine.model.load import LoadedModel, load
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.engine.walk.witness.lower import LOWERINGS, TAKEN
from fgonnx.errors import FgonnxError, UnsupportedError

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "models"
SAMPLES = 2

HEAD = """# Two gradient engines

Written by `python -m benchmarks.engines` in an environment with `pip install ".[training]"`; do not edit by hand.
Python {python}, onnxruntime-training {ort}, onnx {onnx}.

`engine="fgonnx"`, the default, writes gradients in standard operators by fgonnx's own rules. `engine="ort-training"`
takes them from the gradient builder of ONNX Runtime's training build, whose graphs run on that build only: an
independent check. It shares the forward pass, the intercepts and the aggregation with the first engine, but computes
every cotangent itself. Operators for which the builder has no gradient, or a wrong one, are first expanded into
operators whose gradient is right (`fgonnx/engine/walk/witness/`); the remaining ones are refused by name. The builder
runs in a separate process, since some graphs crash it.

    fgonnx explain MODEL IMAGES... -o DIR --engine ort-training
    fgonnx check MODEL --engine both

The training build has been discontinued: it needs Linux on x86-64, Python up to 3.11, opsets up to 21, and a separate
environment.

## Models

Largest difference of a tensor, relative to its largest entry, over {samples} random samples; cotangents and
bias-gradients are compared at every site. onnxruntime's optimiser is switched off, so that both graphs compute the
forward pass with the same kernels: otherwise rounding alone could move a pre-activation across a kink for one of them
and change a whole path of the gradient. The largest difference is {worst:.0e}.

"""
OPERATORS = """
## Operators

How the second engine handles each operator that has a rule.

| operator | by the gradient builder |
| --- | --- |
"""


def models() -> Iterator[tuple[str, str, LoadedModel]]:
    """Yield where a model is from, its name, and the model."""
    yield "examples", "shapes", load(ROOT / "examples" / "shapes.onnx")
    if (SHARED / "manifest.json").is_file():
        for entry in sorted(json.loads((SHARED / "manifest.json").read_text()), key=lambda e: str(e["name"])):
            yield "../shared", str(entry["name"]), load(SHARED / str(entry["file"]))
    if importlib.util.find_spec("torch") is not None:
        from tests.witness import tokennets, torchnets

        for nets in (torchnets.NETS, tokennets.NETS):
            for name, (net, shape) in nets.items():
                for folded in (True, False):
                    how = "folded" if folded else "as is"
                    yield (
                        "tests",
                        f"{name}, BatchNormalization {how}",
                        load(torchnets.export(net(0), (SAMPLES, *shape[1:]), folded=folded)),
                    )


def measured(loaded: LoadedModel) -> list[agreement.Difference] | str:
    """Return the differences, or why there are none."""
    options = Options(outputs=("target", "score"))
    try:
        feeds = check.random_inputs(build(loaded, options), SAMPLES)
        return agreement.compare(loaded, options, feeds)
    except UnsupportedError as error:
        return "refused: " + ", ".join(sorted({r.op_type for r in error.refusals}))
    except FgonnxError as error:
        return "not explained: " + str(error).splitlines()[0].partition(": ")[2]


def page() -> str:
    """Return docs/engines.md."""
    console = Console(stderr=True)
    lines, worst, count = [], 0.0, 0
    for origin, name, loaded in models():
        console.print(f"{origin} {name}")
        found = measured(loaded)
        if isinstance(found, str):
            lines.append(f"| {name} | {origin} | " + " | " * (len(agreement.GROUPS) - 1) + f" | {found} |")
            continue
        worst, count = max(worst, *(d.value for d in found)), count + 1
        lines.append(f"| {name} | {origin} | " + " | ".join(f"{d.value:.0e}" for d in found) + " | |")
    head = HEAD.format(
        python=platform.python_version(),
        ort=onnxruntime.__version__,
        onnx=onnx.__version__,
        samples=SAMPLES,
        worst=worst,
    )
    names = " | ".join(agreement.GROUPS)
    columns = f"| model | from | {names} | |\n| --- | --- |{' ---: |' * len(agreement.GROUPS)} --- |\n"
    return (
        head
        + columns
        + "\n".join(lines)
        + f"\n\n{count} models are explained by both engines.\n"
        + OPERATORS
        + operators()
    )


def operators() -> str:
    """Return the rows of the table of operators."""
    names = sorted({r.op_type for r in rules.rules() if not r.domain})
    return "".join(f"| {name} | {_by_builder(name)} |\n" for name in names)


def _by_builder(name: str) -> str:
    if name in LOWERINGS:
        said = " ".join((LOWERINGS[name].__doc__ or "").split("\n\n")[0].split())
        return f"written out: {said.removesuffix('.')}"
    return "as it is" if name in TAKEN else "no"


if __name__ == "__main__":
    np.seterr(all="ignore")  # networks of the tests are not trained
    print(page(), end="")
