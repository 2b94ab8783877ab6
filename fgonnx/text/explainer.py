"""Texts in, numbers for their tokens and words out, with the certificate of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine import methods
from fgonnx.engine.graph.lookups import holds_ids, lookups
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.rewrite.options import Options, with_changes
from fgonnx.errors import InputError, ModelError, OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.targets import Contrast, One, Similarity, Target
from fgonnx.explain.written import is_written
from fgonnx.text import tokens as cutting
from fgonnx.text.options import Texts
from fgonnx.text.tokens import Given, Token, Tokenizer, Tokens, Word
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

_KEPT = 4  # explainers whose paths begin at padding, one for each length
_BUCKET = 16  # tokens: texts are padded to a multiple, so that few graphs are written
_MASK, _TYPE, _PLACE = ("mask",), ("type", "segment"), ("position",)
_TEXT = {"psi": "signed", "backward": "libra"}
"""What is explained of texts by default: what speaks for and against, with the weights of attention held fixed."""


@dataclass(frozen=True)
class Found:
    """The explanation of one text.

    Attributes
    ----------
    tokens : Tokens
        The text as the model took it.
    values : numpy array, (T,)
        What every token adds, special ones included: of the map.
    arrays : Explanation
        The explanation of the sample, padding included: score, target, certificate.
    notes : tuple of str
        What was done to the text.
    """

    tokens: Tokens
    values: Array
    arrays: Explanation
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> list[tuple[Word, float]]:
        """The words of the text and the special tokens, each with the sum of what its tokens add."""
        return [(w, float(self.values[list(w.tokens)].sum())) for w in self.tokens.words]

    @property
    def score(self) -> float:
        """The value explained."""
        return float(self.arrays.score[0])

    @property
    def described(self) -> str:
        """What is explained."""
        return self.arrays.described[0]

    @property
    def padding(self) -> float:
        """The part of the map that lies on padding: zero where the model leaves it out."""
        return float(self.arrays.saliency[0].sum() - self.values.sum())


@dataclass
class TextExplainer:
    """Explains the decisions of one ONNX model of ids on texts.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The model.
    options : Options, optional
        What is explained and how; by default what speaks for and against the score (psi "signed"), with the weights of
        attention and normalisation held fixed (backward "libra").
    running : Running, optional
        How the model runs.
    texts : Texts, optional
        How texts become ids.
    labels : sequence of str, optional
        Class names.
    changes : mapping, optional
        Fields of these objects that differ.
    """

    model: ModelLike | LoadedModel
    options: Options | None = None
    running: Running | None = None
    texts: Texts = field(default_factory=Texts)
    labels: Sequence[str] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loaded = load(self.model)
        options, running = with_changes(self.options, self.running, dict(self.changes))
        source = bound_to(self.loaded, options.bind)
        self._x = source.input(options.input)
        if not holds_ids(source.ir, self._x):
            raise ModelError(
                f"{self.loaded.name}: its input '{self._x.name}' takes numbers, not ids of tokens: no text can be "
                "given to it"
            )
        self.name = str(self._x.name)
        own = options if is_written(self.loaded) else usual(options)
        self.explainer = Explainer(self.loaded, own, running, labels=self.labels)
        sizes = [f.rows for f in lookups(source.ir.graph, self._x) if f.rows]
        self.rows = min(sizes) if sizes else None
        self.tokenizer: Tokenizer | None = cutting.opened(self.texts.tokenizer, self.loaded.path, self.rows)
        self._others = [str(v.name) for v in free_inputs(source.ir.graph) if v.name != self.name]
        dims = dims_of(self._x)
        self._padded: dict[int, Explainer] = {}
        self._fixed = int(dims[-1]) if len(dims) > 1 and isinstance(dims[-1], int) else None

    @property
    def most(self) -> int | None:
        """The most tokens that the model takes; None where that is not known."""
        known = [self.texts.tokens, self._fixed, self.tokenizer.limit if self.tokenizer is not None else None]
        given = [k for k in known if k is not None]
        return min(given) if given else None

    def __call__(
        self, texts: Given | bytes | Sequence[Any], target: Target = None, *, contrast: Contrast = None
    ) -> list[Found]:
        """Explain one text or several.

        Parameters
        ----------
        texts : str, tuple of two str, bytes, sequence of int, or a list of those
            Texts; pairs of texts that belong together; the bytes of a file; or ids as they are.
        target, contrast : optional
            What to explain, as `fgonnx.Explainer` takes it, for all texts; a target "similar=TEXT" is the similarity of
            a sentence vector to that of a reference text, "token=PLACE" and "token=PLACE:CLASS" the class of one token.

        Returns
        -------
        list of Found
            In the order of the texts; of a text in windows, one for each of them.
        """
        single = isinstance(texts, (str, bytes)) or (
            isinstance(texts, tuple) and all(isinstance(t, str) for t in texts)
        )
        given: Sequence[Any] = [texts] if single or _is_ids(texts) else texts
        if not len(given):
            raise InputError("there is no text; give at least one")
        parts = [part for i, text in enumerate(given) for part in self.cut(text, f"text {i + 1}")]
        return self.explain(parts, target, contrast)

    def cut(self, text: Any, where: str) -> list[Tokens]:
        """Return a text as the model takes it; `where` names it in messages.

        Raises
        ------
        InputError
            It is empty, too long, or there is no tokenizer.
        """
        if _is_ids(text):
            ids = np.asarray(text).reshape(-1)
            tokens = tuple(Token(int(i), str(int(i))) for i in ids)
            text = " ".join(t.piece for t in tokens)
            return cutting._parts(text, tokens, self.most, self.texts.long)
        if self.texts.context is not None and isinstance(text, str):
            text = (text, self.texts.context)
        if self.tokenizer is None:
            raise OptionError(
                f"{self.loaded.name}: there is no tokenizer.json beside the model, by which texts become ids; give it "
                f"({parameter('tokenizer', 'tokenizer.json')}; bytes for a model of bytes), or give ids"
            )
        if isinstance(text, bytes) and self.tokenizer.name != cutting.BYTES:
            text = text.decode("utf-8", "replace")
        if not (text if isinstance(text, (str, bytes)) else all(text)) or (isinstance(text, str) and not text.strip()):
            raise InputError(f"{where} is empty; give at least one word")
        try:
            found = self.tokenizer.cut(text, self.most, self.texts.long)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if not any(not t.special for part in found for t in part.tokens):
            raise InputError(f"{where} has no token of the tokenizer's vocabulary; give another text")
        return found

    def explain(self, parts: Sequence[Tokens], target: Target = None, contrast: Contrast = None) -> list[Found]:
        """Explain texts that are cut; see `__call__`."""
        results: dict[int, Found] = {}
        for rows in self._groups(parts):
            group = [parts[i] for i in rows]
            fed = self.arrays(group)
            meant: Any = [_meant(target, i, self) for i in rows] if isinstance(target, (list, str)) else target
            arrays = self._run(fed, meant, contrast)
            for k, (i, one) in enumerate(zip(rows, group, strict=True)):
                notes = (one.note,) if one.note else ()
                results[i] = Found(one, arrays.saliency[k, : len(one)], row_of(arrays, k), notes)
        return [results[i] for i in range(len(parts))]

    def _run(self, fed: dict[str, Array], target: Target, contrast: Contrast) -> Explanation:
        o = self.explainer.options
        if o.method == "occlusion":
            return self._occluded(fed, target, contrast)
        if o.method == "integrated-gradients" and np.ndim(o.settings.baseline) == 0 and not o.settings.baseline:
            explainer = self._from_padding(fed)
            return explainer(fed, target, contrast=contrast)
        return self.explainer(fed, target, contrast=contrast)

    def _from_padding(self, fed: dict[str, Array]) -> Explainer:
        """Return an explainer whose paths begin at padding, where the tokenizer has it."""
        if self.tokenizer is None or self.tokenizer.pad is None:
            return self.explainer
        length = fed[self.name].shape[1]
        if length in self._padded:
            return self._padded[length]
        engine = self.explainer.engine(fed[self.name].shape, others=self.explainer.other_shapes(fed))
        if engine.rows is None:
            return self.explainer
        given = {k: v[:1] for k, v in fed.items()}
        rows = engine.rows({**given, self.name: np.full_like(given[self.name], self.tokenizer.pad)})[0]
        options = replace(self.explainer.options, settings=replace(self.explainer.options.settings, baseline=rows))
        while len(self._padded) >= _KEPT:
            self._padded.pop(next(iter(self._padded)))
        self._padded[length] = Explainer(self.loaded, options, self.explainer.running, labels=self.labels)
        return self._padded[length]

    def _occluded(self, fed: dict[str, Array], target: Target, contrast: Contrast) -> Explanation:
        """Return how much the score falls when a word is replaced by padding, shared by its tokens."""
        if contrast is not None:
            raise OptionError("occlusion of words explains single scores; leave the contrast out")
        pad = self.tokenizer.pad if self.tokenizer is not None and self.tokenizer.pad is not None else 0
        plain = self._plain
        arrays = plain(fed, target)
        if arrays.target is None:
            raise OptionError("occlusion of words explains single scores, not sums or similarities")
        drops = np.zeros(fed[self.name].shape, np.float64)
        for k, words in enumerate(self._words_of(fed)):
            copies = {n: np.repeat(v[k : k + 1], max(1, len(words)), axis=0) for n, v in fed.items()}
            for j, places in enumerate(words):
                copies[self.name][j, list(places)] = pad
            if not words:
                continue
            heads = plain.head(copies).reshape(len(words), -1)[:, int(arrays.target[k])]
            for j, places in enumerate(words):
                drops[k, list(places)] = (float(arrays.score[k]) - float(heads[j])) / len(places)
        psi = self.explainer.options.psi
        shown = np.abs(drops) if psi == "abs" else np.maximum(drops, 0) if psi == "positive" else drops
        settings = {**arrays.settings, "method": "occlusion", "psi": psi}
        return replace(arrays, saliency=shown.astype(np.float32), attribution=None, settings=settings)

    @cached_property
    def _plain(self) -> Explainer:
        """What computes scores of texts whose words are replaced."""
        own = self.explainer.options
        options = Options(method="gradient-x-input", bind=own.bind, input=own.input, output=own.output, head=own.head)
        return Explainer(self.loaded, options, self.explainer.running, labels=self.labels)

    def _words_of(self, fed: Mapping[str, Array]) -> list[list[tuple[int, ...]]]:
        return [[w.tokens for w in part.words if not w.special] for part in self._cut_now]

    def _groups(self, parts: Sequence[Tokens]) -> Iterator[list[int]]:
        """Yield texts that run together: of one padded length, `batch_size` at most."""
        by_length: dict[int, list[int]] = {}
        for i, part in enumerate(parts):
            by_length.setdefault(self._length(len(part)), []).append(i)
        step = self.explainer.running.batch_size
        for rows in by_length.values():
            for start in range(0, len(rows), step):
                self._cut_now = [parts[i] for i in rows[start : start + step]]
                yield rows[start : start + step]

    def _length(self, count: int) -> int:
        """Return the length that a text is padded to: the model's, or, where a mask hides padding, a rounded one."""
        if self._fixed is not None:
            return self._fixed
        if (
            not any(_named(name, _MASK) for name in self._others)
            or self.tokenizer is None
            or self.tokenizer.pad is None
        ):
            return count
        rounded = -(-count // _BUCKET) * _BUCKET
        return max(count, rounded if self.most is None else min(rounded, self.most))

    def arrays(self, parts: Sequence[Tokens]) -> dict[str, Array]:
        """Return the model's inputs for texts of one padded length."""
        length = self._length(max(map(len, parts)))
        pad = self.tokenizer.pad if self.tokenizer is not None else None
        if pad is None and any(len(p) < length for p in parts):
            pad = 0
        ids = np.full((len(parts), length), pad or 0, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, part in enumerate(parts):
            ids[row, : len(part)] = [t.id for t in part.tokens]
            mask[row, : len(part)] = 1
            types[row, : len(part)] = _types(part)
        fed: dict[str, Array] = {self.name: ids}
        kinds = {str(v.name): v.dtype for v in free_inputs(self.loaded.ir.graph)}
        for name in self._others:
            known = mask if _named(name, _MASK) else types if _named(name, _TYPE) else None
            if known is None and _named(name, _PLACE):
                known = np.broadcast_to(np.arange(length), ids.shape)
            if known is not None:
                kind = kinds[name]
                fed[name] = known.astype(kind.numpy() if kind is not None else np.int64)
        return fed

    def vector(self, text: Given) -> Array:
        """Return the tensor explained for one text: of an encoder, its sentence vector."""
        part = self.cut(text, "the reference text")[0]
        return np.asarray(self.explainer.head(self.arrays([part]))[0])


def usual(options: Options) -> Options:
    """Return options with what is usual for texts where they say nothing else."""
    method = methods.find(options.method)
    changes: dict[str, Any] = {}
    if options.psi == Options.psi and _TEXT["psi"] in method.psis:
        changes["psi"] = _TEXT["psi"]
    if options.backward == Options.backward and method.gradient and method.modify is None and not method.true_gradient:
        changes["backward"] = _TEXT["backward"]
    try:
        return replace(options, **changes)
    except OptionError:  # another engine takes no other backward pass
        return replace(options, psi=changes.get("psi", options.psi))


def _types(part: Tokens) -> list[int]:
    """Return which of two texts every token is of; what closes the second is of it."""
    found, current = [], 0
    for token in part.tokens:
        current = max(current, token.part)
        found.append(current)
    return found


def _named(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _is_ids(given: Any) -> bool:
    """Tell whether something is the ids of one text."""
    if isinstance(given, np.ndarray):
        return given.ndim == 1 and given.dtype.kind in "iu"
    return isinstance(given, (list, tuple)) and bool(given) and all(isinstance(v, (int, np.integer)) for v in given)


def _meant(target: Any, sample: int, explainer: TextExplainer) -> One | None:
    """Return a target of one text, with what is said of texts resolved."""
    one = target[sample] if isinstance(target, list) else target
    if not isinstance(one, str):
        return one
    kind, found, rest = one.partition("=")
    if found and kind.strip() == "similar" and not rest.lower().endswith(".npy"):
        return Similarity(explainer.vector(rest.strip()))
    if found and kind.strip() == "token":
        place, _, name = rest.partition(":")
        if not place.strip().isdigit():
            raise OptionError(f"target '{one}': '{place}' is no place of a token; count them from 0")
        return _of_token(int(place), name.strip())
    return one


def _of_token(place: int, name: str) -> One:
    if not name.isdigit():
        raise OptionError(f"target 'token={place}:{name}': give the class by its number, as token={place}:3")
    return (place, int(name))


def row_of(e: Explanation, i: int) -> Explanation:
    """Return the explanation of one sample."""

    def row(array: Any) -> Any:
        return None if array is None else array[i : i + 1]

    taken: dict[str, Any] = {
        name: row(getattr(e, name))
        for name in (
            "saliency",
            "target",
            "contrast",
            "score",
            "scores",
            "contributions",
            "completeness",
            "attribution",
        )
    }
    count = len(e)
    settings = dict(e.settings)
    if "remarks" in settings:
        settings["remarks"] = settings["remarks"][i : i + 1]
    return replace(
        e,
        **taken,
        delta=row(e.delta),
        input_gradient=row(e.input_gradient),
        outputs={n: a[i : i + 1] if len(a) == count else a for n, a in e.outputs.items()},
        bias_gradients={n: a[i : i + 1] for n, a in e.bias_gradients.items()},
        blocks={n: a[i : i + 1] for n, a in e.blocks.items()},
        described=e.described[i : i + 1],
        settings=settings,
    )
