"""A drawn-up task like an electrocardiogram: three leads, and in one of them perhaps a beat of another shape."""

from __future__ import annotations

import io
import warnings

import numpy as np

LEADS = ("I", "II", "V1")
STEPS, RATE = 256, 128
_EVERY = 48  # steps between beats


def drawn(count: int, seed: int):
    """Return recordings (N, 3, T), whether a beat has another shape, and where: (N, 3, T) booleans.

    Every beat is a narrow peak and a later, flat one in all leads; the odd beat is wide and upside down, in one lead.
    """
    rng = np.random.default_rng(seed)
    at = np.arange(STEPS)
    gains = np.array([0.7, 1.0, 0.5])[:, None]
    x = 0.05 * rng.normal(size=(count, 3, STEPS))
    y = rng.integers(0, 2, count)
    where = np.zeros((count, 3, STEPS), bool)
    for i in range(count):
        beats = np.arange(rng.integers(8, 40), STEPS - 24, _EVERY) + rng.integers(-3, 4)
        odd, lead = rng.integers(len(beats)), rng.integers(3)
        for k, beat in enumerate(beats):
            usual = np.exp(-(((at - beat) / 2.0) ** 2)) + 0.3 * np.exp(-(((at - beat - 16) / 6.0) ** 2))
            x[i] += gains * usual
            if y[i] and k == odd:
                other = -0.9 * np.exp(-(((at - beat) / 6.0) ** 2))
                x[i, lead] += gains[lead] * (other - usual)
                where[i, lead, max(0, beat - 14) : beat + 26] = True
    return x.astype(np.float32), y, where


def trained(seed: int = 0, *, recurrent: bool = False, last: bool = False, steps: int = 150):
    """Return the ONNX file of a small network that has learnt it, and its share of right answers on new recordings."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Conv1d(3, 12, 9, padding=4)
            self.b = torch.nn.Conv1d(12, 12, 9, padding=4, stride=2)
            self.r = torch.nn.LSTM(12, 12, batch_first=True) if recurrent else None
            self.f = torch.nn.Linear(12, 2)

        def forward(self, x):
            x = x.transpose(1, 2) if last else x
            h = torch.relu(self.b(torch.relu(self.a(x))))
            if self.r is not None:
                h = self.r(h.transpose(1, 2))[0].transpose(1, 2)
            return self.f(h.amax(2))

    torch.manual_seed(seed)
    net = Net()
    x, y, _ = drawn(512, seed + 1)
    x = x.transpose(0, 2, 1) if last else x
    inputs, labels = torch.tensor(x.copy()), torch.tensor(y)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(steps):
        chosen = torch.randint(0, len(inputs), (64,))
        loss = torch.nn.functional.cross_entropy(net(inputs[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    new, right, _ = drawn(200, seed + 2)
    new = new.transpose(0, 2, 1) if last else new
    with torch.no_grad():
        share = float((net(torch.tensor(new.copy())).argmax(1).numpy() == right).mean())
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "N"}, "y": {0: "N"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the older exporter, which needs no package more
        torch.onnx.export(net, inputs[:2], file, dynamo=False, **names)
    return file.getvalue(), share
