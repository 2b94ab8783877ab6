"""The tables of docs/methods.md, from the registry: `python -m benchmarks.methods`."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from fgonnx.engine import methods


def table() -> str:
    """Return the table of methods."""
    rows = ["| method | what the map is | passes | in one file | source |", "| --- | --- | --- | --- | --- |"]
    for name in methods.names():
        m = methods.find(name)
        rows.append(f"| `{name}` | {m.note} | {m.cost} | {'yes' if m.drive is None else 'no'} | {m.source} |")
    return "\n".join(rows)


def settings() -> str:
    """Return the table of settings, each with what the docstring of its class says."""
    users: dict[type, list[str]] = {}
    for name in methods.names():
        users.setdefault(methods.find(name).settings, []).append(f"`{name}`")
    rows = ["| setting | default | of | meaning |", "| --- | --- | --- | --- |"]
    for kind, names in users.items():
        meanings = _attributes(kind)
        rows += [f"| `{f.name}` | {f.default} | {', '.join(names)} | {meanings[f.name]} |" for f in fields(kind)]
    return "\n".join(rows)


def _attributes(kind: type) -> dict[str, str]:
    """Return the meanings in a numpydoc section of attributes; those of a base class stand with it."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        doc = inspect.cleandoc(cls.__doc__ or "")
        for name, text in re.findall(r"^(\w+) : .*\n((?:    .*\n?)+)", doc, re.M):
            found[name] = " ".join(text.split())
    return found


if __name__ == "__main__":
    print(table(), settings(), sep="\n\n")
