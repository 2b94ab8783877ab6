"""A network in its own framework, with what a proof of parity needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import FgonnxError, InputError, ModelError
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
Inputs = tuple[Array, ...]


class MissingFrameworkError(FgonnxError):
    """The framework or the exporter that a conversion needs is not installed."""


@dataclass(frozen=True)
class Seed:
    """The scalar of every sample that is differentiated: `<weights, link(output)>`.

    Attributes
    ----------
    output : int
        Which output of the network.
    input : int
        Index of the input to differentiate with respect to.
    weights : numpy array, (N, ...)
        Cotangent of the head, of the output's shape.
    link : {"", "Softmax", "Sigmoid"}
        The activation between head and output: inverted. A Softmax is inverted up to a constant per sample,
        log p = z - logsumexp(z): weights that sum to zero cancel it.
    """

    output: int
    input: int
    weights: Array
    link: str

    def scores(self, y: Any, log: Callable[[Any], Any], weights: Any) -> Any:
        """Return the products to be summed, in the tensors of any framework, given its logarithm and the weights."""
        if self.link == "Softmax":
            y = log(y)
        elif self.link == "Sigmoid":
            y = log(y) - log(1 - y)
        return y * weights


@dataclass(frozen=True)
class Block:
    """A linear block: a convolution with a BatchNormalization as its only consumer, or one of the two.

    Attributes
    ----------
    parts : tuple of numpy array, each (N, C, ...)
        Per-neuron bias-gradients, channels second, in forward order.
    transposed : bool
        Whether the first is a transposed convolution, whose bias the authors' code ignores.
    """

    parts: tuple[Array, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Site:
    """One call of an affine layer in the framework's own tensors.

    Attributes
    ----------
    layer : object
        The layer, or its name.
    source, output : tensor
        What it read and what it gave.
    bias : tensor
        Its value at zero: what it adds, for a BatchNormalization beta - gamma mean / sd.
    handed_on : object, optional
        What the next layer reads, if that is another tensor than `output`.
    """

    layer: Any
    source: Any
    output: Any
    bias: Any
    handed_on: Any = None


@dataclass(frozen=True)
class Linearised:
    """A network linearised at one input.

    Attributes
    ----------
    gradient : numpy array
        Gradient of the scores with respect to the input, of its shape.
    blocks : tuple of Block, or None
        All convolutions and BatchNormalizations in forward order; None where layers cannot be observed.
    """

    gradient: Array
    blocks: tuple[Block, ...] | None


@dataclass(frozen=True)
class Network:
    """The source of a conversion, for the proof of parity.

    Attributes
    ----------
    framework, source, exporter : str
        Names for the report.
    run : callable
        Maps arrays, one per input in the order of the file, to the outputs in the order of the file.
    linearise : callable or None
        `linearise(inputs, seed)`; None without autograd.
    steps : sequence of float
        Quantisation step of each output; 0 for floating-point outputs.
    packages : tuple of str
        Packages whose versions are in the report.
    notes : tuple of str
        Observations and assumptions for the report.
    """

    framework: str
    source: str
    exporter: str
    run: Callable[[Inputs], list[Array]]
    linearise: Callable[[Inputs, Seed], Linearised] | None
    steps: Sequence[float] = ()
    packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def paired(sites: Iterable[tuple[Any, Any, Array, bool, bool]]) -> tuple[Block, ...]:
    """Join every BatchNormalization with the convolution whose output it reads.

    Parameters
    ----------
    sites : iterable of (source, output, bias-gradient, normalises, transposed)
        One per call of a layer, in forward order; input and output tensors are compared by identity.
    """
    found: list[Block] = []
    place: dict[int, int] = {}  # from a convolution's output to its block
    for source, output, product, normalises, transposed in sites:
        at = place.pop(id(source), None)
        if normalises and at is not None:
            found[at] = Block((*found[at].parts, product), found[at].transposed)
        else:
            place[id(output)] = len(found)
            found.append(Block((product,), transposed))
    return tuple(found)


PACKAGES = {
    "torch": "torch onnxscript",
    "tensorflow": "tensorflow keras tf2onnx",
    "keras": "tensorflow keras tf2onnx",
    "tflite": "tensorflow keras tf2onnx ai-edge-litert",
    "jax": "jax flax jax2onnx",
    "sklearn": "scikit-learn skl2onnx",
    "paddle": "paddlepaddle paddle2onnx",
    "simplify": "onnxslim",
}
"""What to install for a framework, by the name of its extra in pyproject.toml."""


@contextlib.contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turn a failed import into an error that names the packages to install, those of an extra."""
    try:
        yield
    except ImportError as error:
        raise MissingFrameworkError(
            f"{what} is needed for this conversion and cannot be imported ({error}): pip install {PACKAGES[extra]}"
        ) from error


