"""What a model takes beside the ids of a text: masks, types and places of tokens, and padding where it is sound."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.lookups import lookups
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import FgonnxError, InputError, ModelError, OptionError
from fgonnx.text.tokens import Token, Tokens
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

MASK, TYPE, PLACE, LENGTH = "mask", "type", "place", "length"
_BUCKET = 16  # tokens: texts are padded to a multiple, where nothing depends on it, so that few graphs are written
_PROBES = (8, _BUCKET)  # tokens of texts by which the meaning of a mask is found: some models run on one alone
_TRACED, _TRIED = 8192, 16  # tokens of a model that runs on one length, and lengths that are tried
_SAME = 1e-4  # of the largest output, up to which outputs are the same
_OTHER = 1e-2  # of the largest output, from which they are not
_CONVENTIONS = {"shown": (1.0, 0.0), "hidden": (0.0, 1.0), "added": (0.0, -1e4)}
"""What a mask holds for a token that is shown, and for one that is hidden."""
_SAID = {"hidden": "1 marks what is hidden", "added": "0 shows a token and -10,000 hides it"}


def role_of(name: str) -> str | None:
    """Return what an input is by its name: "mask", "type", "place", "length", or None.

    Examples
    --------
    >>> [role_of(n) for n in ("attention_mask", "src_key_padding_mask", "token_type_ids", "segments", "prototype")]
    ['mask', 'mask', 'type', 'type', None]
    >>> role_of("composition_mask"), role_of("position_ids"), role_of("composition"), role_of("lengths")
    ('mask', 'place', None, 'length')
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    if any(w.endswith(("mask", "masks")) or w in ("pad", "padding") for w in words):
        return MASK
    if any(w.startswith(("type", "tokentype", "segment")) or w == "seg" for w in words):
        return TYPE
    if any(w.startswith("position") or w == "pos" for w in words):
        return PLACE
    return LENGTH if any(w in ("length", "lengths", "len", "lens") for w in words) else None


