"""Conditions on rows, such as ``correct == false or probability < 0.8``: parsed and checked, never executed as code."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgonnx.errors import OptionError
from fgonnx.wording import near

NAMES = ("correct", "probability", "score", "margin", "predicted", "truth", "name")
"""What a condition can name, beside slices.

`predicted` and `truth` are labels, or indices where there are none; where the head has several axes, `predicted` is a
position such as ``'(0, 3)'``.
"""

_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CLASSES, _NUMBERS = ("predicted", "truth"), ("probability", "score", "margin")
_MOST = 2000  # characters


@dataclass(frozen=True)
class Condition:
    """A condition on the values of a row.

    Attributes
    ----------
    text : str
        As it was written.
    names : frozenset of str
        What it names.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Tell whether it holds. A comparison with a value that is not known does not hold, other than ``== none``.

        Raises
        ------
        OptionError
            A text is compared with a number.
        """
        return bool(self._value(self._tree, row))

    def check(self, labels: Sequence[str] | None, entries: int) -> None:
        """Refuse comparisons that no row can meet: of a class with what is none, of a number with a text.

        Parameters
        ----------
        labels : sequence of str or None
            Names of the classes.
        entries : int
            How many classes there are.

        Raises
        ------
        OptionError
            There is one.
        """
        for name, value in self.compared:
            why = ""
            if name in _CLASSES:
                why = _no_class(name, value, labels, entries)
            elif name in _NUMBERS and isinstance(value, str):
                why = f"{name} is a number: write {name} without quotes"
            elif name == "correct" and value not in (True, False):
                why = "write correct == true or correct == false"
            elif name not in (*_NUMBERS, "correct") and not isinstance(value, str):
                why = f"{name} is a text: write '{value}', with quotes"
            if why:
                raise OptionError(
                    f"the condition '{self.text}' compares {name} with {value!r}, which no row has; {why}"
                )

    def check_positions(self, head: Sequence[int]) -> None:
        """Refuse comparisons of the decision with what is no position, of a head of several axes.

        Raises
        ------
        OptionError
            There is one.
        """
        for name, value in self.compared:
            if name == "predicted" and not _is_position(value, head):
                raise OptionError(
                    f"the condition '{self.text}' compares {name} with {value!r}, which no row has; the head has "
                    f"several axes, {tuple(head)}: write a position, such as {name} == '{(0,) * len(head)}'"
                )

    @property
    def compared(self) -> list[tuple[str, Any]]:
        """Names and constants other than none that are said to be equal or not, or are in a list."""
        found = []
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True):
                    if isinstance(op, (ast.Eq, ast.NotEq)):
                        found += [*self._pairs(left, right), *self._pairs(right, left)]
                    elif isinstance(op, (ast.In, ast.NotIn)) and isinstance(right, (ast.Tuple, ast.List)):
                        found += [pair for each in right.elts for pair in self._pairs(left, each)]
        return found

    def _pairs(self, name: ast.expr, constant: ast.expr) -> list[tuple[str, Any]]:
        if not isinstance(name, ast.Name) or name.id.lower() in _CONSTANTS or isinstance(constant, ast.Compare):
            return []
        if isinstance(constant, ast.Name) and constant.id.lower() not in _CONSTANTS:
            return []
        value = self._value(constant, {})
        return [(name.id, value)] if isinstance(value, (str, int, float)) else []

    def _value(self, node: ast.expr, row: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.BoolOp):
            each = (bool(self._value(v, row)) for v in node.values)
            return all(each) if isinstance(node.op, ast.And) else any(each)
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, row)
            return not value if isinstance(node.op, ast.Not) else -value
        if isinstance(node, ast.Compare):
            values = [self._value(v, row) for v in (node.left, *node.comparators)]
            return all(self._compared(op, a, b) for op, a, b in zip(node.ops, values[:-1], values[1:], strict=True))
        if isinstance(node, ast.Name):
            lower = node.id.lower()
            return _CONSTANTS[lower] if lower in _CONSTANTS else row.get(node.id)
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(self._value(v, row) for v in node.elts)
        assert isinstance(node, ast.Constant)
        return node.value

    def _compared(self, op: ast.cmpop, a: Any, b: Any) -> bool:
        if isinstance(op, _ORDER) and (a is None or b is None):
            return False
        try:
            return _COMPARE[type(op)](a, b)
        except TypeError as error:
            raise OptionError(f"the condition '{self.text}' compares {a!r} with {b!r}: they have no order") from error


def parse(text: str, slices: Sequence[str] = (), names: Sequence[str] = NAMES) -> Condition:
    """Parse a condition.

    Parameters
    ----------
    text : str
        Comparisons of names with numbers, texts, true, false and none, joined by and, or, not and brackets.
    slices : sequence of str
        Further names: columns of the data.
    names : sequence of str
        What is known of every row, of `NAMES`.

    Raises
    ------
    OptionError
        It is none, or names what does not exist.

    Examples
    --------
    >>> parse("correct == false or probability < 0.8")({"correct": True, "probability": 0.5})
    True
    """
    if len(text) > _MOST:
        raise OptionError(f"the condition has {len(text)} characters; at most {_MOST} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise OptionError(f"'{text}' is no condition; {_example(names)}") from error
    named: set[str] = set()
    _check(tree, text, {*names, *slices}, named)
    return Condition(text, frozenset(named), tree)


def _check(node: ast.AST, text: str, known: set[str], names: set[str]) -> None:
    """Refuse everything but comparisons of names with constants."""
    if isinstance(node, ast.Name):
        if node.id.lower() not in _CONSTANTS:
            if node.id not in known:
                raise OptionError(
                    f"the condition '{text}' names '{node.id}', which rows do not have{near(node.id, known)}; they "
                    "have "
                    f"{', '.join(sorted(known))}"
                )
            names.add(node.id)
        return
    fine = (
        isinstance(node, (ast.BoolOp, ast.Tuple, ast.List))
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and _is_number(node.operand))
        or (isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops) and _sets(node))
        or (isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))))
    )
    if not fine:
        raise OptionError(
            f"the condition '{text}' holds '{ast.unparse(node)}', which is no comparison of a name with a value; "
            f"{_example(known)}"
        )
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context)):
            _check(child, text, known, names)


def _example(known: Collection[str]) -> str:
    """Return advice that names what is known alone."""
    also = "correct == false or " if "correct" in known else ""
    return f"write for example {also}probability < 0.8"


def _no_class(name: str, value: Any, labels: Sequence[str] | None, entries: int) -> str:
    """Return what to write instead where a value is no class, else an empty text."""
    index = value if type(value) is int and 0 <= value < entries else None
    if labels is not None:
        if value in labels:
            return ""
        if index is not None:
            return f"classes go by their names: write {name} == {labels[index]!r}"
        return f"write a class of the model{near(str(value), labels)}"
    return "" if index is not None else f"the classes have no names: write an index, 0 to {entries - 1}"


def _is_position(value: Any, head: Sequence[int]) -> bool:
    """Tell whether a text is a position as rows have it; how far an axis goes may differ between rows."""
    found = re.fullmatch(r"\((\d+(?:, \d+)*)\)", value) if isinstance(value, str) else None
    return found is not None and len(found[1].split(", ")) == len(head)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _sets(node: ast.Compare) -> bool:
    """Tell whether `in` is followed by a list or a text."""
    sets = (ast.Tuple, ast.List)
    return all(
        isinstance(right, sets) or (isinstance(right, ast.Constant) and isinstance(right.value, str))
        for op, right in zip(node.ops, node.comparators, strict=True)
        if isinstance(op, (ast.In, ast.NotIn))
    )
