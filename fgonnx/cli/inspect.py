"""`fgonnx inspect`: what a model is, and what of it can be explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.text import Text

from fgonnx.audit import inspection
from fgonnx.cli import terminal
from fgonnx.cli.flags import flags_of, on_the_command_line
from fgonnx.cli.options import Group, Json, ModelPath, takes
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.wording import shortened

_LONG = 12
_NAME = 64


@takes(options=Group(Options, without=("contrast", *FILE)))
def command(
    model: ModelPath,
    everything: Annotated[bool, typer.Option("--all", help="Show long lists in full.")] = False,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Say what a model is, what would be explained, which layers have a part in it, and what cannot be explained.

    **Examples**

    - `fgonnx inspect model.onnx`
    - `fgonnx inspect segmenter.onnx --input-shape 1,3,512,512 --all`
    - `fgonnx inspect model.onnx --json | jq .explanation.sites`

    Exit code: 0 also where the model cannot be explained (that is the answer), 2 where it cannot be loaded.
    """
    spelling = partial(on_the_command_line, flags=flags_of(command))
    found = inspection.inspected(load(model), options, str if as_json else lambda error: error.spelled(spelling))
    if as_json:
        terminal.show_json(found)
    else:
        _show(found, everything=everything)


def _show(found: Mapping[str, Any], *, everything: bool) -> None:
    """Print the result of `inspect`."""
    model = found["model"]
    terminal.say("model", f"{model['path']}  ({_size(model['bytes'], model['external_bytes'])})")
    terminal.say("sha256", model["sha256"])
    opsets = ", ".join(f"{d} {v}" for d, v in model["opsets"].items())
    terminal.say("producer", f"{model['producer'] or 'unknown'}; opset {opsets}; IR version {model['ir_version']}")
    terminal.say("parameters", f"{model['parameters']:,}")
    for label, values in (("input", found["inputs"]), ("output", found["outputs"])):
        for value in values:
            terminal.say(label, f"{value['name']}  {value['dtype'] or '?'} {_dims(value['shape'])}")
    terminal.say("operators", ", ".join(f"{n} {k}" for k, n in found["operators"].items()))
    if (found["explanation"] or {}).get("kind") is None:
        terminal.say("preprocessing", found["preprocessing"] or "not in the metadata; give --preprocess to explain")
    labels = found["labels"]
    terminal.say("labels", "not in the metadata; give --labels for names" if labels is None else _names(labels))
    if model["written_by_fgonnx"]:
        terminal.say("written by", f"fgonnx {model['written_by_fgonnx']}: this model explains itself already")
    explanation = found["explanation"]
    if explanation is None:
        _show_obstacle(found, everything=everything)
        return
    terminal.say("", "")
    stripped = explanation["head_stripped"]
    terminal.say(
        "explained",
        f"{explanation['head']}  {_dims(explanation['head_shape'])} per sample"
        + (f", before the final {stripped} (--head output for what is behind it)" if stripped else ""),
    )
    terminal.say(
        "from", f"{explanation['input']}  {_dims(explanation['input_shape'])}, layout {explanation['layout'] or '?'}"
    )
    if explanation["kind"] is not None:
        terminal.say("input holds", explanation["kind"])
    terminal.say("batch", "any size" if explanation["batch"] == "any" else "samples are run one by one")
    terminal.notes(explanation["notes"])
    _show_sites(explanation["sites"], explanation["profile"], everything=everything)


def _show_obstacle(found: Mapping[str, Any], *, everything: bool) -> None:
    terminal.out().print(Text.assemble(("cannot be explained: ", "bold yellow"), found["obstacle"]), soft_wrap=True)
    refusals = found["refusals"]
    if not refusals:
        return
    made = terminal.table("node", "operator", "opset", "why", "what to do", numbers=("opset",))
    listed = refusals if everything else refusals[:_LONG]
    names = [str(r["node"]) for r in listed]
    for name, r in zip(names if everything else shortened(names, _NAME), listed, strict=True):
        terminal.row(made, name, r["op_type"], r["version"], r["why"], r["what_to_do"])
    terminal.show(made)
    _more(len(refusals), everything=everything)


def _show_sites(sites: Sequence[Mapping[str, Any]], profile: str, *, everything: bool) -> None:
    shown = sum(s["in_map"] for s in sites)
    made = terminal.table(
        "#",
        "site",
        "operator",
        "kind",
        "grid",
        "in the map",
        numbers=("#",),
        title=f"{len(sites)} sites: what the score is the sum of; {shown} of them in the map (profile {profile})",
    )
    listed = list(enumerate(sites))
    short = shortened([str(s["name"]) for s in sites], _NAME)
    # The beginning of the network and its end tell most.
    if not everything and len(listed) > 2 * _LONG:
        listed = listed[:_LONG] + listed[-_LONG // 2 :]
    for i, s in listed:
        if i and listed[0][0] == 0 and i == len(sites) - _LONG // 2 and len(listed) < len(sites):
            terminal.row(made, "", "...")
        grid = " x ".join(map(str, s["grid"]))
        name = s["name"] if everything else short[i]
        terminal.row(made, i, name, s["op_type"], s["kind"], grid or "not spatial", "yes" if s["in_map"] else "no")
    terminal.show(made)
    if len(listed) < len(sites):
        terminal.out().print(f"{len(sites) - len(listed)} more sites: --all", soft_wrap=True)


def _more(count: int, *, everything: bool) -> None:
    if not everything and count > _LONG:
        terminal.out().print(f"{count - _LONG} more nodes: --all", soft_wrap=True)


def _size(inside: int | None, external: int) -> str:
    text = decimal(inside or 0)
    return f"{text}, and {decimal(external)} of external weights" if external else text


def _dims(shape: Sequence[Any] | None) -> str:
    return "?" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _names(labels: Sequence[str]) -> str:
    few = ", ".join(labels[:6])
    return f"{len(labels)}: {few}{', ...' if len(labels) > 6 else ''}"
