"""Hooks of the documentation site (mkdocs.yml): pages from outside docs/, links to them, headings as on GitHub."""

from __future__ import annotations

import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pymdownx import slugs

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")
"""Pages of the repository that are pages of the site, too, under the same names."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s#]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_API = "Reference"
_SHIM = "https://unpkg.com/iframe-worker/shim"  # which the theme would fetch


def on_config(config: Any) -> Any:
    """Give headings the fragments that GitHub gives them, and name the pages that mkdocs.yml does not."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugs.slugify(case="lower")
    named = set(re.findall(r"'([^']+\.md)'", repr(config.nav)))
    there = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    left = sorted(there - named)
    reference = next(part[_API] for part in config.nav if _API in part)
    reference += [p for p in left if p.startswith("api/")]
    if more := [p for p in left if not p.startswith("api/")]:
        config.nav.insert(-1, {"More": more})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between places of the repository into links of the site; what the site lacks is named, not linked."""
    here = page.file.src_uri
    place = here if here in OUTSIDE else f"docs/{here}"

    def moved(found: re.Match[str]) -> str:
        picture, text, target, fragment = found[1], found[2], found[3], found[4] or ""
        there = posixpath.normpath(posixpath.join(posixpath.dirname(place), target)) if target else place
        uri = there.removeprefix("docs/") if there not in OUTSIDE else there
        if (there.startswith("docs/") or there in OUTSIDE) and files.get_file_from_path(uri) is not None:
            return f"{picture}[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{fragment})"
        if not (ROOT / there).exists():
            return found[0]  # mkdocs says so
        return text

    shown = _outputs(ROOT / "docs" / here)
    parts = _FENCE.split(markdown)
    return "".join(part + shown.get(i // 2, "") if i % 2 else _LINK.sub(moved, part) for i, part in enumerate(parts))


def _outputs(page: Path) -> dict[int, str]:
    """Return what the notebook of a page shows under each of its blocks."""
    notebook = page.with_suffix(".ipynb")
    if not notebook.exists():
        return {}
    found: dict[int, str] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        block = cell["metadata"].get("block")
        for output in cell.get("outputs", ()) if block is not None else ():
            found[block] = found.get(block, "") + _output(output)
    return found


def _output(output: dict[str, Any]) -> str:
    if "text" in output:
        return f"\n``` {{ .text .output }}\n{''.join(output['text'])}```\n"
    data = output["data"]
    said = html.escape("".join(data["text/plain"]))
    if "image/png" not in data:
        return f"\n``` {{ .text .output }}\n{said}\n```\n"
    return f'\n<p><img alt="{said}" src="data:image/png;base64,{"".join(data["image/png"]).strip()}"></p>\n'


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Have notebooks downloaded, since browsers show their source."""
    return re.sub(r'(<a href="[^"]*\.ipynb")', r"\1 download", content)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Have the search's worker from the site itself."""
    return output.replace(_SHIM, posixpath.relpath("worker.js", posixpath.dirname(page.file.dest_uri) or "."))
