"""Small torch networks whose spatial axes are hard to follow: tokens, windows, channels last, decoders, dense heads.

Every builder takes a seed and returns a module in eval mode with weights that look trained. Inputs are not square.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.witness.torchnets import CLASSES, Builder, Shape, _conv_bn, _randomised


def _trained(build: Callable[[], nn.Module], shape: Shape, seed: int) -> nn.Module:
    """Build a network as `torchnets` does, and move what starts at 0 or 1: norms, layer scales, tokens, positions."""
    net = _randomised(build, shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.Linear):  # what Kaiming's rule is not meant for: there is no ReLU in front
                m.weight *= 0.7
            if isinstance(m, nn.LayerNorm):
                m.weight += 0.2 * torch.randn(m.weight.shape, generator=generator)
                m.bias += 0.2 * torch.randn(m.bias.shape, generator=generator)
            for p in m.parameters(recurse=False):
                if not isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.LayerNorm | nn.BatchNorm2d):
                    p += 0.3 * torch.randn(p.shape, generator=generator)
    return net


class _Attention(nn.Module):
    """Self-attention over the tokens of (B, T, C), several heads, queries, keys and values from one matrix."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        if mask is not None:  # (windows, T, T), for every sample
            windows = mask.shape[0]
            scores = scores.reshape(b // windows, windows, self.heads, t, t) + mask[:, None]
            scores = scores.reshape(b, self.heads, t, t)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class _Encoder(nn.Module):
    """A transformer's block, normalisation first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Vit(nn.Module):
    def __init__(self, grid: tuple[int, int], tokens: int, dim: int, *, pooled: bool) -> None:
        super().__init__()
        self.tokens, self.pooled = tokens, pooled
        self.patches = nn.Conv2d(3, dim, 8, 8)
        self.extra = nn.Parameter(torch.zeros(1, tokens, dim))
        self.positions = nn.Parameter(torch.zeros(1, tokens + grid[0] * grid[1], dim))
        self.blocks = nn.Sequential(_Encoder(dim, 2), _Encoder(dim, 2))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.norm(self.blocks(x))
        if self.pooled:
            return self.head(x[:, self.tokens :].mean(1))
        return sum((self.head(x[:, i]) for i in range(1, self.tokens)), self.head(x[:, 0])) / self.tokens


class _Window(nn.Module):
    """Attention in shifted windows over (B, H, W, C): roll, cut into windows, attend, put together, roll back."""

    def __init__(self, dim: int, size: tuple[int, int], window: int, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm, self.attention = nn.LayerNorm(dim), _Attention(dim, 2)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.register_buffer("mask", self._mask())

    def _cut(self, x: Tensor) -> Tensor:
        (h, w), k, c = self.size, self.window, x.shape[-1]
        return x.reshape(-1, h // k, k, w // k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, k * k, c)

    def _mask(self) -> Tensor | None:
        """Forbid attention between positions that only the roll made neighbours."""
        if not self.shift:
            return None
        edges = [(torch.arange(n) >= n - self.window).int() + (torch.arange(n) >= n - self.shift) for n in self.size]
        region = self._cut((3 * edges[0][:, None] + edges[1])[None, :, :, None])[..., 0]
        return (region[:, None, :] != region[:, :, None]) * -100.0

    def forward(self, x: Tensor) -> Tensor:
        (h, w), k, s = self.size, self.window, self.shift
        y = self.norm(x)
        if s:
            y = torch.roll(y, (-s, -s), (1, 2))
        y = self.attention(self._cut(y), self.mask)
        y = y.reshape(-1, h // k, w // k, k, k, y.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, y.shape[-1])
        if s:
            y = torch.roll(y, (s, s), (1, 2))
        x = x + y
        return x + self.mlp(x)


class _Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.early = nn.Sequential(_Window(12, (8, 12), 4, 0), _Window(12, (8, 12), 4, 2))
        self.merge = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 16, bias=False))
        self.late = nn.Sequential(_Window(16, (4, 6), 2, 0), _Window(16, (4, 6), 2, 1))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.early(self.patches(x).permute(0, 2, 3, 1))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.late(self.merge(torch.cat(corners, -1)))
        return self.head(self.norm(x).mean((1, 2)))


class _ConvNextBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1))) * self.scale
        return x + y.permute(0, 3, 1, 2)


class _ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 12, 4, 4), nn.Sequential(_ConvNextBlock(12), _ConvNextBlock(12))
        self.down, self.second = nn.Conv2d(12, 20, 2, 2), _ConvNextBlock(20)
        self.norm, self.head = nn.LayerNorm(20), nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.second(self.down(self.first(self.stem(x)))).mean((2, 3))))


class _Unfolded(nn.Module):
    """MobileViT's block: attention between pixels of equal place in their patches, patches folded into the batch."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(_conv_bn(channels, channels, act=nn.SiLU), nn.Conv2d(channels, dim, 1, bias=False))
        self.encoder, self.norm = _Encoder(dim, 2), nn.LayerNorm(dim)
        self.leave = _conv_bn(dim, channels, 1, act=nn.SiLU)
        self.fuse = _conv_bn(2 * channels, channels, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        b, c, h, w = y.shape
        y = y.reshape(b * c * (h // 2), 2, w // 2, 2).transpose(1, 2)
        y = y.reshape(b, c, h * w // 4, 4).transpose(1, 3).reshape(b * 4, h * w // 4, c)
        y = self.norm(self.encoder(y))
        y = y.reshape(b, 4, h * w // 4, c).transpose(1, 3).reshape(b * c * (h // 2), w // 2, 2, 2)
        y = self.leave(y.transpose(1, 2).reshape(b, c, h, w))
        return self.fuse(torch.cat([x, y], 1))


class _UNet(nn.Module):
    """Two steps down and up with skips; the decoder upsamples once by interpolation, once by transposed convolution."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.a, self.b, self.c = _conv_bn(3, 8), _conv_bn(8, 12), _conv_bn(12, 16)
        self.up, self.d = nn.ConvTranspose2d(16, 12, 2, 2), _conv_bn(24, 12)
        self.e, self.head = _conv_bn(20, 8), nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([b, self.up(c)], 1))
        up = F.interpolate(d, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.e(torch.cat([a, up], 1)))


class _Yolo(nn.Module):
    """Two feature maps and a decoupled head per scale: boxes as a softmax over distances, scores by a sigmoid."""

    BINS = 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_bn(3, 8, 3, 2, act=nn.SiLU), _conv_bn(8, 12, 3, 2, act=nn.SiLU))
        self.fine, self.coarse = _conv_bn(12, 12, 3, 2, act=nn.SiLU), _conv_bn(12, 16, 3, 2, act=nn.SiLU)
        self.lateral = _conv_bn(28, 12, 1, act=nn.SiLU)
        self.boxes = nn.ModuleList(nn.Conv2d(c, 4 * self.BINS, 1) for c in (12, 16))
        self.scores = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (12, 16))
        self.register_buffer("bins", torch.arange(self.BINS, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.stem(x))
        coarse = self.coarse(fine)
        fine = self.lateral(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0, mode="nearest")], 1))
        found = []
        for level, box, score in zip((fine, coarse), self.boxes, self.scores, strict=True):
            b, _, h, w = level.shape
            distances = box(level).reshape(b, 4, self.BINS, h * w).softmax(2)
            sides = (distances * self.bins[:, None].to(x.dtype)).sum(2)
            found.append(torch.cat([sides, score(level).flatten(2).sigmoid()], 1))
        return torch.cat(found, 2)


def vit(seed: int) -> nn.Module:
    """Patches and a class token, read out at the token."""
    return _trained(lambda: _Vit((4, 6), 1, 16, pooled=False), SHAPES["vit"], seed)


def deit(seed: int) -> nn.Module:
    """Patches, a class token and a distillation token, read out at both."""
    return _trained(lambda: _Vit((4, 6), 2, 16, pooled=False), SHAPES["deit"], seed)


def vit_pooled(seed: int) -> nn.Module:
    """Patches and a class token, read out at the mean of the patches."""
    return _trained(lambda: _Vit((4, 6), 1, 16, pooled=True), SHAPES["vit_pooled"], seed)


def swin(seed: int) -> nn.Module:
    """Windows and shifted windows with their mask, patch merging, channels last."""
    return _trained(_Swin, SHAPES["swin"], seed)


def convnext(seed: int) -> nn.Module:
    """Depthwise convolutions between transposes, LayerNormalization and GELU, layer scale."""
    return _trained(_ConvNext, SHAPES["convnext"], seed)


def mobilevit(seed: int) -> nn.Module:
    """A convolution, attention over unfolded patches, a convolution."""

    def build() -> nn.Module:
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES))
        return nn.Sequential(_conv_bn(3, 12, 3, 4, act=nn.SiLU), _Unfolded(12, 16), head)

    return _trained(build, SHAPES["mobilevit"], seed)


def unet(seed: int) -> nn.Module:
    """A segmenter: one logit per class and pixel."""
    return _trained(lambda: _UNet(3), SHAPES["unet"], seed)


def yolo(seed: int) -> nn.Module:
    """A detector's raw output: (N, 4 + classes, anchors of both scales)."""
    return _trained(lambda: _Yolo(5), SHAPES["yolo"], seed)


SHAPES: dict[str, Shape] = {
    "vit": (2, 3, 32, 48),
    "deit": (2, 3, 32, 48),
    "vit_pooled": (2, 3, 32, 48),
    "swin": (2, 3, 32, 48),
    "convnext": (2, 3, 32, 48),
    "mobilevit": (2, 3, 32, 48),
    "unet": (2, 3, 24, 32),
    "yolo": (2, 3, 32, 48),
}

NETS: dict[str, tuple[Builder, Shape]] = {
    build.__name__: (build, SHAPES[build.__name__])
    for build in (vit, deit, vit_pooled, swin, convnext, mobilevit, unet, yolo)
}
