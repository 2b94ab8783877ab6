"""How long the tutorials take, and how long they are: `python -m benchmarks.tutorials` writes docs/tutorials/README.md.

Every page is followed in a process of its own, with the runner of the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
MARKS = ("<!-- python -m benchmarks.tutorials: begin -->\n", "<!-- end -->")
DONE = {
    "misclassification": "find out why a network calls a circle a star",
    "int8": "hold a quantised model against the approved one, with an exit code",
    "detector": "explain one detection among hundreds",
    "audio": "find the part of a recording that an answer is about",
    "own-method": "write a method, and measure it beside others",
}
"""What a reader does, by the name of the page."""

HEAD = "| tutorial | what you do | lines | seconds |\n| --- | --- | ---: | ---: |\n"


def lines_of(page: Path) -> int:
    """Return how many lines of Python and of commands a page has, without empty ones."""
    blocks = re.findall(r"```(?:python|sh)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return sum(bool(line.strip()) for block in blocks for line in block.splitlines())


def seconds_of(page: Path) -> float:
    """Follow a page and return how long it took."""
    code = f"from pathlib import Path; from tests.test_tutorials import follow; follow(Path({str(page)!r}))"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder, "examples"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FGONNX_CACHE": "off"}
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Write the rows."""
    rows = HEAD
    for name, done in DONE.items():
        page = FOLDER / f"{name}.md"
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows += f"| [{title}]({name}.md) | {done} | {lines_of(page)} | {seconds_of(page):.0f} |\n"
    index = FOLDER / "README.md"
    before, rest = index.read_text(encoding="utf-8").split(MARKS[0])
    index.write_text(f"{before}{MARKS[0]}{rows}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
