"""Texts in, numbers for their tokens and words out, with the certificate of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.lookups import holds_ids, lookups
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.bind import bind as bound_to
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import NEXT, Options, with_changes
from fgonnx.errors import InputError, ModelError, OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.targets import Contrast, Target
from fgonnx.explain.written import is_written
from fgonnx.text import answers, asking
from fgonnx.text.entries import Entries
from fgonnx.text.feeding import Feeder
from fgonnx.text.found import Found, row_of
from fgonnx.text.ids import as_ids, given_texts
from fgonnx.text.options import Texts, usual
from fgonnx.text.tokenizer import BYTES, Tokenizer, opened
from fgonnx.text.tokens import Given, Token, Tokens, checked
from fgonnx.text.tokens import parts as in_parts
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

_KEPT = 4  # explainers whose paths begin at padding, one for each length
_SOME = 0.01  # of the map, from which what lies on padding is said


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
    given : collection of str, optional
        Fields of the options that were asked for, and stay as they are; by default psi and backward where there are
        options, and what the changes name.
    """

    model: ModelLike | LoadedModel
    options: Options | None = None
    running: Running | None = None
    texts: Texts = field(default_factory=Texts)
    labels: Sequence[str] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    given: Collection[str] | None = None

    def __post_init__(self) -> None:
        self.loaded = load(self.model)
        options, running = with_changes(self.options, self.running, dict(self.changes))
        source = bound_to(self.loaded, options.bind, options.input_shape)
        if not is_written(source):
            source, options = arranged(source, options)
            self.loaded, options = source, replace(options, bind=None)
        self._x = source.input(options.input)
        if not holds_ids(source.ir, self._x):
            raise ModelError(
                f"{self.loaded.name}: its input '{self._x.name}' takes numbers, not ids of tokens: no text can be "
                "given to it"
            )
        if len(dims_of(self._x)) > 2:
            shape = "(" + ", ".join(str(d) for d in dims_of(self._x)[1:]) + ")"
            raise ModelError(
                f"{self.loaded.name}: its input '{self._x.name}' is {shape}, in which no axis holds samples: "
                "export it with ids (N, T), or (T, N) where N is free"
            )
        self.name = str(self._x.name)
        given = (() if self.options is None else ("psi", "backward")) if self.given is None else self.given
        #: The answer that others are compared with: of sums of entries, which no graph has as its contrast.
        self._contrast = options.contrast if answers.asked(options.contrast) else None
        options = options if self._contrast is None else replace(options, contrast=None)
        own = options if is_written(self.loaded) else usual(options, {*given, *self.changes})
        self.explainer = self._made(own, running)
        sizes = [f.rows for f in lookups(source.ir.graph, self._x) if f.rows]
        self.rows = min(sizes) if sizes else None
        self.tokenizer: Tokenizer | None = opened(self.texts.tokenizer, self.loaded.path, self.rows)
        self.pad = self.tokenizer.pad if self.texts.pad_id is None and self.tokenizer is not None else self.texts.pad_id
        left = self.tokenizer is not None and self.tokenizer.left
        self.feeder = Feeder(source, self._x, self.explainer.running, self.pad, left, None, own.head != Options.head)
        self.feeder.most = self.most
        self._padded: dict[int, Explainer] = {}
        self.entries = Entries(self.explainer, self.feeder, self.name, is_written(self.loaded))

    @cached_property
    def _of_answers(self) -> TextExplainer | None:
        """What explains start and end of answers together, of a model with an output of each; None of others."""
        own = self.explainer.options
        if is_written(self.loaded) or own.output is not None:
            return None
        if (found := answers.with_answers(self.loaded, self._x)) is None:
            return None
        loaded, output = found
        given = ("psi", "backward")
        made = TextExplainer(
            loaded, replace(own, output=output), self.explainer.running, self.texts, self.labels, given=given
        )
        made.entries.by_answer = True
        return made

    def answering(self, target: Any, pair: bool) -> TextExplainer:
        """Return what explains a target: the best answer where none is given for two texts, else what is asked.

        Parameters
        ----------
        target : any
            The target of a text.
        pair : bool
            Whether there are two texts, and nothing that the target is compared with.
        """
        best = target is None and pair and self.explainer.options.contrast is None
        if not (answers.asked(target) or best):
            return self
        return self._of_answers or self

    def _made(self, options: Options, running: Running | None) -> Explainer:
        """Return an explainer for arrays with samples first."""
        return Explainer(self.loaded, options, running, labels=self.labels).for_samples_first()

    @property
    def most(self) -> int | None:
        """The most tokens that the model takes; None where that is not known."""
        known = [self.texts.tokens, self.feeder.fixed, self.tokenizer.limit if self.tokenizer is not None else None]
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
            a sentence vector to that of a reference text, "token=PLACE" and "token=PLACE:CLASS" the class of one token,
            "answer=TEXT" start and end of an answer, "start=TEXT" and "end=TEXT" one of them, "answer" the best. The
            contrast of an answer is another.

        Returns
        -------
        list of Found
            In the order of the texts; of a text in windows, one for each of them.
        """
        given = given_texts(texts)
        if not len(given):
            raise InputError("there is no text; give at least one")
        cut = [self.cut(text, f"text {i + 1}") for i, text in enumerate(given)]
        owners = [i for i, parts in enumerate(cut) for _ in parts]
        targets = asking.for_each(target, owners, len(given), "target")
        contrasts = asking.for_each(contrast, owners, len(given), "contrast")
        return self._explained([part for parts in cut for part in parts], targets, contrasts)

    def cut(self, text: Any, where: str) -> list[Tokens]:
        """Return a text as the model takes it; `where` names it in messages.

        Raises
        ------
        InputError
            It is empty, too long, or there is no tokenizer.
        """
        if (ids := as_ids(text, where)) is not None:
            tokens, note = self._given_ids(ids)
            shown = " ".join(t.piece for t in tokens)
            parts = in_parts(shown, tokens, self.most, self.texts.long, where)
            return [replace(part, note="; ".join(filter(None, (part.note, note)))) for part in parts]
        if self.texts.context is not None and isinstance(text, str):
            text = (text, self.texts.context)
        if self.tokenizer is None:
            raise OptionError(
                f"{self.loaded.name}: there is no tokenizer.json beside the model, by which texts become ids; give it "
                f"({parameter('tokenizer', 'tokenizer.json')}; bytes for a model of bytes), or give ids"
            )
        text = checked(text, where, as_bytes=self.tokenizer.name == BYTES)
        try:
            found = self.tokenizer.cut(text, self.most, self.texts.long)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if not any(not t.special for part in found for t in part.tokens):
            raise InputError(f"{where} has no token of the tokenizer's vocabulary; give another text")
        return found

    def _given_ids(self, ids: Sequence[int]) -> tuple[tuple[Token, ...], str]:
        """Return ids as tokens, with what is padding at their ends, and a note where that is not known."""
        tokens = tuple(Token(i, str(i)) for i in ids)
        if not self.feeder.masked:
            return tokens, ""
        if self.pad is None:
            padded = len(ids) > 1 and (ids[-1] == ids[-2] or ids[-1] == 0 or ids[0] == ids[1])
            said = (
                f"all tokens are shown to the model; where some are padding, name their id ({parameter('pad_id', 0)})"
            )
            return tokens, said if padded else ""
        if not (own := [i for i, t in enumerate(ids) if t != self.pad]):
            return tokens, ""
        padding = {*range(own[0]), *range(own[-1] + 1, len(ids))}
        marked = (replace(t, padding=i in padding, special=i in padding) for i, t in enumerate(tokens))
        said = f"{len(padding)} tokens with the id {self.pad} at an end are padding, which the mask hides"
        return tuple(marked), said if padding else ""

    def explain(self, parts: Sequence[Tokens], target: Target = None, contrast: Contrast = None) -> list[Found]:
        """Explain texts that are cut; see `__call__`."""
        each = range(len(parts))
        targets = asking.for_each(target, each, len(parts), "target")
        return self._explained(parts, targets, asking.for_each(contrast, each, len(parts), "contrast"))

    def _explained(self, parts: Sequence[Tokens], targets: Sequence[Any], contrasts: Sequence[Any]) -> list[Found]:
        results: dict[int, Found] = {}
        contrasts = [self._contrast if c is None else c for c in contrasts]
        targets = [
            answers.ANSWER if t is None and answers.asked(c) else t for t, c in zip(targets, contrasts, strict=True)
        ]
        who = [
            self.answering(t, isinstance(p.text, tuple) and c is None)
            for p, t, c in zip(parts, targets, contrasts, strict=True)
        ]
        if self.entries.by_answer or all(one is self for one in who):
            return self._own(parts, targets, contrasts)
        for mine in (True, False):
            rows = [i for i, one in enumerate(who) if (one is self) == mine]
            if rows:
                asked = ([given[i] for i in rows] for given in (parts, targets, contrasts))
                results.update(zip(rows, who[rows[0]]._own(*asked), strict=True))
        return [results[i] for i in range(len(parts))]

    def _own(self, parts: Sequence[Tokens], targets: Sequence[Any], contrasts: Sequence[Any]) -> list[Found]:
        results: dict[int, Found] = {}
        for rows in self._groups(parts):
            group = [parts[i] for i in rows]
            length = self.feeder.length(group[0])
            fed = self.feeder.arrays(group, length)
            try:
                arrays = self._asked(group, fed, [targets[i] for i in rows], [contrasts[i] for i in rows])
            except ModelError:
                if only := self.feeder.settle():
                    self._refuse_over(only, parts)
                    return self._own(parts, targets, contrasts)
                self._refuse_longer(group[0])
                raise
            if arrays.saliency.shape[1:] != (length,):
                raise ModelError(
                    f"{self.loaded.name}: its map has the shape {arrays.saliency.shape}, and not one value a token"
                )
            for k, (i, one) in enumerate(zip(rows, group, strict=True)):
                start = self.feeder.start(one, length)
                found = Found(one, arrays.saliency[k, start : start + len(one)], row_of(arrays, k), (), start)
                results[i] = replace(found, notes=tuple(self._notes(found, length)))
        return [results[i] for i in range(len(parts))]

    def _refuse_over(self, only: int, parts: Sequence[Tokens]) -> None:
        """Refuse texts that are longer than the one length that the model runs on."""
        if (count := max(map(len, parts))) > only:
            raise InputError(
                f"a text of {count:,} tokens: the model runs on {only:,} alone; say so ({parameter('tokens', only)}), "
                f"and longer texts are cut, or explained in parts ({parameter('long', 'windows')})"
            )

    def _refuse_longer(self, part: Tokens) -> None:
        """Refuse a text that is longer than what the model runs on."""
        if most := self.feeder.longest(part):
            raise InputError(
                f"a text of {len(part):,} tokens: the model runs on {most:,} at most; say so "
                f"({parameter('tokens', most)}), and longer texts are cut, or explained in parts "
                f"({parameter('long', 'windows')})"
            )

    def _notes(self, found: Found, length: int) -> Iterator[str]:
        """Yield what was done to a text, and what lies on padding."""
        if found.tokens.note:
            yield found.tokens.note
        if length > len(found.tokens) and self.pad is None:
            yield (
                f"padded at its end with the id 0 to the model's {length} tokens; nothing says what padding is "
                f"({parameter('pad_id', 0)})"
            )
        elif length > len(found.tokens) and self.feeder.traced:
            yield f"padded to {length} tokens: the model says that its length is free, and runs on this one alone"
        yield from self.feeder.notes
        if (share := found.shares["padding"]) >= _SOME:
            yield f"{share:.0%} of the map lies on padding tokens, which the model reads"

    def _asked(
        self, group: Sequence[Tokens], fed: dict[str, Array], targets: Sequence[Any], contrasts: Sequence[Any]
    ) -> Explanation:
        """Explain texts of one padded length, with their targets resolved."""
        resolved, chosen = self.resolved(group, fed, targets)
        resolved = [
            answers.compared(one, c, partial(self.entries.answer, part=part, fed=fed, row=k))
            for k, (one, c, part) in enumerate(zip(resolved, contrasts, group, strict=True))
        ]
        contrasts = [None if answers.asked(c) else c for c in contrasts]
        asked = [self.explainer.options.contrast if c is None else c for c in contrasts]
        if chosen:
            contrasts = [
                chosen[k][1] if k in chosen and isinstance(c, str) and c == NEXT else one
                for k, (c, one) in enumerate(zip(asked, contrasts, strict=True))
            ]
        contrast = one_or_all(contrasts)
        arrays = self._run(fed, one_or_all(resolved), contrast)
        if not chosen or contrast is not None:
            return arrays
        described = tuple(f"{d}, the largest" if k in chosen else d for k, d in enumerate(arrays.described))
        return replace(arrays, described=described)

    def resolved(
        self, group: Sequence[Tokens], fed: dict[str, Array], targets: Sequence[Any]
    ) -> tuple[list[Any], dict[int, Any]]:
        """Return the targets of texts of one padded length, and what the model chose; see `Entries.resolved`."""
        return self.entries.resolved(group, fed, targets, self.vector)

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
        if self.pad is None:
            return self.explainer
        length = fed[self.name].shape[1]
        if length in self._padded:
            return self._padded[length]
        engine = self.explainer.engine(fed[self.name].shape, others=self.explainer.other_shapes(fed))
        if engine.rows is None:
            return self.explainer
        given = {k: v[:1] for k, v in fed.items()}
        rows = engine.rows({**given, self.name: np.full_like(given[self.name], self.pad)})[0]
        options = replace(self.explainer.options, settings=replace(self.explainer.options.settings, baseline=rows))
        while len(self._padded) >= _KEPT:
            self._padded.pop(next(iter(self._padded)))
        self._padded[length] = self._made(options, self.explainer.running)
        return self._padded[length]

    def _occluded(self, fed: dict[str, Array], target: Target, contrast: Contrast) -> Explanation:
        """Return how much the score falls when a word is replaced by padding, shared by its tokens."""
        if contrast is not None:
            raise OptionError("occlusion of words explains single scores; leave the contrast out")
        pad = self.pad or 0
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
        return self._made(options, self.explainer.running)

    def _words_of(self, fed: Mapping[str, Array]) -> list[list[tuple[int, ...]]]:
        length = fed[self.name].shape[1]
        starts = [self.feeder.start(part, length) for part in self._cut_now]
        return [
            [tuple(start + i for i in w.tokens) for w in part.words if not w.special]
            for part, start in zip(self._cut_now, starts, strict=True)
        ]

    def _groups(self, parts: Sequence[Tokens]) -> Iterator[list[int]]:
        """Yield texts that run together: of one padded length, `batch_size` at most."""
        by_length: dict[int, list[int]] = {}
        for i, part in enumerate(parts):
            by_length.setdefault(self.feeder.length(part), []).append(i)
        step = self.explainer.running.batch_size
        for rows in by_length.values():
            for start in range(0, len(rows), step):
                self._cut_now = [parts[i] for i in rows[start : start + step]]
                yield rows[start : start + step]

    def arrays(self, parts: Sequence[Tokens]) -> dict[str, Array]:
        """Return the model's inputs for texts of one padded length."""
        return self.feeder.arrays(parts, max(self.feeder.length(part) for part in parts))

    def vector(self, text: Given) -> Array:
        """Return the tensor explained for one text: of an encoder, its sentence vector."""
        part = self.cut(text, "the reference text")[0]
        return np.asarray(self.explainer.head(self.arrays([part]))[0])


def one_or_all(given: Sequence[Any]) -> Any:
    """Return what is None for all texts as one, else a list with one each."""
    return None if all(one is None for one in given) else list(given)
