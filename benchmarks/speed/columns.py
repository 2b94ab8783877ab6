"""What is compared: every column of the table is a function that prepares one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.networks import Network
from benchmarks.sessions import bare

Array = npt.NDArray[Any]
Call = Callable[[], Any]

MASKS = 1000


@dataclass(frozen=True)
class Setting:
    """A network, how many pictures at once, and how many threads."""

    network: Network
    batch: int
    threads: int


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes
    ----------
    key, title : str
        Name on the command line and in the file of results; heading.
    prepare : callable
        Takes a Setting and returns what is timed.
    modules : tuple of str
        What must be installed; imported before memory is counted.
    packages : tuple of str
        Whose versions are recorded.
    alone : str
        Why it is measured on one picture only, or "".
    maps_only : bool
        Whether it is defined for convolutional networks only; on tokens it sees one layer or none.
    folder : str
        Environment variable that may name a folder of packages to import first, for what needs other versions than
        the rest; or "".
    """

    key: str
    title: str
    prepare: Callable[[Setting], Call]
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    alone: str = ""
    maps_only: bool = False
    folder: str = ""

    def first(self) -> list[str]:
        """Return where its modules are looked for first."""
        own = os.environ.get(self.folder, "") if self.folder else ""
        return [own] if own else []

    def missing(self) -> str:
        """Return the first module that is not installed, or ""."""
        return next((m for m in self.modules if not PathFinder.find_spec(m, self.first()) and not find_spec(m)), "")


def infer(s: Setting) -> Call:
    """Return a run of the source file under onnxruntime."""
    return bare(s.network.path(), s.network.inputs(s.batch), s.threads)


def openvino_infer(s: Setting) -> Call:
    """Return a run of the source file under OpenVINO, compiled for its batch size in float32."""
    import openvino

    x = s.network.inputs(s.batch)
    core = openvino.Core()
    model = core.read_model(s.network.path())
    model.reshape(list(x.shape))
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": s.threads,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([x])


def _explain(*, certificate: bool, runtime: str = "onnxruntime") -> Callable[[Setting], Call]:
    def prepare(s: Setting) -> Call:
        import fgonnx

        x = s.network.inputs(s.batch)
        explainer = fgonnx.Explainer(
            s.network.path(),
            certificate=certificate,
            runtime=runtime,
            threads=s.threads,
            batch_size=s.batch,
            providers=["cpu"] if runtime == "onnxruntime" else None,
        )
        explainer(x)  # rewrites and opens the session; in OpenVINO, holds its results against onnxruntime's
        return lambda: explainer(x)

    return prepare


def explain_session(s: Setting) -> Call:
    """Return a run of the rewritten model alone, in a session opened like that of the source."""
    import fgonnx

    return bare(fgonnx.rewrite(s.network.path(), outputs=("saliency",)), s.network.inputs(s.batch), s.threads)


def _torch(s: Setting) -> tuple[Any, Any]:
    import torch

    torch.set_num_threads(s.threads)
    return s.network.module(), torch.from_numpy(s.network.inputs(s.batch))


def torch_forward(s: Setting) -> Call:
    """Return a forward pass that records nothing."""
    import torch

    module, x = _torch(s)

    def call() -> Any:
        with torch.inference_mode():
            return module(x)

    return call


def torch_gradient(s: Setting) -> Call:
    """Return a forward pass and the gradient of the largest logit with respect to the input alone."""
    import torch

    module, x = _torch(s)
    x.requires_grad_()
    return lambda: torch.autograd.grad(module(x).max(1).values.sum(), x)


def literal_fullgrad(s: Setting) -> Call:
    """Return the algorithm of the paper, as `benchmarks.fullgrad` has it."""
    from benchmarks.fullgrad import FullGrad

    module, x = _torch(s)
    explain = FullGrad(module)
    return lambda: explain(x)


def gradcam_fullgrad(s: Setting) -> Call:
    """Return FullGrad of the package grad-cam."""
    from pytorch_grad_cam import FullGrad

    module, x = _torch(s)
    cam = FullGrad(module, [])
    return lambda: cam(x, None)


def captum_saliency(s: Setting) -> Call:
    """Return the absolute input-gradient of captum, for targets known beforehand."""
    import torch
    from captum.attr import Saliency

    module, x = _torch(s)
    with torch.inference_mode():
        target = module(x).argmax(1)
    x.requires_grad_()
    saliency = Saliency(module)
    return lambda: saliency.attribute(x, target=target.clone())


def converted_fullgrad(s: Setting) -> Call:
    """Return the algorithm of the paper on the ONNX file, converted back to torch."""
    import onnx2torch

    from benchmarks.fullgrad import FullGrad

    _, x = _torch(s)
    explain = FullGrad(onnx2torch.convert(os.fspath(s.network.path())).eval())
    return lambda: explain(x)


