"""Pages of `fgonnx view` in headless Chromium, for tests."""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from fgonnx.engine.rewrite.options import Options
from fgonnx.jobs.reading import Reading
from fgonnx.view import server
from fgonnx.view.build import PageJob
from fgonnx.view.options import PageOptions
from tests import skips
from tests.cli_support import IMAGES, ROOT, SHAPES

ORT_WEB = ROOT / ".runtimes" / "node"
PATIENCE = 60_000
"""Milliseconds that a step may take on a machine that does much else."""


def ort_web() -> Path:
    """Return the folder of onnxruntime-web; skip without."""
    if not (ORT_WEB / "node_modules" / "onnxruntime-web" / "package.json").is_file():
        skips.now(skips.ENVIRONMENT, f"onnxruntime-web is not in {ORT_WEB}; npm install --prefix puts it there")
    return ORT_WEB


def write(folder, model=SHAPES, *, reading=None, options=None, **page):
    """Write a page; by default with the sample pictures of the project."""
    known = {"ort_web": ort_web(), "webgpu": False, "samples": (IMAGES,), "psis": ("abs", "signed"), **page}
    PageJob(model, options or Options(), reading or Reading(), PageOptions(**known)).write(folder)
    return folder


def launched(kind, *flags):
    """Start headless Chromium; skip without."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        skips.now(skips.BROWSER)
    return kind.launch(executable_path=path, args=["--no-sandbox", *flags])


@contextmanager
def serving(folder):
    """Yield the address of a folder's server."""
    with server.serving(folder) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.address(running)
        finally:
            running.shutdown()
            thread.join()


class Tab:
    """A page that is open: what went wrong is in `wrong`, what it asked for in `asked`."""

    def __init__(self, browser, **settings):
        self.context = browser.new_context(**settings)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda m: m.type == "error" and self.wrong.append(m.text))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address):
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]")
        return self

    def after(self, act):
        """Do something that makes the page explain, and wait until it has."""
        count = self.page.locator("html").get_attribute("data-ready")
        act()
        self.page.wait_for_selector(f'html:not([data-ready="{count}"])')

    def sample(self, name):
        self.after(self.page.locator(f'#gallery button[title="{name}"]').click)

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def result(self):
        """Return what is explained: map, score, target, input, contributions."""
        found = self.page.evaluate(
            """() => { const { result, prepared, prediction, target } = fgonnxPage; return {
                map: Array.from(result.map), size: result.size, score: result.score,
                target: target ?? prediction.decision.own, x: Array.from(prepared.data, Number),
                contributions: result.certificate && Array.from(result.certificate.contributions) } }"""
        )
        return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def browser():
    sync = skips.without("playwright.sync_api")
    with sync.sync_playwright() as play:
        opened = launched(play.chromium, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(scope="module")
def modules(browser):
    """A tab that can import the page's modules, as /page/NAME.js."""
    with serving(ROOT / "fgonnx" / "view") as address:
        context = browser.new_context()
        opened = context.new_page()
        opened.goto(f"{address}page/style.css")
        yield opened
        context.close()
