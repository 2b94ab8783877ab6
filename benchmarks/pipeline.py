"""Pictures per second from a folder to explanations on disk, beside the bare engine: `python -m benchmarks.pipeline`.

Draws a folder of JPEG files and explains them: by the bare session on ready arrays, by a loop in Python (read,
preprocess, explain, store the map), and by the command `fgonnx explain`, each in turn. With --watch, the command's
memory is followed over a long run instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import fgonnx
from benchmarks import machine, memory, networks
from benchmarks.families import realistic
from benchmarks.networks import Network
from benchmarks.sessions import bare
from fgonnx.pictures.read import images, presets
from fgonnx.pictures.read.complete import complete

PRESET = "imagenet"
HEADINGS = ("seconds", "start, s", "pictures/s", "of the bare session")
#: Different pictures in a folder; more files are links to them.
DRAWN = 32


@dataclass(frozen=True)
class Rate:
    """How fast one way of explaining is.

    Attributes
    ----------
    way : str
        In words.
    seconds : float
        Median for the whole folder.
    start : float
        Of these, until the first picture is done: loading and rewriting. 0 where that happened beforehand.
    per_second : float
        Pictures per second after that.
    """

    way: str
    seconds: float
    start: float
    per_second: float


def draw(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write seeded pictures of (width, height), the first DRAWN as files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    for i in range(count):
        path = folder / f"{i:06d}.jpg"
        if i >= DRAWN:
            os.link(folder / f"{i % DRAWN:06d}.jpg", path)
            continue
        pixels = realistic.pictures(1, (3, height, width), seed=i)[0].transpose(1, 2, 0)
        cv2.imwrite(os.fspath(path), np.clip(128 + 50 * pixels, 0, 255).astype(np.uint8))


def command(model: Path, folder: Path, out: Path, preset: str, batch: int, threads: int) -> list[str]:
    """Return the command line that explains a folder."""
    where = map(os.fspath, (model, folder))
    return [
        sys.executable,
        "-m",
        "fgonnx",
        "explain",
        *where,
        "-o",
        os.fspath(out),
        "--preprocess",
        preset,
        "--batch-size",
        str(batch),
        "--threads",
        str(threads),
    ]


def in_python(explainer: fgonnx.Explainer, network: Network, files: Sequence[Path], out: Path, preset: str) -> None:
    """Explain files one batch after the other and store every map."""
    out.mkdir(exist_ok=True)
    how = complete(presets.parse(preset), (None, *network.shape), np.float32)
    for i in range(0, len(files), explainer.running.batch_size):
        part = files[i : i + explainer.running.batch_size]
        x = np.stack([how.apply(images.read(path).rgb) for path in part])
        for path, saliency in zip(part, explainer(x).saliency, strict=True):
            np.save(out / path.stem, saliency)


def measure(network: Network, count: int, size: tuple[int, int], batch: int, threads: int, rounds: int) -> list[Rate]:
    """Explain a folder in all ways by turns."""
    model, preset = network.path(), _preset(network)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        draw(home / "pictures", count, size)
        draw(home / "one", 1, size)
        files = sorted((home / "pictures").iterdir())
        explainer = fgonnx.Explainer(model, certificate=False, threads=threads, batch_size=batch)
        in_python(explainer, network, files[:batch], home / "python", preset)
        engine = bare(fgonnx.rewrite(model, outputs=("saliency",)), network.inputs(batch), threads)

        def cli(folder: str) -> Callable[[], None]:
            arguments = command(model, home / folder, home / "out", preset, batch, threads)

            def call() -> None:
                subprocess.run(arguments, check=True, capture_output=True)

            return call

        def folder_of_batches() -> None:
            for _ in range(0, count, batch):
                engine()

        ways: dict[str, Callable[[], None]] = {
            "bare session": folder_of_batches,
            "in Python": lambda: in_python(explainer, network, files, home / "python", preset),
            "command": cli("pictures"),
            "command, one picture": cli("one"),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, call in ways.items():
                start = time.perf_counter()
                call()
                seconds[way].append(time.perf_counter() - start)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    first = median.pop("command, one picture")
    rates = []
    for way, total in median.items():
        start, left = (first, count - 1) if way == "command" else (0.0, -(-count // batch) * batch)
        rates.append(Rate(way, total, start, left / max(total - start, 1e-9)))
    return rates


def watch(network: Network, count: int, size: tuple[int, int], batch: int, threads: int) -> list[int]:
    """Return the resident bytes of the command at even distances while it explains `count` pictures."""
    found: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        draw(home / "pictures", count, size)
        arguments = command(network.path(), home / "pictures", home / "out", _preset(network), batch, threads)
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            found.append(memory.now(process.pid))
            time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"the command ended with code {process.returncode}")
    return [m for m in found if m]


def growth(samples: Sequence[int]) -> tuple[int, int]:
    """Return the median memory in the second quarter of a run, and how much larger it is in the last quarter."""
    quarter = max(1, len(samples) // 4)
    early = int(statistics.median(samples[quarter : 2 * quarter] or samples))
    return early, int(statistics.median(samples[-quarter:])) - early


def cells(rates: Sequence[Rate]) -> list[list[str]]:
    """Return one row of text per way: HEADINGS behind its name."""
    base = rates[0].per_second
    return [
        [r.way, f"{r.seconds:.2f}", f"{r.start:.2f}", f"{r.per_second:.1f}", f"{r.per_second / base:.0%}"]
        for r in rates
    ]


def section(content: dict[str, Any]) -> str:
    """Return stored results as a section of docs/speed.md."""
    text = ""
    if rates := content.get("rates"):
        width, height = rates["size"]
        rows = cells([Rate(**r) for r in rates["rates"]])
        text += (
            f"{rates['network']}, {rates['count']} pictures of {width} x {height}, batches of {rates['batch']}, "
            f"{rates['threads']} threads on {rates['machine']['processor']}, {rates['date']}. *Start* is loading and "
            "rewriting; the rate\ndoes not include it.\n\n"
            + "".join(
                f"| {' | '.join(row)} |\n" for row in (("", *HEADINGS), ["---"] + ["---:"] * len(HEADINGS), *rows)
            )
        )
    if followed := content.get("memory"):
        early, more = followed["early"] / 1e6, followed["growth"] / 1e6
        text += (
            f"\n{followed['count']:,} pictures in a row through {followed['network']}: {early:.0f} MB resident in the "
            f"second\nquarter of the run, {more:+.1f} MB from there to the last.\n"
        )
    return text


def _preset(network: Network) -> str:
    return f"{PRESET},size={network.shape[-1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--model", default="mobilenetv2", help="network")
    parser.add_argument("--count", type=int, default=64, help="pictures in the folder")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watch", action="store_true", help="follow the command's memory over one run of the folder")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write, or to bring up to date")
    options = parser.parse_args(arguments)
    (network,) = networks.find([options.model])
    console, size = Console(width=120), tuple(options.size)
    record: dict[str, Any] = {
        "date": machine.today(),
        "machine": machine.describe(),
        "versions": machine.versions(("onnxruntime", "opencv-python")),
        "network": network.name,
        **{key: getattr(options, key) for key in ("count", "size", "batch", "threads", "rounds")},
    }
    if options.watch:
        early, more = growth(watch(network, options.count, size, options.batch, options.threads))
        record.update(early=early, growth=more)
        console.print(f"{network.name}, {options.count:,} pictures: {early / 1e6:.0f} MB, growth {more / 1e6:+.1f} MB")
    else:
        rates = measure(network, options.count, size, options.batch, options.threads, options.rounds)
        record["rates"] = [asdict(r) for r in rates]
        table = Table(title=f"{network.name}, {options.count} pictures of {size[0]} x {size[1]}", title_justify="left")
        table.add_column("")
        for heading in HEADINGS:
            table.add_column(heading, justify="right")
        for row in cells(rates):
            table.add_row(*row)
        console.print(table)
    if options.output is not None:
        old = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
        new = old | {"memory" if options.watch else "rates": record}
        options.output.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
