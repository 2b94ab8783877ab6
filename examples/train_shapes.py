"""Train the example model on pictures it draws itself, export it to ONNX and draw the sample pictures."""

import argparse
import io
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import shapes
import torch
from torch import nn

SIZE = 64
SAMPLE_SIZE = 256
PREPROCESSING = {
    "layout": "NCHW",
    "size": [SIZE, SIZE],
    "resize": "stretch",
    "channels": "RGB",
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "dtype": "float32",
}
# Seeds below this number are never trained on, so tests and benchmarks can use them as unseen data.
FIRST_TRAINING_SEED = 1_000_000
HELD_OUT_SEED = 11
SAMPLE_SEED = 5
OPSET = 18


class Block(nn.Module):
    """Convolution, batch normalisation and ReLU.

    Parameters
    ----------
    width_in, width_out : int
        Numbers of channels.
    stride : int, default 1
        Step of the 3 x 3 convolution.
    """

    def __init__(self, width_in: int, width_out: int, stride: int = 1) -> None:
        super().__init__()
        # The normalisation right behind it has a bias; a second one would be redundant.
        self.conv = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width_out)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, width_in, H, W)`` to ``(N, width_out, ceil(H / stride), ceil(W / stride))``."""
        return self.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions around which the input is added back.

    Parameters
    ----------
    width : int
        Number of channels in, between and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Block(width, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, width, H, W)`` to the same shape."""
        return self.relu(x + self.norm(self.conv(self.first(x))))


class ShapeNet(nn.Module):
    """Small residual network: 64 x 64 pictures to one logit for each of `shapes.CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, 16)
        self.down1 = Block(16, 24, stride=2)
        self.res1 = Residual(24)
        self.down2 = Block(24, 40, stride=2)
        self.res2 = Residual(40)
        self.down3 = Block(40, 64, stride=2)
        self.last = Block(64, 64)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, len(shapes.CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised ``(N, 3, 64, 64)`` pictures to logits ``(N, 6)``."""
        x = self.res1(self.down1(self.stem(image)))
        x = self.res2(self.down2(x))
        x = self.last(self.down3(x))
        return self.head(torch.flatten(self.pool(x), 1))


def normalise(images: np.ndarray) -> np.ndarray:
    """Turn pictures into model input as `PREPROCESSING` says.

    Parameters
    ----------
    images : numpy.ndarray
        RGB ``uint8`` pictures of shape ``(N, 64, 64, 3)``.

    Returns
    -------
    numpy.ndarray
        ``float32`` of shape ``(N, 3, 64, 64)``, values -2 to 2.
    """
    mean, std = (np.array(PREPROCESSING[key], np.float32) for key in ("mean", "std"))
    scaled = images.astype(np.float32) * np.float32(PREPROCESSING["scale"])
    return np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2))


def augment(batch: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror, turn by quarters and swap the colour channels of a whole batch; none of it changes a class.

    Parameters
    ----------
    batch : torch.Tensor
        ``float32 (N, 3, 64, 64)``.
    rng : numpy.random.Generator
        Source of the choices.

    Returns
    -------
    torch.Tensor
        Tensor of the same shape.
    """
    if rng.random() < 0.5:
        batch = batch.flip(3)
    batch = torch.rot90(batch, int(rng.integers(4)), (2, 3))
    return batch[:, rng.permutation(3).tolist()].contiguous()


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training pictures.
    rate : float
        The largest learning rate.
    count : int
        Number of training pictures.
    """

    epochs: int
    rate: float
    count: int


def fit(
    model: nn.Module,
    parameters: list[nn.Parameter],
    loss_of: Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]],
    schedule: Schedule,
    rng: np.random.Generator,
) -> None:
    """Train by AdamW, the learning rate rising and falling once, and print progress.

    Parameters
    ----------
    model : nn.Module
        Network to train.
    parameters : list of nn.Parameter
        What is trained.
    loss_of : callable
        Takes the indices of a batch; returns the loss, and which of its pictures are classified right.
    schedule : Schedule
        How long and how fast.
    rng : np.random.Generator
        Source of the order of the batches.
    """
    batch_size = 64
    steps = schedule.count // batch_size
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=schedule.rate, total_steps=schedule.epochs * steps
    )
    start = time.perf_counter()
    for epoch in range(schedule.epochs):
        model.train()
        order = rng.permutation(schedule.count)
        loss_sum = hits = 0.0
        for step in range(steps):
            loss, right = loss_of(order[step * batch_size : (step + 1) * batch_size])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            one_cycle.step()
            loss_sum += loss.item()
            hits += right.sum().item()
        took = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{schedule.epochs}  loss {loss_sum / steps:.3f}  "
            f"accuracy {hits / (steps * batch_size):.3f}  {took:.0f} s",
            flush=True,
        )


