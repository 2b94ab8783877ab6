"""Networks to measure on: definitions of torchvision with seeded random weights, exported once into a cache folder."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.families import exports, realistic
from benchmarks.sessions import BATCH

Array = npt.NDArray[Any]

OPSET = 17


@dataclass(frozen=True)
class Network:
    """A network and its input.

    Attributes
    ----------
    name : str
        Name in the tables.
    build : callable
        Returns the torch module.
    shape : tuple of int
        Of one sample, (C, H, W).
    convolutional : bool
        Whether its features are maps, not tokens.
    """

    name: str
    build: Callable[[], Any]
    shape: tuple[int, int, int]
    convolutional: bool = True

    @property
    def key(self) -> str:
        """Name on the command line and of the file."""
        return "".join(c for c in self.name.lower() if c.isalnum())

    def module(self) -> Any:
        """Return the torch module in eval mode, the same weights every time, none of them asking for a gradient."""
        import torch

        with torch.device("meta"):
            module = self.build()
        module.load_state_dict(torch.load(self.weights()), assign=True)
        return module.eval().requires_grad_(False)

    def path(self) -> Path:
        """Return the exported file: free batch, BatchNormalization folded into convolutions by the exporter."""
        return self._kept(f"-opset{OPSET}.onnx", lambda path: export(self.module(), self.inputs(2), path))

    def weights(self) -> Path:
        """Return a file of the module's state."""
        import torch

        return self._kept(".pt", lambda path: torch.save(_drawn(self).state_dict(), path))

    def _kept(self, suffix: str, write: Callable[[Path], None]) -> Path:
        size, version = "x".join(map(str, self.shape)), importlib.metadata.version("torch").split("+")[0]
        path = cache() / f"{self.key}-{size}-torch{version}{suffix}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            write(part)
            part.replace(path)
        return path

    def inputs(self, batch: int, seed: int = 0) -> Array:
        """Return (batch, C, H, W) float32, mean 0 and deviation 1."""
        return realistic.pictures(batch, self.shape, seed)


def _drawn(network: Network) -> Any:
    """Return the module with new weights."""
    import torch

    torch.manual_seed(0)
    module = network.build().eval()
    with torch.no_grad():
        realistic.realistic(module, network.inputs(4, seed=1))
    return module


def export(module: Any, x: Array, path: Path) -> None:
    """Export a torch module with a free batch."""
    import torch

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the exporter does not know the operator it takes
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.from_numpy(x),),
                os.fspath(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["x"],
                output_names=["logits"],
                dynamic_axes={"x": {0: BATCH}, "logits": {0: BATCH}},
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def noise(model: onnx.ModelProto, batch: int) -> Array:
    """Return a batch of normal noise for the first input of a model."""
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).standard_normal([batch, *dims[1:]]).astype(np.float32)


def convolutional(width: int = 32, depth: int = 8, classes: int = 10) -> Any:
    """Return a plain network: blocks of Conv, BatchNorm, ReLU; every fourth halves the picture.

    Parameters
    ----------
    width : int
        Channels of every layer.
    depth : int
        Number of blocks.
    classes : int
        Number of logits.
    """
    from torch import nn

    layers: list[nn.Module] = []
    for i in range(depth):
        before, stride = (3 if i == 0 else width), (2 if i % 4 == 0 else 1)
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def _torchvision(name: str, **options: Any) -> Any:
    return getattr(torchvision_models(), name)(**options)


@functools.cache
def _torchvision_operators() -> Any:
    return exports.declare_torchvision_operators()


def torchvision_models() -> Any:
    """Return torchvision.models, whether torchvision's compiled part fits this torch or not."""
    _torchvision_operators()  # the cache keeps them declared
    from torchvision import models

    return models


_IMAGENET = (3, 224, 224)
_VIT_S = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 6, "hidden_dim": 384, "mlp_dim": 1536}
NETWORKS = (
    Network("SqueezeNet 1.1", partial(_torchvision, "squeezenet1_1"), _IMAGENET),
    Network("MobileNetV2", partial(_torchvision, "mobilenet_v2"), _IMAGENET),
    Network("ResNet-50", partial(_torchvision, "resnet50"), _IMAGENET),
    Network("VGG-16", partial(_torchvision, "vgg16"), _IMAGENET),
    Network("EfficientNet-B0", partial(_torchvision, "efficientnet_b0"), _IMAGENET),
    Network("ConvNeXt-T", partial(_torchvision, "convnext_tiny"), _IMAGENET),
    Network("ViT-S", partial(_torchvision, "VisionTransformer", **_VIT_S), _IMAGENET, convolutional=False),
)
SMALLEST = Network("smallest", partial(convolutional, 8, 2), (3, 32, 32))


def cache() -> Path:
    """Return the folder of exported networks: $FGONNX_BENCHMARKS, or one among the system's temporary files."""
    return Path(os.environ.get("FGONNX_BENCHMARKS", Path(tempfile.gettempdir()) / "fgonnx-benchmarks"))


def find(names: list[str]) -> tuple[Network, ...]:
    """Return the networks of these names, all of them for none.

    Raises
    ------
    SystemExit
        A name is unknown.
    """
    known = {n.key: n for n in (*NETWORKS, SMALLEST)}
    wanted = ["".join(c for c in name.lower() if c.isalnum()) for name in names]
    if unknown := [n for n in wanted if n not in known]:
        raise SystemExit(f"there is no network '{unknown[0]}'; choose from: {', '.join(known)}")
    return tuple(known[n] for n in wanted) or NETWORKS
