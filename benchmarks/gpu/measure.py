"""One network and batch size on the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import fgonnx
from benchmarks import networks
from benchmarks.gpu.device import Bound, memory

Array = npt.NDArray[Any]

WARM_UP = 3
COMPARED = 2
"""Samples that are explained on the processor, too."""


def batches(network: str, batches: list[int], device: str, seconds: float, compiled: bool) -> Iterator[dict[str, Any]]:
    """Yield what one network costs at every batch size; times are medians in seconds."""
    (chosen,) = networks.find([network])
    if compiled:
        for batch in batches:
            yield {"batch": batch, **_torch(chosen, chosen.inputs(batch), device, seconds, compiled=True)}
        return
    models = {
        "source": onnx.load(chosen.path()),
        **{form: fgonnx.rewrite(chosen.path(), form=form, outputs=("saliency",)) for form in ("fast", "portable")},
        "certified": fgonnx.rewrite(chosen.path()),
    }
    for batch in batches:
        x = chosen.inputs(batch)
        found = _onnxruntime(models, x, device, seconds)
        yield {"batch": batch, **found, **_torch(chosen, x, device, seconds, compiled=False)}


def _onnxruntime(models: Mapping[str, onnx.ModelProto], x: Array, device: str, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"onnxruntime": {}, "failures": {}}
    source, certified = models["source"], models["certified"]
    plans: dict[str, tuple[onnx.ModelProto, dict[str, bool]]] = {
        "infer": (source, {}),
        "explain_fast": (models["fast"], {}),
        "explain_portable": (models["portable"], {}),
        "certificate": (certified, {}),
    }
    if device != "cpu":
        plans |= {
            "infer_graph": (source, {"graph": True}),
            "explain_fast_graph": (models["fast"], {"graph": True}),
            "explain_portable_graph": (models["portable"], {"graph": True}),
            "explain_fast_nhwc": (models["fast"], {"nhwc": True}),
            "infer_tf32": (source, {"tf32": True}),
            "explain_fast_tf32": (models["fast"], {"tf32": True}),
        }
    for name, (model, how) in plans.items():
        try:
            before = memory(device)
            session = Bound(model, x, device, **how)
            found["onnxruntime"][name] = {"seconds": timed(session, seconds), "bytes": memory(device) - before}
            del session
        except Exception as error:  # a combination that a build does not have is told, the others are measured
            found["failures"][name] = str(error).strip().splitlines()[0][:200]
    found["placement"] = Bound(certified, x[:1], device, profile=True).placement()
    found["agreement"] = agreement(certified, x[:COMPARED], device)
    if device != "cpu":
        found["agreement_tf32"] = agreement(certified, x[:COMPARED], device, tf32=True)
    return found


def timed(call: Callable[[], Any], seconds: float) -> float:
    """Return the median time of a call: a few to warm up, then at least three, for so many seconds."""
    for _ in range(WARM_UP):
        call()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def agreement(model: onnx.ModelProto, x: Array, device: str, **how: bool) -> dict[str, float]:
    """Compare map and certificate with the processor's; in units of their largest values.

    Returns
    -------
    dict of str to float
        `map` and `contributions`: largest differences; `residual`: the device's own, relative to the score; `rounding`:
        what a change of the input by a millionth does to the map on the processor.
    """
    reference = Bound(model, x, "cpu")
    truth, ours = reference.results(), Bound(model, x, device, **how).results()
    noise = np.random.default_rng(0).uniform(-1e-6, 1e-6, x.shape)
    moved = Bound(model, (x * (1 + noise)).astype(x.dtype), "cpu").results()
    largest = float(np.abs(truth["saliency"]).max())
    score = float(max(np.abs(truth["score"]).max(), np.abs(truth["contributions"]).max()))
    return {
        "map": float(np.abs(ours["saliency"] - truth["saliency"]).max()) / largest,
        "contributions": float(np.abs(ours["contributions"] - truth["contributions"]).max()) / score,
        "residual": float((np.abs(ours["completeness"]) / np.abs(ours["score"])).max()),
        "rounding": float(np.abs(moved["saliency"] - truth["saliency"]).max()) / largest,
    }


def _torch(network: networks.Network, x: Array, device: str, seconds: float, *, compiled: bool) -> dict[str, Any]:
    """Time PyTorch on the device: forward, forward and backward, and the literal FullGrad."""
    import torch

    kind = "cpu" if device == "cpu" else "cuda"
    if kind == "cuda" and not torch.cuda.is_available():
        return {"torch": {}, "torch_failures": {"all": "this build of PyTorch has no CUDA"}}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module = network.module().to(kind)
    given = torch.from_numpy(x).to(kind)
    run = torch.compile(module) if compiled else module

    def finished() -> None:
        if kind == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.inference_mode():
            run(given)
        finished()

    def gradient() -> None:
        leaf = given.detach().clone().requires_grad_()
        torch.autograd.grad(run(leaf).max(1).values.sum(), leaf)
        finished()

    calls: dict[str, Callable[[], None]] = {"forward": forward, "gradient": gradient}
    if not compiled and network.convolutional:
        from benchmarks.fullgrad import FullGrad

        explain = FullGrad(module)

        def literal() -> None:
            explain(given)
            finished()

        calls["fullgrad"] = literal
    found: dict[str, Any] = {"torch": {}, "torch_failures": {}}
    for name, call in calls.items():
        key = f"{name}_compiled" if compiled else name
        try:
            found["torch"][key] = {"seconds": timed(call, seconds)}
        except Exception as error:  # out of memory, or nothing to compile with: the others are measured
            found["torch_failures"][key] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return found
