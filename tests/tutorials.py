"""Running a page of docs/converters as a reader would: its Python, and its commands, from top to bottom."""

import re
import shlex
import shutil

from tests.cli_support import IMAGES, ROOT, good

PAGES = ROOT / "docs" / "converters"


def follow(name, folder, monkeypatch):
    """Run every block of a page in one namespace, in an empty folder with pictures in photos/."""
    shutil.copytree(IMAGES, folder / "photos")
    monkeypatch.chdir(folder)
    namespace = {"__name__": f"tutorial_{name}"}
    blocks = re.findall(r"```(python|sh)\n(.*?)```", (PAGES / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
    for language, text in blocks:
        if language == "python":
            exec(compile(text, f"{name}.md", "exec"), namespace)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "fgonnx"
            good(*arguments)
