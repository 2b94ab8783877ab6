"""Write the tutorials as notebooks, with what their cells show: `python docs/build_notebooks.py` (extra `notebooks`).

A page of docs/tutorials/ is the source: its text, its Python, and its commands as `!command`. A name that stands
alone on a line ends a cell, which then shows it; so does a picture that the command above it makes. The site puts the
outputs of the notebooks under the blocks of the pages (docs/site_hooks.py).
"""

from __future__ import annotations

import ast
import base64
import io
import os
import posixpath
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
_WIDEST = 1000  # of a picture, in pixels
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "README.md")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"^!\[([^\]]*)\]\(\.\./images/gallery/([\w-]+)\.png\)\n", re.MULTILINE)
_SELF = re.compile(r"^\[This page as a notebook\].*\n\n", re.MULTILINE)
_FOLDER = """\
# Results go to a folder of their own, and nothing into the checkout.
import os, shutil, tempfile
from pathlib import Path

checkout = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "examples" / "shapes.onnx").exists())
folder = tempfile.mkdtemp(prefix="fgonnx-")
shutil.copytree(checkout / "examples", Path(folder, "examples"))
os.chdir(folder)"""


def notebook(page: Path) -> NotebookNode:
    """Return the notebook of a page, not run; code cells know which block of the page they are of."""
    text = _SELF.sub("", page.read_text(encoding="utf-8"))
    at, command = text.index("\n") + 1, ""
    cells = [_said(text[:at]), v4.new_code_cell(_FOLDER, metadata={"tags": ["folder"]})]
    for i, block in enumerate(_BLOCK.finditer(text)):
        cells += _prose(text[at : block.start()], command)
        command = block[2] if block[1] == "sh" else ""
        parts = _commands(block[2]) if command else _shown(block[2])
        cells += [v4.new_code_cell(part, metadata={"block": i}) for part in parts]
        at = block.end()
    cells += _prose(text[at:], command)
    for i, cell in enumerate(cells):
        cell["id"] = f"{page.stem}-{i}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def _commands(block: str) -> list[str]:
    return ["\n".join(f"!{line}" for line in block.splitlines())]


def _shown(block: str) -> list[str]:
    """Split a block after every name that stands alone, since a cell shows its last line."""
    lines, start, parts = block.splitlines(), 0, []
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name):
            parts.append(lines[start : statement.end_lineno])
            start = statement.end_lineno or 0
    parts.append(lines[start:])
    return [said for part in parts if (said := "\n".join(part).strip())]


def _prose(text: str, command: str) -> list[NotebookNode]:
    """Return the cells of a text; where the picture in it is one that the command before it made, show that one."""
    cells, at = [], 0
    for picture in _PICTURE.finditer(text):
        made = _made(picture[2], command)
        if made is not None:
            cells += [_said(text[at : picture.start()]), v4.new_code_cell(_image(made), metadata={"tags": ["picture"]})]
            at = picture.end()
    return [cell for cell in (*cells, _said(text[at:])) if cell["source"]]


def _said(text: str) -> NotebookNode:
    return v4.new_markdown_cell(text.strip())


def _image(path: str) -> str:
    return f'from IPython.display import Image\n\nImage("{path}", width=900)'


def _made(name: str, command: str) -> str | None:
    """Return where a command writes a picture of the gallery; None where it does not."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.gallery import GALLERY

    picture = next(one.picture for one in GALLERY if one.name == name)
    for line in reversed(command.splitlines()):
        words = shlex.split(line)
        if "-o" in words:
            return posixpath.join(words[words.index("-o") + 1], picture)
    return None


@contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """Have the kernel find this checkout, its command, and the Python that runs here; and tables of one width."""
    program = folder / "fgonnx"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom fgonnx.cli import main\n\nsys.exit(main())\n")
    program.chmod(0o755)
    before = dict(os.environ)
    path = [str(folder), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    os.environ.update(
        PATH=os.pathsep.join(path),
        PYTHONPATH=str(ROOT),
        FGONNX_CACHE="off",
        COLUMNS="120",
        JUPYTER_PLATFORM_DIRS="1",
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def executed(given: NotebookNode) -> NotebookNode:
    """Run a notebook from top to bottom and return it with its outputs; a command that fails is an error."""
    run = nbformat.from_dict(given)
    for cell in run.cells:
        if cell["cell_type"] == "code":
            cell["source"] = re.sub(r"^(!.*)$", r"\1\nassert _exit_code == 0", cell["source"], flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as name, _surroundings(Path(name)):
        resources = {"metadata": {"path": str(FOLDER)}}
        NotebookClient(
            run, timeout=300, kernel_name="python3", resources=resources, record_timing=False, coalesce_streams=True
        ).execute()
    for cell, original in zip(run.cells, given.cells, strict=True):
        cell["source"] = original["source"]
        for output in cell.get("outputs", ()):
            _lighten(output)
            if "text" in output:
                output["text"] = _plain(output["text"])
    run["metadata"] = given["metadata"]
    return run


def _lighten(output: NotebookNode) -> None:
    """Keep one picture of an output, not wider than a page."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    data.pop("text/html", None)
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    if picture.width > _WIDEST:
        picture = picture.resize((_WIDEST, round(picture.height * _WIDEST / picture.width)), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.convert("RGB").save(written, "png", optimize=True)
    data["image/png"] = base64.b64encode(written.getvalue()).decode()


def _plain(text: str) -> str:
    """Return what a terminal shows, without colours and spaces that nobody sees."""
    lines = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text).replace("\r", "").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def main() -> None:
    """Run every page, and write its notebook."""
    for page in PAGES:
        nbformat.write(executed(notebook(page)), page.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
