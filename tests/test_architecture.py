"""The layers of fgonnx: which part may import which, read from the source.

Imports inside of functions count as those at the top do: what is imported late is depended on all the same.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TERMINAL = ("typer", "click", "rich")
PICTURE = ("cv2", "PIL", "matplotlib", "fgonnx.opencv")

#: What a part must not import, by the part.
FORBIDDEN = {
    "fgonnx.engine": (
        *(
            f"fgonnx.{part}"
            for part in ("explain", "audit", "training", "pictures", "jobs", "serve", "cli", "converters")
        ),
        *TERMINAL,
        *PICTURE,
    ),
    "fgonnx.explain": ("fgonnx.pictures", "fgonnx.audit", "fgonnx.jobs", "fgonnx.serve", "fgonnx.cli", *PICTURE),
    "fgonnx.text": ("fgonnx.pictures", "fgonnx.audit", "fgonnx.jobs", "fgonnx.cli", *PICTURE, *TERMINAL),
    "fgonnx.pictures": ("fgonnx.explain", "fgonnx.audit", "fgonnx.jobs", "fgonnx.cli"),
    "fgonnx.audit": ("fgonnx.jobs", "fgonnx.cli"),
    "fgonnx.jobs": ("fgonnx.interactive", "fgonnx.serve", "fgonnx.view", "fgonnx.cli"),
    "fgonnx.view": ("fgonnx.interactive", "fgonnx.serve", "fgonnx.training", "fgonnx.cli", *TERMINAL),
    "fgonnx.serve": ("fgonnx.interactive", "fgonnx.training", "fgonnx.cli"),
    "fgonnx.interactive": ("fgonnx.serve", "fgonnx.cli", *TERMINAL),
    "fgonnx.cli": ("fgonnx.interactive",),
    "fgonnx.training": ("fgonnx.pictures", "fgonnx.audit", "fgonnx.jobs", "fgonnx.cli"),
    "fgonnx.errors": ("fgonnx",),
    "fgonnx.labels": ("fgonnx.engine", "fgonnx.explain", "fgonnx.pictures", "fgonnx.jobs", "fgonnx.cli", *PICTURE),
    "fgonnx.converters": ("fgonnx.jobs", "fgonnx.cli"),
}

#: What only imports with the training build of ONNX Runtime.
OF_THE_TRAINING_BUILD = {"fgonnx.engine.walk.witness.builder"}


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the names of their modules."""
    found = {}
    for folder, prefix in ((ROOT / "fgonnx", "fgonnx"), (ROOT / "converters", "fgonnx.converters")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((prefix, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def within(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


@cache
def imported(module: str, *, at_run_time: bool = False) -> frozenset[str]:
    """Return what a module imports: modules, and names out of them where these are modules.

    At run time, what is imported for annotations alone is not.
    """
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in _nodes(tree, at_run_time):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else source for name in inner}
    return frozenset(found - {"fgonnx"} if module != "fgonnx" else found)


def _nodes(tree: ast.AST, at_run_time: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if at_run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node, at_run_time)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the names along a circle, or none."""
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def part(module: str, depth: int) -> str:
    return ".".join(module.split(".")[: depth + 1])


def arrows(inside: str) -> dict[str, set[str]]:
    """Return which parts of a package, its packages and modules, import which others at run time."""
    depth = inside.count(".") + 1
    found: dict[str, set[str]] = {}
    for module in modules():
        if within(module, inside) and module != inside:
            targets = {m for m in imported(module, at_run_time=True) if within(m, inside) and m != inside}
            found.setdefault(part(module, depth), set()).update(part(m, depth) for m in targets)
    return {name: targets - {name} for name, targets in found.items()}


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_nothing_above_it(layer: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if within(module, layer)
        for name in sorted(imported(module))
        if any(within(name, f) and not (f == "fgonnx" and within(name, layer)) for f in FORBIDDEN[layer])
    ]
    assert wrong == []


def test_the_layers_are_there() -> None:
    assert set(FORBIDDEN) <= {part(m, 1) for m in modules()}


def test_nothing_but_the_command_line_knows_the_terminal() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if not within(module, "fgonnx.cli") and module != "fgonnx.__main__"
        for name in sorted(imported(module))
        if any(within(name, t) for t in TERMINAL)
    ]
    assert wrong == []


@pytest.mark.parametrize("inside", ["fgonnx", "fgonnx.engine", "fgonnx.audit", "fgonnx.pictures", "fgonnx.serve"])
def test_no_packages_import_one_another(inside: str) -> None:
    assert circle(arrows(inside)) == []


def test_no_modules_import_one_another() -> None:
    def real(name: str) -> bool:
        return name in modules() and name != "fgonnx"

    assert circle({m: set(filter(real, imported(m, at_run_time=True))) - {m} for m in modules() if real(m)}) == []


def test_the_engine_runs_without_pictures_and_terminal() -> None:
    names = sorted(m for m in modules() if within(m, "fgonnx.engine") and m not in OF_THE_TRAINING_BUILD)
    heavy = [*TERMINAL, *PICTURE, *(f for f in FORBIDDEN["fgonnx.engine"] if f.startswith("fgonnx."))]
    # the package itself is passed by: its public names reach further than the engine
    code = f"""
import importlib.machinery, importlib.util, sys
spec = importlib.machinery.ModuleSpec("fgonnx", None, is_package=True)
package = importlib.util.module_from_spec(spec)
package.__path__, package.__version__ = [{str(ROOT / "fgonnx")!r}], "0"
sys.modules["fgonnx"] = package
for name in {names}:
    importlib.import_module(name)
print([m for m in {heavy} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_an_import_is_seen_wherever_it_stands() -> None:
    seen = imported("fgonnx.cli.app")
    assert any(within(name, "typer") for name in seen)
    assert "fgonnx.errors" in set().union(*map(imported, modules()))
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
