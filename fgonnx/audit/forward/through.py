"""One node with the values that the model computes for it, and slopes of it by differences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from fgonnx.audit.forward.operators import Array, Floats, Operators, Unmeasured

# Steps of differences, as a share of the largest value, and by how much the slopes of both may differ.
_STEPS_DOUBLE, _STEPS_SINGLE, _STEADY = (3e-6, 1e-6), (3e-3, 1e-3), 3e-3

Tangents = Floats | None


@dataclass
class Ties:
    """Values on a kink, of which another choice is as right.

    Attributes
    ----------
    other : bool
        Whether to choose otherwise than the rules do.
    met : bool
        Whether there were some that move.
    held, straight : collection of str
        Results of steps (Round, Floor) whose slope is zero, and those of quantisers written by hand: of these it is
        that of what they round.
    """

    other: bool = False
    met: bool = False
    held: Collection[str] = ()
    straight: Collection[str] = ()


@dataclass
class Through:
    """One node with the values that the model computes for it.

    Attributes
    ----------
    node : onnx.NodeProto
        The node.
    inputs, outputs : list of numpy array or None
        Their values; None for one that is left out, or that cannot be read.
    tangents : list of numpy array, (K, ...), or None
        Of the inputs; None for one that does not move.
    compute : Operators
        Computes single nodes.
    ties : Ties
        Which of equal values is chosen, and where there were some.
    """

    node: onnx.NodeProto
    inputs: list[Array | None]
    outputs: list[Array | None]
    tangents: list[Tangents]
    compute: Operators
    ties: Ties = field(default_factory=Ties)

    @property
    def moving(self) -> list[int]:
        """The inputs that move."""
        return [i for i, t in enumerate(self.tangents) if t is not None]

    @property
    def fields(self) -> dict[str, Any]:
        """The attributes."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    def value(self, i: int) -> Floats:
        """Return an input in float64."""
        found = self.inputs[i] if i < len(self.inputs) else None
        if found is None:
            raise Unmeasured(f"no value of '{self.node.name or self.node.output[0]}' ({self.node.op_type}) can be read")
        return np.asarray(found, np.float64)

    def tied(self, where: Array) -> None:
        """Note that values lie on a kink, where they move."""
        self.ties.met |= bool(where.any())


def differences(t: Through) -> list[Tangents]:
    """Central differences about values that have to be those of the model."""
    given: list[Array | None] = [np.asarray(a, np.float64) if i in t.moving else a for i, a in enumerate(t.inputs)]
    if any(given[i] is None for i in t.moving):
        raise Unmeasured(f"no value of '{t.node.name or t.node.output[0]}' ({t.node.op_type}) can be read")
    name = f"'{t.node.name or t.node.output[0]}' ({t.node.op_type})"
    while True:
        single = t.compute.single(t.node)
        here = t.compute(t.node, given, len(t.node.output))
        alike = _as_in_model(t, here)
        if alike:
            steps = _STEPS_SINGLE if t.compute.single(t.node) else _STEPS_DOUBLE
            wide, narrow = (_central(t, given, here, step) for step in steps)
            if all(a is None or b is None or _steady(a, b) for a, b in zip(wide, narrow, strict=True)):
                return narrow
        if single or t.compute.single(t.node):
            raise Unmeasured(f"{name} is too rough" if alike else f"{name} is read in another way")
        t.compute.prefer_single(t.node)  # some of the reference is in single precision inside, or wrong


def _steady(a: Floats, b: Floats) -> bool:
    return float(np.sqrt(((a - b) ** 2).mean())) <= _STEADY * float(np.sqrt((b**2).mean()))


def _as_in_model(t: Through, here: Sequence[Array]) -> bool:
    for own, found in zip(t.outputs, here, strict=True):
        if own is not None and own.dtype.kind == "f":
            allowed = {2: 2e-2, 4: 1e-3}.get(own.dtype.itemsize, 1e-6)
            apart = float(np.abs(found - own).max(initial=0)) if found.shape == own.shape else np.inf
            if not apart <= allowed * max(float(np.abs(found).max(initial=0)), 1e-6):
                return False
    return True


def _central(t: Through, given: Sequence[Array | None], here: Sequence[Array], step: float) -> list[Tangents]:
    count = len(t.node.output)
    parts = []
    for k in range(len(first_of(t))):
        moves = {i: d[k] for i in t.moving if (d := t.tangents[i]) is not None}
        size = max(float(np.abs(np.asarray(given[i])).max(initial=0)) for i in moves) or 1.0
        fast = max(float(np.abs(d).max(initial=0)) for d in moves.values())
        if fast == 0:
            parts.append([np.zeros(a.shape) for a in here])
            continue
        h = step * size / fast
        ends = [
            t.compute(t.node, [a if i not in moves else a + s * moves[i] for i, a in enumerate(given)], count)
            for s in (h, -h)
        ]
        parts.append([(up.astype(np.float64) - down) / (2 * h) for up, down in zip(*ends, strict=True)])
    return [np.stack(p) if here[i].dtype.kind == "f" else None for i, p in enumerate(zip(*parts, strict=True))]


def first_of(t: Through) -> Floats:
    """Return the tangents of the first input that moves."""
    return next(d for d in t.tangents if d is not None)


def aligned(d: Floats, rank: int) -> Floats:
    """Return tangents whose axes behind the first one broadcast to a rank."""
    return d.reshape(len(d), *[1] * (rank - (d.ndim - 1)), *d.shape[1:])
