"""How the code is laid out, in numbers: `python -m benchmarks.structure [CHECKOUT ...]` prints one column for each.

A room is a file or folder directly inside a package; an arrow means that one room imports from another; a floor is a
step of the longest chain of such imports (rooms that import each other share one). Everything is read from the source
and nothing is imported, so that other versions can be measured too.
"""

from __future__ import annotations

import argparse
import ast
import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONG_FUNCTION, LONG_FILE, MANY_PARAMETERS, BLOCK = 50, 400, 8, 4
BEGIN, END = "<!-- python -m benchmarks.structure: begin -->", "<!-- end -->"
Graph = Mapping[str, set[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Checkout:
    """The source of one version.

    Attributes
    ----------
    root : Path
        Its folder.
    """

    root: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """Files of the packages, by module name; a package goes by its own name."""
        found = {}
        for package in ("fgonnx", "converters"):
            for path in sorted((self.root / package).rglob("*.py")):
                parts = path.relative_to(self.root).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return found

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The same files, parsed."""
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    @cached_property
    def imports(self) -> Graph:
        """Which module imports which, without the modules that only collect public names."""
        return {
            name: {m for m in self._imported(name) if m != name and m not in ("fgonnx", "converters")}
            for name in self.trees
            if name not in ("fgonnx", "fgonnx.__main__")
        }

    def _imported(self, module: str) -> Iterator[str]:
        package = module if self.files[module].name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from (found for a in node.names if (found := self._own(a.name)))
            elif isinstance(node, ast.ImportFrom):
                up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*up, *([node.module] if node.module else [])])
                for a in node.names:
                    if found := self._own(f"{base}.{a.name}") or self._own(base):
                        yield found

    def _own(self, name: str) -> str | None:
        name = name.replace("fgonnx.converters", "converters")
        return name if name in self.files else None

    def rooms(self, package: str) -> dict[str, set[str]]:
        """Return the rooms of a package, and which imports from which."""
        prefix = f"{package}."
        found: dict[str, set[str]] = {}
        for name, targets in self.imports.items():
            if name.startswith(prefix):
                room = name.removeprefix(prefix).partition(".")[0]
                inside = {t.removeprefix(prefix).partition(".")[0] for t in targets if t.startswith(prefix)}
                found.setdefault(room, set()).update(inside - {room})
        for targets in list(found.values()):
            for target in targets:
                found.setdefault(target, set())
        return found

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Yield all functions, with the name of their module in front."""
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, Function):
                    yield f"{module}.{node.name}", node


def floors(graph: Graph) -> int:
    """Return the number of rooms on the longest chain of imports, circles counted as one."""
    reached = {n: _reachable(graph, n) for n in graph}
    circle = {n: min([n, *(m for m in reached[n] if n in reached.get(m, ()))]) for n in graph}
    steps: dict[str, set[str]] = defaultdict(set)
    for n, targets in graph.items():
        steps[circle[n]] |= {circle[t] for t in targets} - {circle[n]}
    depth: dict[str, int] = {}

    def deep(n: str) -> int:
        if n not in depth:
            depth[n] = 1 + max((deep(t) for t in steps[n]), default=0)
        return depth[n]

    return max((deep(n) for n in set(circle.values())), default=0)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    todo = list(graph[start])
    while todo:
        n = todo.pop()
        if n not in found:
            found.add(n)
            todo += graph.get(n, ())
    return found


def circles(graph: Graph) -> int:
    """Return how many rooms can be reached from themselves."""
    return sum(n in _reachable(graph, n) for n in graph)


def parameters(function: Function) -> int:
    """Return the number of parameters without self and cls."""
    a = function.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))]
    return len([n for n in names if n not in ("self", "cls")])


def of_an_operator(function: Function) -> bool:
    """Tell whether a function takes the inputs and attributes that ONNX gives an operator, behind the Emitter."""
    first = [p.arg for p in (*function.args.posonlyargs, *function.args.args)][:1]
    return first == ["op"] and not function.name.startswith("_")


