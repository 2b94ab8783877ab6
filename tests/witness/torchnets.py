"""Small torch networks, one per architectural family, and their export to ONNX.

Every builder takes a seed and returns a module in eval mode whose weights look trained: Kaiming weights, non-zero
biases, BatchNormalization statistics near those of its real activations. Inputs are not square, so that a rule that
swaps rows and columns cannot pass.
"""

import io
import warnings
from collections.abc import Callable

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CLASSES = 10

Builder = Callable[[int], nn.Module]
Shape = tuple[int, int, int, int]


def _randomised(
    build: Callable[[], nn.Module], shape: Shape, seed: int, gamma: tuple[float, float] = (0.5, 1.5)
) -> nn.Module:
    """Build a network and give it realistic weights, leaving torch's global generator as it was.

    Parameters
    ----------
    build : callable
        Makes the module; submodules are initialised anew here.
    shape : tuple of int
        ``(N, C, H, W)`` of an input; the calibration batch has 16 such samples.
    seed : int
        Determines every number.
    gamma : tuple of float
        Range of the BatchNormalization scales. A wide one drives bounded activations into saturation.

    Returns
    -------
    torch.nn.Module
        In eval mode, float32.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = build()
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for m in net.modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    nn.init.normal_(m.bias, std=0.2)
        for bn in norms:
            nn.init.uniform_(bn.weight, *gamma)
            nn.init.normal_(bn.bias, std=0.3)
            bn.momentum = None  # running statistics become exactly those of the calibration batch
        net.train()
        net(torch.randn(16, *shape[1:]))
        for bn in norms:
            mean, var = bn.running_mean, bn.running_var
            assert mean is not None
            assert var is not None
            mean += 0.2 * var.sqrt() * torch.randn_like(mean)
            var *= torch.exp(0.2 * torch.randn_like(var))
            bn.momentum = 0.1
    return net.eval()


def _conv_bn(
    cin: int,
    cout: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution with "same" padding for odd kernels, BatchNormalization and, unless None, an activation."""
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    conv = nn.Conv2d(cin, cout, (kh, kw), stride, (kh // 2, kw // 2), groups=groups, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([act()] if act else []))


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class _BasicBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv_bn(cin, cout, 3, stride), _conv_bn(cout, cout, 3, act=None))
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else _conv_bn(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class _InvertedResidual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = cin * expand
        widen = [_conv_bn(cin, mid, 1, act=nn.ReLU6)] if expand != 1 else []
        depthwise = _conv_bn(mid, mid, 3, stride, groups=mid, act=nn.ReLU6)
        self.body = nn.Sequential(*widen, depthwise, _conv_bn(mid, cout, 1, act=None))
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class _MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv_bn(3, 8, 3, 2, act=nn.ReLU6),
            _InvertedResidual(8, 8, 1, 1),
            _InvertedResidual(8, 12, 2, 4),
            _InvertedResidual(12, 12, 1, 4),
            _InvertedResidual(12, 16, 2, 4),
            _conv_bn(16, 32, 1, act=nn.ReLU6),
        )
        self.classifier = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class _DenseLayer(nn.Module):
    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(cin),
            nn.ReLU(),
            nn.Conv2d(cin, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth),
            nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def _transition(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU(), nn.Conv2d(cin, cout, 1, bias=False), nn.AvgPool2d(2, 2))


class _InceptionA(nn.Module):
    def __init__(self, cin: int) -> None:
        super().__init__()
        self.b1 = _conv_bn(cin, 4, 1)
        self.b3 = nn.Sequential(_conv_bn(cin, 4, 1), _conv_bn(4, 6, 3))
        self.b5 = nn.Sequential(_conv_bn(cin, 4, 1), _conv_bn(4, 6, 5))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=True), _conv_bn(cin, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b3(x), self.b5(x), self.pool(x)], 1)


