"""Explainer(model)(x, target) -> Explanation: arrays in, maps and certificates out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx import aggregate, smooth
from fgonnx.errors import InputError, NumericError, OptionError, TargetError
from fgonnx.explanation import Explanation
from fgonnx.labels import align, resolve
from fgonnx.model import LoadedModel, ModelLike, load
from fgonnx.rewrite import CERTIFICATE, Options, Rewritten, build
from fgonnx.runtime import Session, choose_providers

Array = npt.NDArray[Any]
Target = int | str | Sequence[int | str] | Array | None

_KEPT_SIZES = 4


@dataclass(frozen=True)
class Engine:
    """A rewritten model and its session, for one input size."""

    rewritten: Rewritten
    session: Session


class Explainer:
    """Explains the decisions of one ONNX model.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    method : {"fullgrad", "simple-fullgrad", "smooth-fullgrad"}
        Full-gradients; the variant whose map leaves the bias out; the mean over noisy copies of the input.
    profile, psi, head, output, input, layout, expose
        See `fgonnx.rewrite`.
    input_gradient, bias_gradients : bool
        Whether explanations hold them.
    certificate : bool
        Whether explanations hold contributions and completeness.
    labels : sequence of str, optional
        Class names, so that targets can be given by name; the model's own metadata by default.
    providers : sequence of str, optional
        Execution providers, by full or short name.
    threads : int, optional
        Threads within an operator.
    batch_size : int
        Largest number of samples in one run; bounds the memory.
    samples : int
        Noisy copies per input for "smooth-fullgrad" (25, as published).
    sigma : float
        Their noise, as a fraction of max - min of the input (0.15).
    random_state : int
        Seed of that noise.

    Notes
    -----
    An Explainer may be called from several threads at once. Models whose input sizes are free are rewritten for each
    size that comes along; the last few are kept.
    """

    def __init__(
        self,
        model: ModelLike | LoadedModel,
        method: str = "fullgrad",
        *,
        profile: str = "full",
        psi: str = "abs",
        head: str = "logits",
        output: str | None = None,
        input: str | None = None,
        layout: str | None = None,
        expose: Sequence[str] = (),
        input_gradient: bool = False,
        bias_gradients: bool = False,
        certificate: bool = True,
        labels: Sequence[str] | None = None,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        batch_size: int = 8,
        samples: int = 25,
        sigma: float = 0.15,
        random_state: int = 0,
    ) -> None:
        if batch_size < 1:
            raise OptionError(f"batch_size={batch_size} is not a number of samples; give 1 or more")
        self.loaded = load(model)
        self.labels = tuple(labels) if labels is not None else self.loaded.labels()
        self.batch_size = batch_size
        self.smoothing = smooth.Smoothing(samples, sigma, random_state) if method == "smooth-fullgrad" else None
        wanted = ["saliency", "target", "score"]
        if certificate and method != "simple-fullgrad":
            wanted += ["contributions", "completeness"]
        wanted += ["input_gradient"] * input_gradient + ["bias_gradients"] * bias_gradients
        if self.smoothing is not None:
            if input_gradient or bias_gradients or expose:
                raise OptionError(
                    "smooth-fullgrad averages over runs: it has no input_gradient, bias_gradients or exposed values"
                )
            wanted[0] = "signed_maps"
        self.options = Options(
            method=method, profile=profile, psi=psi, head=head, output=output, input=input, layout=layout,
            outputs=tuple(wanted), expose=tuple(expose),
        )  # fmt: skip
        self._providers = choose_providers(providers)
        self._threads = threads
        self._engines: dict[tuple[tuple[int, ...] | None, bool], Engine] = {}
        self._lock = threading.Lock()
        _check_weights(self.loaded)

    def engine(self, shape: Sequence[int] | None = None, *, seed: bool = False) -> Engine:
        """Return the rewritten model and its session for inputs of a shape (needed where sizes are free)."""
        key = (tuple(int(s) for s in shape[1:]) if shape is not None and self._free() else None, seed)
        with self._lock:
            if key not in self._engines:
                given = None if key[0] is None else (1, *key[0])
                rewritten = build(self.loaded, replace(self.options, input_shape=given, seed=seed))
                folder = self.loaded.path.parent if self.loaded.path is not None else None
                session = Session(rewritten.model, folder=folder, providers=self._providers, threads=self._threads)
                while len(self._engines) >= _KEPT_SIZES:
                    self._engines.pop(next(iter(self._engines)))
                self._engines[key] = Engine(rewritten, session)
            return self._engines[key]

    def _free(self) -> bool:
        """Tell whether a candidate input has sizes that are not fixed, beside the batch."""
        graph = self.loaded.ir.graph
        return any(
            v.shape is not None and any(not isinstance(d, int) for d in v.shape.dims[1:])
            for v in graph.inputs
            if v.name not in graph.initializers and self.options.input in (None, v.name)
        )

    def __call__(
        self, x: Array | Mapping[str, Array], target: Target = None, *, seed: Array | None = None
    ) -> Explanation:
        """Explain a batch.

        Parameters
        ----------
        x : numpy array, or mapping of input names to arrays
            The input in the model's own layout, with the batch axis; a mapping for models with several inputs.
        target : int, str, or sequence of those, optional
            What to explain, for all samples or one each: the flat index of an entry of the head, or a label. By
            default the largest entry of each sample. A tuple of several for one entry of a larger head is written as
            its flat index (`numpy.ravel_multi_index`).
        seed : numpy array, optional
            A cotangent of the head, of its shape, instead of a target: explains `<seed, head>`.

        Raises
        ------
        InputError
            If the array has the wrong shape or type, or holds NaN or infinity.
        TargetError
            If the target is out of range, unknown, or not one per sample.
        NumericError
            If the model's result holds NaN or infinity.
        """
        if seed is not None and target is not None:
            raise OptionError("give a target or a seed, not both")
        engine = self.engine(_explained_shape(x, self.options.input), seed=seed is not None)
        feeds = _feeds(self, engine, x)
        main = feeds[engine.rewritten.normal.input_name]
        count = main.shape[0]
        if seed is not None:
            feeds[engine.rewritten.selector] = _check_seed(seed, engine.rewritten, count, main)
        else:
            feeds[engine.rewritten.selector] = self.targets(target, engine.rewritten, count)
        step = self.batch_size if engine.rewritten.normal.batched else 1
        if self.smoothing is not None:
            results = [
                smooth.explain(engine.rewritten, engine.session, self.smoothing, _rows(feeds, i, i + 1), i, step)
                for i in range(count)
            ]
        else:
            results = [engine.session.run(_rows(feeds, i, i + step)) for i in range(0, count, step)]
        merged = {name: np.concatenate([r[name] for r in results]) for name in results[0]}
        return self._explanation(engine.rewritten, merged, main)

    def targets(self, target: Target, rewritten: Rewritten, count: int) -> npt.NDArray[np.int64]:
        """Return one flat index per sample, -1 for the largest entry.

        Raises
        ------
        TargetError
            If a target is out of range, unknown, or there is not one per sample.
        """
        if target is None:
            return np.full(count, -1, np.int64)
        entries = int(np.prod(rewritten.head_shape, initial=1))
        given: Any = target.tolist() if isinstance(target, np.ndarray) else target
        many = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * count
        if len(many) != count:
            raise TargetError(f"{len(many)} targets were given for {count} sample(s); give one, or one per sample")
        return np.array([self._target(t, entries) for t in many], np.int64)

    def _target(self, target: Any, entries: int) -> int:
        if isinstance(target, str):
            labels = self.labels or ()
            if labels and not target.strip().isdigit():
                labels, _ = align(labels, entries)
            return resolve(target, labels, entries)
        if not isinstance(target, (int, np.integer)) or isinstance(target, bool):
            raise TargetError(f"target {target!r} is not an index or a label")
        if not 0 <= int(target) < entries:
            raise TargetError(f"target {target} is out of range: the model has {entries} entries, 0 to {entries - 1}")
        return int(target)

    def _explanation(self, r: Rewritten, results: dict[str, Array], x: Array) -> Explanation:
        named = {ours: results[theirs] for ours, theirs in r.names.items() if theirs in results}
        where = r.names.get("saliency", smooth.SALIENCY)
        for name in (*r.source_outputs, r.names["score"], where):
            if results[name].dtype.kind == "f" and not np.isfinite(results[name]).all():
                raise NumericError(_first_bad(self, r, x, name))
        o = r.options
        return Explanation(
            saliency=results[where],
            target=named.get("target"),
            score=named["score"],
            outputs={name: results[name] for name in r.source_outputs},
            sites=r.sites,
            contributions=named.get("contributions"),
            completeness=named.get("completeness"),
            input_gradient=named.get("input_gradient"),
            bias_gradients={n.partition(":")[2]: v for n, v in named.items() if n.startswith("bias_gradient:")},
            exposed={n: named[n] for n in o.expose if n in named},
            head=r.head,
            head_stripped=r.stripped,
            settings={
                "method": o.method, "profile": o.profile, "psi": o.psi, "head": o.head,
                "source_sha256": self.loaded.sha256,
                "batch": "any" if r.normal.batched else "1", "notes": list(r.normal.notes),
            },
        )  # fmt: skip


def _explained_shape(x: Array | Mapping[str, Array], name: str | None) -> tuple[int, ...] | None:
    """Return the shape of the explained input among those given, None where only the model can tell which it is."""
    if not isinstance(x, Mapping):
        return np.asarray(x).shape
    if len(x) == 1:
        return np.asarray(next(iter(x.values()))).shape
    return np.asarray(x[name]).shape if name is not None and name in x else None


def _feeds(explainer: Explainer, engine: Engine, x: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Check the arrays against the graph's inputs and return them by name."""
    r = engine.rewritten
    graph = r.model.graph
    needed = {str(v.name): v for v in graph.inputs if v.name not in graph.initializers and v.name != r.selector}
    given = dict(x) if isinstance(x, Mapping) else {r.normal.input_name: x}
    missing, unknown = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    if missing or unknown:
        raise InputError(
            f"{explainer.loaded.name} takes the inputs {', '.join(needed)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    feeds = {name: _check_array(name, np.asarray(given[name]), value) for name, value in needed.items()}
    main = feeds[r.normal.input_name]
    if main.shape[0] == 0:
        raise InputError("the batch is empty; give at least one sample")
    return feeds


def _check_array(name: str, array: Array, value: ir.Value) -> Array:
    assert value.dtype is not None
    wanted = value.dtype.numpy()
    if array.dtype != wanted:
        both_float = array.dtype.kind == "f" and value.dtype.is_floating_point()
        if not both_float:
            raise InputError(f"input '{name}' must be {wanted}, the array is {array.dtype}; convert it (array.astype)")
        array = array.astype(wanted)
    dims = tuple(value.shape.dims) if value.shape is not None else ()
    fits = len(dims) == array.ndim and all(
        not isinstance(d, int) or d == s or i == 0 for i, (d, s) in enumerate(zip(dims, array.shape, strict=True))
    )
    if not fits:
        shape = ", ".join("N" if i == 0 else str(d if isinstance(d, int) else "?") for i, d in enumerate(dims))
        raise InputError(f"input '{name}' must have the shape ({shape}), the array has {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"input '{name}' holds NaN or infinity, first at {where}")
    return array


def _check_seed(seed: Array, r: Rewritten, count: int, x: Array) -> Array:
    seed = np.asarray(seed)
    if seed.shape == r.head_shape:
        seed = np.broadcast_to(seed, (count, *seed.shape))
    if seed.shape != (count, *r.head_shape):
        raise TargetError(f"the seed must have the head's shape {(count, *r.head_shape)}, it has {seed.shape}")
    if not np.isfinite(seed).all():
        raise TargetError("the seed holds NaN or infinity")
    value = next(v for v in r.model.graph.inputs if v.name == r.selector)
    assert value.dtype is not None
    return np.ascontiguousarray(seed.astype(value.dtype.numpy()))


def _rows(feeds: dict[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: array[start:stop] if array.ndim else array for name, array in feeds.items()}


def _check_weights(loaded: LoadedModel) -> None:
    for name, value in loaded.ir.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
            continue
        array = tensor.numpy()
        # Masks of attention hold infinities on purpose; NaN is never meant. A sum finds it in one pass without a copy.
        if (
            array.size
            and np.isnan(np.sum(array, dtype=np.float64 if array.dtype == np.float16 else None))
            and np.isnan(array).any()
        ):
            users = ", ".join(f"'{n.name or n.op_type}'" for n in value.consumers()[:3])
            raise NumericError(
                f"{loaded.name}: its weights '{name}' (used by {users}) hold NaN; export the model again"
            )


def _first_bad(explainer: Explainer, r: Rewritten, x: Array, name: str) -> str:
    """Name the first node of the source whose result is not finite for some sample."""
    graph = explainer.loaded.ir.clone()
    values = [
        (node, v) for node in graph.graph for v in node.outputs
        if v.name and (v.dtype is None or v.dtype.is_floating_point()) and not node.domain
    ]  # fmt: skip
    for _, v in values:
        v.shape = None
        if not v.is_graph_output():
            graph.graph.outputs.append(v)
    fallback = f"{explainer.loaded.name}: its result '{name}' holds NaN or infinity"
    try:
        folder = explainer.loaded.path.parent if explainer.loaded.path is not None else None
        session = Session(graph, folder=folder, providers=["cpu"], optimise=False)
        for i in range(len(x)):
            found = session.run({r.normal.input_name: x[i : i + 1]})
            for node, v in values:
                if v.name in found and found[v.name].dtype.kind == "f" and not np.isfinite(found[v.name]).all():
                    first = f"'{node.name or v.name}' ({node.op_type})"
                    return f"{fallback} for sample {i}; the first node to produce one is {first}"
    except Exception:  # the search is a courtesy: types that cannot be outputs must not hide the real message
        return fallback
    return f"{fallback}, while the model's own values are finite: the gradient overflows"


__all__ = ["CERTIFICATE", "Engine", "Explainer", "aggregate"]
