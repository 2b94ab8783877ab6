"""docs/runtimes.md, from what was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.runtimes.cases import CASES
from benchmarks.runtimes.runtimes import RUNTIMES

CLOSE = 1e-3
"""Largest difference that counts as rounding without more."""

BEYOND = 10.0
"""How many times what the last bits of the input do; a larger difference is a wrong map."""


FAR = 1e-2
"""A larger difference is a wrong map in any case."""


def right(entry: dict[str, Any], rounding: float) -> bool:
    """Tell whether a map and certificate agree to rounding."""
    return bool(max(entry["map"], entry["certificate"]) <= max(CLOSE, min(BEYOND * rounding, FAR)))


def render(stored: dict[str, Any]) -> str:
    """Return the page."""
    m, cases = stored["machine"], _ordered(stored["cases"], [c.name for c in CASES])
    names, rows = list(cases), _ordered(stored["runtimes"], [r.key for r in RUNTIMES])
    measured = f"Measured on {m['date']} on {m['processor']}, one thread"
    table = [_row(r, stored["cases"]) for r in rows.values()]
    differences = [
        f"| {r['name']} | {' | '.join(_cell(r['cases'].get(n), stored['cases'][n]) for n in names)} |"
        for r in rows.values()
    ]
    rounding = " | ".join(_number(stored["cases"][n]["rounding"]) for n in names)
    models = [
        f"| {n} | {c['what']} | {_size(c['bytes']['plain'])} | {_size(c['bytes']['input'])} |" for n, c in cases.items()
    ]
    heading = f"| runtime | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}"
    failures = [f"- {line}" for line in _failures(rows)] or ["Everything ran."]
    return _PAGE.format(
        measured=measured,
        table="\n".join(table),
        heading=heading,
        differences="\n".join(differences),
        rounding=rounding,
        models="\n".join(models),
        failures="\n".join(failures),
    )


def _ordered(found: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """Return entries in the order of the tables."""
    return {key: found[key] for key in sorted(found, key=lambda k: known.index(k) if k in known else len(known))}


_PAGE = """\
# Where rewritten files run

<!-- written by python -m benchmarks.runtimes; the values are in runtimes.json -->

Files of `fgonnx.rewrite(form="portable")`, run by each runtime in a process of its own and compared with ONNX Runtime
on the same file and input (random numbers; two samples where the model takes a batch). The target is the second largest
entry of each sample, given to a file written with `target="input"`.

{measured}, while other programs used the machine: times are the shortest of up to five runs, and the ratios are rough.

## Runtimes

| runtime | version | right | largest difference of map, certificate | target | optional input | explain / infer |
| --- | --- | --- | --- | --- | --- | --- |
{table}

- *right*: models whose map and certificate agree, of those whose plain file runs. A runtime in which one is wrong is
  **refused** for models of that kind: hold its maps against ONNX Runtime's before you use it for others.
- *largest difference*: relative to the maximum of the map, and to the largest of score and contributions.
- *target*: whether the class asked for is explained in a file written with `target="input"`; "argmax only" where such a
  file does not run and one with `target="argmax"` does.
- *optional input*: what becomes of `target_index` in a file written without a target, which gives it a default value:
  it works, is refused, or is ignored in silence or no input at all, and the largest entry is explained.
- *explain / infer*: time of the explained file over that of the plain one, smallest and largest.

## As a runtime of fgonnx

`fgonnx.Explainer(model, runtime="openvino")` and `--runtime openvino` of every command explain in OpenVINO
(`pip install ".[openvino]"`, beside ONNX Runtime, which is needed all the same):

- Graphs are written in the form for OpenVINO ([forms.md](forms.md)) and compiled for the processor in float32,
  also where it has bfloat16. float64 models are refused, as OpenVINO would compute them in float32.
- The first two combinations of input shapes have a compiled model each, all others share one. Compiled models are
  kept in the cache; without it, every start compiles anew, for one to ten seconds.
- The first results of every compiled model are held against ONNX Runtime's of the same graph and input, beside what
  is held against the source anyway: a difference beyond rounding is an error, and no map is given. Rounding is a
  thousandth of the largest value, or ten times what changes of the input by a millionth do, three hundredths at most.
  Of random graphs over all operators, OpenVINO computes some wrongly, most of them in the model itself.
