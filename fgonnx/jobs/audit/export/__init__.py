"""Runs of an audit in the layouts of other tools."""

from __future__ import annotations

from pathlib import Path

from fgonnx import files
from fgonnx.fields import check_choice
from fgonnx.jobs.audit import formats, handed, intact
from fgonnx.jobs.audit.options import EXPORTS, Auditing, Handing
from fgonnx.jobs.audit.plan import opened


def export(run: str | Path, kind: str, folder: str | Path | None = None) -> Path:
    """Write a run of an audit in the layout of another tool.

    Parameters
    ----------
    run : path
        The run's folder.
    kind : {"fiftyone", "virelay"}
        A data set of FiftyOne, or a project of ViRelAy (needs h5py).
    folder : path, optional
        Where to; ``exports/KIND`` in the run's folder by default.

    Returns
    -------
    Path
        The folder that was written.

    Raises
    ------
    FgonnxError
        The folder holds no run, or one of texts, rows of a table or arrays; its pictures are not where they were, or
        what is needed is not installed.
    """
    check_choice("kind", kind, EXPORTS)
    check(run, Handing(exports=(kind,)))
    from fgonnx.jobs.audit.export import fiftyone, virelay
    from fgonnx.jobs.audit.report import build, clusters

    read = build.read(Path(run))
    to = Path(folder) if folder is not None else read.folder / formats.EXPORTS / kind
    files.make_folder(to)
    grouping = clusters.group(read.files, read.columns, read.about["labels"], len(read.sites))
    {"fiftyone": fiftyone, "virelay": virelay}[kind].write(read, grouping, to)
    return to


def check(run: str | Path, handing: Handing) -> None:
    """Refuse exports that the rows of a run do not allow, before anything is written.

    Parameters
    ----------
    run : path
        The run's folder.
    handing : Handing
        What is asked for.

    Raises
    ------
    FgonnxError
        The folder holds no run, or one of texts, rows of a table or arrays, or what is needed is not installed.
    """
    if not handing.exports:
        return
    folder = Path(run)
    about = opened(folder)
    handed.refuse_kind(about.get("kind", "pictures"), folder, handing)
    paths = intact.plan_of(folder, about).column("path").to_pylist()
    handed.refuse_rows(paths, folder, Auditing(maps=about["request"]["auditing"]["maps"]), handing)
