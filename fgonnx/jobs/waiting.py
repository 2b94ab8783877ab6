"""The option of every server: how long a request waits for others to be run with."""

from __future__ import annotations

from typing import Any

from fgonnx.fields import option


def waiting(panel: str, most: int, where: str = "") -> Any:
    """Return an option class's field: milliseconds that a request waits, `most` of them; `where` says when it does."""
    return option(
        0.0,
        f"Milliseconds that a request waits for others to be run with{where}.",
        panel=panel,
        metavar="MS",
        least=0,
        most=most,
    )
