"""Write docs/api/ from the docstrings: `python docs/build_api.py` (needs griffelib, in the extra `docs`).

griffe reads the source, so that no framework and no runtime has to be installed; this script lays out what it finds.
Only classes whose docstring is made when they are (`documented`) are imported.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "api"
FRAMEWORKS = ("torch", "keras", "tensorflow", "tflite", "jax", "sklearn", "paddle")
MODULES = {
    "fgonnx": "fgonnx",
    "fgonnx.methods": "fgonnx.methods",
    "fgonnx.rules": "fgonnx.rules",
    "fgonnx.targets": "fgonnx.targets",
    "fgonnx.evaluate": "fgonnx.evaluate",
    "fgonnx.auditing": "fgonnx.auditing",
    "fgonnx.training": "fgonnx.training",
    "fgonnx.errors": "fgonnx.errors",
    "fgonnx.labels": "fgonnx.labels",
    "fgonnx.converters": "converters",  # the folder in a checkout
    **{f"fgonnx.converters.{name}": f"converters.{name}" for name in FRAMEWORKS},
}
"""Public modules, by the name they are imported under: where their source is."""

ONE_FUNCTION = {f"fgonnx.converters.{name}": ("convert",) for name in FRAMEWORKS}
"""What is public of modules that do not say so by `__all__`, where that is not every name without an underscore."""

WIDTH = 100


def pages() -> dict[str, str]:
    """Return the text of every page, by its file name."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # it warns of parameters that share one description
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser="numpy")
    for package in ("fgonnx", "converters"):
        loader.load(package)
    loader.resolve_aliases()
    modules = {public: loader.modules_collection[source] for public, source in MODULES.items()}
    written = {f"{public}.md": page(public, module) for public, module in modules.items()}
    return {"README.md": index(modules), **written}


def index(modules: dict[str, griffe.Module]) -> str:
    """Return the page that lists the modules."""
    rows = "".join(f"| [`{name}`]({name}.md) | {summary(module)} |\n" for name, module in modules.items())
    return (
        "# API reference\n\n"
        "The public modules. [What is public, and how it changes](../stability.md) says what may change and when.\n"
        "Written by `python docs/build_api.py` from the docstrings.\n\n"
        f"| module | contents |\n| --- | --- |\n{rows}"
    )


def page(name: str, module: griffe.Module) -> str:
    """Return the page of one module."""
    members = list(public_members(name, module))
    rows = "".join(f"| [`{n}`]({_link(name, n, member)}) | {summary(member)} |\n" for n, member in members)
    text = [f"# `{name}`", described(module), f"| name | |\n| --- | --- |\n{rows}".rstrip()]
    for n, member in members:
        if not member.is_module:
            text += entry(n, member, 2)
    return "\n\n".join(part for part in text if part) + "\n"


def _link(module: str, name: str, member: griffe.Object) -> str:
    return f"{module}.{name}.md" if member.is_module else f"#{anchor(name)}"


def public_members(name: str, module: griffe.Module) -> Iterator[tuple[str, griffe.Object]]:
    """Yield the public names of a module with what they stand for.

    A module among them that has no page of its own stands for its functions.
    """
    chosen = ONE_FUNCTION.get(name) or module.exports or _unmarked(module)
    for n in sorted((str(n) for n in chosen if not str(n).startswith("__")), key=str.lower):
        member = final(module.members[n])
        if member.is_module and n in module.imports:  # a function that has the name of a package
            member = final(module.modules_collection[module.imports[n]])
        if member.is_module and f"{name}.{n}" not in MODULES:
            functions = {k: m for k, m in member.members.items() if not k.startswith("_") and not m.is_alias}
            yield from ((f"{n}.{k}", final(m)) for k, m in functions.items() if m.is_function)
        else:
            yield n, member


def _unmarked(module: griffe.Module) -> list[str]:
    return [n for n, m in module.members.items() if not n.startswith("_") and not m.is_alias and m.has_docstring]


def final(member: griffe.Object | griffe.Alias) -> griffe.Object:
    """Return what a name stands for, through imports."""
    return member.final_target if isinstance(member, griffe.Alias) else member


def entry(name: str, member: griffe.Object, level: int) -> Iterator[str]:
    """Yield the section of one name, and of the methods of a class."""
    yield f"{'#' * level} `{name}`"
    if signed := signature(name, member):
        yield f"```text\n{signed}\n```"
    yield described(member)
    if level == 2:
        path = Path(str(member.filepath)).relative_to(ROOT).as_posix()
        yield f"Source: [{path}](../../{path})"
    if isinstance(member, griffe.Class):
        for n, m in _members(member).items():
            method = isinstance(m, griffe.Function) or (isinstance(m, griffe.Attribute) and "property" in m.labels)
            if method and m.has_docstring and (not n.startswith("_") or n == "__call__"):
                yield from entry(f"{name}.{n}", final(m), level + 1)


