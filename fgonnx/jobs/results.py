"""The tables of an evaluation as CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgonnx import files
from fgonnx.audit.evaluate.journal import Journal

_COLUMNS = ("image", "label", "predicted", "target", "method", "measure", "quantity", "value")


def write_results(
    path: Path,
    journal: Journal,
    about: Mapping[str, Mapping[str, Any]],
    methods: Sequence[str],
    measures: Sequence[str],
) -> None:
    """Write results.csv row by row: it has samples x methods x measures x quantities rows."""
    wanted = {(method, measure) for method in methods for measure in measures}
    with (
        files.replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        for row in journal.rows():
            if (row.method, row.measure) not in wanted:
                continue
            for quantity, values in row.measured.values.items():
                for image, value in zip(row.images, values.tolist(), strict=True):
                    table.writerow(
                        {
                            **about[image],
                            "method": row.method,
                            "measure": row.measure,
                            "quantity": quantity,
                            "value": value if math.isfinite(value) else None,
                        }
                    )


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of values."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files.write_text(path, text.getvalue())
