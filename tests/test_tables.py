"""Tables on terminals of 50 to 200 columns: no line is wider, and names break at their separators only."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from fgonnx.cli import tables, terminal

NAMES = {
    "a file": "circle.png",
    "a long file": "a_very_long-name_of_a_picture_from_the_street_0001.jpg.png",
    "a path": "holiday/2024/beach/evening/panorama-west.jpeg",
    "a node": "/model/layers.10/self_attn/q_proj/MatMul_output_0",
    "a module": "backbone.stages.2.blocks.11.norm1.weight",
    "words": "the picture of a cat (0.9831, 97.3%)",
    "wide letters": "写真_フォルダ/猫の写真.png",
}
SEPARATORS = "/\\_-.: "


def printed(width, name, score="9.1342"):
    console = Console(width=width, record=True, file=io.StringIO())
    table = terminal.table("picture", "target", "score", "residual", "written", title="Made", numbers=("score",))
    terminal.row(table, name, "same", score, "1e-07", name)
    tables.show(console, table)
    return console.export_text()


@pytest.mark.parametrize("width", [50, 58, 64, 72, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_break_at_separators_only(width, name):
    text = printed(width, name)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "9.1342" in text
    assert "1e-07" in text
    whole = re.sub(r"\s", "", name)
    for pieces in _stacked(text, name):
        assert re.sub(r"\s", "", "".join(pieces)) == whole
        for piece in pieces[:-1]:
            assert piece[-1] in SEPARATORS or name[name.index(piece) + len(piece)] == " ", piece


def _stacked(text, name):
    """Return the pieces of the name that stand below each other, in a table or in a list."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any("─" in line for line in lines):
        rule = next(i for i, line in enumerate(lines) if "─" in line)
        head = next(line for line in lines[:rule] if "written" in line)
        starts = [0, head.index("written")]
        ends = [lines[rule - 1].index("target") if "target" in lines[rule - 1] else head.index("target"), None]
        columns = [[_cut(line, a, b).strip() for line in lines[rule + 1 :]] for a, b in zip(starts, ends, strict=True)]
        return [[p for p in column if p] for column in columns]
    last = next(i for i, line in enumerate(lines) if line.startswith("written"))
    return [[line.removeprefix("written").strip() for line in lines[last:]]]


def _cut(line, start, end):
    """Return the part of a line between two columns of the terminal."""
    at, found = 0, ""
    for character in line:
        if at >= start and (end is None or at < end):
            found += character
        at += cell_len(character)
    return found


@pytest.mark.parametrize("width", [50, 200])
def test_a_table_without_rows_is_printed(width):
    console = Console(width=width, record=True, file=io.StringIO())
    tables.show(console, terminal.table("node", "operator"))
    assert width == 50 or "operator" in console.export_text()


def test_short_texts_are_not_cut_into_three_lines():
    console = Console(width=50, record=True, file=io.StringIO())
    table = terminal.table("layer of A", "in B", "compared", "added here", "so far")
    terminal.row(table, "/head/Gemm", "/a/head/Gemm", "what it reads", "160.40%", "160.40%")
    tables.show(console, table)
    assert "/a/head/Gemm" in console.export_text()