def _members(member: griffe.Class) -> dict[str, griffe.Object]:
    """Return the members of a class, and those it takes from an inner class of its name, which has no section."""
    found = {n: final(m) for n, m in member.members.items()}
    for base in member.resolved_bases:
        if base.name == member.name and isinstance(base, griffe.Class):
            found |= {n: m for n, m in _members(base).items() if n not in found}
    return found


def signature(name: str, member: griffe.Object) -> str:
    """Return how a function or class is called, or the value of a constant."""
    if isinstance(member, griffe.Attribute):
        if "property" in member.labels:
            return f"{name}: {member.annotation}"
        value = str(member.value)
        return f"{name} = {value}" if member.value is not None and len(value) <= WIDTH else ""
    if not isinstance(member, griffe.Class | griffe.Function):
        return ""
    if (made := _imported(member)) is not None:
        fields = inspect.signature(made).parameters.values()
        return f"{name}(\n    *,\n" + "".join(f"    {f.name}: {f.annotation} = {f.default!r},\n" for f in fields) + ")"
    shown = str(member.signature(name=name.rpartition(".")[2] if isinstance(member, griffe.Class) else name))
    if len(shown) <= WIDTH:
        return shown
    parameters = [p for p in member.parameters if p.name not in ("self", "cls")]
    lines, kind = [], None
    for p in parameters:
        if p.kind is griffe.ParameterKind.keyword_only and kind not in (
            griffe.ParameterKind.keyword_only,
            griffe.ParameterKind.var_positional,
        ):
            lines.append("*")
        lines.append(_parameter(p))
        kind = p.kind
    head = name.rpartition(".")[2] if isinstance(member, griffe.Class) else name
    returns = f" -> {member.returns}" if isinstance(member, griffe.Function) and member.returns is not None else ""
    return f"{head}(\n" + "".join(f"    {line},\n" for line in lines) + f"){returns}"


def _imported(member: griffe.Object) -> Any:
    """Return the class itself where its docstring is made on import; None elsewhere."""
    if not isinstance(member, griffe.Class) or "documented" not in {str(d.value) for d in member.decorators}:
        return None
    return getattr(importlib.import_module(member.module.path), member.name)


def _parameter(p: griffe.Parameter) -> str:
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    starred = stars.get(p.kind, "") if p.kind else ""
    text = starred + p.name
    if p.annotation is not None:
        text += f": {p.annotation}"
    if p.default is not None and not starred:
        text += f" = {p.default}" if p.annotation is not None else f"={p.default}"
    return text


def summary(member: griffe.Object) -> str:
    """Return the first paragraph of a docstring, as one line."""
    text = member.docstring.value.partition("\n\n")[0] if member.docstring else ""
    return " ".join(text.split()).replace("|", "\\|")


def described(member: griffe.Object) -> str:
    """Return a docstring as Markdown."""
    if member.docstring is None:
        return ""
    made = _imported(member)
    text = member.docstring.value if made is None else inspect.getdoc(made) or ""
    prose = griffe.Docstring(text)  # without its parent, so that types stay words
    blocks = [block for section in prose.parse("numpy", warnings=False) for block in _section(section)]
    return "\n\n".join(b for b in blocks if b)


def _section(section: griffe.DocstringSection) -> Iterable[str]:
    kind, value = section.kind, section.value
    if kind is griffe.DocstringSectionKind.text:
        return [value.strip()]
    if kind is griffe.DocstringSectionKind.admonition:
        return [f"**{section.title or value.kind.title()}**", str(value.contents).strip()]
    if kind is griffe.DocstringSectionKind.examples:
        blocks = [
            text.strip() if of is griffe.DocstringSectionKind.text else f"```pycon\n{text.strip()}\n```"
            for of, text in value
        ]
        return ["**Examples**", *blocks]
    heading = kind.value.replace("_", " ").capitalize()
    return [f"**{heading}**", "\n".join(_item(item) for item in value)]


def _item(item: griffe.DocstringElement) -> str:
    name = getattr(item, "name", "")
    label = " : ".join(f"`{part}`" for part in (name, _type(item)) if part)
    text = " ".join(item.description.split())
    return textwrap.fill(f"- {label}" + (f": {text}" if text else ""), 10**6)


def _type(item: griffe.DocstringElement) -> str:
    text = " ".join(str(item.annotation).split()) if item.annotation is not None else ""
    return f"{{{text}}}" if text.startswith('"') else text  # griffe takes the braces of a choice away


def anchor(name: str) -> str:
    """Return the fragment that GitHub gives to the heading of a name."""
    return "".join(c for c in name.lower() if c.isalnum() or c in "_-")


def write() -> None:
    """Write all pages, and delete those of modules that there are no longer."""
    PAGES.mkdir(exist_ok=True)
    texts = pages()
    for old in PAGES.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write()
