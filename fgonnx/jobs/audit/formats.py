"""What of a run others read: SHA256SUMS, an in-toto statement, and a CycloneDX model card."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgonnx import files
from fgonnx._version import __version__
from fgonnx.errors import InputError
from fgonnx.jobs.samples import digest

SUMS, STATEMENT, CARD = "SHA256SUMS", "statement.intoto.json", "model-card.cdx.json"
SIGNATURE, EXPORTS = "SHA256SUMS.sig", "exports"
_STATEMENT = "https://in-toto.io/Statement/v1"
_TESTS = "https://in-toto.io/attestation/test-result/v0.1"
_SPACE = uuid.UUID("6f9619ff-8b86-d011-b42d-00cf4fc964ff")
"""Namespace of serial numbers: they follow from the run's id."""


def write(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the three files of a run, the sums last."""
    files.write_json(folder / STATEMENT, statement(summary))
    files.write_json(folder / CARD, card(summary))
    _put(folder, sums(folder))


def _put(folder: Path, text: str) -> None:
    """Write the checksums; a signature of others goes, as it would be of none."""
    path = folder / SUMS
    if not (path.is_file() and path.read_bytes() == text.encode()):
        (folder / SIGNATURE).unlink(missing_ok=True)
        files.write_text(path, text)


def sums(folder: Path) -> str:
    """Return the SHA-256 of every file of a run, as ``sha256sum -c`` reads them."""
    found = sorted(f for f in folder.rglob("*") if f.is_file() and _is_of_run(f.relative_to(folder)))
    return "".join(f"{digest(f)}  {f.relative_to(folder).as_posix()}\n" for f in found)


def _is_of_run(file: Path) -> bool:
    """Tell whether a file is evidence: logs go on growing, exports are copies, sums and signature are of it."""
    return not (
        file.name.startswith(".")
        or file.suffix == ".jsonl"
        or file.parts[0] == EXPORTS
        or str(file) in (SUMS, SIGNATURE)
    )


def tests(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the tests of a run with their verdicts."""
    counts = summary["counts"]
    whole = counts["shards_done"] == counts["shards"]
    found = [
        ("every shard is done", "passed" if whole else "failed"),
        ("every row has a result", "passed" if whole and not counts["errors"] else "failed"),
    ]
    found += [(t["name"], t["verdict"]) for t in (summary["sanity"] or {}).get("tests", ())]
    found += [
        (
            f"{limit['text']} (not measured)" if limit.get("missing") else limit["text"],
            "passed" if limit["holds"] else "failed",
        )
        for limit in (summary["against"] or {}).get("limits", ())
    ]
    return found


def statement(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return an in-toto statement with the predicate test-result: subject is the model."""
    done = tests(summary)
    failed = [name for name, verdict in done if verdict == "failed"]
    other = [f"{name}: {verdict}" for name, verdict in done if verdict not in ("passed", "failed")]
    model = summary["model"]
    return {
        "_type": _STATEMENT,
        "subject": [
            {"name": Path(model["path"] or "model").name, "digest": {"sha256": model["sha256"]}},
            *({"name": e["path"], "digest": {"sha256": e["sha256"]}} for e in model["external"]),
        ],
        "predicateType": _TESTS,
        "predicate": {
            "result": "FAILED" if failed else "WARNED" if other else "PASSED",
            "configuration": [
                {
                    "name": "run.json",
                    "digest": {"sha256": summary["run"]},
                    "annotations": {"of": "sha256 of the request, as canonical JSON"},
                }
            ],
            "passedTests": [name for name, verdict in done if verdict == "passed"],
            "warnedTests": other,
            "failedTests": failed,
        },
    }


def card(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a CycloneDX 1.6 document: the model as a component, with its metrics by slice and their intervals."""
    model = summary["model"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, summary['run'])}",
        "version": 1,
        "metadata": {
            "timestamp": summary["time"],
            "tools": {"components": [{"type": "application", "name": "fgonnx", "version": __version__}]},
        },
        "components": [
            {
                "type": "machine-learning-model",
                "bom-ref": model["sha256"],
                "name": Path(model["path"] or model["name"] or "model").name,
                **({"version": model["version"]} if model["version"] else {}),
                "hashes": [{"alg": "SHA-256", "content": model["sha256"]}],
                "modelCard": {
                    "modelParameters": {"datasets": [{"type": "dataset", "name": Path(summary["data"]["path"]).name}]},
                    "quantitativeAnalysis": {"performanceMetrics": _metrics(summary)},
                    "considerations": {"technicalLimitations": list(summary["limits"])},
                },
            }
        ],
    }


def _metrics(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [_metric("accuracy", p["accuracy"], p["cohort"], p["low"], p["high"]) for p in summary["performance"]]
    if summary["calibration"] is not None:
        c = summary["calibration"]
        found.append(_metric("expected calibration error", c["error"], "all", c["low"], c["high"]))
    for cohort in summary["cohorts"]:
        for place, v in cohort["places"].items():
            found.append(_metric(f"share of the map: {place}", v["mean"], cohort["cohort"], v["low"], v["high"]))
        for name, v in cohort["measures"].items():
            found.append(_metric(name, v["mean"], cohort["cohort"], v["low"], v["high"]))
    return found


def _metric(kind: str, value: float, slice_: str, low: float | None, high: float | None) -> dict[str, Any]:
    interval = (
        {"confidenceInterval": {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}} if low is not None else {}
    )
    return {"type": kind, "value": f"{value:.6g}", "slice": slice_, **interval}


def listed(folder: Path) -> dict[str, str]:
    """Return the files that SHA256SUMS lists, with their checksums; none where there is no such file.

    Raises
    ------
    InputError
        It is no list of checksums.
    """
    path = folder / SUMS
    if not path.exists():
        return {}
    found = {}
    for line in files.read_text(path, InputError, "list of checksums").splitlines():
        sha, parted, name = line.partition("  ")
        if not parted:
            raise InputError(f"'{path}' is no list of checksums, '{line[:40]}'; remove it, and it is written again")
        found[name] = sha
    return found


def read_sums(folder: Path, names: Collection[str] | None = None) -> Sequence[str]:
    """Return those of the files of a run, by default all, whose content is not what SHA256SUMS says."""
    return [
        name
        for name, sha in listed(folder).items()
        if (names is None or name in names) and not ((folder / name).is_file() and digest(folder / name) == sha)
    ]


def forget(folder: Path, names: Collection[str]) -> None:
    """Take files that are about to be written again out of SHA256SUMS."""
    found = listed(folder)
    if not found.keys().isdisjoint(names):
        _put(folder, "".join(f"{sha}  {name}\n" for name, sha in found.items() if name not in names))
