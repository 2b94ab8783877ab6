"""A model that is served: its Explainer, what its inputs and outputs are, and how jobs are run, several at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine import methods
from fgonnx.engine.graph.running import AUTO, Running
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import FgonnxError, InputError, ModelError, NumericError, OptionError
from fgonnx.explain import batches, choice
from fgonnx.explain.closing import closes
from fgonnx.explain.engines import Engine
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.head import Head
from fgonnx.explain.targets import One
from fgonnx.fields import refuse_idle
from fgonnx.jobs.audit import condition
from fgonnx.jobs.audit.condition import Condition
from fgonnx.jobs.reading import SOUND, Reading, agreed_layout, aligned_labels
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import Reader
from fgonnx.serve import together
from fgonnx.serve.job import Answer, Explained, Job
from fgonnx.serve.options import CONDITIONS
from fgonnx.serve.tensors import datatype_of
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

VALUES = ("target", "score", "completeness", "contributions", "contrast")
"""What of an explanation is an output beside the map, as in rewritten files."""


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, the protocol's name of its type, its sizes, -1 where they are free."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class How:
    """How models are served.

    Attributes
    ----------
    options : Options
        What is explained and how.
    running : Running
        How models run.
    reading : Reading
        How pictures become samples, and class names.
    condition : str or None
        Explain only predictions that meet it.
    """

    options: Options = field(default_factory=Options)
    running: Running = field(default_factory=Running)
    reading: Reading = field(default_factory=Reading)
    condition: str | None = None


class Served:
    """A model with its sessions.

    Parameters
    ----------
    name : str
        Its name.
    version : str
        Its version.
    path : Path
        The file.
    how : How
        How it is served.

    Raises
    ------
    FgonnxError
        It cannot be explained, or is a file that fgonnx wrote, which explains itself.
    """

    def __init__(self, name: str, version: str, path: Path, how: How) -> None:
        self.name, self.version, self.path = name, version, path
        refuse_idle(how.reading, SOUND, "a service takes pictures and arrays")
        if how.running.runtime == AUTO:
            raise OptionError(
                f"a service is run by one runtime, and {parameter('runtime', AUTO)} chooses by time; name onnxruntime "
                "or openvino"
            )
        given = load(path)
        if "fgonnx.head_value" in given.ir.metadata_props:
            raise ModelError(
                f"{given.name} was written by fgonnx and explains itself: any server of ONNX models takes it; give its "
                "source"
            )
        self.loaded, options = arranged(binding.bind(given, how.options.bind, how.options.input_shape), how.options)
        value = self.loaded.input(options.input)
        preprocessing, _ = how.reading.preprocessing(
            self.loaded, options.input, required=False, shape=options.explained_shape
        )
        layout = agreed_layout(options.layout, preprocessing, self.loaded, options.input)
        self._driven = methods.find(options.method).drive is not None
        self.reader = Reader(value, preprocessing, how.reading, axis=self.loaded.batch_axis)
        self.input = str(value.name)
        self.size = how.running.batch_size
        self._given_labels = how.reading.names()
        explainer = Explainer(
            self.loaded,
            replace(options, bind=None, layout=layout, scores=not self._driven),
            replace(how.running, spin=False),
            labels=self._given_labels,
        )
        self.explainer = explainer.for_samples_first()
        graph = self.loaded.ir.graph
        self.inputs = tuple(
            Tensor(str(v.name), datatype_of(dtype_of(v).numpy()), _sizes(dims_of(v), own=self._is_state(v)))
            for v in free_inputs(graph)
        )
        if any(t.datatype == "BYTES" for t in self.inputs):
            raise ModelError(f"{self.loaded.name} takes texts, which the service does not; serve the part behind them")
        self.outputs = tuple(
            Tensor(str(v.name), datatype_of(dtype_of(v).numpy()), _sizes(dims_of(v), own=not self._fixed))
            for v in graph.outputs
        )
        self.joins = False
        self.rewritten: Rewritten | None = None
        self.labels: tuple[str, ...] | None = None
        self._first: dict[str, Array] = {}
        self._warm()
        #: Explain only predictions that meet it, unless a request says otherwise.
        self.condition: Condition | None = None
        if how.condition is not None:
            self.condition = condition.parse(how.condition, names=CONDITIONS)
            self.check_condition(self.condition)

    def _warm(self) -> None:
        """Run once, where sizes are known: sessions are opened, and the first explanation is held against the source.

        On noise rather than zeros, which some models divide by.
        """
        if any(size < 0 for t in self.inputs for size in t.shape[1:]):
            return
        rng = np.random.default_rng(0)
        x = {t.name: _noise(rng, t, self._dtype(t.name)) for t in self.inputs}
        self._learn(self._engine(x).rewritten)
        self.predict(x)
        with contextlib.suppress(NumericError):  # of noise alone; of a picture it is an answer
            self.explain(x, None, None)

    def _learn(self, r: Rewritten) -> None:
        """Take from a rewritten graph what the head is, and whether samples may be run together."""
        if self.rewritten is not None:
            return
        self.rewritten = r
        self.joins = len(self.inputs) == 1 and r.normal.batched and not r.entangled and not self._driven
        if self.of_classes:
            self.labels, _ = aligned_labels(self._given_labels, self.loaded.labels(), math.prod(r.head_shape))

    def _dtype(self, name: str) -> np.dtype[Any]:
        return dtype_of(self.loaded.input(name)).numpy()

    def names(self, outputs: Sequence[str] = ()) -> dict[str, str]:
        """Return what map and certificate are called among outputs: by their own names, which no output has."""
        taken = {t.name for t in self.outputs} | set(outputs)
        return {name: name if name not in taken else f"fg/{name}" for name in ("saliency", *VALUES)}

    def explained_outputs(self) -> tuple[Tensor, ...]:
        """Return the outputs that an explanation has beside the model's own; before the first one, what is sure."""
        known = self._first or {"saliency": np.zeros((1, 0, 0), np.float32), "score": np.zeros(1, np.float32)}
        named = self.names()
        return tuple(
            Tensor(named[name], datatype_of(array.dtype), (-1, *(size or -1 for size in array.shape[1:])))
            for name, array in known.items()
        )

    def checked(self, name: str, array: Array) -> Array:
        """Return an array of an input, in the input's type.

        Raises
        ------
        InputError
            It does not fit the input; the message begins with what it is called.
        """
        dtype = self._dtype(name)
        tensor = next(t for t in self.inputs if t.name == name)
        fits = len(tensor.shape) == array.ndim and all(
            w in (s, -1) for w, s in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits:
            sizes = ", ".join(str(s) if s >= 0 else "?" if i else "N" for i, s in enumerate(tensor.shape))
            raise InputError(f"input '{name}' must have the shape ({sizes}), this one has {array.shape}")
        if array.shape[0] == 0:
            raise InputError(f"input '{name}' holds no sample; give at least one")
        if array.dtype != dtype:
            if array.dtype.kind != "f" or dtype.kind != "f":
                raise InputError(f"input '{name}' is {tensor.datatype}, this one is {datatype_of(array.dtype)}")
            with np.errstate(over="ignore", invalid="ignore"):
                array = array.astype(dtype)
        batches.check_finite(name, array)
        return array

    def is_free(self, name: str) -> bool:
        """Tell whether an input takes any number of rows."""
        return not isinstance(next(iter(dims_of(self.loaded.input(name))), 0), int)

    def check_counts(self, x: Mapping[str, Array]) -> None:
        """Refuse inputs with different numbers of samples.

        Raises
        ------
        InputError
            There are two.
        """
        batches.check_counts(self.loaded.ir.graph, self.input, x)

    @property
    def of_classes(self) -> bool:
        """Whether entries of the head are known to be classes: whether it has one axis."""
        return self.rewritten is not None and sum(size > 1 for size in self.rewritten.head_shape) <= 1

    def check_condition(self, given: Condition) -> None:
        """Refuse a condition that no prediction can meet.

        Raises
        ------
        OptionError
            It compares a class with what is none, or names a probability, and the model gives none.
        """
        r = self.rewritten
        if r is None:
            return
        given.check(self.labels, math.prod(r.head_shape))
        if "probability" in given.names and not (self.of_classes and r.stripped):
            raise OptionError(
                f"the condition '{given.text}' names a probability, and the model ends in scores; name score or margin"
            )

    def target(self, given: Any) -> One:
        """Return a target as a request gives it: an index or a text, which names no file.

        Raises
        ------
        FgonnxError
            It is none, or out of range, or unknown.
        """
        if isinstance(given, str):
            given = choice.parse(given, files=False)
        if self.rewritten is not None and isinstance(given, (int, str, tuple)):
            r = self.rewritten
            found = choice.resolve(given, Head(r.head_shape, 1, r.head_axes, self.explainer.labels or ()))
            return given if found.indices is None else int(found.indices[0])
        return given

    def _engine(self, x: Mapping[str, Array], **more: Any) -> Engine:
        explainer = self.explainer
        return explainer.engine(explainer.explained_shape(x), others=explainer.other_shapes(x), **more)

    @cached_property
    def _plain(self) -> tuple[Session, int] | None:
        """The model as it is, in ONNX Runtime, and how many samples it takes at once; None where it is turned first."""
        batch = dims_of(self.loaded.input(self.input))[0]
        turned = self.loaded.arrangement
        moved = turned is not None and (turned.axis != 0 or turned.inputs or turned.outputs or turned.filled != 1)
        if moved or (self._fixed and batch != 1):
            return None
        session = self.explainer.running.session(self.loaded.ir, self.loaded.folder)
        return session, 1 if self._fixed else self.size

    def _is_state(self, value: ir.Value) -> bool:
        """Tell whether the first axis of an input is no batch: whether its size is fixed above 1, and that of x not."""
        first = next(iter(dims_of(value)), None)
        return isinstance(first, int) and first > 1 and not self._fixed

    @property
    def _fixed(self) -> bool:
        """Whether the model takes one number of samples only."""
        return isinstance(dims_of(self.loaded.input(self.input))[0], int)

    def predict(self, x: Mapping[str, Array]) -> dict[str, Array]:
        """Return the model's own outputs, samples first, as ONNX Runtime computes them of the file itself.

        Samples that influence each other are run together, as they came: what is asked for is what the model makes of
        them.
        """
        if self._plain is None:
            return self.forward(x)[1]
        r = self._engine(x).rewritten
        session, size = self._plain
        if not self._fixed and (r.entangled or not r.normal.batched):
            return session.run(dict(x), r.source_outputs)
        fed = batches.feeds(self.loaded, r, x, size)
        return self._as_declared(batches.run(r, session, fed, size, r.source_outputs))

    def _as_declared(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return outputs, those without axes as such: runs are joined along a first axis."""
        scalars = {str(v.name) for v in self.loaded.ir.graph.outputs if v.shape is not None and not v.shape.rank()}
        return {k: v.reshape(()) if k in scalars and v.size == 1 else v for k, v in outputs.items()}

    def forward(self, x: Mapping[str, Array]) -> tuple[Rewritten, dict[str, Array], Array]:
        """Run the rewritten model without its explanation.

        Returns
        -------
        rewritten : Rewritten
            Its graph.
        outputs : dict of str to numpy array
            The model's own outputs, samples first.
        heads : numpy array, (N, ...)
            The tensor whose entries are explained.
        """
        engine = self._engine(x, forward=True)
        r = engine.rewritten
        fed = batches.feeds(self.loaded, r, x, self.size)
        head = r.names["head"]
        found = batches.run(r, engine.session, fed, self.size, list(dict.fromkeys([*r.source_outputs, head])))
        return r, self._as_declared({name: found[name] for name in r.source_outputs}), found[head]

    def explain(
        self, x: Mapping[str, Array], targets: Sequence[One] | None, contrast: Any
    ) -> tuple[list[Explained], dict[str, Array]]:
        """Return explanations of samples, and the model's own outputs, which come with them."""
        explainer = self.explainer
        target: Any = None if targets is None else list(targets)
        e = explainer(x, target, contrast=contrast)
        contrasted = contrast is not None or explainer.options.contrast is not None
        seed = not contrasted and choice.takes_seed(target)
        r = self._engine(x, seed=seed, contrast=contrasted).rewritten
        self._learn(r)
        labels = self.labels if sum(size > 1 for size in r.head_shape) <= 1 else None
        decision = Decision.of(e, r, labels, explainer.labels)
        found = [_of_one(e, decision, i) for i in range(len(e))]
        if not self._first and contrast is None:
            free = any(size < 0 for t in self.inputs for size in t.shape[1:])
            grid = [0] * (e.saliency.ndim - 1) if free else e.saliency.shape[1:]
            self._first = {"saliency": np.zeros((1, *grid), e.saliency.dtype), **found[0].values}
        return found, self._as_declared(e.outputs)

    def run(self, jobs: Sequence[Job]) -> list[Answer | FgonnxError]:
        """Run jobs together."""
        return together.run(self, jobs)


def _sizes(dims: Sequence[Any], *, own: bool = False) -> tuple[int, ...]:
    """Return sizes; the first one is the batch unless it is an output's own."""
    return tuple(d if isinstance(d, int) and (i > 0 or own) else -1 for i, d in enumerate(dims))


def _noise(rng: np.random.Generator, tensor: Tensor, dtype: np.dtype[Any]) -> Array:
    shape = (max(1, tensor.shape[0]), *tensor.shape[1:])
    if dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.random(shape).astype(dtype)


def _of_one(e: Explanation, decision: Decision, i: int) -> Explained:
    row = slice(i, i + 1)
    values = {name: array[row] for name in (*VALUES, "model_score") if (array := getattr(e, name)) is not None}
    certified = e.contributions is not None and e.completeness is not None
    score = float(e.score[i])
    return Explained(
        e.saliency[i],
        values,
        decision.entry(i, int(e.target[i])) if e.target is not None else None,
        decision.entry(i, int(e.contrast[i])) if e.contrast is not None else None,
        e.described[i],
        decision.top(i),
        float(e.relative_residual()[i]) if certified and score else None,
        float(e.rounding_residual()[i]) if certified else None,
        e.settings["psi"] == "signed",
        remark if (remark := e.settings.get("remarks", [""] * len(e))[i]) and not closes([remark]) else "",
    )
