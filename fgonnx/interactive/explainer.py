"""An Explainer that takes whatever holds a sample, and whose explanations show themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.load import LoadedModel, ModelLike
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import InputError
from fgonnx.explain import explainer
from fgonnx.explain.explanation import Explanation as Arrays
from fgonnx.explain.targets import Contrast, Target
from fgonnx.interactive.explanation import Explanation, shown
from fgonnx.interactive.given import Given, array_of, given, samples_of
from fgonnx.interactive.origin import Identity, Origin
from fgonnx.jobs.reading import SOUND, Reading, agreed_layout, aligned_labels, completed
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import Reader, Sample, Source
from fgonnx.jobs.written import Asked
from fgonnx.pictures.read.preprocess import Preprocessing

Array = npt.NDArray[Any]
T = TypeVar("T")

_NOTHING = np.zeros((1, 1, 3), np.uint8)


class Explainer(explainer.Explainer):
    """Explains the decisions of one ONNX model.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model, or a file that `fgonnx.rewrite` wrote, which is run as it is.
    options : Options, optional
        What is explained and how. A written file has options of its own.
    running : Running, optional
        How the model runs.
    labels : sequence of str, or path, optional
        Class names, one for each entry of the head, so that targets can be given by name; or a file of them (.txt, one
        a line, .csv or .json). The model's own metadata by default.
    preprocess : str, path or Preprocessing, optional
        How a picture becomes numbers: as `--preprocess` on the command line ("imagenet", "imagenet,size=256",
        "scale=1/255,mean=0.5,std=0.5", a .json file). The model's metadata by default; it is never guessed. Arrays
        made for the model need none.
    **changes
        Fields of `Options` or `Running`, or settings of the method, that differ from these; and `rate`, `channel`,
        `span` for recordings, as on the command line.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    OptionError
        If an option does not exist, does not go with another, or has no effect.
    PreprocessingError
        If the preprocessing does not fit the model.
    TargetError
        If the labels are not one for each entry of the head; where its sizes are free, at the first call.
    NumericError
        If its weights hold NaN.

    Notes
    -----
    An Explainer may be called from several threads at once. Models whose input sizes are free are rewritten for each
    size that comes along; the last few are kept.

    Examples
    --------
    A picture of the disk, prepared as the model's metadata says:

    >>> import fgonnx
    >>> explainer = fgonnx.Explainer("examples/shapes.onnx")
    >>> explanation = explainer("examples/images/star.png")
    >>> explanation.described, explanation.saliency.shape
    (("3 'star', the largest",), (1, 64, 64))

    Arrays as the model takes them, and a target:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> explainer(x, "star").described
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
        labels: Sequence[str] | str | os.PathLike[str] | None = None,
        preprocess: str | os.PathLike[str] | Preprocessing | None = None,
        **changes: Any,
    ) -> None:
        of_file = isinstance(labels, (str, os.PathLike))
        self.reading = Reading(
            preprocess=None if preprocess is None or isinstance(preprocess, Preprocessing) else str(preprocess),
            labels=Path(cast("str", labels)) if of_file else None,
            **{name: changes.pop(name) for name in SOUND if name in changes},
        )
        named = self.reading.names() if of_file else cast("Sequence[str] | None", labels)
        super().__init__(model, options, running, labels=named, **changes)
        #: Options as they were given, for records, and whether a command line can say the same.
        self._asked = self.options
        self._told = not isinstance(preprocess, Preprocessing) and (of_file or labels is None)
        self._identity = Identity(self.loaded)
        self._readers: dict[str | None, Reader] = {}
        self._preprocess = preprocess if isinstance(preprocess, Preprocessing) else None
        if preprocess is not None or self.loaded.preprocessing_json() is not None:
            found = self.reader.preprocessing
            if self._file is None:
                layout = agreed_layout(self.options.layout, found, self.loaded, self.options.input)
                self.options = replace(self.options, layout=layout)

    def _more(self) -> dict[str, Any]:
        """Return what else it is made of, for pickling."""
        sound = {name: value for name in SOUND if (value := getattr(self.reading, name)) is not None}
        named = {} if self.reading.labels is None else {"labels": self.reading.labels}
        return {**sound, **named, "preprocess": self._preprocess or self.reading.preprocess}

    @property
    def reader(self) -> Reader:
        """What reads samples for the explained input."""
        return self._reader_of(self.options.input)

    def _reader_of(self, name: str | None) -> Reader:
        if name not in self._readers:
            value = self.loaded.input(name)
            shape = self.options.explained_shape if name == self.options.input else None
            if self._preprocess is not None:
                found: Preprocessing | None = completed(self._preprocess, value, shape)
            else:
                found, _ = self.reading.preprocessing(self.loaded, name, required=False, shape=shape)
            self._readers[name] = Reader(
                value, found, self.reading, axis=self.loaded.batch_axis, layout=self._layout_of
            )
        return self._readers[name]

    def _layout_of(self, shape: tuple[int, ...]) -> str:
        """Return the layout of an input of one sample of this shape."""
        return self.engine((1, *shape)).rewritten.normal.layout

    def __call__(
        self, x: Any, target: Target = None, *, contrast: Contrast = None, seed: Array | None = None
    ) -> Explanation:
        """Explain one sample or several.

        Parameters
        ----------
        x : path, picture, array, tensor, mapping of input names to arrays, or several of those
            A path is a picture, a .npy array, a .wav recording, a folder or a pattern of them. A picture is an image of
            PIL, or an array of uint8 or uint16, (H, W), (H, W, 3), (H, W, 4) or (N, H, W, channels), red first, for a
            model that takes floating-point pictures; it is prepared as the preprocessing says. Other arrays, and
            tensors of any framework, are taken as the model takes them: in its own layout, with the batch where it has
            it, or one sample without it; of an input without a batch axis, one sample or several, (N, ...). A mapping
            for models with several inputs. Lists and columns of a table hold any of these, of one size.
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

        Returns
        -------
        Explanation
            Of N samples; a notebook shows it as pictures.

        Raises
        ------
        InputError
            If something is no sample, has the wrong shape or type, or holds NaN or infinity.
        PreprocessingError
            If there is a picture, and its preprocessing is not known.
        TargetError
            If target or contrast are out of range, unknown, the same, or not one per sample.
        NumericError
            If the model's result holds NaN or infinity.
        """
        found = self._taken(x)
        if found.samples is None:
            arrays = super().__call__(cast("Any", found.x), target, contrast=contrast, seed=seed)
        else:
            arrays = self._explained(found.x, target, seed, contrast)
        return self._told_of(arrays, found, target, contrast)

    def _taken(self, x: Any) -> Given:
        """Return what was given as arrays; one that the model takes as it is at no cost."""
        if isinstance(x, Mapping):
            return Given({str(name): array_of(value) for name, value in x.items()})
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.ndim == self._rank:
            return Given(x)
        return given(x, self.reader, self._rank)

    @cached_property
    def _rank(self) -> int:
        """Number of axes of the explained input in the model's own layout."""
        rank = len(dims_of(self.loaded.input(self.options.input)))
        frame = self.loaded.arrangement
        return rank - 1 if frame is not None and self._frame is not None and frame.axis is None else rank

    def _result(
        self, r: Rewritten, results: Mapping[str, Array], fed: Mapping[str, Array], described: Sequence[str]
    ) -> Explanation:
        arrays = super()._result(r, results, fed, described)
        x = fed[r.normal.given].copy()  # pictures and records are of these values, whatever becomes of the array
        names = ["array"] if len(x) == 1 else [f"array-{i:04}" for i in range(len(x))]
        entries = int(np.prod(r.head_shape, initial=1))
        if self._given is None and sum(size > 1 for size in r.head_shape) < 2:  # of a detector, they are of one axis
            _, note = aligned_labels(None, self.labels, entries)
            arrays.settings["notes"] = [*arrays.settings["notes"], *([f"labels: {note}"] if note else [])]
        reader = self._reader_of(self.options.input or r.normal.given)
        origin = Origin(
            samples=tuple(
                Sample(Source(Path(name), None, name), row, _NOTHING, None, ())
                for name, row in zip(names, x, strict=True)
            ),
            decision=Decision.of(arrays, r, self.labels if len(self.labels or ()) == entries else None),
            model=self._identity,
            asked=self._asked_of(None, None),
            layout=r.normal.layout,
            reader=reader,
            batches=self._batches(len(x)),
        )
        return shown(arrays, origin)

    def _batches(self, count: int) -> dict[str, int | None]:
        """Return which axis of an output is the batch, where it is not the first."""
        frame = self._frame
        if frame is None:
            return {}
        if frame.axis is None:  # several samples of an input without a batch are given, and come back, in front
            return dict.fromkeys(frame.outputs, 0 if count > 1 else None)
        return dict(frame.outputs)

    def _told_of(self, arrays: Arrays, found: Given, target: Target, contrast: Contrast = None) -> Explanation:
        """Return an explanation that knows where its samples come from and what was asked."""
        e = cast("Explanation", arrays)
        e.settings["notes"] = [*e.settings["notes"], *found.notes]
        origin = e.origin
        if found.samples is not None:
            origin = replace(origin, samples=found.samples, digests=found.digests)
        # A method that draws draws by a sample's place among the others: alone, it is the first.
        alone = self.method.drive is None or len(e) == 1
        told = self._told and self.loaded.path is not None and alone and _says(target) and _says(contrast)
        return replace(e, origin=replace(origin, asked=self._asked_of(target, contrast), told=told))

    def _asked_of(self, target: Target, contrast: Contrast) -> Asked:
        options = self._asked if contrast is None else replace(self._asked, contrast=_text(contrast))
        text = None if target is None else str(_text(target))
        return Asked(str(self.loaded.path or ""), options, self.running, self.reading, text)

    def stream(
        self,
        items: Iterable[T],
        read: Callable[[T], Array] | None = None,
        target: Target = None,
        *,
        workers: int = 2,
    ) -> Iterator[Explanation]:
        """Explain any number of samples in bounded memory, while the next ones are read.

        Parameters
        ----------
        items : iterable
            What samples are made of, such as paths; drawn as needed.
        read : callable, optional
            Makes one sample of an item, without the batch axis; called in threads. By default items are what a call
            takes as one sample.
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

        Examples
        --------
        >>> import fgonnx
        >>> explainer = fgonnx.Explainer("examples/shapes.onnx", batch_size=2)
        >>> pictures = [f"examples/images/{name}.png" for name in ("circle", "square", "star")]
        >>> [len(explanation) for explanation in explainer.stream(pictures)]
        [2, 1]
        """
        if isinstance(items, (str, os.PathLike)) or not isinstance(items, Iterable):
            raise InputError(f"a stream takes several items, such as a list of paths, not {items!r}")
        reading: Callable[[T], Any] = read if read is not None else self._read_one
        return cast("Iterator[Explanation]", super().stream(items, reading, target, workers=workers))

    def _read_one(self, item: Any) -> tuple[Sample, str | None]:
        samples = list(samples_of(item, self.reader))
        if len(samples) != 1:
            raise InputError(f"{item!r} holds {len(samples)} samples: a stream takes them one by one")
        return samples[0]

    def _size_of(self, sample: Any) -> tuple[int, ...]:
        return super()._size_of(sample[0].x if isinstance(sample, tuple) else sample)

    def _explain_samples(self, samples: Sequence[Any], target: Target) -> Explanation:
        if not isinstance(samples[0], tuple):
            x = np.stack(samples)
            return self._told_of(self._explained(x, target), Given(x), target)
        x = np.stack([sample.x for sample, _ in samples])
        told = Given(x, tuple(sample for sample, _ in samples), tuple(read for _, read in samples))
        return self._told_of(self._explained(x, target), told, target)


def _text(asked: Any) -> Any:
    """Return what was asked for as a record names it: numbers and texts as they are."""
    if isinstance(asked, np.integer):
        return int(asked)
    return asked if asked is None or isinstance(asked, (int, str)) else repr(asked)


def _says(asked: Any) -> bool:
    """Tell whether a command line says what was asked for."""
    return asked is None or isinstance(asked, (int, str, np.integer))