- Models quantised by ONNX Runtime's `quantize_static` (QDQ, with a scale for each channel or one for all) and
  `quantize_dynamic` are explained there. QLinear operators OpenVINO does not read; values of 16 bits it computes
  wrongly in the model itself, and so, where a file is run in it with its own settings, products of attention in int8:
  set `LP_TRANSFORMS_MODE` to False, as fgonnx does.
- What OpenVINO does not take is refused with what it says of the model; `runtime="onnxruntime"` is the way out.
- `runtime="auto"` explains the first batch in both, by turns, and takes the faster one; where OpenVINO is missing,
  fails or differs, ONNX Runtime. Records say which it was.

OpenVINO divides elementwise passes among threads, which ONNX Runtime hardly does: with two threads and one picture it
was 1.25 to 1.6 times faster on ResNet-50, MobileNetV2, SqueezeNet 1.1 and EfficientNet-B0 (2026-11-28, AMD EPYC, each
runtime alone in its process); with one thread, or in batches of 8, about as fast or slower.

## Differences of the map, by model

The last row says what rounding alone does: the largest difference in ONNX Runtime itself when the input is changed by a
millionth. The map of a network with ReLU jumps where the sign of an activation changes.

{heading}
{differences}
| *input changed by 1e-6* | {rounding} |

## Models

| model | what it has | plain | explained |
| --- | --- | --- | --- |
{models}

## What does not run

{failures}

[forms.md](forms.md) says what the portable form avoids, and why.
"""


def _row(r: dict[str, Any], cases: dict[str, Any]) -> str:
    ran = {n: f for n, f in r["cases"].items() if "error" not in f.get("plain", {"error": ""})}
    explained = {n: _best(f) for n, f in ran.items() if _best(f)}
    good = [n for n, e in explained.items() if right(e, cases[n]["rounding"])]
    wrong = len(good) < len(explained)
    worst = [max((e[k] for e in explained.values()), default=0.0) for k in ("map", "certificate")]
    verdict = f"{len(good)} of {len(ran)}" + (", **refused**" if wrong else "")
    difference = f"{_number(worst[0])}, {_number(worst[1])}" if explained else "–"
    return f"| {r['name']} | {r['version']} | {verdict} | {difference} | {_target(r)} | {_optional(r)} | {_ratio(r)} |"


def _best(found: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of the file with a target where it ran, else that of the largest entry; empty if neither ran."""
    return next((found[s] for s in ("input", "argmax") if "map" in found.get(s, {})), {})


def _target(r: dict[str, Any]) -> str:
    ran = [f["input"]["target"] for f in r["cases"].values() if "target" in f.get("input", {})]
    if ran:
        return "yes" if all(ran) else "**another one**"
    return "argmax only" if any("map" in f.get("argmax", {}) for f in r["cases"].values()) else "–"


def _optional(r: dict[str, Any]) -> str:
    found = r["cases"].get("shapes", {}).get("optional")
    if found is None:
        return "–"
    return "refused" if "error" in found else "works" if found["target"] else "ignored"


def _ratio(r: dict[str, Any]) -> str:
    ratios = sorted(f["ms"][1] / f["ms"][0] for f in r["cases"].values() if "ms" in f)
    return f"{ratios[0]:.1f} to {ratios[-1]:.1f}" if ratios else "–"


def _cell(found: dict[str, Any] | None, case: dict[str, Any]) -> str:
    if found is None:
        return ""
    if "error" in found["plain"]:
        return "plain fails"
    best = _best(found)
    if not best:
        return "fails"
    return _number(best["map"]) if right(best, case["rounding"]) else f"**{_number(best['map'])} wrong**"


def _failures(rows: dict[str, Any]) -> list[str]:
    found = []
    for r in rows.values():
        by_reason: dict[str, list[str]] = {}
        for name, f in r["cases"].items():
            stem = (
                "plain"
                if "error" in f["plain"]
                else next((s for s in ("input", "argmax") if "error" in f.get(s, {})), "")
            )
            if stem:
                words = {"plain": "the plain model", "input": 'target="input"', "argmax": 'target="argmax"'}[stem]
                by_reason.setdefault(f"{words}: `{f[stem]['error'].replace('`', '')}`", []).append(name)
        found += [f"{r['name']}, {', '.join(models)}, {why}" for why, models in by_reason.items()]
    return found


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"
