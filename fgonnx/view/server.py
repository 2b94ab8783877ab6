"""A server for a page, on this machine alone: isolated from other origins, so that WebAssembly may use threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fgonnx.errors import OptionError
from fgonnx.wording import parameter

HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Handler(SimpleHTTPRequestHandler):
    """Gives the files of one folder to programs that ask for this machine by name."""

    extensions_map = {  # noqa: RUF012, of the base class
        "": "application/octet-stream",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".webp": "image/webp",
        ".gif": "image/gif",
        ".txt": "text/plain; charset=utf-8",
    }

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        # A page elsewhere may name this address in its own domain.
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host in _NAMES:
            return True
        self.send_error(403, "This page is for this machine alone")
        return False

    def send_head(self) -> Any:
        try:
            return super().send_head()
        except ValueError:  # a name that no file system takes, as with a null byte
            return self.list_directory(self.path)

    def list_directory(self, path: Any) -> None:
        self.send_error(404, "There is no such file")

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a browser that closes a connection


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    """Yield a server of a folder; it serves when its `serve_forever` runs, and is closed at the end.

    Parameters
    ----------
    folder : Path
        What it gives out.
    port : int
        Its port on the loopback address; 0 for a free one.

    Raises
    ------
    OptionError
        The port is taken or not allowed.
    """
    try:
        server = _Server((HOST, port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise OptionError(f"{parameter('port', port)} cannot be used ({error}); give another one, or 0") from error
    try:
        yield server
    finally:
        server.server_close()


def address(server: ThreadingHTTPServer) -> str:
    """Return the address of a server's page."""
    return f"http://{HOST}:{server.server_address[1]}/"
