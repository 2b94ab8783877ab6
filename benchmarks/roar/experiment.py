"""Remove and retrain (ROAR): how much accuracy a network loses without the pixels that a method ranks as most salient.

Hooker, Erhan, Kindermans and Kim, "A Benchmark for Interpretability Methods in Deep Neural Networks", NeurIPS 2019:
pixels are removed from training and test pictures alike and the network is retrained, so that test pictures are not
out of distribution. With `keep`, the most salient pixels are kept and the others removed (KAR).

Everything is in one folder, and every finished unit of work is a file of its own, so that a run can be resumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fgonnx import files as storage
from fgonnx.engine import methods
from fgonnx.engine.model import save
from fgonnx.errors import OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.training import Batches, Network, accuracy, fit, reinitialise

Array = npt.NDArray[Any]

RANDOM, WHOLE = "random", "whole"
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
_SHARD = 1000
_MODEL, _BASE, _DATA, _REQUEST = "model.onnx", "base.onnx", "data.npz", "request.json"


@dataclass(frozen=True)
class Plan:
    """The trainings of an experiment.

    Attributes
    ----------
    methods : tuple of str
        As for `fgonnx.Explainer`, its settings behind a colon ("net-fullgrad:focus=0.9"), or "random".
    shares : tuple of float
        Shares of the pixels, between 0 and 1.
    seeds : tuple of int
        Seeds of initial weights and order of pictures, one training each.
    keep : bool
        Keep the most salient pixels instead of removing them.
    epochs, batch_size, rate
        Options of every training; see `fgonnx.training.fit`.
    mirror : bool
        Whether half of the training pictures are mirrored.
    """

    methods: tuple[str, ...]
    shares: tuple[float, ...] = SHARES
    seeds: tuple[int, ...] = (0, 1, 2)
    keep: bool = False
    epochs: int = 10
    batch_size: int = 64
    rate: float = 3e-3
    mirror: bool = True

    def __post_init__(self) -> None:
        if not self.methods or not self.seeds or not all(0 < s < 1 for s in self.shares):
            raise OptionError("give at least one method and one seed, and shares between 0 and 1")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes
    ----------
    method : str
        The method that ranked the removed pixels; "whole" where none were removed.
    share : float
        Share of the pixels.
    seed : int
        Seed of the training.
    accuracy : float
        Accuracy on the test pictures, with pixels removed too.
    train_accuracy : float
        Training accuracy in the last epoch.
    """

    method: str
    share: float
    seed: int
    accuracy: float
    train_accuracy: float

    @property
    def name(self) -> str:
        """Name of its file."""
        return _name(self.method, self.share, self.seed)


def _name(method: str, share: float, seed: int) -> str:
    return f"{method}-{round(100 * share):02d}-{seed}"


class Experiment:
    """Trainings of one network on the pictures of one data set, in a folder.

    Parameters
    ----------
    folder : Path
        Folder of data, maps and results; it is created.
    model : onnx.ModelProto
        The classifier that is trained; its weights do not matter.
    train, test : (numpy array, numpy array)
        Pictures, uint8 (N, H, W, C), and their classes, (N,).
    preprocessing : Preprocessing
        How a picture becomes the model's input.
    plan : Plan
        The trainings.

    Raises
    ------
    OptionError
        If the folder holds an experiment on something else.
    """

    def __init__(
        self,
        folder: Path,
        model: onnx.ModelProto,
        train: tuple[Array, Array],
        test: tuple[Array, Array],
        preprocessing: Preprocessing,
        plan: Plan,
    ) -> None:
        self.folder, self.plan = folder, plan
        request = {
            **{k: v for k, v in asdict(plan).items() if k not in ("methods", "shares", "seeds")},
            "preprocessing": preprocessing.to_json(),
            "base_seed": plan.seeds[0],
            "model": _digest(model.SerializeToString(deterministic=True)),
            "data": _digest(*(np.ascontiguousarray(a).tobytes() for a in (*train, *test))),
        }
        for name in ("maps", "cells"):
            storage.make_folder(folder / name)
        stored = folder / _REQUEST
        if not stored.exists():
            save.save(model, folder / _MODEL)
            with storage.replacing(folder / _DATA) as temporary, temporary.open("xb") as file:
                np.savez(file, train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])
            storage.write_json(stored, request)
        found = json.loads(stored.read_text(encoding="utf-8"))
        if differing := sorted(k for k in {*found, *request} if found.get(k) != request.get(k)):
            raise OptionError(
                f"'{folder}' holds an experiment that was made otherwise ({', '.join(differing)} differ); give another "
                "folder, or remove that one"
            )

    def tasks(self) -> list[tuple[str, float, int]]:
        """Return method, share and seed of every training, those on whole pictures first."""
        p = self.plan
        whole = [(WHOLE, 0.0, seed) for seed in p.seeds]
        return whole + [(m, k, seed) for m in p.methods for k in p.shares for seed in p.seeds]

    def run(self, workers: int = 2) -> Iterator[Cell]:
        """Run what is missing, in single-threaded processes, and yield every training when it is finished.

        Maps are those of the network trained on whole pictures with the first seed.
        """
        missing = [t for t in self.tasks() if not self._file(*t).exists()]
        yield from (self._stored(*t) for t in self.tasks() if t not in missing)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            if not (self.folder / _BASE).exists():
                pool.submit(_train_base, self.folder, self.plan).result()
            methods = dict.fromkeys(m for m, _, _ in missing if m not in (WHOLE, RANDOM))
            shards = [(m, s) for m in methods for s in self._shards() if not _map_file(self.folder, m, *s).exists()]
            for done in [pool.submit(_explain, self.folder, m, *s) for m, s in shards]:
                done.result()
            pending = {pool.submit(_train, self.folder, self.plan, *t): t for t in missing}
            for future in as_completed(pending):
                future.result()
                yield self._stored(*pending[future])

    def cells(self) -> list[Cell]:
        """Return the trainings that are finished, in the order of `tasks`."""
        return [self._stored(*t) for t in self.tasks() if self._file(*t).exists()]

    def _shards(self) -> list[tuple[str, int]]:
        with np.load(self.folder / _DATA) as data:
            counts = {part: len(data[f"{part}_y"]) for part in ("train", "test")}
        return [(part, start) for part, count in counts.items() for start in range(0, count, _SHARD)]

    def _file(self, method: str, share: float, seed: int) -> Path:
        return self.folder / "cells" / f"{_name(method, share, seed)}.json"

    def _stored(self, method: str, share: float, seed: int) -> Cell:
        return Cell(**json.loads(self._file(method, share, seed).read_text(encoding="utf-8")))


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def _map_file(folder: Path, method: str, part: str, start: int) -> Path:
    return folder / "maps" / f"{method}-{part}-{start:06d}.npy"


