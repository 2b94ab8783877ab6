"""onnxruntime-web in headless Chromium: `python run_web.py FOLDER STEM KEY`; RUNTIME_DIST is its folder `dist`.

A server on the loopback address hands out the files, isolated as threads of WebAssembly require, and takes the results.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder, stem, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
dist, backend = Path(os.environ["RUNTIME_DIST"]), os.environ.get("BACKEND", "wasm")
done = threading.Event()
KINDS = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
GPU = [
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--ignore-gpu-blocklist",
]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        roots = {"/dist/": dist, "/case/": folder}
        found = next((root / path[len(start) :] for start, root in roots.items() if path.startswith(start)), None)
        if path == "/":
            found = Path(__file__).with_name("web.html")
        if found is None or not found.is_file():
            self.send_error(404)
            return
        self.answer(found.read_bytes(), KINDS.get(found.suffix, "application/octet-stream"))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/put/"):
            (folder / Path(self.path).name).write_bytes(body)
        self.answer(b"", "text/plain")
        if self.path == "/done":
            done.set()

    def answer(self, body, kind):
        self.send_response(200)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Embedder-Policy", "require-corp"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
offer = "&offer=1" if os.environ.get("OFFER") else ""
url = f"http://127.0.0.1:{server.server_port}/?stem={stem}&key={key}&backend={backend}{offer}"
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    flags += GPU if backend == "webgpu" else ["--disable-gpu"]
    browser = subprocess.Popen([os.environ.get("CHROMIUM", "chromium"), *flags, url], stderr=subprocess.DEVNULL)
    try:
        finished = done.wait(float(os.environ.get("LIMIT", "120")))
    finally:
        browser.terminate()
        browser.wait(20)
if not finished:
    sys.exit("no answer in time")
found = json.loads((folder / f"{stem}.{key}.json").read_text())
if "error" in found:
    sys.exit(found["error"])