class _InceptionB(nn.Module):
    def __init__(self, cin: int) -> None:
        super().__init__()
        self.b3 = _conv_bn(cin, 8, 3, 2)
        self.b7 = nn.Sequential(
            _conv_bn(cin, 4, 1), _conv_bn(4, 6, (1, 7)), _conv_bn(6, 6, (7, 1)), _conv_bn(6, 8, 3, 2)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b3(x), self.b7(x), self.pool(x)], 1)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, act: Callable[[], nn.Module], gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), act(), nn.Conv2d(hidden, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class _GatedBlock(nn.Module):
    """Inverted residual with a squeeze-and-excite gate between its depthwise and its last convolution."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int,
        act: Callable[[], nn.Module],
        squeeze_act: Callable[[], nn.Module],
        gate: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        mid = 3 * cin
        self.body = nn.Sequential(
            _conv_bn(cin, mid, 1, act=act),
            _conv_bn(mid, mid, kernel, stride, groups=mid, act=act),
            _SqueezeExcite(mid, squeeze_act, gate),
            _conv_bn(mid, cout, 1, act=None),
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class _Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # channel g * (C / G) + k moves to k * G + g
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class _ShuffleUnit(nn.Module):
    """Half of the channels pass untouched, the other half through convolutions; a shuffle mixes them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            _conv_bn(half, half, 1), _conv_bn(half, half, 3, groups=half, act=None), _conv_bn(half, half, 1)
        )
        self.shuffle = _Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return self.shuffle(torch.cat([kept, self.body(changed)], 1))


def plain(seed: int) -> nn.Module:
    """Convolution, ReLU, max pooling and a dense layer: no BatchNormalization."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8 * 8 * 10, CLASSES)
        )

    return _randomised(build, SHAPES["plain"], seed)


def vgg(seed: int) -> nn.Module:
    """Three stages of convolutions and a dense head; all but the first stage have a convolution bias *and* a BN."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
            nn.MaxPool2d(2),
            _conv_bn(8, 12, bias=True),
            _conv_bn(12, 12, bias=True),
            nn.MaxPool2d(2),
            _conv_bn(12, 16, bias=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 4, 32),
            nn.ReLU(),
            nn.Linear(32, CLASSES),
        )

    return _randomised(build, SHAPES["vgg"], seed)


def resnet(seed: int) -> nn.Module:
    """Residual basic blocks behind a 7x7 stride-2 stem and an overlapping max pooling."""

    def build() -> nn.Module:
        return nn.Sequential(
            _conv_bn(3, 8, 7, 2),
            nn.MaxPool2d(3, 2, 1),
            _BasicBlock(8, 8, 1),
            _BasicBlock(8, 16, 2),
            _BasicBlock(16, 16, 1),
            _head(16),
        )

    return _randomised(build, SHAPES["resnet"], seed)


def mobilenet_v2(seed: int) -> nn.Module:
    """Inverted residuals with depthwise convolutions and ReLU6, some of it saturated; the head pools by a mean."""
    return _randomised(_MobileNetV2, SHAPES["mobilenet_v2"], seed, gamma=(1.0, 4.0))


def densenet(seed: int) -> nn.Module:
    """Dense blocks of BN, ReLU, Conv joined by concatenation, with average-pooling transitions."""

    def build() -> nn.Module:
        return nn.Sequential(
            _conv_bn(3, 8, 3, 2),
            _DenseLayer(8, 4),
            _DenseLayer(12, 4),
            _transition(16, 8),
            _DenseLayer(8, 4),
            _DenseLayer(12, 4),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            _head(16),
        )

    return _randomised(build, SHAPES["densenet"], seed)


def inception(seed: int) -> nn.Module:
    """Parallel branches of 1x1, 3x3, 5x5, 1x7 and 7x1 convolutions and padded average pooling, concatenated."""

    def build() -> nn.Module:
        return nn.Sequential(_conv_bn(3, 8, 3, 2), _InceptionA(8), _InceptionB(20), _InceptionA(8 + 8 + 20), _head(20))

    return _randomised(build, SHAPES["inception"], seed)


def se_silu(seed: int) -> nn.Module:
    """EfficientNet's blocks: SiLU everywhere, sigmoid squeeze-and-excite gates."""

    def build() -> nn.Module:
        return nn.Sequential(
            _conv_bn(3, 8, 3, 2, act=nn.SiLU),
            _GatedBlock(8, 8, 3, 1, nn.SiLU, nn.SiLU, nn.Sigmoid),
            _GatedBlock(8, 12, 5, 2, nn.SiLU, nn.SiLU, nn.Sigmoid),
            _conv_bn(12, 24, 1, act=nn.SiLU),
            _head(24),
        )

    return _randomised(build, SHAPES["se_silu"], seed)


