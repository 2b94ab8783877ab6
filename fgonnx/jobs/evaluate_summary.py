"""The results of an evaluation, of pictures and of texts: what its summary says, and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from fgonnx import files
from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.journal import Journal
from fgonnx.audit.evaluate.run import file_name
from fgonnx.audit.evaluate.summary import summarise
from fgonnx.audit.evaluate.texts import TextMeasure
from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.explain.explainer import Explainer
from fgonnx.jobs import record
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.results import write_csv, write_results

SCHEMA = 1
"""Version of the summary's layout; it changes when a key changes its meaning or goes away."""

_SAID = ("head", "output", "input", "input_shape", "layout")
"""Options that say what the score is."""


class Evaluation(Protocol):
    """A finished run of `fgonnx evaluate`."""

    folder: Path
    model: Path
    loaded: LoadedModel
    plan: Plan
    options: Options
    running: Running
    reading: Reading
    journal: Journal
    notes: list[str]

    @property
    def explainer(self) -> Explainer:
        """What runs the model."""

    @property
    def methods(self) -> Sequence[str]:
        """The methods, in order."""

    @property
    def measures(self) -> Sequence[evaluate.Measure | TextMeasure]:
        """The measures, in order."""

    @property
    def failed(self) -> Mapping[str, str]:
        """Methods that do not apply to the model, with the reason."""

    def command(self) -> list[str]:
        """Return the command that does the run again."""


def summary_of(
    run: Evaluation, rewritten: Rewritten, data: Mapping[str, Any], settings: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Return the summary of a run.

    Parameters
    ----------
    run : Evaluation
        The run.
    rewritten : Rewritten
        The model with its explanation.
    data : mapping
        What was measured on.
    settings : mapping
        What runs of this kind add to the settings of all.
    **more
        What they add to the summary.
    """
    entries, curves = summarise(run.journal.rows(), run.methods, [m.name for m in run.measures], run.plan.seed)
    return {
        "schema": SCHEMA,
        "model": {"path": str(run.model), "name": run.model.name, "sha256": run.loaded.sha256},
        "data": dict(data),
        "settings": {
            "target": run.plan.target,
            "seed": run.plan.seed,
            "limit": run.plan.limit,
            "labels": str(run.reading.labels) if run.reading.labels is not None else None,
            **{k: v for k, v in run.options.to_dict().items() if k in _SAID},
            "bind": dict(run.loaded.bound),
            "batch_size": run.running.batch_size,
            **settings,
            **record.asked(run.running),
        },
        "explained": record.explained(rewritten),
        **more,
        "providers": run.running.used_providers,
        "runtime": run.explainer.running.described(),
        "command": run.command(),
        "versions": record.versions(run.running),
        "notes": run.notes,
        "failed": run.failed,
        "methods": [{"name": name, "what": methods.describe(name.partition(":")[0])} for name in run.methods],
        "measures": [
            {"name": m.name, "meaning": m.meaning, "better": m.better, "source": m.source} for m in run.measures
        ],
        "results": [asdict(e) for e in entries],
        "curves": [
            {**asdict(c), **{key: getattr(c, key).tolist() for key in ("at", "mean", "low", "high")}} for c in curves
        ],
    }


def curves_of(run: Evaluation, summary: Mapping[str, Any]) -> dict[str, dict[str, bytes]]:
    """Draw the curves of the measures that have some, by measure."""
    from fgonnx.audit.evaluate import figures

    return {
        m.name: figures.curves(m.name, m.axes, own)
        for m in run.measures
        if (own := [c for c in summary["curves"] if c["measure"] == m.name])
    }


def write(
    run: Evaluation,
    summary: Mapping[str, Any],
    about: Mapping[str, Mapping[str, Any]],
    drawn: Mapping[str, dict[str, bytes]],
    words: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (),
) -> None:
    """Write the files of a run: figures, tables, the summary and its page.

    Parameters
    ----------
    run : Evaluation
        The run.
    summary : mapping
        Its summary.
    about : mapping of str to mapping
        Label, decision and target of every sample, by name.
    drawn : mapping of str to dict of str to bytes
        Figures, by name.
    words : sequence of (str, sequence of (str, str))
        Of texts, their words as the page shows them.
    """
    from fgonnx.audit.evaluate import figures, page

    for name, figure in drawn.items():
        figures.save(figure, run.folder / file_name(name))
    write_results(run.folder / "results.csv", run.journal, about, run.methods, [m.name for m in run.measures])
    results = summary["results"]
    write_csv(run.folder / "summary.csv", list(results[0]) if results else [], results)
    files.write_json(run.folder / "summary.json", summary)
    files.write_text(run.folder / "index.html", page.render(summary, drawn, words))
