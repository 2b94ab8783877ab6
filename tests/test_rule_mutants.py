"""Wrong rules are caught: every rule is spoilt in every way below, and a row of its own has to notice."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import pytest

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules import Local, Rule, find, rules
from fgonnx.engine.rules.registry import _RULES
from tests import linearisation
from tests.linearisation import Case
from tests.rule_cases import CASES

RULES = [r for r in rules() if not r.domain]

#: Attributes that a rule may leave aside, and why.
NO_EFFECT = {
    "kernel_shape": "the shape of the weights says it",
    "training_mode": "refused when it is set",
    "momentum": "of training alone",
    "seed": "of training alone",
    "stash_type": "the precision of the statistics",
    "saturate": "of types that are refused",
    "round_mode": "of types that are refused",
    "to": "the type of the output says it",
    "allowzero": "the shape of the output says it",
    "num_outputs": "the outputs say it",
    "sorted": "the indices say it",
    "largest": "the indices say it",
    "fmod": "the output says it",
}
#: The same for single operators; sizes, y or the indices say what these do.
NO_EFFECT_IN = {
    "DFT": {"onesided"},
    "Flatten": {"axis"},
    "HardSigmoid": {"beta"},
    "Hardmax": {"axis"},
    "LpPool": {"ceil_mode"},
    "MaxUnpool": {"kernel_shape", "pads", "strides"},
    "STFT": {"onesided"},
    "ScatterND": {"axis"},
    "Shrink": {"bias"},
}


class Mutant:
    """A rule with something wrong; `applied` tells whether it has made a difference to what was emitted."""

    def __init__(self, spoil: Callable[[Emitter, ir.Value, Local], Local | None], attribute: str = "") -> None:
        self.spoil, self.attribute, self.applied = spoil, attribute, False

    def of(self, rule: Rule) -> Rule:
        @functools.wraps(rule.linearise)
        def linearise(op: Emitter, y: Any, *inputs: Any, **attributes: Any) -> Local:
            if self.attribute in attributes:
                default = inspect.signature(rule.linearise).parameters[self.attribute].default
                self.applied |= attributes[self.attribute] != default
                attributes[self.attribute] = default
            local = rule.linearise(op, y, *inputs, **attributes)
            local = replace(local, vjp=_asserted(local.vjp))
            spoilt = self.spoil(op, y[0] if isinstance(y, tuple) else y, local)
            self.applied |= spoilt is not None
            return spoilt or local

        return replace(rule, linearise=linearise)


def _asserted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the failure of a spoilt part of a rule into one of an assertion."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise AssertionError(f"the rule fails: {error}") from error

    return call


@contextmanager
def registered(rule: Rule) -> Iterator[None]:
    entries = _RULES[rule.domain, rule.op_type]
    before = list(entries)
    entries[:] = [rule if r.since == rule.since else r for r in before]
    try:
        yield
    finally:
        entries[:] = before


def _each(local: Local, change: Callable[[Any], Any]) -> Local:
    intercept = local.intercept
    if isinstance(intercept, Sequence):
        return replace(local, intercept=[c if c is None else change(c) for c in intercept])
    return replace(local, intercept=change(intercept))


def drop_intercept(op: Emitter, y: ir.Value, local: Local) -> Local | None:
    return None if local.intercept is None else replace(local, intercept=None)


def double_intercept(op: Emitter, y: ir.Value, local: Local) -> Local | None:
    return None if local.intercept is None else _each(local, lambda c: op.Mul(c, 2.0))


def _scaled(op: Emitter, local: Local) -> Local:
    def vjp(*g: Any) -> Any:
        found = local.vjp(*g)
        parts = [found] if isinstance(found, ir.Value) or found is None else list(found)
        return [None if v is None else op.Mul(v, 1.01) for v in parts]

    return replace(local, vjp=vjp)


def scale_cotangents(op: Emitter, y: ir.Value, local: Local) -> Local | None:
    return _scaled(op, local)


def scale_slope(op: Emitter, y: ir.Value, local: Local) -> Local | None:
    """A wrong derivative with the intercept that belongs to it, y - 1.01 (y - c): only finite differences see it."""
    if isinstance(local.intercept, Sequence):
        return None
    hidden = op.Mul(y, -0.01)
    if local.intercept is not None:
        hidden = op.Add(op.Mul(local.intercept, 1.01), hidden)
    return replace(_scaled(op, local), intercept=hidden)


SPOILS = [drop_intercept, double_intercept, scale_cotangents, scale_slope]
#: Their derivative is 0 everywhere, so there is none to scale.
FLAT = {"Floor", "Ceil", "Round", "Sign", "Hardmax"}


def rows(rule: Rule, attribute: str = "") -> list[Case]:
    """The rows of a rule, those that set the attribute first."""
    own = [c for c in CASES if c.op_type == rule.op_type and not c.refused and find(c.op_type, c.opset) is rule]
    return sorted(own, key=lambda c: attribute not in c.attributes)


def survives(mutant: Mutant, rule: Rule, cases: Sequence[Case]) -> bool:
    """Tell whether a mutant made a difference and no row noticed."""
    for case in cases:
        mutant_rule = mutant.of(rule)
        with registered(mutant_rule):
            try:
                linearisation.check(case)
            except AssertionError:
                return False
    return mutant.applied


def label(value: Rule | str | Callable[..., Any]) -> str:
    if isinstance(value, Rule):
        return f"{value.op_type}-{value.since}"
    return value if isinstance(value, str) else value.__name__


def without_default(rule: Rule, attribute: str) -> bool:
    return inspect.signature(rule.linearise).parameters[attribute].default is inspect.Parameter.empty


OPTIONAL = [(r, a) for r in RULES for a in sorted(r.attributes()) if not without_default(r, a)]
IDLE = [(r, a) for r, a in OPTIONAL if a in NO_EFFECT or a in NO_EFFECT_IN.get(r.op_type, ())]


@pytest.mark.counts("mutants")
@pytest.mark.parametrize(
    ("rule", "spoil"),
    [(r, s) for r in RULES for s in SPOILS if r.op_type not in FLAT or s not in (scale_cotangents, scale_slope)],
    ids=label,
)
def test_a_wrong_linearisation_is_caught(rule: Rule, spoil: Callable[..., Local | None]) -> None:
    assert not survives(Mutant(spoil), rule, rows(rule))


@pytest.mark.counts("mutants")
@pytest.mark.parametrize(("rule", "attribute"), [row for row in OPTIONAL if row not in IDLE], ids=label)
def test_an_attribute_forgotten_is_caught(rule: Rule, attribute: str) -> None:
    mutant = Mutant(lambda op, y, local: None, attribute)
    survived = survives(mutant, rule, rows(rule, attribute))
    assert mutant.applied, "no row sets it"
    assert not survived


@pytest.mark.parametrize(("rule", "attribute"), IDLE, ids=label)
def test_an_attribute_said_to_have_no_effect_has_none(rule: Rule, attribute: str) -> None:
    mutant = Mutant(lambda op, y, local: None, attribute)
    survived = survives(mutant, rule, rows(rule, attribute))
    assert survived or not mutant.applied