def _preprocessing(folder: Path) -> Preprocessing:
    return Preprocessing.from_json(json.loads((folder / _REQUEST).read_text(encoding="utf-8"))["preprocessing"])


def _prepare(preprocessing: Preprocessing, x: Array) -> Array:
    return np.stack([preprocessing.apply(picture) for picture in x])


def prepared(folder: Path, x: Array) -> Array:
    """Return pictures as the input of an experiment's network."""
    return _prepare(_preprocessing(folder), x)


def fill_of(data: dict[str, Array]) -> Array:
    """Return the colour that takes the place of removed pixels: the mean of the training pictures."""
    return np.rint(data["train_x"].mean(axis=(0, 1, 2))).astype(np.uint8)


def _fit(folder: Path, plan: Plan, seed: int, parts: dict[str, Array]) -> tuple[Network, float, float]:
    """Train from scratch; return the network and its accuracies on test and training pictures."""
    network = Network(str(folder / _MODEL))
    reinitialise(network, seed)
    pre = _preprocessing(folder)
    ready = {part: _prepare(pre, parts[f"{part}_x"]) for part in ("train", "test")}
    width = 3 if pre.layout == "NCHW" else 2
    train = Batches(ready["train"], parts["train_y"], plan.batch_size, seed, width if plan.mirror else None)
    history = fit(network, train, plan.epochs, rate=plan.rate)
    test = Batches(ready["test"], parts["test_y"], 1)
    return network, accuracy(network, test), history[-1].accuracy


def stored_data(folder: Path) -> dict[str, Array]:
    """Return the pictures and classes of an experiment."""
    with np.load(folder / _DATA) as data:
        return dict(data)


def _train_base(folder: Path, plan: Plan) -> None:
    network, _, _ = _fit(folder, plan, plan.seeds[0], stored_data(folder))
    save.save(network.model(), folder / _BASE)


def _explain(folder: Path, method: str, part: str, start: int) -> None:
    """Write the maps of the base network's predictions on some pictures."""
    x = _prepare(_preprocessing(folder), stored_data(folder)[f"{part}_x"][start : start + _SHARD])
    name, _, texts = method.partition(":")
    given = methods.find(name).parse(texts.split(",")) if texts else {}
    explainer = Explainer(str(folder / _BASE), method=name, threads=1, batch_size=50, **given)
    storage.write_array(_map_file(folder, method, part, start), explainer(x).saliency.astype(np.float32))


def _train(folder: Path, plan: Plan, method: str, share: float, seed: int) -> None:
    """Train on pictures without the most salient pixels, and write the result."""
    data = stored_data(folder)
    if method != WHOLE:
        fill = fill_of(data)
        for part in ("train", "test"):
            pictures = data[f"{part}_x"]
            maps = stored_maps(folder, method, part, pictures.shape[:3])
            pictures[salient(maps, share) != plan.keep] = fill
    _, test, train = _fit(folder, plan, seed, data)
    cell = Cell(method, share, seed, test, train)
    storage.write_json(folder / "cells" / f"{cell.name}.json", asdict(cell))


def stored_maps(folder: Path, method: str, part: str, shape: tuple[int, ...]) -> Array:
    """Return the maps of a method, of all pictures of a part."""
    if method == RANDOM:
        return np.random.default_rng(("train", "test").index(part)).random(shape, np.float32)
    files = sorted((folder / "maps").glob(f"{method}-{part}-*.npy"))
    return np.concatenate([np.load(file) for file in files])


def salient(maps: Array, share: float) -> npt.NDArray[np.bool_]:
    """Mark the share of the pixels with the largest values of every map; ties are broken by a fixed random order.

    Parameters
    ----------
    maps : numpy array
        (N, H, W).
    share : float
        Between 0 and 1; at least one pixel is marked.

    Returns
    -------
    numpy array
        (N, H, W) of bool.
    """
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(share * flat.shape[1]))
    marked = np.zeros(flat.shape, bool)
    for i, values in enumerate(flat):
        chance = np.random.default_rng(i).random(values.size)
        marked[i, np.lexsort((chance, -values))[:count]] = True
    return marked.reshape(maps.shape)


def summary(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return mean and sample standard deviation of the test accuracy over seeds, by method and share."""
    grouped: dict[tuple[str, float], list[float]] = {}
    for cell in cells:
        grouped.setdefault((cell.method, cell.share), []).append(cell.accuracy)
    return [
        {
            "method": method,
            "share": share,
            "seeds": len(found),
            "accuracy": float(np.mean(found)),
            "deviation": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        }
        for (method, share), found in grouped.items()
    ]
