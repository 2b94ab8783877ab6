"""Explainer(model)(x, target) -> Explanation: arrays in, maps and certificates out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import cache, partial
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fgonnx.engine import methods
from fgonnx.engine.graph import openvino
from fgonnx.engine.graph.running import AUTO, OPENVINO, ORT, Running
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.rewrite.arranged import arranged, turned
from fgonnx.engine.rewrite.options import Options, with_changes
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import ModelError, OptionError
from fgonnx.explain import batches, closing, ids, shapes
from fgonnx.explain.choice import Resolved, contrasted, resolve_contrast, resolved_for, takes_seed
from fgonnx.explain.engines import Engine, Engines
from fgonnx.explain.exact import Witness
from fgonnx.explain.explanation import Explanation, turned_back
from fgonnx.explain.finite import check_weights
from fgonnx.explain.head import Head
from fgonnx.explain.results import explanation_of
from fgonnx.explain.runtime import check_chosen, check_form, fastest
from fgonnx.explain.stream import grouped, in_order
from fgonnx.explain.targets import Contrast, Target
from fgonnx.explain.written import check_call, check_target, fixed_entry, opened, with_samples_first
from fgonnx.fields import refuse_idle
from fgonnx.kinds import converted
from fgonnx.labels import names_of
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
T = TypeVar("T")

_CALLED = "an Explainer is told what to explain when it is called: explainer(x, target)"
_OF_FILES = {
    "target": _CALLED,
    "seed": f"{_CALLED} or explainer(x, seed=cotangent)",
    "outputs": "an Explainer returns the map, and what certificate, input_gradient, bias_gradients, scores and expose "
    "add",
}
"""Options of a rewritten file alone, and why they have no effect here."""


def _made(
    cls: type[Explainer], model: LoadedModel, options: Options, running: Running, labels: Any, more: dict[str, Any]
) -> Explainer:
    """Make an explainer that was pickled."""
    return cls(model, options, running, **{"labels": labels, **more})


class Explainer:
    """Explains the decisions of one ONNX model.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model, or a file that `fgonnx.rewrite` wrote, which is run as it is.
    options : Options, optional
        What is explained and how. A written file has options of its own.
    running : Running, optional
        How the model runs.
    labels : sequence of str, optional
        Class names, one for each entry of the head, so that targets can be given by name; the model's own metadata by
        default.
    **changes
        Fields of `Options` or `Running`, or settings of the method, that differ from these.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    OptionError
        If an option does not exist, does not go with another, or has no effect.
    TargetError
        If the labels are not one for each entry of the head; where its sizes are free, at the first call.
    NumericError
        If its weights hold NaN.

    Notes
    -----
    An Explainer may be called from several threads at once, and pickled: by the path of its model, if it has one, and
    its options, so that another process opens sessions of its own. Models whose input sizes are free are rewritten for
    each size that comes along; the last few are kept.

    Examples
    --------
    >>> import numpy as np
    >>> import fgonnx
    >>> explainer = fgonnx.Explainer("examples/shapes.onnx")
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> explanation = explainer(x, "star")
    >>> explanation.saliency.shape
    (2, 64, 64)
    >>> explanation.described
    ("3 'star'", "3 'star'")

    Another method, with a setting of its own, on one thread:

    >>> path = fgonnx.Explainer("examples/shapes.onnx", method="integrated-gradients", steps=10, threads=1)
    >>> path(x).attribution.shape
    (2, 3, 64, 64)
    """

    def __init__(
        self,
        model: ModelLike | LoadedModel,
        options: Options | None = None,
        running: Running | None = None,
        *,
        labels: Sequence[str] | None = None,
        **changes: Any,
    ) -> None:
        options, self.running = with_changes(options, running, changes)
        for name, why in _OF_FILES.items():
            refuse_idle(options, [name], why)
        asked, self.method = options, methods.find(options.method)
        if self.method.drive is not None and (
            options.input_gradient or options.bias_gradients or options.expose or options.scores
        ):
            raise OptionError(
                f"{options.method} is made of several runs: it has no input_gradient, bias_gradients, scores or "
                "exposed values"
            )
        if "attribution" in self.method.writes and self.method.drive is None:
            options = replace(options, outputs=(*options.wanted, "attribution"))
        self.options = options
        self._made_of = load(model), asked, self.running, None if labels is None else names_of(labels)
        source = bound_to(self._made_of[0], options.bind, options.input_shape)
        given = with_samples_first(source)
        #: What a file is that fgonnx wrote, None for a model.
        self._file = opened(given)
        if self._file is None:
            self.loaded, self.options = arranged(given, self.options)
        elif options != Options():
            raise OptionError(
                f"{given.name} was written by fgonnx, with options of its own; leave yours out, or explain its source"
            )
        else:
            self.loaded, self.options = given, self._file.options
            self.method = methods.find(self.options.method)
        #: How arrays are turned; None where they are given with samples first, as the model was.
        self._frame = self.loaded.arrangement if source.arrangement is None else None
        self._witness = Witness(self.loaded)
        #: Whether a call warns of certificates that do not close; notes speak of them in any case.
        self.warns = True
        self._given = None if labels is None else names_of(labels)
        self.labels = self.loaded.labels() if self._given is None else self._given
        self.running.check()  # a wrong name is an error now, not at the first call
        if self.running.form is not None:
            check_form(self.options, self._file, self.loaded.name)
        self._engines = Engines(self.loaded, self.running, self._file, self._given)
        check_weights(self.loaded)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Pickle by source, options and labels: sessions are opened anew."""
        return _made, (type(self), *self._made_of, self._more())

    def _more(self) -> dict[str, Any]:
        """Return what else it is made of."""
        return {}

    def engine(
        self,
        shape: Sequence[int] | None = None,
        *,
        seed: bool = False,
        contrast: bool | None = None,
        forward: bool = False,
        others: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Engine:
        """Return the rewritten model and its session.

        Parameters
        ----------
        shape : sequence of int, optional
            Of the input; needed where its sizes are free.
        seed : bool
            Whether the cotangent of the tensor explained is an input.
        contrast : bool, optional
            Whether what the target is compared with is an input; by default where the options have a contrast.
        forward : bool
            Whether to compute the tensor explained and nothing behind it.
        others : mapping of str to tuple of int, optional
            Shapes of other inputs whose sizes are free (`other_shapes`).
        """
        return self._engines.get(self.options, shape, others or {}, seed=seed, contrast=contrast, forward=forward)

    def __call__(
        self,
        x: Array | Mapping[str, Array],
        target: Target = None,
        *,
        contrast: Contrast = None,
        seed: Array | None = None,
    ) -> Explanation:
        """Explain a batch.

        Parameters
        ----------
        x : numpy array, or mapping of input names to arrays
            The input in the model's own layout, the batch where the model has it; of an input without a batch axis, one
            sample or several, (N, ...). A mapping for models with several inputs.
        target : int, str, tuple, Region, Detection, Similarity, Cotangent, or list of those, optional
            What to explain, for all samples or (a list) one each: the flat index of an entry of the head, a label, a
            position as a tuple that may hold slices, or one of the objects of `fgonnx.targets`, also as text. By
            default the largest entry of each sample, or the best detection of a detector.
        contrast : int, str, tuple, or list of those, optional
            Why this and not that: an entry to subtract from the target's, for all samples or one each, given as the
            target is; "next" for the largest entry other than the target. `score` is the difference, the certificate
            and the map are its. The map is signed: psi "abs" becomes "signed". By default that of the options.
        seed : numpy array, optional
            A cotangent of the head, of its shape, instead of a target: explains `<seed, head>`.

        Raises
        ------
        InputError
            If the array has the wrong shape or type, or holds NaN or infinity.
        TargetError
            If target or contrast are out of range, unknown, the same, or not one per sample.
        NumericError
            If the model's result holds NaN or infinity.
        """
        explanation = self._explained(self.samples_first(x), target, seed, contrast)
        return explanation if self._frame is None else turned_back(explanation, self._frame, x)

    def _explained(
        self, x: Array | Mapping[str, Array], target: Target, seed: Array | None = None, contrast: Contrast = None
    ) -> Explanation:
        """Explain a batch given with samples first."""
        shapes.check_sizes(x, self.loaded.name)
        if self.running.runtime == AUTO:
            self._choose(x)
        contrast = self.options.contrast if contrast is None else contrast
        target = fixed_entry(self.options) if target is None and seed is None else target  # of a written file
        if seed is not None and (target is not None or contrast is not None):
            raise OptionError(f"give a {'target' if target is not None else 'contrast'} or a seed, not both")
        try:
            engine = self.engine(
                self.explained_shape(x),
                seed=seed is not None or (takes_seed(target) and contrast is None),
                contrast=contrast is not None,
                others=self.other_shapes(x),
            )
        except OptionError:
            if contrast is not None:  # the graph takes any: a refusal names the one that was given
                replace(self.options, contrast=contrast if isinstance(contrast, (int, str)) else str(contrast))
            raise
        r = engine.rewritten
        fed = self._feeds(engine, x)
        count = fed[r.normal.input_name].shape[0]
        if contrast is not None:
            head = Head(r.head_shape, count, labels=self.labels or ())
            compared = resolve_contrast(contrast, target, head)
            if self._file is not None:
                check_call(r, self.loaded.name, seed=seed is not None, contrast=contrast, forward=False)
            if r.contrast:
                fed[r.contrast] = compared
        resolved = self._resolved(target, seed, engine, fed, count)
        chosen = resolved.seed if resolved.seed is not None else resolved.indices
        assert chosen is not None
        if r.selector:
            fed[r.selector] = chosen
        else:
            check_target(r, self.loaded.name, chosen)
        run = batches.run if self.method.drive is None else batches.drive
        try:
            results = run(r, engine.session, fed, self.running.batch_size)
        except ModelError as error:
            raise self._engines.failure(error, self.loaded, r, fed) from error
        check_chosen(self.loaded, r, fed, results)
        described = resolved.described
        if contrast is not None:
            described = contrasted(head, *(results[r.names[name]] for name in ("target", "contrast")))
        explanation = self._result(r, results, fed, described)
        explanation.settings["runtime"] = self.running.described()
        unclosed = closing.unclosed(explanation, r.model)
        if self.warns:
            closing.warn(unclosed)
        remarks = ["; ".join(filter(None, both)) for both in zip_longest(unclosed, resolved.remarks, fillvalue="")]
        if any(remarks):
            explanation.settings["remarks"] = remarks
        if contrast is not None:
            explanation.settings["contrast"] = contrast if isinstance(contrast, (int, str)) else repr(contrast)
        if self.running.verify:
            whole = self._verify(engine, fed, results)
            explanation = replace(explanation, outputs={**explanation.outputs, **whole})
            explanation.settings["notes"] += [
                f"'{name}' is the model's own, of all samples together: its rows are not the samples" for name in whole
            ]
        return explanation

    def _feeds(self, engine: Engine, x: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Return the inputs of a rewritten model: rows of a table in place of ids, where they are explained."""
        r = engine.rewritten
        fed = batches.feeds(self.loaded, r, x, self.running.batch_size)
        if engine.rows is not None:
            fed[r.normal.input_name] = engine.rows(fed)
        return fed

    def _result(
        self, r: Rewritten, results: Mapping[str, Array], fed: Mapping[str, Array], described: Sequence[str]
    ) -> Explanation:
        """Return the results of a run as an explanation."""
        return explanation_of(self.loaded, r, results, fed, described, self.labels or ())

    def _verify(self, engine: Engine, fed: Mapping[str, Array], results: Mapping[str, Array]) -> dict[str, Array]:
        """Hold results against the source: once for each size, and again where samples might influence each other.

        Returns outputs of all samples together, which are the source's own.
        """
        if self._file is not None:
            return {}
        first = not engine.verified
        r, fed = ids.of_the_source(engine.rewritten, fed)
        found = self._witness.hold(self.loaded, r, fed, results, first=first)
        engine.verified = True
        return found

    def hold_runtime(self) -> None:
        """Hold another runtime against ONNX Runtime even where nothing is held against the source."""
        self._engines.held = True

    def _choose(self, x: Array | Mapping[str, Array]) -> None:
        """Settle on the runtime that explains the first samples in less time."""
        first = x if isinstance(x, Mapping) else np.asarray(x)[: self.running.batch_size]
        sides = {name: self._running_in(name) for name in (ORT, OPENVINO) if name == ORT or openvino.installed()}
        chosen = sides[fastest({name: partial(side._explained, first, None) for name, side in sides.items()})]
        self._engines, self.running = chosen._engines, chosen.running

    def _running_in(self, runtime: str) -> Explainer:
        """Return the same Explainer in another runtime, without sessions."""
        other = copy(self)
        other.running = replace(self.running, runtime=runtime)
        other._engines = self._engines.running_as(other.running)
        return other

    def stream(
        self, items: Iterable[T], read: Callable[[T], Array] = np.asarray, target: Target = None, *, workers: int = 2
    ) -> Iterator[Explanation]:
        """Explain any number of samples in bounded memory, while the next ones are read.

        Parameters
        ----------
        items : iterable
            What samples are made of, such as paths; drawn as needed.
        read : callable
            Makes one sample of an item, without the batch axis; called in threads. By default items are samples.
        target : optional
            What to explain of each, as for a call; not a list.
        workers : int
            Threads that read.

        Yields
        ------
        Explanation
            Of neighbouring samples of one shape, `batch_size` at most, in their order.

        Raises
        ------
        Exception
            What `read` or a call raises, after the explanations of the batches before.
        """
        if converted("workers", workers, int) < 1:
            raise OptionError(f"{parameter('workers', workers)} is not a number of threads; give 1 or more")
        readers, runner = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
        try:
            samples = in_order(readers, (partial(read, item) for item in items), max(self.running.batch_size, workers))
            groups = grouped(samples, self.running.batch_size, self._size_of)
            yield from in_order(runner, (partial(self._explain_samples, group, target) for group in groups), 1)
        finally:
            readers.shutdown(cancel_futures=True)
            runner.shutdown(cancel_futures=True)

    def _size_of(self, sample: Any) -> tuple[int, ...]:
        return np.shape(sample)

    def _explain_samples(self, samples: Sequence[Any], target: Target) -> Explanation:
        return self._explained(np.stack(samples), target)

    def head(self, x: Array | Mapping[str, Array]) -> Array:
        """Return the tensor whose entries are explained, (N, *head shape), by a forward run without the gradient.

        Parameters
        ----------
        x : numpy array, or mapping of input names to arrays
            As for a call.

        Raises
        ------
        InputError
            If the array has the wrong shape or type, or holds NaN or infinity.
        """
        x = self.samples_first(x)
        engine = self.engine(self.explained_shape(x), forward=True, others=self.other_shapes(x))
        r = engine.rewritten
        fed = self._feeds(engine, x)
        name = r.names["head"]
        return self._run(engine, fed, [name])[name]

    def samples_first(self, x: Array | Mapping[str, Array]) -> Array | Mapping[str, Array]:
        """Return arrays in the model's own layout with samples first, as the rewritten graph takes them.

        Raises
        ------
        InputError
            An array has another number of axes.
        """
        return turned(self.loaded, x) if self._frame is not None else x

    def for_samples_first(self) -> Explainer:
        """Return the same Explainer for arrays with samples first; it shares sessions with this one."""
        other = copy(self)
        other._frame = None
        return other

    def explained_shape(self, x: Array | Mapping[str, Array]) -> tuple[int, ...] | None:
        """Return the shape of the explained input among those given, None if it is not among them."""
        return shapes.explained_shape(x, self.loaded, self.options.input)

    def other_shapes(self, x: Array | Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the other arrays given, of inputs that have free sizes behind the first axis."""
        return shapes.other_shapes(x, self.loaded, self.options.input)

    def _resolved(
        self, target: Target, seed: Array | None, engine: Engine, fed: Mapping[str, Array], count: int
    ) -> Resolved:
        outputs = cache(lambda: self._outputs(engine, fed, count))
        return resolved_for(engine.rewritten, count, target, seed, self.labels or (), outputs)

    def _outputs(self, engine: Engine, fed: Mapping[str, Array], count: int) -> dict[str, Array]:
        """Run the model alone."""
        r = engine.rewritten
        given = dict(fed)
        if r.options.seed:
            given[r.selector] = shapes.checked_seed(np.zeros(r.head_shape), r, count)
        return self._run(engine, given, r.source_outputs)

    def _run(self, engine: Engine, fed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        try:
            return batches.run(engine.rewritten, engine.session, fed, self.running.batch_size, outputs)
        except ModelError as error:
            if self.running.form is None:
                raise
            raise self._engines.failure(error, self.loaded) from error