def se_hardswish(seed: int) -> nn.Module:
    """MobileNetV3's blocks: Hardswish, Hardsigmoid squeeze-and-excite gates, Hardswish in the dense head."""

    def build() -> nn.Module:
        return nn.Sequential(
            _conv_bn(3, 8, 3, 2, act=nn.Hardswish),
            _GatedBlock(8, 8, 3, 1, nn.ReLU, nn.ReLU, nn.Hardsigmoid),
            _GatedBlock(8, 12, 5, 2, nn.Hardswish, nn.ReLU, nn.Hardsigmoid),
            _conv_bn(12, 24, 1, act=nn.Hardswish),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 32),
            nn.Hardswish(),
            nn.Linear(32, CLASSES),
        )

    return _randomised(build, SHAPES["se_hardswish"], seed, gamma=(1.0, 3.0))


def shuffle(seed: int) -> nn.Module:
    """Channel split, grouped convolutions and the channel shuffle by view, transpose and reshape."""

    def build() -> nn.Module:
        return nn.Sequential(
            _conv_bn(3, 12, 3, 2),
            _ShuffleUnit(12),
            _conv_bn(12, 12, 1, groups=3),
            _Shuffle(3),
            _conv_bn(12, 12, 3, 2, groups=12),
            _ShuffleUnit(12),
            _head(12),
        )

    return _randomised(build, SHAPES["shuffle"], seed)


def convtranspose(seed: int) -> nn.Module:
    """An encoder, a decoder of transposed convolutions and a bilinear upsampling, and a classifier on top."""

    def build() -> nn.Module:
        return nn.Sequential(
            _conv_bn(3, 8, 3, 2),
            _conv_bn(8, 12, 3, 2),
            nn.ConvTranspose2d(12, 8, 4, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.ReLU(),
            _head(12),
        )

    return _randomised(build, SHAPES["convtranspose"], seed)


# Two samples: torch.export would make a batch of one a constant.
SHAPES: dict[str, Shape] = {
    "plain": (2, 3, 32, 40),
    "vgg": (2, 3, 40, 32),
    "resnet": (2, 3, 64, 48),
    "mobilenet_v2": (2, 3, 48, 40),
    "densenet": (2, 3, 32, 40),
    "inception": (2, 3, 40, 48),
    "se_silu": (2, 3, 40, 32),
    "se_hardswish": (2, 3, 32, 40),
    "shuffle": (2, 3, 32, 48),
    "convtranspose": (2, 3, 32, 40),
}

NETS: dict[str, tuple[Builder, Shape]] = {
    build.__name__: (build, SHAPES[build.__name__])
    for build in (
        plain,
        vgg,
        resnet,
        mobilenet_v2,
        densenet,
        inception,
        se_silu,
        se_hardswish,
        shuffle,
        convtranspose,
    )
}


def export(
    module: nn.Module, input_shape: Shape, *, folded: bool, opset: int = 18, exporter: str = "torchscript"
) -> onnx.ModelProto:
    """Export a network with input "x", output "logits" and a symbolic batch axis "N".

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, float32.
    input_shape : tuple of int
        ``(N, C, H, W)`` with N > 1; all but N are fixed in the file.
    folded : bool
        True lets the exporter fold constants, and BatchNormalization into a convolution before it. False keeps the
        nodes of the network.
    opset : int
        Version of the ONNX operator set.
    exporter : {"torchscript", "dynamo"}
        Which of torch's two exporters.

    Returns
    -------
    onnx.ModelProto
        Checked, with float32 weights inside.
    """
    x = torch.zeros(input_shape)
    # Both exporters warn of their own internals; under pytest these warnings would be errors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            buffer = io.BytesIO()
            torch.onnx.export(
                module,
                (x,),
                buffer,  # type: ignore[arg-type]  # annotated as a path, documented as a file object too
                dynamo=False,
                opset_version=opset,
                input_names=["x"],
                output_names=["logits"],
                dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
                # the exporter fuses BatchNormalization only when both settings let it
                training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=folded,
            )
            model = onnx.load_from_string(buffer.getvalue())
        elif exporter == "dynamo":
            program = torch.onnx.export(
                module,
                (x,),
                dynamo=True,
                opset_version=opset,
                input_names=["x"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                optimize=folded,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
        else:
            raise ValueError(f"no such exporter: {exporter!r}")
    onnx.checker.check_model(model)
    return model
