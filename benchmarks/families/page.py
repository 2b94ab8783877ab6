"""The page, docs/families.md."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import textwrap
from collections.abc import Sequence

from benchmarks.families.measure import GRADIENT, RESIDUAL, Row
from benchmarks.families.networks import CLASSES, SAMPLES

_PACKAGES = ("fgonnx", "torch", "torchvision", "timm", "transformers", "keras", "tf2onnx", "onnx", "onnxruntime")


def page(rows: Sequence[Row]) -> str:
    """Return docs/families.md."""
    done = [r for r in rows if not r.failure]
    lines = [
        "# Families of networks",
        "",
        "Written by `python -m benchmarks.families`; do not edit by hand. " + _versions(),
        "",
        "Networks come from the packages named, with random weights that are made to look trained (normalisation",
        "statistics of real activations on pictures; biases, scales, tokens and positions away from 0; logits with",
        f"standard deviation 2) and {CLASSES} classes. The explained score is the largest logit, for {SAMPLES}",
        "pictures, with onnxruntime on CPU in float32. A family is a row of `FAMILIES` in",
        "`benchmarks/families/networks.py`. Rows are kept as they finish, so a page may mix rows from successive",
        "versions of the code; `--again` measures all of them again.",
        "",
        "- **gradient**: max |g - truth| / max |truth|, where truth is the framework's autograd in float64; in",
        "  brackets the same for the framework's own autograd in float32. Where a pre-activation lies within",
        "  rounding of a kink (ReLU, ReLU6, max pooling), float32 may take the other branch, and a whole path of",
        "  the gradient changes, here or in the framework.",
        "- **residual**: |score - sum of all contributions| / |score|, the larger of the samples; in brackets",
        "  relative to the sum of absolute contributions. A score that is the small difference of large",
        "  contributions loses digits in the first and not in the second.",
        f"- **in float64**: if a residual exceeds {RESIDUAL:.0e} or a gradient error {GRADIENT:.0e}, the same",
        "  rewritten graph evaluated with `onnx.reference` in float64: gradient, residual. Constants remain",
        "  float32, as in the file, so that agreement ends near 1e-7. Exporters fold BatchNormalization into",
        "  convolutions in float32: weights then differ from the network's by rounding, which may be enough to",
        "  cross a kink even in float64. If it was, `as is` is the error for an export without folding. The name of",
        "  an error means that `onnx.reference` cannot run the graph.",
        "- **in the map**: share of the absolute contributions that has a position in the picture. The rest appears",
        "  in the certificate only: class tokens, matrices of attention scores, dense layers, everything after",
        "  global pooling.",
        "- **batch**: `any`, or `1` if samples are run one by one.",
        "",
        "| network | from | input | export | nodes | operators | gradient | residual | in float64 | in the map | batch "
        "| rewritten in |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    lines += [_line(r) for r in rows]
    bad = [r for r in done if r.residual > RESIDUAL]
    lines += [
        "",
        f"{len(done)} of {len(rows)} exports are explained; in {len(done) - len(bad)} of them the residual is below "
        f"{RESIDUAL:.0e} of the score, and the largest residual against the absolute contributions is "
        f"{max((r.rounding for r in done), default=0.0):.1e}.",
    ]
    by_operator: dict[str, set[str]] = {}
    for r in done:
        for name in r.operators:
            by_operator.setdefault(name, set()).add(r.family)
    lines += ["", "## Operators met", "", "| operator | networks |", "| --- | ---: |"]
    lines += [f"| {name} | {len(found)} |" for name, found in sorted(by_operator.items())]
    return "\n".join(lines) + "\n"


def _line(r: Row) -> str:
    size = " x ".join(map(str, r.shape[1:]))
    head = f"| {r.family} | {r.package} | {size} | {r.exporter} {r.opset} "
    if r.failure:
        what = "not exported" if r.failure.startswith("torch.onnx") else "not explained"
        why = textwrap.shorten(r.failure.replace("|", "/"), 320, placeholder=" ...")
        return f"{head}| | | {what}: {why} | | | | | |"
    exact = r.exact_failure if r.exact_gradient is None else f"{r.exact_gradient:.0e}, {r.exact_residual:.0e}"
    if r.as_is is not None:
        exact = exact.replace(",", f" (as is {r.as_is:.0e}),", 1)
    return (
        f"{head}| {r.nodes} → {r.rewritten} | {len(r.operators)} | {r.gradient:.0e} ({r.autograd:.0e}) "
        f"| {r.residual:.0e} ({r.rounding:.0e}) | {exact} | {r.share:.1%} | {r.batch} | {r.seconds:.1f} s |"
    )


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name).split('+')[0]}")
    return f"Python {platform.python_version()}, {', '.join(found)}."
