"""Options of `fgonnx audit`: what is read, recorded and kept, and what does the work."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgonnx.engine.rewrite.options import parse_list
from fgonnx.errors import OptionError
from fgonnx.fields import RUNNING, check_choice, check_choices, check_fields, check_idle, documented, option, pairs
from fgonnx.jobs.audit import condition, measuring
from fgonnx.wording import parameter

REMARKS = ("operator", "purpose", "reviewer", "decision", "comment")
"""Free texts that every record carries."""

MAPS, RUNNERS = ("exact", "half", "none"), ("local", "ray")
EXPORTS = ("fiftyone", "virelay")
"""Tools in whose layouts a run can be written."""

_HANDED = "What is handed on"
_DATA, _KEPT, _DRIFT = "What is audited", "What is kept", "Against another run"


def _idle(drift: Any) -> str:
    return "" if drift.against is not None else "there is no run to compare with (against)"


def _remarks(texts: Sequence[str]) -> dict[str, str]:
    return pairs(texts, "purpose='yearly review'")


@documented
@dataclass(frozen=True, kw_only=True)
class Auditing:
    """What of the data is explained, and what is recorded."""

    column: str | None = option(
        None,
        "Column of a table with paths, with the bytes of pictures, or with texts. Default: the first of path, file, "
        "filename, image, bytes; text.",
        panel=_DATA,
        metavar="NAME",
    )
    truth: str = option(
        "label", "Column of a table with the true class: its index or name.", panel=_DATA, metavar="NAME"
    )
    slices: tuple[str, ...] | None = option(
        None,
        "Columns of a table that make cohorts, such as camera,site. Default: none.",
        panel=_DATA,
        metavar="A,B",
        parse=parse_list,
    )
    objects: Path | None = option(
        None,
        "Where the object is: a COCO .json, or a folder of pictures of the same name, .png, white on the object.",
        panel=_DATA,
        metavar="FILE",
    )
    only: str | None = option(
        None,
        "Explain only rows for which this holds, such as 'correct == false or probability < 0.8'; the others are "
        f"recorded without a map. Names: {', '.join(condition.NAMES)}, and the slices.",
        panel=_DATA,
        metavar="CONDITION",
        flag="--if",
    )
    limit: int | None = option(None, "Rows, drawn by the seed. Default: all.", panel=_DATA, least=1)
    seed: int = option(0, "Seed of the order of the rows.", panel=_DATA, least=0)
    maps: str = option(
        "exact",
        "Maps that are kept: exact (float32), half (float16, in units of their maximum), none.",
        panel=_KEPT,
    )
    pictures: bool = option(
        True,
        "Keep no small pictures, in the records or the report.",
        panel=_KEPT,
        flag="--no-pictures",
        switch=True,
        parse=operator.not_,
        python="In Python, whether they are kept.",
    )
    remarks: Mapping[str, str] | None = option(
        None,
        f"A text that every record carries: NAME=TEXT, of {', '.join(REMARKS)}. Repeatable.",
        panel=_KEPT,
        metavar="NAME=TEXT",
        flag="--note",
        parse=_remarks,
        many=True,
        python="In Python, a mapping.",
    )
    measures: tuple[str, ...] | None = option(
        None,
        "Measures of every map, with options as in deletion:steps=20 (docs/evaluation.md); most run the model many "
        "times a picture. Default: none.",
        panel=_KEPT,
        metavar="A,B",
        parse=parse_list,
    )
    sanity: int = option(
        4,
        "Rows on which the model is checked and its weights are made random, for the report; 0 for none.",
        panel=_KEPT,
        least=0,
    )
    shard_size: int = option(256, "Rows of a shard, which is done whole or not at all.", panel=RUNNING, least=1)

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, maps=MAPS)
        for name in self.remarks or {}:
            check_choice("remarks", name, REMARKS)
        measuring.chosen(self.measures or (), masks=self.objects is not None)
        if self.only is not None:
            condition.parse(self.only, self.slices or ())


def parse_part(text: str) -> tuple[int, int]:
    """Parse a part of the work, K/N: the K-th of N, from 1.

    Raises
    ------
    OptionError
        The text does not have that form.
    """
    first, _, of = text.partition("/")
    if not (first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise OptionError(f"shard '{text}' is no part of the work; write for example 3/8, the third of eight parts")
    return int(first), int(of)


@documented
@dataclass(frozen=True, kw_only=True)
class Runner:
    """What does the shards of an audit; none of it changes a byte of them."""

    runner: str = option("local", "local: this machine. ray: a Ray cluster, or a local one.", panel=RUNNING)
    workers: int | None = option(
        None,
        "Processes (local) or actors (ray), each with its own session. Default: this process; as many as Ray has CPUs.",
        panel=RUNNING,
        least=1,
    )
    part: tuple[int, int] | None = option(
        None,
        "Do one part of the shards alone, the K-th of N, and no report: for job arrays.",
        panel=RUNNING,
        metavar="K/N",
        flag="--shard",
        parse=parse_part,
        joined="/",
        least=1,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, runner=RUNNERS)
        if self.part is not None and self.part[0] > self.part[1]:
            raise OptionError(f"{parameter('part', self.part)} is no part of the work; give K of N, 1 to N")


@documented
@dataclass(frozen=True, kw_only=True)
class Drift:
    """What may become of a model from one run to another."""

    against: Path | None = option(
        None, "Compare with an earlier run of the same data, of this model or another.", panel=_DRIFT, metavar="RUN"
    )
    min_same: float | None = option(
        None, "Least share of decisions that stay the same.", panel=_DRIFT, least=0, most=1, idle=_idle
    )
    min_maps: float | None = option(
        None,
        "Least mean rank correlation of maps; of rows of tables and texts, of what their features or words add.",
        panel=_DRIFT,
        least=-1,
        most=1,
        idle=_idle,
    )
    max_layers: float | None = option(
        None,
        "Most that the layers' shares of the contributions may move, 0..1.",
        panel=_DRIFT,
        least=0,
        most=1,
        idle=_idle,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_idle(self)


@documented
@dataclass(frozen=True, kw_only=True)
class Handing:
    """What of a run is written for others."""

    exports: tuple[str, ...] | None = option(
        None,
        f"Write a run of pictures for other tools, too, into RUN/exports: {', '.join(EXPORTS)}.",
        panel=_HANDED,
        metavar="A,B",
        flag="--export",
        parse=parse_list,
    )
    sign: Path | None = option(
        None,
        "Sign SHA256SUMS with a private key (PEM, elliptic curve) by model-signing, into SHA256SUMS.sig.",
        panel=_HANDED,
        metavar="KEY",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.exports or ():
            check_choice("exports", name, EXPORTS)
