"""The service under load, from another process: `python -m benchmarks.serve`.

Starts `fgonnx serve` with a model, and asks it from 1, 2, 8 and 32 connections at once, for predictions and for
explanations. Every answer is held against the one that its own input has alone. Then: more than it takes on, bad
requests among good ones, the process killed and started again, and stopped. Writes docs/serving.json and
docs/serving.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fgonnx
from benchmarks import machine

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "examples" / "shapes.onnx"
PAGE, STORED = ROOT / "docs" / "serving.md", ROOT / "docs" / "serving.json"
CLIENTS = (1, 2, 8, 32)
VERBS = {"predict": (), "explain": ("saliency", "score", "target", "completeness")}
OPTIONS = ("", "--batch-size 8")
DIFFERENT = 24  # inputs, each with its own answer
CLOSE = 1e-4  # of the largest value: batches are summed in another order
BAD = (b"{", b"[]", b"\xff", b'{"inputs": [1]}', b'{"inputs": []}', b'{"inputs": [{"name": "x"}]}', b" " * 3_000_000)

NAME = "model"

Array = npt.NDArray[Any]


@dataclass
class Cell:
    """What one number of connections got for one verb."""

    verb: str
    clients: int
    options: str
    answers: int
    seconds: float
    p50: float
    p90: float
    p99: float
    wrong: int
    other: dict[str, int] = field(default_factory=dict)


@dataclass
class Server:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def ask(
        self, connection: http.client.HTTPConnection, body: bytes, head: int, name: str = NAME
    ) -> tuple[int, bytes, int]:
        """Return status, body and length of the JSON before raw data."""
        headers = {"Inference-Header-Content-Length": str(head)} if head else {}
        connection.request("POST", f"/v2/models/{name}/infer", body, headers)
        response = connection.getresponse()
        return response.status, response.read(), int(response.headers.get("Inference-Header-Content-Length", 0))

    def memory(self) -> int:
        """Return the resident memory of the process, in bytes; 0 where the system does not say."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return int(found[1]) * 1024 if found else 0

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """Stop the service, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


def started(model: Path, *options: str, port: int = 0) -> Server:
    """Start a service."""
    command = [sys.executable, "-m", "fgonnx", "serve", f"{NAME}={model}", "--port", str(port), "--no-grpc", "--no-log"]
    process = subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return Server(process, int(found[1]))
    raise RuntimeError("the service did not start")


@contextlib.contextmanager
def service(model: Path, *options: str) -> Iterator[Server]:
    """Run a service within a block."""
    server = started(model, *options)
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.kill()


def request(x: Array, name: str, outputs: Sequence[str]) -> tuple[bytes, int]:
    """Return a request with raw data, and the length of its JSON."""
    raw = x.tobytes()
    tensor = {"name": name, "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": len(raw)}}
    wanted = [{"name": o, "parameters": {"binary_data": True}} for o in outputs]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    return head + raw, len(head)


def tensors(body: bytes, head: int) -> dict[str, Array]:
    """Return the tensors of an answer."""
    kinds = {"FP32": np.float32, "INT64": np.int64}
    found, at = {}, head
    for one in json.loads(body[:head])["outputs"]:
        size = one["parameters"]["binary_data_size"]
        found[one["name"]] = np.frombuffer(body[at : at + size], kinds[one["datatype"]]).reshape(one["shape"])
        at += size
    return found


class Inputs:
    """Inputs of a model, and the answer that each has alone.

    Parameters
    ----------
    model : Path
        The model.
    """

    def __init__(self, model: Path) -> None:
        explainer = fgonnx.Explainer(model, threads=1)
        value = explainer.loaded.input()
        self.name = str(value.name)
        sizes = [d if isinstance(d, int) else 1 for d in value.shape.dims][1:]  # type: ignore[union-attr]
        self.x = np.random.default_rng(0).normal(size=(DIFFERENT, 1, *sizes)).astype(np.float32)
        found = [explainer(x) for x in self.x]
        self.right = [{n: getattr(e, n) for n in VERBS["explain"]} | dict(e.outputs) for e in found]
        self.own = tuple(found[0].outputs)

    def outputs(self, verb: str) -> tuple[str, ...]:
        """Return the outputs that are asked for."""
        return VERBS[verb] or self.own

    def close(self, i: int, found: dict[str, Array]) -> bool:
        """Tell whether an answer is that of input i; that of another one differs by far more."""
        return all(
            np.abs(array - self.right[i][name]).max() <= CLOSE * max(1.0, float(np.abs(self.right[i][name]).max()))
            for name, array in found.items()
            if name != "completeness"
        )


@dataclass
class Load:
    """Connections that ask, one after another, until they are told to stop."""

    server: Server
    inputs: Inputs
    verb: str
    times: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, clients: int, seconds: float) -> float:
        """Ask from several connections for a while; return how long it took."""
        threads = [threading.Thread(target=self._client, args=(k,)) for k in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    def _client(self, k: int) -> None:
        sent = [request(x, self.inputs.name, self.inputs.outputs(self.verb)) for x in self.inputs.x]
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        name = f"{NAME}_explained" if self.verb == "explain" else NAME
        i = 7 * k
        while not self.stop.is_set():
            i = (i + 1) % DIFFERENT
            start = time.perf_counter()
            try:
                status, body, head = self.server.ask(connection, *sent[i], name)
            except (OSError, http.client.HTTPException):  # it was killed, or is not there yet
                connection.close()
                self.statuses["no connection"] += 1
                self.stop.wait(0.05)
                continue
            taken = time.perf_counter() - start
            self.statuses[str(status)] += 1
            if status != 200:
                self.refusals.append(taken)
                self.stop.wait(0.01)
                continue
            self.times.append(taken)
            if not self.inputs.close(i, tensors(body, head)):
                self.wrong += 1
        connection.close()


def measured(server: Server, inputs: Inputs, verb: str, clients: int, seconds: float, options: str) -> Cell:
    """Measure one cell, after a second that does not count."""
    Load(server, inputs, verb).run(clients, min(1.0, seconds))
    load = Load(server, inputs, verb)
    taken = load.run(clients, seconds)
    p50, p90, p99 = (float(p) for p in np.percentile(load.times, (50, 90, 99)) * 1000)
    other = {k: v for k, v in load.statuses.items() if k != "200"}
    return Cell(verb, clients, options, len(load.times), taken, p50, p90, p99, load.wrong, other)


def overload(model: Path, inputs: Inputs, seconds: float) -> dict[str, Any]:
    """Ask for more than is taken on."""
    with service(model, "--max-queue", "4") as server:
        load = Load(server, inputs, "explain")
        load.run(32, seconds)
        slowest = [round(float(p) * 1000, 1) for p in np.percentile(load.refusals or [0.0], (50, 99))]
        return {"statuses": dict(load.statuses), "refused in ms": slowest, "wrong": load.wrong}


def disturbed(model: Path, inputs: Inputs, seconds: float) -> dict[str, Any]:
    """Send bad requests among good ones."""
    with service(model, "--max-body", "2") as server:
        load, answers = Load(server, inputs, "explain"), Counter[str]()

        def bad() -> None:
            while not load.stop.is_set():
                for body in BAD:
                    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                    try:
                        answers[str(server.ask(connection, body, 0)[0])] += 1
                    except (OSError, http.client.HTTPException):  # hung up on while it was still sending
                        answers["hung up"] += 1
                    connection.close()

        thread = threading.Thread(target=bad)
        thread.start()
        load.run(4, seconds)
        thread.join()
        return {"good": dict(load.statuses), "bad": dict(answers), "wrong": load.wrong}


def restarted(model: Path, inputs: Inputs, seconds: float) -> dict[str, Any]:
    """Kill the service while it is asked, start it again on the same port, and stop it in the end."""
    server = started(model)
    load = Load(server, inputs, "explain")
    thread = threading.Thread(target=load.run, args=(8, 3600.0))
    thread.start()
    kills = 2
    for _ in range(kills):
        load.stop.wait(seconds / 3)
        server.kill()
        server.process = started(model, port=server.port).process
    load.stop.wait(seconds / 3)
    asked = load.statuses.copy()
    code = server.end()  # while they ask: what was taken on is answered
    load.stop.set()
    thread.join()
    return {"kills": kills, "statuses": dict(asked), "wrong": load.wrong, "exit code": code}


def run(model: Path, seconds: float, clients: Sequence[int] = CLIENTS) -> dict[str, Any]:
    """Measure everything."""
    inputs = Inputs(model)
    cells, memory = [], []
    for options in OPTIONS:
        with service(model, *options.split()) as server:
            memory.append(server.memory())
            for verb in VERBS:
                for count in clients:
                    cells.append(measured(server, inputs, verb, count, seconds, options))
                    print(cells[-1], flush=True)
            memory.append(server.memory())
    return {
        "model": model.name,
        "date": machine.today(),
        "machine": machine.describe(),
        "versions": machine.versions(["onnxruntime", "starlette", "uvicorn", "h11"]),
        "seconds": seconds,
        "cells": [asdict(c) for c in cells],
        "memory": memory,
        "overload": overload(model, inputs, seconds),
        "disturbed": disturbed(model, inputs, seconds),
        "restarted": restarted(model, inputs, max(3.0, seconds)),
    }


def rendered(results: Sequence[dict[str, Any]]) -> str:
    """Return the page of stored results."""
    first = results[0]
    about = first["machine"]
    where = f"{about['cores']} cores ({about['processor']}, {first['date']}). "
    text = (
        "`fgonnx serve` ([serve.md](serve.md)) in one process, connections of another one on the same "
        f"{where}Requests are of version 2, with raw bytes; each asks for one of {DIFFERENT} inputs in turn. "
        f"Every answer is held against what an `Explainer` says of that input alone, and is *wrong* if a value differs "
        f"by more than {CLOSE:g} of the largest; the answer to any other input does."
    )
    lines = [
        "# The service under load",
        "",
        "<!-- written by python -m benchmarks.serve; the values are in serving.json -->",
        "",
        *textwrap.wrap(text, 128, break_on_hyphens=False),
        "",
    ]
    for found in results:
        lines += [f"## {found['model']}", "", *_table(found), "", *_remarks(found), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(found: dict[str, Any]) -> list[str]:
    lines = [
        "| asked for | connections | options | a second | median | 90 % | 99 % | answers | wrong | others |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for c in found["cells"]:
        other = ", ".join(f"{k}: {v}" for k, v in c["other"].items()) or "none"
        option = f"`{c['options']}`" if c["options"] else ""
        times = " | ".join(f"{c[p]:.1f} ms" for p in ("p50", "p90", "p99"))
        row = c["verb"], c["clients"], option, f"{c['answers'] / c['seconds']:.0f}", times, f"{c['answers']:,}"
        lines.append(f"| {' | '.join(map(str, row))} | {c['wrong']} | {other} |")
    return lines


def _remarks(found: dict[str, Any]) -> list[str]:
    def said(counts: dict[str, int]) -> str:
        return ", ".join(f"{k}: {v:,}" for k, v in sorted(counts.items()))

    over, bad, again = found["overload"], found["disturbed"], found["restarted"]
    megabytes = " and ".join(f"{m / 1e6:.0f} MB" for m in found["memory"][:2])
    median, slow = over["refused in ms"]
    texts = [
        f"**More than it takes on** (32 connections, `--max-queue 4`): {said(over['statuses'])}; a refusal "
        f"took {median:g} ms in the median, {slow:g} ms at the 99th percentile; {over['wrong']} wrong.",
        f"**Bad requests among good ones**: the bad ones were answered {said(bad['bad'])}; the good ones "
        f"{said(bad['good'])}; {bad['wrong']} wrong.",
        f"**Killed {again['kills']} times (SIGKILL) and started again** under 8 connections: "
        f"{said(again['statuses'])}; {again['wrong']} wrong. Then SIGTERM: exit code {again['exit code']}.",
        f"Memory of the process before and after the first half of the table: {megabytes}.",
    ]
    wrapped = [textwrap.wrap(t, 126, break_on_hyphens=False, break_long_words=False) for t in texts]
    return [line for text in wrapped for line in (f"- {text[0]}", *(f"  {rest}" for rest in text[1:]))]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, default=[SHAPES], help="models of float32 pictures")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each cell")
    parser.add_argument("--page", action="store_true", help="write the page of what is stored, and run nothing")
    given = parser.parse_args()
    if not given.page:
        results = [run(model.resolve(), given.seconds) for model in given.models]
        STORED.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(rendered(json.loads(STORED.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
