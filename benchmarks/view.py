"""Time in the page of `fgonnx view`: `python -m benchmarks.view MODEL HOW ... --ort-web FOLDER`.

Each model is explained in headless Chromium, with and without isolation from other origins; the figures are the
shortest of the page's own times, of nine runs. `--picture FILE` takes a picture of the first model's page instead.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fgonnx.engine.rewrite.options import Options
from fgonnx.jobs.reading import Reading
from fgonnx.view import server
from fgonnx.view.build import PageJob
from fgonnx.view.options import PageOptions

RUNS = 9
TIMES = "[fgonnxPage.prediction.ms, fgonnxPage.result.ms]"


class _Plain(SimpleHTTPRequestHandler):
    """Any server: without headers that isolate the page."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _plain(folder: Path) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer((server.HOST, 0), partial(_Plain, directory=str(folder))) as running:
        yield running


def measure(browser: Any, running: ThreadingHTTPServer) -> dict[str, float]:
    """Return seconds until the page can be used, and milliseconds of both steps."""
    threading.Thread(target=running.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(server.address(running))
    found = []
    for run in range(1, RUNS + 1):
        page.wait_for_selector(f'html[data-ready="{run}"]', timeout=120_000)
        found.append(page.evaluate(TIMES))
        page.locator("#gallery button").first.click()
    load = float(page.locator("html").get_attribute("data-loaded")) / 1000
    threads = page.evaluate("fgonnxPage.sessions.threads")
    page.close()
    running.shutdown()
    predict, explain = (min(times) for times in zip(*found, strict=True))
    return {"threads": threads, "load": load, "predict": predict, "explain": explain}


def picture(model: Path, ort_web: Path | None, out: Path) -> None:
    """Take a picture of a page that shows the star."""
    from playwright.sync_api import sync_playwright

    page = PageOptions(webgpu=False, ort_web=ort_web, samples=(Path("examples/images"),))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        PageJob(model, Options(), Reading(), page).write(Path(folder))
        with server.serving(Path(folder)) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            opened = browser.new_page(viewport={"width": 1180, "height": 900})
            opened.goto(server.address(running))
            opened.wait_for_selector('html[data-ready="1"]')
            for run, name in ((2, "ring.png"), (3, "star.png"), (4, "star.png")):
                opened.locator(f'#gallery button[title="{name}"]').click()
                opened.wait_for_selector(f'html[data-ready="{run}"]')
            opened.screenshot(path=out, full_page=True)
            browser.close()
            running.shutdown()


def main() -> None:
    """Measure the models that are named, and print a table."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="+", help="models, each followed by its preprocessing, or 'own' for its metadata"
    )
    parser.add_argument("--ort-web", type=Path, help="folder of onnxruntime-web")
    parser.add_argument(
        "--picture", type=Path, help="a PNG to write: the page of the first model, of the sample pictures"
    )
    given = parser.parse_args()
    if given.picture is not None:
        picture(Path(given.models[0]), given.ort_web, given.picture)
        return
    print("| model | page | threads | load, s | predict, ms | explain, ms | explain / predict |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for model, how in zip(given.models[::2], given.models[1::2], strict=True):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                reading = Reading(preprocess=None if how == "own" else how)
                page = PageOptions(psis=("abs",), webgpu=False, ort_web=given.ort_web)
                size = sum(p.stat().st_size for p in PageJob(Path(model), Options(), reading, page).write(folder))
                for serving in (server.serving, _plain):
                    with serving(folder) as running:
                        f = measure(browser, running)
                    print(
                        f"| {Path(model).stem} | {size / 1e6:.1f} MB | {f['threads']} | {f['load']:.2f} | "
                        f"{f['predict']:.1f} | {f['explain']:.1f} | {f['explain'] / f['predict']:.1f} |",
                        flush=True,
                    )
        browser.close()


if __name__ == "__main__":
    main()
