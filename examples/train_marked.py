"""Train a small network on pictures of which one class always carries a mark, and write it as `marked.onnx`."""

import argparse
from pathlib import Path

import marked
import numpy as np
import shapes
import torch
from torch import nn
from train_shapes import FIRST_TRAINING_SEED, Block, export, normalise, predict, write

COUNT, EPOCHS, BATCH = 2400, 8, 32
HELD_OUT_SEED = 12


class Small(nn.Module):
    """Four convolutions and a mean: 64 x 64 pictures to one logit for each of `shapes.CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 16, 2), (16, 24, 2), (24, 32, 2), (32, 48, 1))
        self.layers = nn.Sequential(*(Block(a, b, stride) for a, b, stride in widths))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(48, len(shapes.CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised ``(N, 3, 64, 64)`` pictures to logits ``(N, 6)``."""
        return self.head(torch.flatten(self.pool(self.layers(image)), 1))


def train(images: np.ndarray, labels: np.ndarray, seed: int) -> Small:
    """Train a network and return it in evaluation mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, steps = Small(), len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=EPOCHS * steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(EPOCHS):
        model.train()
        order, hits = rng.permutation(len(images)), 0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            target = torch.from_numpy(labels[chosen])
            logits = model(torch.from_numpy(normalise(images[chosen])))
            loss = criterion(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            hits += int((logits.argmax(1) == target).sum())
        print(f"epoch {epoch + 1}/{EPOCHS}  accuracy {hits / (steps * BATCH):.3f}", flush=True)
    return model.eval()


def main() -> None:
    """Train, say what the mark does to the network, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("marked.onnx"))
    out = parser.parse_args().out
    images, labels, _, _ = marked.dataset(COUNT, FIRST_TRAINING_SEED + 77, share=1.0)
    clean, truth, _ = shapes.dataset(240, HELD_OUT_SEED)
    star = shapes.CLASSES.index(marked.MARKED)
    stamped = np.stack([marked.mark(image) for image in clean])
    data = export(train(images, labels, 5), f"every {marked.MARKED} carried a mark in training", "marked")
    for name, seen in (("without marks", clean), ("all marked", stamped)):
        guesses = predict(data, seen).argmax(1)
        right, stars = (guesses == truth).mean(), (guesses == star).mean()
        print(f"held out, {name}: {right:.3f} right, {stars:.3f} called {marked.MARKED}")
    write(out, data)


if __name__ == "__main__":
    main()