@dataclass
class Feeder:
    """Makes a model's inputs of tokens.

    Attributes
    ----------
    source : LoadedModel
        The model as given, with what is bound.
    x : ir.Value
        Its input of ids.
    running : Running
        How it runs.
    pad : int or None
        The id of padding, where it is known.
    left : bool
        Whether padding stands in front of the text.
    most : int or None
        The most tokens it takes.
    inner : bool
        Whether a tensor inside the model is explained, whose shape may depend on padding.
    traced : bool
        Whether the model says that its length is free, and runs on one alone.
    """

    source: LoadedModel
    x: ir.Value
    running: Running
    pad: int | None
    left: bool
    most: int | None
    inner: bool = False
    traced: bool = field(default=False, init=False)
    _sound: dict[int, bool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        dims = dims_of(self.x)
        self.name = str(self.x.name)
        self.fixed = int(dims[-1]) if len(dims) > 1 and isinstance(dims[-1], int) else None
        self.others = {str(v.name): v for v in free_inputs(self.source.ir.graph) if v.name != self.name}
        self.roles = {name: role_of(name) for name in self.others}

    @property
    def masked(self) -> bool:
        """Whether there is an input that hides tokens."""
        return MASK in self.roles.values()

    def length(self, part: Tokens) -> int:
        """Return the length that a text is padded to.

        It is the model's own. Where that is free, it is a rounded one, if a mask hides padding and the model's outputs
        are the same with it; else the text's.
        """
        count = len(part)
        if self.fixed is not None:
            return self.fixed
        rounded = -(-count // _BUCKET) * _BUCKET
        rounded = rounded if self.most is None else max(count, min(rounded, self.most))
        if self.pad is None or not self.masked or self.inner or rounded == count:
            return count
        if rounded not in self._sound:
            self._sound[rounded] = self._unchanged(self._trial(max(1, rounded - _BUCKET // 2)), rounded)
        return rounded if self._sound[rounded] else count

    def _trial(self, count: int) -> Tokens:
        """Return a text of some length by which padding is tried: the same one whatever texts are given."""
        ids = np.random.default_rng(0).choice(self._usable, count)
        return Tokens("", tuple(Token(int(i), "") for i in ids))

    @property
    def _usable(self) -> list[int]:
        """Ids of rows of the table that are no padding, the first ones."""
        rows = min((f.rows for f in lookups(self.source.ir.graph, self.x) if f.rows), default=2)
        return [i for i in range(min(rows, 1000)) if i != self.pad] or [0]

    def start(self, part: Tokens, length: int) -> int:
        """Return the place of the first token of a text that is padded."""
        return length - len(part) if self.left else 0

    def arrays(self, parts: Sequence[Tokens], length: int) -> dict[str, Array]:
        """Return the inputs for texts that are padded to a length."""
        ids = np.full((len(parts), length), self.pad or 0, np.int64)
        shown, types = np.zeros(ids.shape, bool), np.zeros_like(ids)
        for row, part in enumerate(parts):
            own = slice(start := self.start(part, length), start + len(part))
            ids[row, own] = [t.id for t in part.tokens]
            shown[row, own] = [not t.padding for t in part.tokens]
            types[row, own] = types_of(part)
        places = np.broadcast_to(np.arange(length), ids.shape)
        if self.left:
            places = np.maximum(np.cumsum(shown, axis=1) - 1, 0)
        return self._fed(ids, shown, types, places, self.conventions)

    def _fed(self, ids: Array, shown: Array, types: Array, places: Array, meant: Mapping[str, str]) -> dict[str, Array]:
        fed: dict[str, Array] = {self.name: ids}
        known: dict[str, Callable[[str], Array]] = {
            MASK: lambda name: np.where(shown, *_CONVENTIONS[meant.get(name, "shown")]),
            TYPE: lambda name: self._types(name, types),
            PLACE: lambda name: places,
            LENGTH: lambda name: shown.sum(axis=1),
        }
        for name, value in self.others.items():
            role = self.roles[name]
            if role is None:
                raise OptionError(
                    f"{self.source.name} also takes '{name}', which its name does not tell to be a mask, types or "
                    f"places of tokens; fix it ({parameter('bind', f'{name}=VALUE')})"
                )
            kind = value.dtype.numpy() if value.dtype is not None else np.int64
            fed[name] = _laid(known[role](name), value).astype(kind)
        return fed

    def _types(self, name: str, types: Array) -> Array:
        rows = self._rows_of(name)
        if rows and types.max(initial=0) >= rows:
            raise InputError(
                f"the tokens are of the types 0 to {types.max()}, and the model's table for '{name}' has {rows} "
                f"row{'s' * (rows > 1)}: it takes no two texts together; give one, or fix the input "
                f"({parameter('bind', f'{name}=zeros')})"
            )
        return types

    def _rows_of(self, name: str) -> int:
        found = [f.rows for f in lookups(self.source.ir.graph, self.others[name]) if f.rows]
        return min(found) if found else 0

    @cached_property
    def conventions(self) -> dict[str, str]:
        """What each mask means: "shown" for 1 at what is shown, else "hidden" or "added"; found by trying.

        Raises
        ------
        OptionError
            It cannot be told.
        """
        found: dict[str, str] = {}
        for name, role in self.roles.items():
            if role == MASK:
                found[name] = self._convention(name, found)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the inputs is not as usual."""
        found = [
            f"{name}: {_SAID[c]}, as the model's outputs show" for name, c in self.conventions.items() if c in _SAID
        ]
        return tuple(f"mask of tokens {said}" for said in found)

    def _convention(self, name: str, known: Mapping[str, str]) -> str:
        """Return what a mask means: hiding a token leaves nothing of its effect on the others."""
        value = self.others[name]
        real = value.dtype is not None and value.dtype.is_floating_point()
        tried = [c for c in _CONVENTIONS if c != "added" or real]
        words = re.findall(r"[a-z]+", name.lower())
        usual = value.dtype is not None and value.dtype.is_integer() and not {"pad", "padding"} & set(words)
        left = {c: self._effect({**known, name: c}) for c in tried}
        clear = [c for c in tried if left[c] <= _SAME]
        if usual:
            return clear[0] if clear and "shown" not in clear and left["shown"] > _OTHER else "shown"
        if clear and ("shown" not in clear or "hidden" not in clear):
            return clear[0]
        raise OptionError(
            f"{self.source.name}: whether 1 in its input '{name}' shows or hides a token is told neither by its name "
            f"and type nor by its outputs; fix it ({parameter('bind', f'{name}=VALUE')}, with what it holds where all "
            "is shown)"
        )

    def _effect(self, meant: Mapping[str, str]) -> float:
        """Return how much a hidden token changes the outputs at other places, relative to the largest."""
        lengths = (self.fixed,) if self.fixed is not None else _PROBES
        return min(self._effect_at(length, meant) for length in lengths)

    def _effect_at(self, length: int, meant: Mapping[str, str]) -> float:
        if length < 3:
            return np.inf
        usable = self._usable
        ids = np.random.default_rng(0).choice(usable, (1, length)).astype(np.int64)
        shown = np.ones(ids.shape, bool)
        shown[0, 1] = False
        other = ids.copy()
        other[0, 1] = usable[(usable.index(int(ids[0, 1])) + len(usable) // 2) % len(usable)]
        places = np.arange(length)[None]
        try:
            a, b = (self._run(self._fed(i, shown, np.zeros_like(ids), places, meant)) for i in (ids, other))
        except FgonnxError:
            return np.inf
        return max((_change(p, q, length) for p, q in zip(a, b, strict=True)), default=np.inf)

    def _run(self, fed: Mapping[str, Array]) -> list[Array]:
        """Return the outputs of the model as given, those of numbers."""
        kind = self.x.dtype.numpy() if self.x.dtype is not None else np.int64
        found = self._session.run({**fed, self.name: fed[self.name].astype(kind)})
        return [a for a in found.values() if a.dtype.kind == "f"]

    @cached_property
    def _session(self) -> Session:
        return self.running.session(self.source.ir, self.source.folder)

    def _unchanged(self, part: Tokens, length: int) -> bool:
        """Tell whether a text has the same outputs when it is padded."""
        fed = self.arrays([part], length)
        try:
            padded = self._run(fed)
        except ModelError:
            return False
        try:
            plain = self._run(self.arrays([part], len(part)))
        except ModelError:  # it runs on the padded length alone, whatever its input declares: what is hidden counts
            start = self.start(part, length)
            ids = np.full_like(fed[self.name], part.tokens[0].id)
            ids[:, start : start + len(part)] = fed[self.name][:, start : start + len(part)]
            plain = self._run({**fed, self.name: ids})
        return all(p.shape == q.shape and _difference(p, q) <= _SAME for p, q in zip(plain, padded, strict=True))

    def settle(self) -> int:
        """Return the one length, over 1, that the model runs on where it was traced at one, and keep to it; 0 for none.

        It is looked for among the sizes of what is stored in the model: the rows of its places are as many.
        """
        if self.fixed is not None:
            return 0
        stored = self.source.ir.graph.initializers.values()
        sizes = {
            d for v in stored if v.shape is not None for d in v.shape.dims if isinstance(d, int) and 1 < d <= _TRACED
        }
        found = [n for n in sorted(sizes)[:_TRIED] if self._runs(self._trial(n))]
        if len(found) != 1 or self._runs(self._trial(found[0] - 1)):
            return 0
        self.fixed, self.traced = found[0], True
        return found[0]

    def _runs(self, part: Tokens) -> bool:
        try:
            self._run(self.arrays([part], len(part)))
        except ModelError:
            return False
        return True

    def longest(self, part: Tokens) -> int:
        """Return how many of the first tokens of a text the model runs on, where it does not run on all; 0 for none."""

        def runs(count: int) -> bool:
            try:
                self._run(self.arrays([Tokens(part.text, part.tokens[:count])], count))
            except ModelError:
                return False
            return True

        if self.fixed is not None or not runs(1) or runs(len(part)):
            return 0
        low, high = 1, len(part)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if runs(middle) else (low, middle)
        return low


def types_of(part: Tokens) -> list[int]:
    """Return which of two texts every token is of: by the tokenizer, else what closes the second is of it."""
    found, current = [], 0
    for token in part.tokens:
        current = max(current, token.part)
        found.append(current if token.type is None else token.type)
    return found


def _laid(array: Array, value: ir.Value) -> Array:
    """Return an array (N, T) with the axes of size 1, or of the queries, that an input has between them."""
    dims = dims_of(value)
    if array.ndim < 2 or len(dims) <= 2:
        return array
    between = [d if isinstance(d, int) else 1 for d in dims[1:-1]]
    return np.broadcast_to(
        array.reshape(len(array), *(1,) * len(between), array.shape[1]), (len(array), *between, array.shape[1])
    )


def _difference(a: Array, b: Array) -> float:
    """Return the largest difference of outputs, relative to the largest of them."""
    if not a.size:
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max(), 1e-30))


def _change(a: Array, b: Array, length: int) -> float:
    """Return the difference of outputs, without the place 1 of axes that have one entry a token."""
    for axis in range(1, a.ndim):
        if a.shape == b.shape and a.shape[axis] == length:
            a, b = np.delete(a, 1, axis), np.delete(b, 1, axis)
    return _difference(a, b) if a.shape == b.shape else np.inf