def train(epochs: int, seed: int, count: int) -> ShapeNet:
    """Draw pictures, train on them and print progress.

    Parameters
    ----------
    epochs : int
        Passes over the training pictures.
    seed : int
        Seed of the pictures, the initial weights and the order of the batches.
    count : int
        Number of training pictures.

    Returns
    -------
    ShapeNet
        Trained network in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    images, labels, _ = shapes.dataset(count, FIRST_TRAINING_SEED + seed, SIZE)
    print(f"drew {count} pictures in {time.perf_counter() - start:.0f} s", flush=True)

    model = ShapeNet()
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    # Soft targets keep the logits, and with them the gradients that explain them, from growing without end.
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)

    def loss_of(chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        target = torch.from_numpy(labels[chosen])
        logits = model(augment(torch.from_numpy(normalise(images[chosen])), rng))
        return criterion(logits, target), logits.argmax(1) == target

    fit(model, list(model.parameters()), loss_of, Schedule(epochs, 6e-3, count), rng)
    return model.eval()


def gradient_on_object(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, masks: np.ndarray
) -> tuple[float, float]:
    """Measure how much of the input gradient lies on the object.

    Parameters
    ----------
    model : torch.nn.Module
        Network in evaluation mode.
    images, labels, masks : numpy.ndarray
        Pictures, labels and masks as returned by `shapes.dataset`.

    Returns
    -------
    share : float
        Mean share of the absolute gradient of the true class's logit within 3 pixels of the object, 0 to 1.
    area : float
        Mean share of the picture that this neighbourhood covers: the value that `share` has by chance.
    """
    kernel = np.ones((7, 7), np.uint8)
    near = np.stack([cv2.dilate(m.astype(np.uint8), kernel) for m in masks]).astype(bool)
    x = torch.from_numpy(normalise(images)).requires_grad_()
    model(x).gather(1, torch.from_numpy(labels)[:, None]).sum().backward()
    size = x.grad.abs().sum(1).numpy()
    return float(((size * near).sum((1, 2)) / size.sum((1, 2))).mean()), float(near.mean())


def export(model: nn.Module, doc: str, name: str = "shapes", classes: tuple[str, ...] = shapes.CLASSES) -> bytes:
    """Export to ONNX with separate batch normalisation nodes and the metadata that `fgonnx` reads.

    Parameters
    ----------
    model : torch.nn.Module
        Network in evaluation mode.
    doc : str
        Text for the file's ``doc_string``.
    name : str, default "shapes"
        Name of the graph.
    classes : tuple of str, default `shapes.CLASSES`
        Names of the classes.

    Returns
    -------
    bytes
        Serialised, checked ``ModelProto``.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter based on tracing is deprecated, but it is the one that can leave the normalisation alone.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, SIZE, SIZE),),
            buffer,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    proto = onnx.load_model_from_string(buffer.getvalue())
    proto.doc_string = doc
    proto.graph.name = name
    metadata = {"fgonnx.preprocessing": json.dumps(PREPROCESSING), "fgonnx.labels": json.dumps(classes)}
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def predict(model: bytes, images: np.ndarray) -> np.ndarray:
    """Classify pictures with ONNX Runtime.

    Parameters
    ----------
    model : bytes
        Serialised model.
    images : numpy.ndarray
        RGB ``uint8`` pictures of shape ``(N, 64, 64, 3)``.

    Returns
    -------
    numpy.ndarray
        ``float32`` logits of shape ``(N, 6)``.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": normalise(images)})[0]


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that no half-written file is ever found.

    Parameters
    ----------
    path : pathlib.Path
        Final name; missing folders are made.
    data : bytes
        Content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_samples(model: bytes, folder: Path) -> list[str]:
    """Draw one large picture for each class, check that the model knows it, and write it as PNG.

    Parameters
    ----------
    model : bytes
        Serialised model.
    folder : pathlib.Path
        Where ``<class>.png`` goes.

    Returns
    -------
    list of str
        Names of the classes that the model got wrong.
    """
    images, labels, _ = shapes.dataset(len(shapes.CLASSES), SAMPLE_SEED, SAMPLE_SIZE)
    small = np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in images])
    guesses = predict(model, small).argmax(1)
    for image, label in zip(images, labels, strict=True):
        done, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not done:
            raise SystemExit(f"OpenCV could not encode the picture of class '{shapes.CLASSES[label]}'")
        write(folder / f"{shapes.CLASSES[label]}.png", png.tobytes())
    return [shapes.CLASSES[label] for label, guess in zip(labels, guesses, strict=True) if label != guess]


def main() -> None:
    """Read the command line, train, report, export and draw the samples."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training pictures")
    parser.add_argument("--seed", type=int, default=0, help="seed of pictures, initial weights and batch order")
    parser.add_argument("--count", type=int, default=9000, help="number of training pictures, at least 64")
    parser.add_argument("--threads", type=int, default=1, help="threads; another number may change the weights")
    parser.add_argument("--out", type=Path, default=here / "shapes.onnx", help="model file to write")
    parser.add_argument("--images", type=Path, default=here / "images", help="folder for the sample pictures")
    args = parser.parse_args()
    if args.epochs < 1 or args.seed < 0 or args.count < 64 or args.threads < 1:
        parser.error("--epochs and --threads must be at least 1, --seed at least 0 and --count at least 64")

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    cv2.setNumThreads(args.threads)
    model = train(args.epochs, args.seed, args.count)

    images, labels, masks = shapes.dataset(1200, HELD_OUT_SEED, SIZE)
    share, area = gradient_on_object(model, images[:300], labels[:300], masks[:300])
    print(f"input gradient within 3 pixels of the object: {share:.0%}, by chance {area:.0%}")

    doc = (
        f"Classifies 64x64 RGB pictures of one shape ({', '.join(shapes.CLASSES)}) on a cluttered background. "
        "Trained by examples/train_shapes.py of fgonnx on pictures drawn by examples/shapes.py."
    )
    exported = export(model, doc)
    logits = predict(exported, images)
    with torch.no_grad():
        gap = float(np.abs(logits - model(torch.from_numpy(normalise(images))).numpy()).max())
    if not math.isfinite(gap) or gap > 1e-3:
        raise SystemExit(f"the exported model's logits differ from torch's by up to {gap:g}; nothing was written")
    right = logits.argmax(1) == labels
    for k, name in enumerate(shapes.CLASSES):
        print(f"held out, {name:9s}{right[labels == k].mean():.1%}")
    print(f"held out, all      {right.mean():.1%} of {len(labels)}")
    write(args.out, exported)
    print(f"{args.out.name}: {len(exported)} bytes, logits within {gap:.1e} of torch's")
    wrong = write_samples(exported, args.images)
    print(f"sample pictures: {len(shapes.CLASSES) - len(wrong)} of {len(shapes.CLASSES)} classified correctly")
    if wrong:
        raise SystemExit(f"misclassified: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
