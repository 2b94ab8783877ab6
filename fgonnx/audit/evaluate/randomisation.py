"""Model-parameter randomisation: a map that does not depend on the weights does not explain the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from fgonnx.audit.comparison import measures
from fgonnx.audit.evaluate.accepted import Amount, Count
from fgonnx.audit.evaluate.data import Data, Explains, Float, Subject, ratio
from fgonnx.audit.evaluate.registry import Measured, measure
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import ModelError

Share = Sequence[tuple[str, tuple[str, ...]]]
Mapped = Callable[[Explains], Float]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
_BYTES = {ir.DataType.INT8, ir.DataType.UINT8}
# Constant inputs of these are sizes or scales, not weights.
_SIZES = {"Resize", "Upsample", "QuantizeLinear"}
_AXES = ("share of the layers with random weights", "rank correlation with the map of the trained model")
_SOURCE = "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, section 4.1"
_REVISITED = (
    "Hedström, Weber, Lapuschkin and Höhne, Sanity Checks Revisited: An Exploration to Repair the Model Parameter "
    "Randomisation Test, XAI in Action at NeurIPS 2023"
)


def layers(model: ir.Model) -> list[tuple[str, tuple[str, ...]]]:
    """Return the layers with weights from the input to the output: name of the node, names of its weights.

    Weights are constant inputs of more than one element: floating-point ones, and 8-bit ones of rank 2 or more, but not
    the scales of quantised layers.
    """
    found = []
    for node in model.graph:
        weights = tuple(str(v.name) for v in node.inputs if v is not None and _is_weight(node, v))
        if weights:
            found.append((node.name or str(node.outputs[0].name), weights))
    return found


def _is_weight(node: ir.Node, value: ir.Value) -> bool:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size < 2 or node.op_type in _SIZES:
        return False
    if tensor.dtype in _BYTES:
        return len(tensor.shape) > 1
    return tensor.dtype in _FLOATS and node.op_type != "DequantizeLinear" and not node.op_type.startswith("QLinear")


def permuted(loaded: LoadedModel, weights: Sequence[str], seed: int) -> LoadedModel:
    """Return a model in which the entries of each of the named weights are permuted at random.

    This redraws them from their own distribution: scale and type are kept, whatever the architecture.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    weights : sequence of str
        Names of constant values.
    seed : int
        Seed; the permutation of a weight depends on it and on the weight's name, not on which others are permuted.
    """
    model = loaded.ir.clone()
    values = {str(v.name): v for node in model.graph for v in node.inputs if v is not None}
    for name in weights:
        tensor = ir.convenience.get_const_tensor(values[name])
        assert tensor is not None
        numbers = np.random.default_rng([seed, *name.encode()]).permutation(tensor.numpy().ravel())
        new = ir.tensor(numbers.reshape(tensor.numpy().shape), dtype=tensor.dtype, name=name)
        producer = values[name].producer()
        values[name].const_value = new
        if producer is not None:
            producer.attributes["value"] = ir.AttrTensor("value", new)
    return LoadedModel(model, loaded.path, f"{loaded.sha256}, permuted by {seed}: {', '.join(weights)}", loaded.bound)


@measure("randomisation", better="lower", source=_SOURCE, runs=12, needs="model", axes=_AXES)
def randomisation(subject: Subject, data: Data, *, stages: Count = 4) -> Measured:
    """Similarity of the map to that of the model with weights randomised layer by layer from the output.

    Parameters
    ----------
    subject : Subject
        The method and its model.
    data : Data
        Number of samples.
    stages : int
        Number of equal shares of the layers after which the maps are compared.

    Returns
    -------
    Measured
        With all weights random: "rank", rank correlation of absolute maps; "rank_signed" of the maps themselves; "ssim"
        and "ssim_signed". The curve is "rank" by share of layers.
    """
    return _cascade(subject, data, stages)


@measure("randomisation-independent", better="lower", source=_SOURCE, runs=12, needs="model", axes=_AXES)
def randomisation_independent(subject: Subject, data: Data, *, stages: Count = 4) -> Measured:
    """Similarity of the map to that of the model with random weights in one group of layers, mean over the groups.

    Parameters
    ----------
    subject : Subject
        The method and its model.
    data : Data
        Number of samples.
    stages : int
        Number of groups of equal size.

    Returns
    -------
    Measured
        As for `randomisation`; the curve is "rank" by group, the one at the output first.
    """
    found = layers(subject.loaded.ir)
    ends = [len(found) - math.ceil(j * len(found) / stages) for j in range(stages + 1)]
    alike = _alike(subject, data, [found[b:a] for a, b in pairwise(ends)])
    return Measured({n: v.mean(axis=1) for n, v in alike.items()}, np.arange(1, stages + 1) / stages, alike["rank"])


@measure("randomisation-smooth", better="lower", source=f"{_REVISITED} (sMPRT)", runs=150, needs="model", axes=_AXES)
def randomisation_smooth(
    subject: Subject, data: Data, *, stages: Count = 4, samples: Count = 10, noise: Amount = 0.1
) -> Measured:
    """Like randomisation, on maps that are means over noisy copies of the picture (sMPRT).

    The maps of a random model are noisy themselves, and noise alone makes them differ from that of the trained one:
    `randomisation` prefers noisy methods. The mean over `samples` copies takes the noise out of both.

    Parameters
    ----------
    subject : Subject
        The method and its model.
    data : Data
        Number of samples.
    stages : int
        Number of equal shares of the layers after which the maps are compared.
    samples : int
        Noisy copies, the same for all models; 50 in the paper's implementation.
    noise : float
        Standard deviation of the noise, which is normal, as a fraction of max - min of the sample.

    Returns
    -------
    Measured
        As for `randomisation`, -1..1.
    """
    return _cascade(subject, data, stages, partial(_smooth, data, samples, noise))


@measure("randomisation-entropy", better="higher", source=f"{_REVISITED} (eMPRT)", runs=6, needs="model")
def randomisation_entropy(subject: Subject, data: Data, *, bins: Count = 100) -> Measured:
    """Relative rise of the entropy of the map's histogram when all weights are made random (eMPRT).

    (H(e') - H(e)) / H(e), with e the map, e' that of the model with random weights, and H the entropy of a histogram of
    equal bins between the smallest and the largest value of the map, which depends neither on its unit nor on its
    offset.

    Parameters
    ----------
    subject : Subject
        The method and its model.
    data : Data
        Number of samples.
    bins : int
        Number of bins; 100 as in the paper's implementation.

    Returns
    -------
    Measured
        "rise": -1 where the map of the random model is constant, 0 where both are as complex, without an upper bound;
        NaN for a constant map. "entropy" and "entropy_random": H of both maps, in nats, 0..log(bins).
    """
    (changed,) = _changed(subject, data, [_all_layers(subject)], partial(_plain, data))
    maps = data.maps(subject)
    before, after = (np.array([_entropy(m, bins) for m in found]) for found in (maps, changed))
    return Measured({"rise": ratio(after - before, before), "entropy": before, "entropy_random": after})


def _entropy(saliency: Float, bins: int) -> float:
    """Return the entropy of the histogram of a map, in nats."""
    low, spread = saliency.min(), np.ptp(saliency)
    counts, _ = np.histogram((saliency - low) / (spread or 1.0), bins, (0.0, 1.0))
    shares = counts[counts > 0] / saliency.size
    return float(-(shares * np.log(shares)).sum())


def _all_layers(subject: Subject) -> Share:
    found = layers(subject.loaded.ir)
    if not found:
        raise ModelError(f"{subject.loaded.name}: its graph holds no weights that could be made random")
    return found


def _cascade(subject: Subject, data: Data, stages: int, mapped: Mapped | None = None) -> Measured:
    """Compare maps with those of the model whose weights are permuted layer by layer from the output."""
    found = layers(subject.loaded.ir)
    shares = [found[len(found) - math.ceil(j * len(found) / stages) :] for j in range(1, stages + 1)]
    alike = _alike(subject, data, shares, mapped)
    return Measured({name: v[:, -1] for name, v in alike.items()}, np.arange(1, stages + 1) / stages, alike["rank"])


def _alike(subject: Subject, data: Data, shares: Sequence[Share], mapped: Mapped | None = None) -> dict[str, Float]:
    """Compare maps with those of the model with some layers permuted: arrays (N, shares) by quantity."""
    _all_layers(subject)
    maps = data.maps(subject) if mapped is None else mapped(subject)
    rows = [_compared(maps, changed) for changed in _changed(subject, data, shares, mapped or partial(_plain, data))]
    return {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}


def _changed(subject: Subject, data: Data, shares: Sequence[Share], mapped: Mapped) -> Iterator[Float]:
    for share in shares:
        names = tuple(dict.fromkeys(name for _, weights in share for name in weights))
        yield mapped(subject.altered((data.seed, *names), partial(permuted, subject.loaded, names, data.seed)))


def _plain(data: Data, explainer: Explains) -> Float:
    return np.asarray(explainer(data.x, data.target.tolist()).saliency, np.float64)


def _smooth(data: Data, samples: int, noise: float, explainer: Explains) -> Float:
    """Return the mean map over noisy copies of every sample."""
    generators = [data.rng(i, "noise") for i in range(len(data))]
    spread = [noise * float(np.ptp(x.astype(np.float64))) for x in data.x]
    total = np.zeros((len(data), *data.grid))
    for _ in range(samples):
        copies = [x + s * rng.standard_normal(x.shape) for x, s, rng in zip(data.x, spread, generators, strict=True)]
        total += explainer(data.as_input(np.stack(copies)), data.target.tolist()).saliency
    return total / samples


def _compared(maps: Float, changed: Float) -> dict[str, Float]:
    pairs = list(zip(maps, changed, strict=True))
    return {
        "rank": np.array([measures.rank_correlation(np.abs(a), np.abs(b)) for a, b in pairs]),
        "rank_signed": np.array([measures.rank_correlation(a, b) for a, b in pairs]),
        "ssim": np.array([measures.ssim(np.abs(a), np.abs(b)) for a, b in pairs]),
        "ssim_signed": np.array([measures.ssim(a, b) for a, b in pairs]),
    }


@measure(
    "random-logit",
    better="lower",
    source="Sixt, Granz and Landgraf, When Explanations Lie: Why Many Modified BP Attributions Fail, ICML 2020, sec. 4",
    runs=3,
)
def random_logit(explainer: Explains, data: Data) -> Measured:
    """Similarity of the map to that of another, random class.

    Parameters
    ----------
    explainer, data
        See `Measure`.

    Returns
    -------
    Measured
        "ssim", as published; "rank": rank correlation. NaN for models of one entry.
    """
    maps = data.maps(explainer)
    entries = int(np.prod(explainer.head(data.x[:1]).shape[1:], initial=1))
    if entries == 1:
        return Measured({"ssim": np.full(len(data), np.nan), "rank": np.full(len(data), np.nan)})
    steps = np.array([data.rng(i, "class").integers(1, entries) for i in range(len(data))])
    others = explainer(data.x, ((data.target + steps) % entries).tolist()).saliency
    return Measured(
        {
            "ssim": np.array([measures.ssim(a, b) for a, b in zip(maps, others, strict=True)]),
            "rank": np.array([measures.rank_correlation(a, b) for a, b in zip(maps, others, strict=True)]),
        }
    )
