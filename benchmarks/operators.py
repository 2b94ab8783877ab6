"""The table of operators, from the registry: `python -m benchmarks.operators > docs/operators.md`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import onnx

from fgonnx.engine import rules
from fgonnx.engine.graph.values import CONTENT
from fgonnx.engine.normal import integers
from fgonnx.engine.normal import quantised as dequantise
from fgonnx.engine.normal.expand import EXPANDERS, contrib, controlflow, functions, sequences
from fgonnx.engine.rules.refused import REASONS

HEAD = """# Operators

Written by `python -m benchmarks.operators` from the rules and expansions themselves, with the operators of onnx
{version} (opset {opset}). How a rule is written: [rules.md](rules.md); the official cases of every operator, and the
exceptions with their causes: `tests/test_onnx_node_cases.py`.

- *linear*, *homogeneous*, *elementwise*, *general*: a rule of that family, for all versions from opset 18 on; older
  models are converted to it. A rule handles every attribute except those named under "refused when".
- *function body*: expanded by the definition in the standard itself.
- *written out*: expanded into operators that have rules, by `fgonnx/engine/normal/expand/`.
- *twin*: computed in real numbers in parallel to the integers; rounding and saturation are separate terms.
- *shape or type alone*: the output does not depend on the values of the input.
- *no derivative*: the output consists of indices, conditions or the like; the error names the tensor to explain
  instead.
- *refused*: with the reason.

The intercept is `c = y - J z`, the part of the output that the Jacobian does not explain. At a kink of an operator, the
derivative follows the convention stated.

"""
COLUMNS = ("operator", "versions", "how", "intercept", "convention", "refused when")
# What marks a part of a note as one about a kink or a precondition.
CONVENTIONS = ("derivative", "'(0)", "tie", "cotangent", "must", "inference only")
# Where a converter replaces an operator before anything else happens.
RAISED = {"Scatter": "ScatterElements", "Upsample": "Resize"}
TWINS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")

Row = tuple[str, ...]


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return docs/operators.md."""
    head = HEAD.format(version=onnx.__version__, opset=onnx.defs.onnx_opset_version())
    parts = [
        "## Of the standard\n",
        *table(COLUMNS, standard()),
        "\n## Of onnxruntime's optimiser (com.microsoft)\n",
        "Expanded into the standard operators they were fused from.\n",
        *table(("operator", "domain", "stands for"), fused()),
        "\n## Quantised\n",
        textwrap.fill(f"{', '.join(sorted(dequantise.MOVES))} move twins as they move the integers.", 120),
        "",
        textwrap.fill(
            f"{', '.join(integers.ORDERED)} compare twins, with their constants in the scale of the data; "
            f"{', '.join(integers.ARITHMETIC)} work on r / s + z, where no result can leave the range of its type; "
            f"{', '.join(integers.ROUNDED)} by constants do too, and what they round is a separate term. "
            "Gather looks up a constant table of one axis, its slope being that between neighbouring entries. "
            "Round, Floor and Ceil to 15 levels or more are quantisers, too ([limits](limits.md)). "
            "Other operators on integers that depend on the input are refused, also beside a skip connection.",
            120,
        ),
        "",
        *table(("operator", "domain", "layout"), quantised()),
    ]
    return head + "\n".join(parts) + "\n"


def table(columns: Iterable[str], rows: Iterable[Row]) -> Iterator[str]:
    """Return the lines of a table."""
    columns = tuple(columns)
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def standard() -> Iterator[Row]:
    """Return a row for every operator of the standard that takes floating-point values."""
    history: dict[str, list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            history.setdefault(schema.name, []).append(schema)
    for name in sorted(history):
        versions = sorted(history[name], key=lambda s: s.since_version)
        if _takes_floats(versions[-1]) or name in controlflow.EXPANDERS:
            since = ", ".join(str(s.since_version) for s in versions)
            yield (name, since, *_row(name, versions[-1]))


def _takes_floats(schema: Any) -> bool:
    return any("float" in t or "double" in t for i in schema.inputs for t in i.types)


def _row(name: str, schema: Any) -> Row:
    own = [r for r in rules.rules() if (r.domain, r.op_type) == ("", name)]
    if own:
        ignored = sorted(set(schema.attributes) - own[-1].attributes())
        return own[-1].family, *_split(own[-1].note), "; ".join([*refusals(own[-1].linearise, name), *ignored])
    why = REASONS[name][0] if name in REASONS else ""
    if name in TWINS or ("", name) in dequantise.FAMILIES:
        return "twin", "rounding and saturation", "derivative 1 inside the range", ""
    if ("", name) in EXPANDERS or name in sequences.BUILT:
        return "written out", "of its parts", "", why
    how = "refused: it has no rule"
    if name in RAISED:
        how = f"converted to {RAISED[name]}"
    elif name in CONTENT:
        how = "shape or type alone"
    elif why:
        how = f"refused: {why}"
    elif not any("float" in t or "double" in t for o in schema.outputs for t in o.types):
        how = "no derivative"
    elif functions.has_body(name, schema.since_version):
        return "function body", "of its parts", "", ""
    return how, "", "", ""


def _split(note: str) -> tuple[str, str]:
    """Return the parts of a note about the intercept, and those about conventions."""
    parts = [part.strip() for part in note.split(";")]
    about = [p for p in parts if "c =" in p or not any(mark in p for mark in CONVENTIONS)]
    return "; ".join(about), "; ".join(p for p in parts if p not in about)


def refusals(function: Callable[..., Any], op_type: str, depth: int = 2) -> list[str]:
    """Return what a rule says when it refuses a node, itself or by the functions it calls."""
    found: list[str] = []
    for call in _calls(ast.parse(textwrap.dedent(inspect.getsource(function))), op_type):
        if call.func.id == "Unsupported":
            found.append(_text(call.args[0]))
            continue
        called = inspect.unwrap(function).__globals__.get(call.func.id)
        if depth and inspect.isfunction(called) and called.__module__.startswith("fgonnx.engine.rules."):
            found += refusals(called, op_type, depth - 1)
    return list(dict.fromkeys(found))


def _calls(tree: ast.AST, op_type: str) -> Iterator[Any]:
    """Return the calls of named functions, without those made for one other operator."""
    if isinstance(tree, ast.If):
        tests = [t for t in ast.walk(tree.test) if isinstance(t, ast.Compare) and isinstance(t.ops[0], ast.Eq)]
        named = [t.comparators[0] for t in tests if isinstance(t.left, ast.Name) and t.left.id == "op_type"]
        if any(isinstance(n, ast.Constant) and n.value != op_type for n in named):
            return
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        yield tree
    for child in ast.iter_child_nodes(tree):
        yield from _calls(child, op_type)


def _text(message: ast.expr) -> str:
    if isinstance(message, ast.Constant):
        return str(message.value)
    assert isinstance(message, ast.JoinedStr)
    return "".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in message.values)


def fused() -> Iterator[Row]:
    """Return a row for every operator of the optimiser's."""
    for (domain, name), builder in sorted(contrib.BUILDERS.items(), key=lambda item: item[0][1]):
        yield name, domain or "ai.onnx", _first_line(builder)


def quantised() -> Iterator[Row]:
    """Return a row for every quantised operator."""
    for (domain, name), family in sorted(dequantise.FAMILIES.items(), key=lambda item: item[0][::-1]):
        yield name, domain or "ai.onnx", _first_line(family)
    for name in TWINS:
        yield name, "ai.onnx", "ties a value to the real one it rounds, or reads it"
    yield "DynamicQuantizeLSTM", "com.microsoft", "an LSTM whose products are MatMulInteger, step by step"


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