def lines(function: Function) -> int:
    """Return the number of lines from `def` to the end, without the docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def statements(tree: ast.Module) -> int:
    """Return the number of statements, without docstrings."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    return len([n for n in found if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))])


def repeated(trees: Iterable[ast.Module]) -> int:
    """Return how many lines stand in blocks of four or more that are found elsewhere, too.

    Lines are those that `ast.unparse` writes, so that comments and layout do not count; neither do docstrings, imports
    and decorators.
    """
    where: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, tree in enumerate(trees):
        code = [line.strip() for line in ast.unparse(_bare(tree)).splitlines() if line.strip()]
        for k in range(len(code) - BLOCK + 1):
            where[tuple(code[k : k + BLOCK])].append((number, k))
    return len({(n, k + j) for places in where.values() if len(places) > 1 for n, k in places for j in range(BLOCK)})


def _bare(tree: ast.Module) -> ast.Module:
    """Return a copy without docstrings, imports and decorators."""

    class Bare(ast.NodeTransformer):
        def generic_visit(self, node: ast.AST) -> ast.AST | None:  # type: ignore[override]
            if isinstance(node, ast.Import | ast.ImportFrom):
                return None
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                return None
            if isinstance(node, Function | ast.ClassDef):
                node.decorator_list = []
            return super().generic_visit(node)

    found: ast.Module = Bare().visit(copy.deepcopy(tree))
    return found


def figures(checkout: Checkout) -> dict[str, str]:
    """Return what is measured, by what it is called."""
    top = checkout.rooms("fgonnx")
    functions = list(checkout.functions())
    counts = [parameters(f) for name, f in functions if ".cli." not in name and not of_an_operator(f)]
    sizes = {n: len(p.read_text(encoding="utf-8").splitlines()) for n, p in checkout.files.items()}
    scripts = [p for p in checkout.root.rglob("*.py") if not {".venv", "build", ".nox"} & set(p.parts)]
    return {
        "rooms in fgonnx/": str(len(top)),
        "arrows between them": str(sum(map(len, top.values()))),
        "floors": str(floors(top)),
        "rooms that import each other in a circle": str(circles(top)),
        "files": str(len(checkout.files)),
        "imports between files": str(sum(map(len, checkout.imports.values()))),
        "longest chain of imports between files": str(floors(checkout.imports)),
        "most parameters of a function (*)": str(max(counts)),
        f"functions of over {MANY_PARAMETERS} parameters (*)": str(sum(v > MANY_PARAMETERS for v in counts)),
        f"functions over {LONG_FUNCTION} lines": str(sum(lines(f) > LONG_FUNCTION for _, f in functions)),
        f"files over {LONG_FILE} lines": str(sum(v > LONG_FILE for v in sizes.values())),
        "longest file, lines": str(max(sizes.values())),
        f"lines in repeated blocks of {BLOCK} or more": str(repeated(checkout.trees.values())),
        "`fmt: skip`, anywhere": str(sum(p.read_text(encoding="utf-8").count("# fmt: " + "skip") for p in scripts)),
        "lines of fgonnx/ and converters/": f"{sum(sizes.values()):,}",
        "statements in them, however laid out": f"{sum(map(statements, checkout.trees.values())):,}",
    }


def table(checkouts: Mapping[str, Checkout]) -> str:
    """Return the figures of several versions side by side, as Markdown."""
    columns = [figures(c) for c in checkouts.values()]
    rows = [f"| | {' | '.join(checkouts)} |", f"| --- |{' ---: |' * len(columns)}"]
    rows += [f"| {what} | {' | '.join(c[what] for c in columns)} |" for what in columns[0]]
    return "\n".join(rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], help="folders to measure; this one if none")
    parser.add_argument("--docs", action="store_true", help="put the table of OLD NEW into docs/house.md")
    given = parser.parse_args()
    checkouts = [Checkout(path.resolve()) for path in given.checkouts]
    if not given.docs:
        print(table({c.root.name: c for c in checkouts}))
        return
    old, new = checkouts
    page = ROOT / "docs" / "house.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    text = f"{before}{BEGIN}\n{table({'28f2bda': old, 'now': new})}\n{END}{rest.partition(END)[2]}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
