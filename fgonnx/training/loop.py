"""The training loop: epochs, learning-rate schedule, checkpoints to resume from."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fgonnx import files
from fgonnx.errors import NumericError, OptionError
from fgonnx.fields import accepted, check_choice
from fgonnx.training.data import Batches
from fgonnx.training.network import Network, Step
from fgonnx.training.optimisers import AdamW, Optimiser
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
T = TypeVar("T")
_LOGGER = logging.getLogger("fgonnx.training")

SCHEDULES = ("cosine", "constant")
_MOMENTUM = 0.9  # of running statistics
_REQUEST, _HISTORY = "request", "history"


@dataclass(frozen=True)
class Rate:
    """A learning rate with its schedule.

    Attributes
    ----------
    start : float
        Initial learning rate.
    schedule : {"cosine", "constant"}
        Whether it decays to zero along half a cosine (Loshchilov and Hutter, ICLR 2017), step by step, or is constant.

    Raises
    ------
    OptionError
        The rate is not above 0, or there is no such schedule.
    """

    start: float = 1e-3
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        object.__setattr__(self, "start", accepted("rate", self.start, float, above=0))

    def at(self, share: float) -> float:
        """Return the rate after this share of the training, 0..1."""
        return self.start * 0.5 * (1 + math.cos(math.pi * share)) if self.schedule == "cosine" else self.start


@dataclass(frozen=True)
class Epoch:
    """Statistics of one epoch of training.

    Attributes
    ----------
    loss : float
        Mean cross-entropy over its batches.
    accuracy : float
        Training accuracy, with batch statistics.
    validation : float or None
        Accuracy on held-out samples after the epoch.
    """

    loss: float
    accuracy: float
    validation: float | None = None


def fit(
    network: Network,
    batches: Batches,
    epochs: int,
    *,
    optimiser: Optimiser | None = None,
    rate: Rate | float = 1e-3,
    validation: Batches | None = None,
    checkpoint: str | Path | None = None,
) -> list[Epoch]:
    """Train the weights of a network, in place.

    Every epoch is logged by the logger ``fgonnx.training``, at level INFO.

    Parameters
    ----------
    network : Network
        Training starts from its current weights; call `reinitialise` first to train from scratch.
    batches : Batches
        Training samples.
    epochs : int
        Number of passes over all samples.
    optimiser : Optimiser, optional
        AdamW by default.
    rate : Rate or float
        Learning rate; a number decays along half a cosine.
    validation : Batches, optional
        Held-out samples, evaluated after every epoch.
    checkpoint : path, optional
        File in which the state is saved after every epoch, atomically. If it exists, training resumes from it, and
        ends with the same weights as without interruption.

    Returns
    -------
    list of Epoch

    Raises
    ------
    OptionError
        If an option has an invalid value, or the checkpoint belongs to another training.
    NumericError
        If the loss is no longer finite.
    """
    network, batches = _given("network", network, Network), _given("batches", batches, Batches)
    epochs = accepted("epochs", epochs, int, least=1)
    rate = rate if isinstance(rate, Rate) else Rate(rate)
    optimiser = AdamW() if optimiser is None else optimiser
    if not callable(getattr(optimiser, "update", None)):
        raise OptionError(f"{parameter('optimiser', optimiser)} is none; give fgonnx.training.AdamW() or SGD()")
    validation = None if validation is None else _given("validation", validation, Batches)
    file = accepted("checkpoint", checkpoint, Path | None)
    request = {
        "epochs": epochs,
        "rate": rate.start,
        "schedule": rate.schedule,
        "optimiser": repr(optimiser),
        "size": batches.size,
        "seed": batches.seed,
        "samples": len(batches.x),
        "model": network.loaded.sha256,
    }
    history = _restore(file, request, network, optimiser) if file is not None and file.exists() else []
    for number in range(len(history), epochs):
        losses, hits = [], 0
        for i, (x, labels) in enumerate(batches.epoch(number)):
            found = network.step(x, labels)
            if not math.isfinite(found.loss):
                raise NumericError(f"the loss is {found.loss} in epoch {number + 1}; give a lower rate")
            _update(network, optimiser, found, rate.at((number + i / len(batches)) / epochs))
            losses.append(found.loss)
            hits += found.hits
        held_out = None if validation is None else accuracy(network, validation)
        history.append(Epoch(float(np.mean(losses)), hits / (len(batches) * batches.size), held_out))
        _LOGGER.info("epoch %d of %d: %s", number + 1, epochs, history[-1])
        if file is not None:
            _store(file, request, network, optimiser, history)
    return history


def _given(name: str, value: Any, kind: type[T]) -> T:
    """Refuse an object of another class."""
    if not isinstance(value, kind):
        raise OptionError(f"{name} is of the type {type(value).__name__}; give a fgonnx.training.{kind.__name__}")
    return value


def _update(network: Network, optimiser: Optimiser, found: Step, rate: float) -> None:
    """Update weights by the gradients of a batch, and running statistics by those of the batch."""
    optimiser.update(network.weights, found.gradients, rate)
    for name, running in network.statistics.items():
        running += (1 - _MOMENTUM) * (found.statistics[name] - running)


def accuracy(network: Network, samples: Batches) -> float:
    """Return the share of samples whose largest logit is that of their class, with running statistics."""
    network, samples = _given("network", network, Network), _given("samples", samples, Batches)
    found = network.logits(samples.ready(samples.x)).argmax(axis=1)
    return float(np.mean(found == samples.labels))


def _store(
    file: Path, request: Mapping[str, Any], network: Network, optimiser: Optimiser, history: list[Epoch]
) -> None:
    arrays = {f"w:{n}": a for n, a in network.weights.items()} | {f"s:{n}": a for n, a in network.statistics.items()}
    arrays |= {f"o:{n}": a for n, a in optimiser.state.items()}
    texts = {_REQUEST: json.dumps(request), _HISTORY: json.dumps([asdict(e) for e in history])}
    files.make_folder(file.parent)
    with files.replacing(file) as temporary, temporary.open("xb") as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{k: np.array(v) for k, v in texts.items()})


def _restore(file: Path, request: Mapping[str, Any], network: Network, optimiser: Optimiser) -> list[Epoch]:
    with np.load(file, allow_pickle=False) as stored:
        found = json.loads(str(stored[_REQUEST]))
        if differing := sorted(k for k in {*found, *request} if found.get(k) != request.get(k)):
            raise OptionError(
                f"'{file}' is the checkpoint of another training ({', '.join(differing)} differ); give another name, "
                "or remove it"
            )
        for key, place in (("w:", network.weights), ("s:", network.statistics)):
            for name in place:
                place[name][...] = stored[key + name]
        optimiser.state.update({k[2:]: stored[k] for k in stored.files if k.startswith("o:")})
        return [Epoch(**entry) for entry in json.loads(str(stored[_HISTORY]))]
