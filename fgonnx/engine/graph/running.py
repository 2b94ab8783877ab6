"""How models run: `Running`, frozen."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from fgonnx.engine.graph.session import Session
from fgonnx.fields import RUNNING, check_fields, documented, option


def _parse_providers(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


MOST_THREADS = 1024
"""More are an error of typing, which would start that many."""


@documented
@dataclass(frozen=True, kw_only=True)
class Running:
    """How models run: providers, threads, batch size, and whether rewritten graphs are cached."""

    providers: Sequence[str] | None = option(
        None,
        "Execution providers. Default: cuda where it is there, then cpu.",
        panel=RUNNING,
        metavar="cuda,cpu",
        parse=_parse_providers,
        python="Full names or short ones.",
    )
    threads: int | None = option(
        None, "Threads within an operator. Default: all cores.", panel=RUNNING, least=1, most=MOST_THREADS
    )
    batch_size: int = option(8, "Largest number of samples in one run; bounds the memory.", panel=RUNNING, least=1)
    cache: bool | str | os.PathLike[str] = option(
        False,
        "Rewrite the model, even where a kept rewrite would serve.",
        panel=RUNNING,
        flag="--no-cache",
        switch=True,
        parse=operator.not_,
        python="In Python, whether rewritten graphs are kept on disk and taken from there: a folder, or True for that "
        "of the environment variable FGONNX_CACHE ('off' for none), else the user's cache folder.",
    )
    verify: bool = option(
        True,
        "Do not hold the first explanation against the source model.",
        panel=RUNNING,
        flag="--no-verify",
        switch=True,
        parse=operator.not_,
        python="In Python, whether the first explanation of each input size is held against the source model, run on "
        "the same input.",
    )
    spin: bool = option(
        True,
        "Whether threads wait for work by spinning; False where other threads want the cores, as with `stream`.",
        typed=False,
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def session(self, model: onnx.ModelProto | ir.Model, folder: Path | None, *, optimise: bool = True) -> Session:
        """Open a model.

        Parameters
        ----------
        model : onnx.ModelProto or ir.Model
            The model.
        folder : Path or None
            Folder of its external weights.
        optimise : bool
            Whether onnxruntime optimises the graph.
        """
        return Session(
            model,
            folder=folder,
            providers=self.providers,
            threads=self.threads,
            spin=self.spin,
            optimise=optimise,
        )
