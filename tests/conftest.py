"""Fixtures of all tests: one thread for torch, the folder of shared models and pictures."""

import importlib.util
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config):
    # Before any command runs: rewritten graphs of tests are not for the user's own cache.
    folder = tempfile.TemporaryDirectory(prefix="fgonnx-cache-")
    config.add_cleanup(folder.cleanup)
    os.environ["FGONNX_CACHE"] = folder.name
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared():
    """The folder with trained models and real pictures beside the repository."""
    if not (SHARED / "models" / "manifest.json").is_file():
        pytest.skip("the folder of shared models is not there")
    return SHARED


def pytest_terminal_summary(terminalreporter):
    """One line of counts for the table of rules."""
    laws, batches, refusals, mutants, halves = 0, 0, 0, 0, 0
    for report in terminalreporter.stats.get("passed", []):
        laws += "test_both_laws_hold" in report.nodeid
        batches += dict(report.user_properties).get("batched", False)
        halves += "test_float16_is_close" in report.nodeid
        refusals += "test_a_refusal_says_why" in report.nodeid
        mutants += "test_rule_mutants" in report.nodeid
    if laws:
        terminalreporter.write_line(
            f"rules: {laws} cases obey both laws, {halves} of them in float16, {batches} with a free batch; "
            f"{refusals} refused with their reason; {mutants} ways to spoil a rule caught"
        )
    counts: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            counts.update(dict(report.user_properties).get("node_cases", {}))
    if counts:
        obeyed = {k: counts.pop(k, 0) for k in ("float64", "float32", "moved", "failed")}
        rest = ", ".join(f"{n} {k}" for k, n in sorted(counts.items()))
        terminalreporter.write_line(
            f"node cases of the standard: {sum(obeyed.values()) + counts.total()}; both laws hold for "
            f"{obeyed['float64']} in float64, {obeyed['moved']} moved off a kink and {obeyed['float32']} in float32, "
            f"not for {obeyed['failed']}; others: {rest}"
        )