def onnx_ad_reverse(s: Setting) -> Call:
    """Return a run of onnx-ad's adjoint model: forward pass and input-gradient, for targets known beforehand."""
    import onnx_ad

    source, x = onnx.load(s.network.path()), s.network.inputs(s.batch)
    logits = bare(source, x, s.threads)()[0]
    seed = np.zeros((*logits.shape, 1), np.float32)
    seed[np.arange(len(x)), logits.argmax(1)] = 1
    fixed = onnx.version_converter.convert_version(source, 18)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = s.batch
    del fixed.graph.value_info[:]
    adjoint = onnx_ad.reverse(onnx.shape_inference.infer_shapes(fixed, data_prop=True), layout="onnx")
    run = bare(adjoint, x, s.threads)
    run.feeds[run.session.get_inputs()[1].name] = seed
    return run


def dianna_rise(s: Setting) -> Call:
    """Return RISE of dianna on the ONNX file: one explanation with the published number of masks."""
    import dianna

    confine(s.threads)
    x = s.network.inputs(1)[0]
    label = int(bare(s.network.path(), x[None], s.threads)()[0].argmax())
    axes = {0: "channels", 1: "height", 2: "width"}
    path = os.fspath(s.network.path())
    return lambda: dianna.explain_image(path, x, "RISE", [label], n_masks=MASKS, p_keep=0.5, axis_labels=axes)


def openvino_xai_map(s: Setting) -> Call:
    """Return openvino-xai's choice for the file (ReciproCAM for convolutional networks, a map of the last layer)."""
    import openvino_xai
    from openvino_xai.explainer.explainer import ExplainMode

    confine(s.threads)
    x = s.network.inputs(1)
    label = int(bare(s.network.path(), x, s.threads)()[0].argmax())
    explainer = openvino_xai.Explainer(
        os.fspath(s.network.path()), openvino_xai.Task.CLASSIFICATION, explain_mode=ExplainMode.WHITEBOX
    )
    return lambda: explainer(x, targets=[label], colormap=False)


def confine(threads: int) -> None:
    """Leave this process as many cores as others have threads, for libraries that take no number of threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


_TORCH = ("torch",)
_OPENVINO = ("openvino",)
COLUMNS = (
    Column("infer", "infer", infer, ("onnxruntime",)),
    Column("explain", "explain", _explain(certificate=False), ("fgonnx",)),
    Column("explain-session", "explain, bare session", explain_session, ("fgonnx",)),
    Column("certificate", "explain with certificate", _explain(certificate=True), ("fgonnx",)),
    Column("openvino-infer", "infer in OpenVINO", openvino_infer, _OPENVINO, _OPENVINO),
    Column(
        "openvino-explain",
        "explain in OpenVINO",
        _explain(certificate=False, runtime="openvino"),
        ("fgonnx", *_OPENVINO),
        _OPENVINO,
    ),
    Column("torch-forward", "PyTorch forward", torch_forward, _TORCH),
    Column("torch-gradient", "PyTorch forward + backward to the input", torch_gradient, _TORCH),
    Column("captum", "captum Saliency", captum_saliency, ("torch", "captum"), ("captum",)),
    Column("onnx-ad", "onnx-ad reverse", onnx_ad_reverse, ("onnx_ad",), ("onnx-ad",)),
    Column(
        "openvino-xai",
        "openvino-xai ReciproCAM",
        openvino_xai_map,
        ("openvino_xai",),
        ("openvino-xai",),
        alone="takes one picture at a time",
        folder="OPENVINO_XAI",
    ),
    Column("fullgrad", "FullGrad, literal PyTorch", literal_fullgrad, _TORCH, maps_only=True),
    Column(
        "onnx2torch",
        "onnx2torch + literal FullGrad",
        converted_fullgrad,
        ("torch", "onnx2torch"),
        ("onnx2torch",),
        alone="the same algorithm as the literal one, which is measured",
        maps_only=True,
    ),
    Column(
        "grad-cam",
        "grad-cam's FullGrad",
        gradcam_fullgrad,
        ("torch", "pytorch_grad_cam"),
        ("grad-cam",),
        maps_only=True,
    ),
    Column(
        "rise",
        f"dianna RISE, {MASKS:,} masks",
        dianna_rise,
        ("dianna",),
        ("dianna",),
        alone="takes one picture at a time",
    ),
)
OWN = ("infer", "explain", "explain-session", "certificate", "openvino-infer", "openvino-explain")
BY_KEY = {c.key: c for c in COLUMNS}
