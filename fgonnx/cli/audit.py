"""`fgonnx audit`: a model and a data set in, evidence out."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fgonnx.cli import terminal
from fgonnx.cli.options import Folder, Group, ModelPath, Target, takes, typed
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import CertificateWarning, OptionError
from fgonnx.jobs.audit.options import Auditing, Drift, Handing, Runner
from fgonnx.jobs.reading import SOUND, Reading
from fgonnx.text.options import Texts

_EXTRA = {"pyarrow": "pyarrow", "filelock": "filelock", "jinja2": "jinja2", "scipy": "scipy", "sklearn": "scikit-learn"}


@takes(
    auditing=Group(Auditing),
    runner=Group(Runner),
    drift=Group(Drift),
    handing=Group(Handing),
    options=Group(Options, without=FILE),
    running=Group(Running, defaults={"batch_size": 16, "cache": True}),
    reading=Group(Reading, without=[n for n in SOUND if n not in ("channels", "units", "by", "pad", "rate")]),
    texts=Group(Texts, without=("column",)),
)
def command(
    call: typer.Context,
    model: ModelPath,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of pictures, or of one folder per class; a list (.txt); a table (.csv, .parquet) with "
            "paths or "
            "bytes; .tar files as WebDataset writes them. Of features, recordings or texts: their table (.csv, .jsonl, "
            ".parquet), or a text a line (.txt).",
        ),
    ],
    folder: Folder,
    target: Target = None,
    *,
    auditing: Auditing,
    runner: Runner,
    drift: Drift,
    handing: Handing,
    options: Options,
    running: Running,
    reading: Reading,
    texts: Texts,
) -> None:
    """Audit a model on a data set: a record and a map for each picture, and a report of what the decisions rest on.

    **Examples**

    - `fgonnx audit resnet.onnx val/ -o run --preprocess imagenet --labels synset.txt`
    - `fgonnx audit resnet.onnx val.csv -o run --preprocess imagenet --truth label --slices camera,site`
    - `fgonnx audit resnet.onnx val/ -o run --preprocess imagenet --if 'correct == false or probability < 0.8'`
    - `fgonnx audit resnet.onnx val/ -o run --preprocess imagenet --shard 3/8` : one of eight jobs of an array
    - `fgonnx audit sentiment.onnx reviews.csv -o run --column review --slices country` : the words of every row
    - `fgonnx audit resnet.onnx val/ -o run --preprocess imagenet --export fiftyone --sign key.pem` : handed on as well
    - `fgonnx audit int8.onnx val/ -o run8 --preprocess imagenet --against run --min-same 0.99` : another model

    Maps are signed where the method has signs, unless --psi says otherwise. A run that was interrupted goes on where it
    stopped when the same command is given again; other settings, another model or other data in the same folder are
    refused. Exit code: 0; 1 where rows could not be read or explained (they are recorded with their error, the others
    are done), where contributions do not sum to the score, or a limit of --against does not hold;
    2 where input or options are wrong.
    """
    check_extra("audit")
    warnings.simplefilter("ignore", CertificateWarning)  # said of all rows at the end
    from fgonnx.jobs.audit.job import AuditJob
    from fgonnx.jobs.audit.plan import opened
    from fgonnx.jobs.audit.request import Request, signed

    if drift.against is not None and runner.part is None:
        opened(drift.against)  # before the work
    given = tuple(sorted(typed(call, "psi", "backward")))
    options = options if "psi" in given else signed(options)
    request = Request(model, data, folder, options, running, reading, auditing, target, texts, given)
    job = AuditJob(request, runner, handing)
    plan = job.plan
    terminal.say("model", f"{model}  (sha256 {plan.about['model']['sha256'][:12]})")
    if (pre := plan.tools.preprocessing) is not None:
        terminal.say("preprocessing", f"{pre.describe()}  (from: {plan.tools.origin})")
    counted = [f"{n:,} {what}{'s' * (n != 1)}" for n, what in ((plan.about["rows"], "row"), (plan.shards, "shard"))]
    terminal.say("data", f"{data}: {' in '.join(counted)}, {len(job.left):,} to do")
    terminal.notes(plan.about["notes"])
    for _ in terminal.progress(job.run(), "explaining", len(job.left), few=1):
        pass
    if runner.part is not None:
        terminal.say("written", f"part {runner.part[0]} of {runner.part[1]} in {folder}/")
        return
    job.finish()
    finish(folder, drift, handing)


def check_extra(name: str) -> None:
    """Refuse a command whose extra is not installed."""
    missing = [package for module, package in _EXTRA.items() if find_spec(module) is None]
    if missing:
        raise OptionError(f"'fgonnx {name}' needs {', '.join(missing)}: pip install {' '.join(missing)}")


def finish(folder: Path, drift: Drift, handing: Handing) -> None:
    """Compare a run with another where that was asked for, write its report and say what is in it; hand it on."""
    from fgonnx.jobs.audit.drift import against
    from fgonnx.jobs.audit.job import hand_on
    from fgonnx.jobs.audit.report import columns
    from fgonnx.jobs.audit.report.build import report

    broken = False
    if drift.against is not None:
        found = against(folder, drift.against, drift)
        whole = found["cohorts"][0]
        maps = "are not measured" if whole["maps"] is None else f"correlate by {whole['maps']:.3f}"
        if whole["maps"] is not None and whole["measured"] < whole["count"]:
            maps += f" in {whole['measured']:,} of them"
        terminal.say("drift", f"{whole['same']:.1%} of {whole['count']:,} decisions are the same, maps {maps}")
        for why, count in found["unmeasured"].items():
            terminal.say("drift", f"maps of {count:,} row{'s' * (count != 1)} are not measured: {why}")
        for limit in found["limits"]:
            verdict = "not measured, so that it does not hold" if limit["missing"] else "does not hold"
            terminal.say("limit", f"{limit['text']}: {'holds' if limit['holds'] else verdict}")
        broken = not all(limit["holds"] for limit in found["limits"])
    summary = report(folder)
    counts = summary["counts"]
    terminal.say("rows", f"{counts['rows']:,} of {counts['planned']:,}, {counts['explained']:,} explained")
    if summary["performance"]:
        whole = summary["performance"][0]
        terminal.say(
            "accuracy",
            f"{whole['accuracy']:.1%}, 95 % interval {whole['low']:.1%} to {whole['high']:.1%}, of {whole['count']:,}",
        )
    for finding in summary["findings"]:
        terminal.say("found", finding)
    terminal.say("written", f"report.html, report.json, records and maps in {folder}/")
    for kind, path in hand_on(folder, handing).items():
        terminal.say("signed" if kind == "sign" else "exported", f"{path}" if kind == "sign" else f"{path}/")
    if counts["errors"]:
        terminal.say("errors", f"{counts['errors']:,} rows have no result; their records say why")
    unclosed = (summary["certificates"] or {}).get("unclosed", 0)
    if unclosed:
        terminal.error(f"{columns.unclosed_said(unclosed)}; their notes say how far they are off")
    if counts["errors"] or broken or unclosed:
        raise typer.Exit(1)
