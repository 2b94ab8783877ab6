"""Fixtures of all tests, and the lines at the end of a run: what was counted, what was skipped and why."""

import gc
import importlib.util
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests import skips

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config):
    # Before any command runs: rewritten graphs of tests are not for the user's own cache.
    folder = tempfile.TemporaryDirectory(prefix="fgonnx-cache-")
    config.add_cleanup(folder.cleanup)
    os.environ["FGONNX_CACHE"] = folder.name
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """Note what a test counts as where the report is read: a worker passes on properties, not marks."""
    for mark in item.iter_markers("counts"):
        item.user_properties.append(("counts", mark.args[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Make what a test captured UTF-8: names of files that are not would end the worker that sends them."""
    report = yield
    report.sections = [tuple(text.encode(errors="backslashreplace").decode() for text in s) for s in report.sections]
    return report


@pytest.fixture(scope="module", autouse=True)
def kept_by_the_module(request):
    """Forget what functions of a test module have cached once its tests are done.

    Explainers hold whole models, in graphs that refer to themselves: they go when garbage is collected.
    """
    yield
    for found in vars(request.module).values():
        if hasattr(found, "cache_clear") and found.__module__ == request.module.__name__:
            found.cache_clear()
    gc.collect()


@pytest.fixture(scope="session")
def shared():
    """The folder with trained models and real pictures beside the repository."""
    if not (SHARED / "models" / "manifest.json").is_file():
        skips.now(skips.SHARED)
    return SHARED


def pytest_terminal_summary(terminalreporter):
    """Write counts for the tables of rules and of node cases, and how many tests were skipped for which reason."""
    stats = terminalreporter.stats
    lines = [_rules(stats.get("passed", [])), _node_cases(stats), *_skipped(stats.get("skipped", []))]
    for line in filter(None, lines):
        terminalreporter.write_line(line)


def _rules(passed):
    n: Counter[str] = Counter()
    for report in passed:
        n.update(value for key, value in report.user_properties if key == "counts")
        n["batches"] += dict(report.user_properties).get("batched", False)
    if not n["laws"]:
        return ""
    return (
        f"rules: {n['laws']} cases obey both laws, {n['halves']} of them in float16, {n['batches']} with a free batch; "
        f"{n['refusals']} refused with their reason; {n['mutants']} ways to spoil a rule caught"
    )


def _node_cases(stats):
    n: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in stats.get(outcome, []):
            n.update(dict(report.user_properties).get("node_cases", {}))
    if not n:
        return ""
    obeyed = {k: n.pop(k, 0) for k in ("float64", "float32", "moved", "failed")}
    rest = ", ".join(f"{count} {k}" for k, count in sorted(n.items()))
    return (
        f"node cases of the standard: {sum(obeyed.values()) + n.total()}; both laws hold for "
        f"{obeyed['float64']} in float64, {obeyed['moved']} moved off a kink and {obeyed['float32']} in float32, "
        f"not for {obeyed['failed']}; others: {rest}"
    )


def _skipped(reports):
    # every worker reports a module that skips itself
    unique = {(r.nodeid, r.longrepr[2]) for r in reports if isinstance(r.longrepr, tuple)}
    n = Counter(skips.find(message) for _, message in unique)
    for reason, count in sorted(n.items(), key=lambda item: (item[0] is None, -item[1])):
        if reason is None:
            yield f"skipped: {count} for a reason that tests/skips.py does not list"
        else:
            yield f"skipped: {count} for want of {reason.article}{reason.name}; they run {reason.runs}"
