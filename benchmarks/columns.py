"""Pictures and figures of the pages of series and tables: `python -m benchmarks.columns` draws docs/images.

The recordings are drawn: beats like those of an electrocardiogram, in some of which one beat of one lead has another
shape. The table is drawn, too: the label follows from a known sum of its features.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import fgonnx
from fgonnx.jobs.explain import ExplainJob
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.slide import SlideJob
from tests import beats

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
FEATURES = ("age", "dose", "weight", "pulse", "smoker")
SEED, RUNS = 77, 7


def recorded(path: Path, values: np.ndarray) -> Path:
    """Write a recording as a table with times."""
    lines = [",".join(("time", *beats.LEADS))]
    lines += [",".join([f"{t / beats.RATE:.6f}", *(f"{v:.4f}" for v in row)]) for t, row in enumerate(values.T)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a table, and a label that depends on age, dose and smoking."""
    rng = np.random.default_rng(seed)
    x = np.stack(
        [
            rng.uniform(20, 90, count),
            rng.uniform(0, 40, count),
            rng.normal(75, 12, count),
            rng.normal(70, 9, count),
            rng.integers(0, 2, count),
        ],
        axis=1,
    )
    risk = 0.08 * (x[:, 0] - 55) - 0.12 * (x[:, 1] - 20) + 1.6 * (x[:, 4] - 0.5) + 0.3 * rng.normal(size=count)
    return x.astype(np.float32), (risk > 0).astype(np.int64)


def perceptron() -> bytes:
    """Return the ONNX file of a small perceptron behind a scaler, trained on the table."""
    import torch

    torch.manual_seed(0)
    x, y = table(2000, SEED)
    mean, spread = torch.tensor(x.mean(axis=0)), torch.tensor(x.std(axis=0))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

        def forward(self, v: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.layers((v - mean) / spread), 1)

    net, given, labels = Net(), torch.tensor(x), torch.tensor(y)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(300):
        optimiser.zero_grad()
        loss = torch.nn.functional.nll_loss(torch.log(net(given) + 1e-9), labels)
        loss.backward()
        optimiser.step()
    file = io.BytesIO()
    names: Any = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "N"}, "y": {0: "N"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(net.eval(), (given[:2],), file, dynamo=False, **names)
    return file.getvalue()


def least(call: Callable[[], Any]) -> float:
    """Return the least of several times, in seconds."""
    call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def recurrent(kind: str) -> tuple[float, float]:
    """Return which share of the contributions has a place in time with an untrained recurrent layer, without and with
    its steps."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = torch.nn.Conv1d(3, 8, 5, stride=2, padding=2)
            self.l = getattr(torch.nn, kind)(8, 16, batch_first=True, bidirectional=True)
            self.f = torch.nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.f(self.l(torch.relu(self.c(x)).transpose(1, 2))[0][:, -1])

    torch.manual_seed(0)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Net().eval(), (torch.randn(1, 3, 40),), file, dynamo=False, input_names=["x"])
    x = np.random.default_rng(0).normal(size=(1, 3, 40)).astype(np.float32)
    e = fgonnx.Explainer(file.getvalue())(x)
    weights = np.abs(e.contributions[0])
    outside = np.array([s.in_map and f"/{kind}/" not in s.name for s in e.sites])
    return float(weights[outside].sum() / weights.sum()), float(e.localised_share()[0])


def ratio(source: bytes, x: np.ndarray) -> tuple[float, float]:
    """Return how long an inference takes, on one thread, in milliseconds, and how many of it an explanation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    explainer = fgonnx.Explainer(source, threads=1, input_gradient=True)
    infer = least(lambda: session.run(None, {"x": x}))
    return 1e3 * infer, least(lambda: explainer(x)) / infer


def main() -> int:
    """Draw the pictures and print the figures."""
    convolutional, right = beats.trained()
    recurrent, right_too = beats.trained(recurrent=True)
    x, y, where = beats.drawn(400, SEED)
    found = fgonnx.Explainer(convolutional, psi="signed", input_gradient=True)(x, 1)
    odd = [i for i in range(len(x)) if y[i] and found.outputs["y"][i].argmax()]
    from fgonnx.explain.parts import lanes

    hits = [where[i][np.unravel_index(lanes(found, i, x[i], "NCW").channels.argmax(), (3, beats.STEPS))] for i in odd]
    print(f"beats: {right:.1%} right; evidence on top in {np.mean(hits):.1%} of {len(odd)} recordings")
    print(f"with an LSTM: {right_too:.1%} right")
    for name, source in (("convolutions", convolutional), ("convolutions and an LSTM of 128 steps", recurrent)):
        for batch in (1, 16):
            infer, times = ratio(source, x[:batch])
            print(f"{name}, batch {batch}: inference {infer:.2f} ms, explanation {times:.1f} times that")
    share = fgonnx.Explainer(recurrent)(x[:16]).localised_share().mean()
    print(f"with an LSTM, {share:.1%} of the contributions have a place in time")
    for kind in ("LSTM", "GRU", "RNN"):
        without, with_steps = recurrent(kind)
        print(f"{kind} of 20 steps, both ways: {without:.0%} have a place in time without them, {with_steps:.0%}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "ecg.onnx").write_bytes(convolutional)
        (root / "risk.onnx").write_bytes(perceptron())
        reading = Reading(units="mV", rate=beats.RATE)
        first = odd[0]
        options = fgonnx.Options(psi="signed")
        _drawn(
            ExplainJob(root / "ecg.onnx", [recorded(root / "beats.csv", x[first])], root, options, reading=reading),
            "series",
        )
        long = np.concatenate([x[i] for i in (3, first, 4, 5)], axis=1)
        sliding = Reading(units="mV", rate=beats.RATE, slide=64)
        path = recorded(root / "night.csv", long)
        _drawn(SlideJob(root / "ecg.onnx", [path], root, reading=sliding, target="1"), "slide")
        rows, _ = table(3, SEED + 1)
        lines = [",".join(FEATURES), *(",".join(f"{v:.1f}" for v in row) for row in rows)]
        (root / "patients.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        _drawn(ExplainJob(root / "risk.onnx", [root / "patients.csv"], root), "table")
    return 0


def _drawn(job: ExplainJob, name: str) -> None:
    made = list(job.run())
    (IMAGES / f"{name}.png").write_bytes((job.folder / made[0]["files"]["picture"]).read_bytes())


if __name__ == "__main__":
    sys.exit(main())
