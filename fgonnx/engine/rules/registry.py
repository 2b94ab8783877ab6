"""The rule contract and the registry: one local linearisation per operator gives both the VJP and the intercept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter

Kind = Literal["bias", "implicit", "quantisation"]
Cotangent = ir.Value | None
Vjp = Callable[..., Cotangent | Sequence[Cotangent]]


#: Advice of a rule that cannot handle a free batch; the rewriter follows it by itself.
FIX_BATCH = "Fix the batch size to 1"


class Unsupported(Exception):  # noqa: N818  - not an error of the user's: the walk collects these into one UnsupportedError
    """Raised by a rule that cannot linearise this particular node.

    Parameters
    ----------
    why : str
        The reason, without a full stop.
    what_to_do : str
        What the user can do.
    """

    def __init__(
        self, why: str, what_to_do: str = "Explain an output before it, or rewrite the model without it"
    ) -> None:
        super().__init__(why)
        self.why = why
        self.what_to_do = what_to_do


@dataclass(frozen=True)
class Local:
    """The local linearisation `y = sum_i J_i z_i + c` of one node.

    Attributes
    ----------
    vjp : callable
        Takes the cotangent of the output (one per output, None for no cotangent) and returns the cotangents of the
        inputs in ONNX order: a sequence, or one value for the first input alone. None means no cotangent.
    intercept : ir.Value, sequence of those, or None
        `c`, broadcastable to `y`; one per output where there are several; None where it is zero.
    kind : {"bias", "implicit"}
        Whether the intercept comes from a parameter or from a non-linearity.
    product : callable, optional
        Takes the cotangent of the (only) output and returns `g * c` if that is cheaper than the multiplication, else
        None.
    """

    vjp: Vjp
    intercept: ir.Value | Sequence[ir.Value | None] | None = None
    kind: Kind = "bias"
    product: Callable[[ir.Value], ir.Value | None] | None = None


@dataclass(frozen=True)
class Rule:
    """One registered linearisation.

    Attributes
    ----------
    op_type, domain : str
        The operator.
    since : int
        First version of the operator set the rule holds for.
    linearise : callable
        `linearise(op, y_or_ys, *inputs, **attributes) -> Local`.
    family : str
        "linear", "homogeneous", "elementwise" or "general".
    note : str
        Intercept and subgradient convention, for the table of operators.
    """

    op_type: str
    domain: str
    since: int
    linearise: Callable[..., Local]
    family: str
    note: str

    def attributes(self) -> frozenset[str]:
        """Return the names of the attributes that the rule takes into account."""
        parameters = inspect.signature(self.linearise).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


_RULES: dict[tuple[str, str], list[Rule]] = {}


def _register(rule: Rule) -> None:
    entries = _RULES.setdefault((rule.domain, rule.op_type), [])
    entries[:] = sorted([r for r in entries if r.since != rule.since] + [rule], key=lambda r: r.since)


def rule(
    op_type: str, *, since: int = 1, domain: str = "", family: str = "general", note: str = ""
) -> Callable[[Callable[..., Local]], Callable[..., Local]]:
    """Register a local linearisation for an operator.

    The decorated function gets the Emitter, the output (a tuple of them for an operator with several), the inputs
    positionally in ONNX order (None for those left out) and the attributes by keyword. An attribute that is not in
    its signature makes the node unsupported: nothing is silently ignored.

    Parameters
    ----------
    op_type : str
        Operator to register for.
    since : int
        First operator-set version the rule holds for; the newest rule at or below a node's version wins.
    domain : str
        Operator domain, empty for the standard one.
    family : str
        The kind of map: "linear", "homogeneous", "elementwise" or "general".
    note : str
        One line for the table of operators: intercept, subgradient convention.

    Examples
    --------
    >>> import fgonnx
    >>> @fgonnx.rule("Twice", domain="my.company", note="y = 2 x + 1")
    ... def twice(op, y, x):
    ...     return fgonnx.Local(vjp=lambda g: op.Mul(g, 2.0), intercept=op.Sub(y, op.Mul(x, 2.0)), kind="bias")
    >>> fgonnx.rules.find("Twice", 1, "my.company").note
    'y = 2 x + 1'
    """

    def register(linearise: Callable[..., Local]) -> Callable[..., Local]:
        _register(
            Rule(op_type, domain, since, linearise, family, note or (inspect.getdoc(linearise) or "").split("\n")[0])
        )
        return linearise

    return register


Derivative = Callable[..., ir.Value]


def elementwise(op_type: str, *, since: int = 1, note: str = "") -> Callable[[Derivative], Derivative]:
    """Register an elementwise function of its first input by one expression for `dy/dx`.

    The cotangent is `g * d`, the intercept `y - d * x` (kind implicit); `d` is emitted once.

    Parameters
    ----------
    op_type : str
        The operator, of the ONNX standard.
    since : int
        Version of the operator's schema from which the rule applies.
    note : str
        What the table of operators says of the intercept and of conventions at kinks.
    """

    def register(derivative: Derivative) -> Derivative:
        def linearise(op: Emitter, y: ir.Value, x: ir.Value, *rest: ir.Value, **attributes: Any) -> Local:
            d = derivative(op, y, x, *rest, **attributes)
            return Local(lambda g: op.Mul(g, d), op.Sub(y, op.Mul(d, x)), "implicit")

        linearise.__signature__ = inspect.signature(derivative)  # type: ignore[attr-defined]
        linearise.__module__ = derivative.__module__
        _register(Rule(op_type, "", since, linearise, "elementwise", note or "c = y - h'(x) x"))
        return derivative

    return register


def homogeneous(op_type: str, *, since: int = 1, note: str = "") -> Callable[[Derivative], Derivative]:
    """Register an elementwise function of degree 1 by one expression for `dy/dx`; its intercept is zero.

    Parameters
    ----------
    op_type : str
        The operator, of the ONNX standard.
    since : int
        Version of the operator's schema from which the rule applies.
    note : str
        What the table of operators says of the intercept and of conventions at kinks.
    """

    def register(derivative: Derivative) -> Derivative:
        def linearise(op: Emitter, y: ir.Value, x: ir.Value, *rest: ir.Value, **attributes: Any) -> Local:
            return Local(lambda g: op.Mul(g, derivative(op, y, x, *rest, **attributes)))

        linearise.__signature__ = inspect.signature(derivative)  # type: ignore[attr-defined]
        linearise.__module__ = derivative.__module__
        _register(Rule(op_type, "", since, linearise, "homogeneous", note or "c = 0 (degree 1)"))
        return derivative

    return register


def linear(op_type: str, *, since: int = 1, note: str = "") -> Callable[[Callable[..., Vjp]], Callable[..., Vjp]]:
    """Register an operator that is linear in its differentiable inputs, by a function that returns the VJP."""

    def register(transpose: Callable[..., Vjp]) -> Callable[..., Vjp]:
        def linearise(op: Emitter, y: ir.Value, *inputs: ir.Value, **attributes: Any) -> Local:
            return Local(transpose(op, y, *inputs, **attributes))

        linearise.__signature__ = inspect.signature(transpose)  # type: ignore[attr-defined]
        linearise.__module__ = transpose.__module__
        _register(Rule(op_type, "", since, linearise, "linear", note or "c = 0 (linear)"))
        return transpose

    return register


def find(op_type: str, version: int, domain: str = "") -> Rule | None:
    """Return the newest rule whose `since` is at or below the version of the operator's schema, or None.

    Parameters
    ----------
    op_type : str
        The operator.
    version : int
        Operator set.
    domain : str
        Of the operator; empty for the standard.
    """
    since = schema_version(op_type, version, domain)
    usable = [r for r in _RULES.get((domain, op_type), ()) if r.since <= since]
    return usable[-1] if usable else None


def schema_version(op_type: str, opset: int, domain: str = "") -> int:
    """Return the version of an operator's schema in an operator set; the set's own version for unknown operators."""
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return opset


def rules() -> list[Rule]:
    """Return every registered rule, by domain, operator and version."""
    return [r for key in sorted(_RULES) for r in _RULES[key]]


def bind(r: Rule, node: ir.Node, opset: int) -> dict[str, Any]:
    """Return a node's attributes for a rule: the node's own, then the schema's defaults.

    Raises
    ------
    Unsupported
        If the node has an attribute that the rule does not take into account.
    """
    known = r.attributes()
    own = {a.name: _value(a) for a in node.attributes.values()}
    ignored = sorted(set(own) - known)
    if ignored:
        raise Unsupported(
            f"the rule does not take the attribute(s) {', '.join(ignored)} into account",
            "Register a rule that does (fgonnx.rule)",
        )
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return own
    for name, attribute in schema.attributes.items():
        if name in known and name not in own and attribute.default_value.type:
            default = onnx.helper.get_attribute_value(attribute.default_value)
            own[name] = default.decode() if isinstance(default, bytes) else default
    return own


def _value(attribute: ir.Attr) -> Any:
    value = attribute.value
    return list(value) if isinstance(value, (tuple, list)) else value
