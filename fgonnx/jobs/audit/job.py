"""One audit from beginning to end, for Python and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import Options, with_changes
from fgonnx.errors import OptionError
from fgonnx.fields import changed, refuse_idle, suggestion
from fgonnx.jobs.audit import arrow, formats, runners, sanity
from fgonnx.jobs.audit.export import export
from fgonnx.jobs.audit.options import Auditing, Handing, Runner
from fgonnx.jobs.audit.plan import SHARDS, Plan, planned
from fgonnx.jobs.audit.request import Request, signed
from fgonnx.jobs.audit.shardfiles import table_of
from fgonnx.jobs.audit.signing import sign, signer
from fgonnx.jobs.reading import Reading
from fgonnx.text.options import Texts


class AuditJob:
    """An audit whose plan is fixed, new or resumed.

    Parameters
    ----------
    request : Request
        What is audited and how.
    runner : Runner, optional
        What does the work.
    handing : Handing, optional
        What is handed on when all is done; what the data do not allow is refused before anything is written.

    Raises
    ------
    FgonnxError
        Model, data or options are wrong, or the folder holds a run with others.
    """

    def __init__(self, request: Request, runner: Runner | None = None, handing: Handing | None = None) -> None:
        self.runner, self.handing = runner or Runner(), handing or Handing()
        if self.runner.part is not None:
            refuse_idle(self.handing, ("exports", "sign"), "a part of the shards has no report to hand on")
        if self.handing.sign is not None:
            signer(self.handing.sign)
        self.plan: Plan = planned(request, self.handing)
        self.left = self.plan.missing(self.runner.part)

    def run(self) -> Iterator[tuple[int, int]]:
        """Do what is missing; yield each shard with the number of its rows that have a result."""
        yield from runners.run(self.plan, self.runner)

    def finish(self) -> None:
        """Test model and method on a few rows, unless that was done."""
        if self.plan.request.auditing.sanity and not (self.plan.folder / sanity.FILE).is_file():
            formats.forget(self.plan.folder, {sanity.FILE})
            sanity.sanity(self.plan)


def audit(model: str | Path, data: str | Path, run: str | Path, *, target: str | None = None, **options: Any) -> Path:
    """Explain a data set and write the run: a plan, files of records and maps, a report.

    Parameters
    ----------
    model, data, run : path
        The model, the data, and the folder of the run; a run that is there goes on.
    target : str, optional
        As for `fgonnx.Explainer`; the model's own decision by default. Maps are signed where `psi` is not given and the
        method has signs.
    **options
        Fields of `fgonnx.Options`, `fgonnx.Running`, and of the options of reading, texts, auditing, runners and what
        is handed on; settings of the method.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    FgonnxError
        Model, data or options are wrong, or the folder holds a run with others.
    """
    given = tuple(name for name in ("psi", "backward") if name in options)
    kinds = (Auditing(), Runner(), Handing(), Reading(), Texts())
    (auditing, runner, handing, reading, texts), left = changed(options, *kinds)
    method = methods.find(methods.named(left.get("method", Options.method)))
    for name in left.keys() - {f.name for cls in (Options, Running, method.settings) for f in fields(cls)}:
        if like := suggestion(name, Options, Running, *map(type, kinds)):
            raise OptionError(f"there is no option '{name}'{like}")
    explained, running = with_changes(None, Running(batch_size=16), left)
    if "psi" not in given:
        explained = signed(explained)
    request = Request(Path(model), Path(data), Path(run), explained, running, reading, auditing, target, texts, given)
    job = AuditJob(request, runner, handing)
    for _ in job.run():
        pass
    if runner.part is None:
        job.finish()
        from fgonnx.jobs.audit.report.build import report

        report(request.folder)
        hand_on(request.folder, handing)
    return request.folder


def hand_on(run: Path, handing: Handing) -> dict[str, Path]:
    """Write for others what was asked of a run that has its report; return what was written, by what it is."""
    found = {kind: export(run, kind) for kind in handing.exports or ()}
    return found | ({"sign": sign(run, handing.sign)} if handing.sign is not None else {})


def records(run: str | Path, columns: list[str] | None = None) -> pa.Table:
    """Return the records of a run as one table, in the order of the plan.

    Parameters
    ----------
    run : path
        The run's folder.
    columns : list of str, optional
        Names of columns; by default all but the pictures.
    """
    chosen = columns or [name for name in arrow.COLUMNS.names if name != "pictures"]
    files = sorted((Path(run) / SHARDS).glob("records-*.parquet"))
    return pa.concat_tables(table_of(f, chosen) for f in files)
