"""Pages of results: one self-contained HTML file each, on a common base with styles for dark, narrow and paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2


def render(package: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    package : str
        The package with its template, page.html, which extends base.html.
    filters : mapping of str to callable, optional
        Filters of the template.
    **values
        What the template shows.
    """

    def text(source: str, name: str) -> str:
        return resources.files(source).joinpath(name).read_text(encoding="utf-8")

    loader = jinja2.DictLoader(
        {"base.html": text("fgonnx.pictures.show", "base.html"), "page": text(package, "page.html")}
    )
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(filters or {})
    return environment.get_template("page").render(**values)
