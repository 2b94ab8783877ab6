"""Token networks whose score depends on one patch by construction: attention attends to itself, one token is read.

Grids are not square. Attention runs as it always does, with a mask that leaves each token itself, so that every value
of it has an influence; convolutions have kernels that are zero beside the centre.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

ROWS, COLUMNS, PATCH, DIM = 4, 6, 8, 12
TOKENS = ROWS * COLUMNS
SHAPE = (2, 3, ROWS * PATCH, COLUMNS * PATCH)


class Attention(nn.Module):
    """Self-attention in which a token attends to itself."""

    def __init__(self, dim: int = DIM, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5 - 1e4 * (1 - torch.eye(int(t)))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class Rotary(Attention):
    """The same with queries and keys turned by position, the extra tokens left as they are."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra
        angle = torch.arange(TOKENS)[:, None] * torch.tensor([0.1, 0.3, 0.7])
        self.register_buffer("cos", angle.cos().repeat_interleave(2, 1))
        self.register_buffer("sin", angle.sin().repeat_interleave(2, 1))

    def _turned(self, q: Tensor) -> Tensor:
        rest, p = q[:, :, : self.extra], q[:, :, self.extra :]
        turned = torch.stack([-p[..., 1::2], p[..., ::2]], -1).reshape(p.shape)
        return torch.cat([rest, p * self.cos + turned * self.sin], 2)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self._turned(q) @ self._turned(k).transpose(-2, -1) * 0.4 - 1e4 * (1 - torch.eye(int(t)))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, attention: nn.Module | None = None, act: Callable[[], nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(DIM), attention or Attention()
        self.mlp = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 2 * DIM), act(), nn.Linear(2 * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(x)


class Vit(nn.Module):
    """Patches with extra tokens before and behind them; what is read is one patch's token.

    Parameters
    ----------
    read : int
        The patch.
    before, behind : int
        Numbers of extra tokens.
    blocks : sequence of nn.Module
        The blocks.
    sliced : bool
        Cut patches by reshaping and not by a convolution.
    late : bool
        Extra tokens are joined behind the positions, not before.
    """

    def __init__(
        self,
        read: int,
        before: int = 0,
        behind: int = 0,
        blocks: Callable[[], nn.Module] = Block,
        *,
        sliced: bool = False,
        late: bool = False,
        pre: bool = False,
    ) -> None:
        super().__init__()
        self.read, self.before, self.behind, self.sliced, self.late = read, before, behind, sliced, late
        self.patches = nn.Linear(3 * PATCH * PATCH, DIM) if sliced else nn.Conv2d(3, DIM, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, before, DIM))
        self.last = nn.Parameter(torch.randn(1, behind, DIM))
        self.positions = nn.Parameter(torch.randn(1, TOKENS + (0 if late else before + behind), DIM))
        self.pre = nn.LayerNorm(DIM) if pre else nn.Identity()
        self.blocks = nn.Sequential(blocks(), blocks())
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, 5)

    def tokens(self, x: Tensor) -> Tensor:
        """Return all tokens after the last normalisation."""
        if self.sliced:
            x = (
                x.reshape(-1, 3, ROWS, PATCH, COLUMNS, PATCH)
                .permute(0, 2, 4, 3, 5, 1)
                .reshape(-1, TOKENS, 3 * PATCH**2)
            )
            x = self.patches(x)
        else:
            x = self.patches(x).flatten(2).transpose(1, 2)
        if self.late:
            x = x + self.positions
        extra = [e.expand(x.shape[0], -1, -1) for e in (self.first, self.last)]
        x = torch.cat([*extra[: self.before > 0], x, *extra[1 : 1 + (self.behind > 0)]], 1)
        x = x if self.late else x + self.positions
        return self.norm(self.blocks(self.pre(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(x)[:, self.before + self.read])


class Clip(Vit):
    """CLIP's image encoder, whose embedding has the length 1."""

    def __init__(self, read: int) -> None:
        super().__init__(read, 1, blocks=lambda: Block(act=QuickGelu), pre=True)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y / y.norm(dim=-1, keepdim=True)


class Dino(Vit):
    """All patch tokens as features, (N, patches, features)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(x)[:, self.before :])


class Swin(nn.Module):
    """Windows of 2 x 2 patches, shifted by one in the second block, and patch merging."""

    def __init__(self, read: int) -> None:
        super().__init__()
        self.read, self.patches = read, nn.Conv2d(3, DIM, PATCH // 2, PATCH // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.attentions = nn.ModuleList(Attention() for _ in range(2))
        self.merge = nn.Sequential(nn.LayerNorm(4 * DIM), nn.Linear(4 * DIM, DIM, bias=False))
        self.late, self.norm, self.head = Block(), nn.LayerNorm(DIM), nn.Linear(DIM, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        h, w = 2 * ROWS, 2 * COLUMNS
        for shift, norm, attention in zip((0, 1), self.norms, self.attentions, strict=True):
            y = torch.roll(norm(x), (-shift, -shift), (1, 2)) if shift else norm(x)
            y = y.reshape(-1, h // 2, 2, w // 2, 2, DIM).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, DIM)
            y = attention(y).reshape(-1, h // 2, w // 2, 2, 2, DIM).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, DIM)
            x = x + (torch.roll(y, (shift, shift), (1, 2)) if shift else y)
        x = self.merge(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))
        x = self.norm(self.late(x.flatten(1, 2)))
        return self.head(x[:, self.read])


def _centred(conv: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        k = conv.kernel_size[0] // 2
        kept = conv.weight[:, :, k, k].clone()
        conv.weight.zero_()
        conv.weight[:, :, k, k] = kept
    return conv


class ConvNext(nn.Module):
    """Depthwise convolutions of which only the centres weigh, channels last between transposes."""

    def __init__(self, read: int) -> None:
        super().__init__()
        self.row, self.column = divmod(read, COLUMNS)
        self.stem = nn.Conv2d(3, DIM, PATCH // 2, PATCH // 2)
        self.depthwise = nn.ModuleList(_centred(nn.Conv2d(DIM, DIM, 7, padding=3, groups=DIM)) for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))
            for _ in range(2)
        )
        self.down, self.head = nn.Conv2d(DIM, DIM, 2, 2), nn.Linear(DIM, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, (depthwise, mlp) in enumerate(zip(self.depthwise, self.mlps, strict=True)):
            x = x + mlp(depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = self.down(x) if i == 0 else x
        return self.head(x[:, :, self.row, self.column])


class MobileVit(nn.Module):
    """Attention between pixels of equal place in their patches of 2 x 2, patches folded into the batch."""

    def __init__(self, read: int) -> None:
        super().__init__()
        self.row, self.column = divmod(read, COLUMNS)
        self.stem = nn.Conv2d(3, DIM, PATCH // 2, PATCH // 2)
        self.enter, self.block, self.norm = _centred(nn.Conv2d(DIM, DIM, 3, padding=1)), Block(), nn.LayerNorm(DIM)
        self.leave, self.fuse = nn.Conv2d(DIM, DIM, 1), _centred(nn.Conv2d(2 * DIM, DIM, 3, padding=1))
        self.down, self.head = nn.Conv2d(DIM, DIM, 2, 2), nn.Linear(DIM, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.silu(self.enter(x))
        h, w = 2 * ROWS, 2 * COLUMNS
        y = y.reshape(-1, DIM, h // 2, 2, w // 2, 2).transpose(3, 4).reshape(-1, DIM, h * w // 4, 4)
        y = y.transpose(1, 3).reshape(-1, h * w // 4, DIM)
        y = self.norm(self.block(y)).reshape(-1, 4, h * w // 4, DIM).transpose(1, 3)
        y = y.reshape(-1, DIM, h // 2, w // 2, 2, 2).transpose(3, 4).reshape(-1, DIM, h, w)
        y = self.down(F.silu(self.fuse(torch.cat([x, self.leave(y)], 1))))
        return self.head(y[:, :, self.row, self.column])


NETS: dict[str, Callable[[int], nn.Module]] = {
    "ViT without extra tokens": lambda read: Vit(read),
    "ViT with a class token": lambda read: Vit(read, 1),
    "ViT, class token behind the positions": lambda read: Vit(read, 1, late=True),
    "ViT, patches by reshaping": lambda read: Vit(read, 1, sliced=True),
    "ViT with a class token and registers": lambda read: Vit(read, 5, late=True),
    "ViT with registers behind": lambda read: Vit(read, 1, 4),
    "ViT with rotary positions": lambda read: Vit(read, 1, blocks=lambda: Block(Rotary(1))),
    "DeiT": lambda read: Vit(read, 2),
    "CLIP": Clip,
    "DINO": lambda read: Dino(read, 1),
    "DINO with registers": lambda read: Dino(read, 5, late=True),
    "Swin": Swin,
    "ConvNeXt": ConvNext,
    "MobileViT": MobileVit,
}


def build(name: str, read: int) -> nn.Module:
    """Build a network with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NETS[name](read)
        with torch.no_grad():
            for m in net.modules():
                if isinstance(m, nn.LayerNorm):
                    m.weight += 0.2 * torch.randn(m.weight.shape)
                    m.bias += 0.2 * torch.randn(m.bias.shape)
    return net.eval()
