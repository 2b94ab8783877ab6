"""Train a small network on the objects of parts that parts.py draws, and export it to ONNX."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import parts
import torch
from torch import nn
from train_shapes import (
    FIRST_TRAINING_SEED,
    HELD_OUT_SEED,
    SIZE,
    Block,
    Schedule,
    export,
    fit,
    normalise,
    predict,
    write,
)

# Badges are left out of training pictures this often, so that a picture without one is nothing new to the network.
MISSING = 0.15


class PartNet(nn.Module):
    """Small convolutional network: 64 x 64 pictures to one logit for each of `parts.CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(Block(3, 16, 2), Block(16, 32), Block(32, 48, 2), Block(48, 64), Block(64, 64))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(64, 48)
        self.relu = nn.ReLU()
        self.head = nn.Linear(48, len(parts.CLASSES))

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised ``(N, 3, 64, 64)`` pictures to features ``(N, 64)``."""
        return torch.flatten(self.pool(self.features(image)), 1)

    def classified(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map features ``(N, 64)`` to logits ``(N, 9)``."""
        return self.head(self.relu(self.hidden(pooled)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised ``(N, 3, 64, 64)`` pictures to logits ``(N, 9)``."""
        return self.classified(self.pooled(image))


class Mixed(nn.Module):
    """A block as in ConvNeXt: depthwise convolution, layer normalisation, two dense layers with GELU, and a shortcut.

    Parameters
    ----------
    width : int
        Number of channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, 2 * width)
        self.gelu = nn.GELU()
        self.second = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, width, H, W)`` to the same shape."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.second(self.gelu(self.first(y))).permute(0, 3, 1, 2)


class ConvNet(PartNet):
    """The same with blocks of ConvNeXt in the second half: layer normalisation and GELU are not piecewise linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Block(3, 16, 2), Block(16, 32), Block(32, 48, 2), Mixed(48), Mixed(48), nn.Conv2d(48, 64, 1)
        )


class Attending(nn.Module):
    """A block as in ViT: self-attention and two dense layers with GELU, each behind a normalisation, with shortcuts.

    Parameters
    ----------
    width, heads : int
        Numbers of channels and of attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.mixing = nn.Linear(width, 3 * width)
        self.merging = nn.Linear(width, width)
        self.second_norm = nn.LayerNorm(width)
        self.dense = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens ``(N, T, width)`` to the same shape."""
        count, width = x.shape[1:]
        mixed = self.mixing(self.norm(x)).reshape(-1, count, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(2, 3) * (width // self.heads) ** -0.5, -1)
        x = x + self.merging((weights @ value).transpose(1, 2).reshape(-1, count, width))
        return x + self.dense(self.second_norm(x))


class TokenNet(PartNet):
    """A vision transformer: 8 x 8 patches behind convolutions, and a class token that is read in the end.

    Parameters
    ----------
    width, heads, depth : int
        Numbers of channels, of attention heads and of blocks.
    """

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Block(3, 16, 2), Block(16, 32), Block(32, 48, 2), nn.Conv2d(48, width, 3, 2, padding=1)
        )
        self.extra = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (SIZE // 8) ** 2, width))
        self.blocks = nn.Sequential(*(Attending(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised ``(N, 3, 64, 64)`` pictures to the class token ``(N, 64)``."""
        patches = self.features(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(patches.shape[0], -1, -1), patches], 1) + self.positions
        return self.norm(self.blocks(tokens))[:, 0]


@dataclass(frozen=True)
class Recipe:
    """What is trained and how.

    Attributes
    ----------
    network : type
        The network.
    epochs : int
        Passes over the training pictures.
    rate : float
        The largest learning rate.
    """

    network: type[PartNet]
    epochs: int
    rate: float


NETWORKS = {
    "parts": Recipe(PartNet, 8, 8e-3),
    "parts_convnext": Recipe(ConvNet, 8, 8e-3),
    "parts_vit": Recipe(TokenNet, 10, 2e-3),
}


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw training pictures, from which badges are missing at random.

    Parameters
    ----------
    count, seed : int
        Number of pictures, and seed of all that is drawn.

    Returns
    -------
    images : numpy.ndarray
        ``uint8 (count, 64, 64, 3)``.
    labels : numpy.ndarray
        ``int64 (count,)``.
    shapes : numpy.ndarray
        ``int64 (count, 4)``: the shapes of the badges that spell the class, indices into `parts.SHAPES`; -1 where one
        is missing.
    """
    labels = np.arange(count, dtype=np.int64) % len(parts.CLASSES)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    shapes = np.array(parts.WORDS)[labels]
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, i])
        missing = np.flatnonzero(rng.random(len(parts.PARTS)) < MISSING).tolist()
        images[i] = parts.draw(rng, int(label), missing, SIZE).image
        shapes[i, [part for part in missing if part < shapes.shape[1]]] = -1
    return images, labels, shapes


def train(recipe: Recipe, seed: int, count: int) -> PartNet:
    """Draw pictures, train on them and print progress.

    Parameters
    ----------
    recipe : Recipe
        What is trained and how.
    seed : int
        Seed of the pictures, the initial weights and the order of the batches.
    count : int
        Number of training pictures.

    Returns
    -------
    PartNet
        Trained network in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    images, labels, shapes = pictures(count, FIRST_TRAINING_SEED + seed)
    model = recipe.network()
    # Naming the badges' shapes as well makes the features come early; the exported network does not have this layer.
    naming = nn.Linear(64, shapes.shape[1] * len(parts.SHAPES))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05, ignore_index=-1)

    def loss_of(chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        target = torch.from_numpy(labels[chosen])
        batch = torch.from_numpy(normalise(images[chosen]))
        # Mirroring and turning change no class; hues tell the badges apart, so channels stay where they are.
        batch = torch.rot90(batch.flip(3) if rng.random() < 0.5 else batch, int(rng.integers(4)), (2, 3))
        pooled = model.pooled(batch.contiguous())
        logits = model.classified(pooled)
        named = naming(pooled).reshape(len(chosen), len(parts.SHAPES), -1)
        loss = criterion(logits, target) + criterion(named, torch.from_numpy(shapes[chosen]))
        return loss, logits.argmax(1) == target

    trained = [*model.parameters(), *naming.parameters()]
    fit(model, trained, loss_of, Schedule(recipe.epochs, recipe.rate, count), rng)
    return model.eval()


def main() -> None:
    """Read the command line, train, report and export."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="parts", help="what to train")
    parser.add_argument("--epochs", type=int, help="passes over the training pictures; those of NETWORK by default")
    parser.add_argument("--seed", type=int, default=0, help="seed of pictures, initial weights and batch order")
    parser.add_argument("--count", type=int, default=6000, help="number of training pictures, at least 64")
    parser.add_argument("--threads", type=int, default=1, help="threads; another number may change the weights")
    parser.add_argument("--out", type=Path, help="model file to write; NETWORK.onnx in this folder by default")
    args = parser.parse_args()
    recipe = NETWORKS[args.network]
    recipe = replace(recipe, epochs=recipe.epochs if args.epochs is None else args.epochs)
    if recipe.epochs < 1 or args.seed < 0 or args.count < 64 or args.threads < 1:
        parser.error("--epochs and --threads must be at least 1, --seed at least 0 and --count at least 64")

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    cv2.setNumThreads(args.threads)
    model = train(recipe, args.seed, args.count)
    doc = (
        f"Classifies 64x64 RGB pictures of plates with six badges, the shapes of four of which spell one of "
        f"{len(parts.CLASSES)} classes. Trained by examples/train_parts.py of fgonnx on pictures drawn by "
        "examples/parts.py."
    )
    exported = export(model, doc, args.network, parts.CLASSES)
    images, labels, _, without = parts.dataset(450, HELD_OUT_SEED, SIZE)
    print(f"held out: {(predict(exported, images).argmax(1) == labels).mean():.1%} of {len(labels)}")
    for k, name in enumerate(parts.PARTS):
        print(f"without the {name} badge: {(predict(exported, without[:, k]).argmax(1) == labels).mean():.1%}")
    out = args.out or here / f"{args.network}.onnx"
    write(out, exported)
    print(f"{out.name}: {len(exported)} bytes")


if __name__ == "__main__":
    main()
