"""A page as one HTML file: its modules joined in order, its other files inside as base64."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping

ENTRY = "page.js"

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) )", re.MULTILINE)
_NAMED = re.compile(r"^export (?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
_LIST = re.compile(r"^export \{([^}]*)\};$", re.MULTILINE)
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; connect-src blob:; img-src blob: data:; "
    "media-src blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(index: bytes, own: Mapping[str, bytes], files: Mapping[str, bytes]) -> bytes:
    """Return the page with everything inside.

    Parameters
    ----------
    index : bytes
        The HTML of the page.
    own : mapping of str to bytes
        Its modules and its style.
    files : mapping of str to bytes
        What modules load, by the names they use.
    """
    html = index.decode()
    inside = {name: base64.b64encode(content).decode() for name, content in files.items()}
    data = f"globalThis.fgonnxFiles = {json.dumps(inside)};"
    html = re.sub(r'(http-equiv="Content-Security-Policy" content=")[^"]*', lambda m: m[1] + _POLICY, html)
    parts = {
        r'<link rel="stylesheet" href="page/style.css">': f"<style>\n{own['style.css'].decode()}</style>",
        r'<script src="page/start.js"></script>': f"<script>{data}</script>",
        r'<script type="module" src="page/page.js"></script>': f'<script type="module">\n{joined(own)}</script>',
    }
    for tag, content in parts.items():
        assert html.count(tag) == 1
        html = html.replace(tag, content)
    return html.encode()


def joined(own: Mapping[str, bytes]) -> str:
    """Return the modules as one: each a function that returns its exports, after those that it imports."""
    texts = {name: content.decode() for name, content in own.items() if name.endswith(".js")}
    return "\n".join(_wrapped(name, texts[name]) for name in dict.fromkeys(_order(ENTRY, texts)))


def _order(name: str, texts: Mapping[str, str]) -> Iterator[str]:
    for _, other in _IMPORT.findall(texts[name]):
        yield from _order(other, texts)
    yield name


def _wrapped(name: str, text: str) -> str:
    names = [*_NAMED.findall(text), *(n.strip() for listed in _LIST.findall(text) for n in listed.split(","))]
    body = _LIST.sub("", _EXPORT.sub("", _IMPORT.sub(lambda m: f"const {{{m[1]}}} = {_scope(m[2])};", text)))
    body = body.replace("import.meta.url", "document.baseURI").replace("</script", r"<\/script")
    return f"const {_scope(name)} = (() => {{\n{body}\nreturn {{ {', '.join(names)} }};\n}})();"


def _scope(name: str) -> str:
    return "of_" + name.removesuffix(".js")
