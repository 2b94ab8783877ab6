"""How models run: `Running`, frozen."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from fgonnx.engine.graph import openvino
from fgonnx.engine.graph.kept import folder_of
from fgonnx.engine.graph.openvino import OpenVinoSession
from fgonnx.engine.graph.providers import CUDA, VERSION, choose_providers
from fgonnx.engine.graph.session import Session
from fgonnx.fields import MOST_RUNS, RUNNING, check_choices, check_fields, check_idle, documented, option
from fgonnx.wording import parameter


def _parse_providers(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


MOST_THREADS = 1024
"""More are an error of typing, which would start that many."""


ORT, OPENVINO, AUTO = "onnxruntime", "openvino", "auto"
RUNTIMES = (ORT, OPENVINO, AUTO)


def _idle_providers(r: Running) -> str:
    return f"{parameter('runtime', r.runtime)} has none" if r.runtime == OPENVINO else ""


@documented
@dataclass(frozen=True, kw_only=True)
class Running:
    """How models run: runtime, threads, batch size, and whether rewritten graphs are cached."""

    runtime: str = option(
        ORT,
        "What runs explanations: onnxruntime, openvino (processors, in float32), or auto, the faster one on the first "
        "input.",
        panel=RUNNING,
    )
    providers: Sequence[str] | None = option(
        None,
        "Execution providers. Default: cuda where it is there, then cpu.",
        panel=RUNNING,
        metavar="cuda,cpu",
        parse=_parse_providers,
        idle=_idle_providers,
        python="Full names or short ones.",
    )
    tf32: bool = option(
        False,
        "Let CUDA round factors of products to TF32: faster, and maps and certificates are then right to a thousandth.",
        panel=RUNNING,
        flag="--tf32",
        switch=True,
        idle=_idle_providers,
    )
    threads: int | None = option(
        None, "Threads within an operator. Default: all cores.", panel=RUNNING, least=1, most=MOST_THREADS
    )
    batch_size: int = option(
        8, "Largest number of samples in one run; bounds the memory.", panel=RUNNING, least=1, most=MOST_RUNS
    )
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
        check_choices(self, runtime=RUNTIMES)
        check_idle(self)

    @property
    def form(self) -> str | None:
        """The form of graphs that the runtime needs; None where it takes all."""
        return self.runtime if self.runtime == OPENVINO else None

    def check(self) -> None:
        """Refuse what is not installed.

        Raises
        ------
        ProviderError
            The runtime or a provider is not there.
        """
        if self.runtime == OPENVINO:
            openvino.version()
        else:
            choose_providers(self.providers)

    @property
    def used_providers(self) -> list[str]:
        """Execution providers of ONNX Runtime, in order; none in another runtime."""
        return [] if self.runtime == OPENVINO else choose_providers(self.providers)

    @property
    def used_threads(self) -> int:
        """Threads: as many as asked for, or one for each core that this process may use."""
        if self.threads is not None:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def described(self) -> dict[str, Any]:
        """Return what runs, for records: the runtime, its version, the providers or the device, and the precision."""
        if self.runtime == OPENVINO:
            found = {"version": openvino.version(), "device": openvino.DEVICE, "precision": openvino.PRECISION}
            return {"name": OPENVINO, **found}
        rounded = {"precision": "tf32"} if self.tf32 and CUDA in self.used_providers else {}
        return {"name": ORT, "version": VERSION, "providers": self.used_providers, **rounded}

    def open(self, model: ir.Model, folder: Path | None) -> Session | OpenVinoSession:
        """Open a rewritten model in the runtime; see `session`.

        Raises
        ------
        ModelError
            The runtime does not take it.
        """
        if self.runtime == OPENVINO:
            return OpenVinoSession(model, threads=self.threads, cache=folder_of(self.cache))
        return self.session(model, folder)

    def session(self, model: onnx.ModelProto | ir.Model, folder: Path | None, *, optimise: bool = True) -> Session:
        """Open a model in ONNX Runtime.

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
            tf32=self.tf32,
            spin=self.spin,
            optimise=optimise,
        )