@contextlib.contextmanager
def exporting(exporter: str, where: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn any exception of an exporter into a ModelError with its reason.

    Parameters
    ----------
    exporter : str
        Its name, for the message.
    where : callable
        Returns the layer that is being exported, or "".
    """
    try:
        yield
    except FgonnxError:
        raise
    except Exception as error:  # exporters raise many kinds
        place = where()
        raise ModelError(
            f"{exporter} cannot export the model{f', at {place}' if place else ''}: {reason(error)}. Replace what it "
            "names by standard layers without decisions that depend on values"
        ) from error


def check_example(run: Callable[[Inputs], list[Array]], example: Inputs) -> None:
    """Run a network on its example input.

    Raises
    ------
    ModelError
        If it does not take the example; with the network's own reason.
    """
    try:
        run(example)
    except Exception as error:  # what a network of a user raises is open
        raise ModelError(f"the network does not take the example input: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return the root cause of an error as one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:400] if lines else type(error).__name__


def refused_code(path: Path, what: str = "is a pickle") -> str:
    """Return the message for a file that is not loaded, because that would run what it names or holds."""
    return (
        f"'{path}' {what}: loading it runs whatever code it names, so that is not done unasked. If you trust where it "
        "comes from, give allow_pickle=True (--allow-pickle); else build the network from code of yours and pass the "
        "object (net.py:build)"
    )


def as_inputs(example: Any) -> Inputs:
    """Return an example input as a tuple of arrays with a batch axis: an array, a tensor, or several of them.

    Raises
    ------
    InputError
        An input has no batch axis, is empty or not finite.
    """
    several = example if isinstance(example, tuple | list) else (example,)
    arrays = tuple(np.asarray(e.detach().cpu() if hasattr(e, "detach") else e) for e in several)
    for i, a in enumerate(arrays):
        if a.ndim == 0 or a.size == 0:
            raise InputError(f"example input {i} has the shape {a.shape}: give an array with a batch axis in front")
        if a.dtype.kind == "f" and not np.isfinite(a).all():
            raise InputError(f"example input {i} holds NaN or infinity")
    return tuple(a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays)


def example_of(shape: Sequence[int | None], dtype: npt.DTypeLike = np.float32, random_state: int = 0) -> Array:
    """Return a seeded example of a shape: normal numbers, or integers from 0 to 255 as the type allows.

    Raises
    ------
    InputError
        If a size other than the batch is not known.
    """
    if any(s is None or s < 1 for s in shape[1:]):
        known = ", ".join("?" if s is None or s < 1 else str(s) for s in shape)
        raise InputError(f"the input has the shape ({known}): give {parameter('example_input')} with all sizes")
    sizes = (shape[0] or 2, *(int(s) for s in shape[1:] if s is not None)) if shape else ()
    rng, dtype = np.random.default_rng(random_state), np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(max(info.min, -128), min(info.max, 255), sizes, endpoint=True).astype(dtype)
    return rng.standard_normal(sizes).astype(dtype)
