"""Tables of what was measured on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = {
    "infer": "infer",
    "explain_fast": "explain, fast form",
    "explain_portable": "explain, portable form",
    "certificate": "with certificate",
    "explain_fast_graph": "fast, CUDA graph",
    "explain_portable_graph": "portable, CUDA graph",
    "explain_fast_nhwc": "fast, channels last",
    "explain_fast_tf32": "fast, TF32",
}


def section(found: Mapping[str, Any]) -> str:
    """Return the tables in Markdown: times in milliseconds, in brackets in units of one inference."""
    about = found["device"]
    lines = [
        f"{about['name']}, {found['date']}, {found['seconds']:.0f} s; "
        + ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        "",
        f"| network | batch | {' | '.join(_COLUMNS.values())} | PyTorch forward | forward + backward | FullGrad |",
        f"| --- | ---: |{' ---: |' * (len(_COLUMNS) + 3)}",
    ]
    eager = [r for r in found["results"] if not r["compiled"]]
    for r in eager:
        times = r.get("onnxruntime", {})
        cells = [_time(times, key) for key in _COLUMNS]
        cells += [_milliseconds(r.get("torch", {}).get(key)) for key in ("forward", "gradient", "fullgrad")]
        lines.append(f"| {r['network']} | {r['batch']} | {' | '.join(cells)} |")
    lines += ["", "| network | batch | map, from the processor's | rounding alone | certificate | nodes | copies |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | --- | ---: |")
    for r in eager:
        if "agreement" in r:
            a, places = r["agreement"], {k: v for k, v in r["placement"].items() if k != "memcpy"}
            where = ", ".join(f"{count} {name}" for name, count in places.items())
            numbers = " | ".join(f"{a[k]:.0e}" for k in ("map", "rounding", "residual"))
            lines.append(f"| {r['network']} | {r['batch']} | {numbers} | {where} | {r['placement']['memcpy']} |")
    compiled = [r for r in found["results"] if r["compiled"] and r.get("torch")]
    if compiled:
        lines += ["", "| torch.compile | batch | forward | forward + backward |", "| --- | ---: | ---: | ---: |"]
        for r in compiled:
            cells = " | ".join(_milliseconds(r["torch"].get(f"{k}_compiled")) for k in ("forward", "gradient"))
            lines.append(f"| {r['network']} | {r['batch']} | {cells} |")
    failed = [f"- {r['network']}, batch {r['batch']}: {r['failure']}" for r in found["results"] if "failure" in r]
    for r in found["results"]:
        for name, why in {**r.get("failures", {}), **r.get("torch_failures", {})}.items():
            failed.append(f"- {r['network']}, batch {r['batch']}, {name}: {why}")
    failed += [
        f"- {c['network']}{', torch.compile' if c['compiled'] else ''}: left out for the lack of time"
        for c in found["left_out"]
    ]
    return "\n".join([*lines, *(["", *failed] if failed else [])]) + "\n"


def _time(times: Mapping[str, Any], key: str) -> str:
    if key not in times:
        return "–"
    infer = times.get("infer")
    ratio = f" ({times[key]['seconds'] / infer['seconds']:.2f} x)" if infer and key != "infer" else ""
    return f"{_milliseconds(times[key])}{ratio}"


def _milliseconds(entry: Mapping[str, Any] | None) -> str:
    return f"{1e3 * entry['seconds']:.2f}" if entry else "–"
