"""The proof that a file computes the same as its source: outputs, input-gradients and the published map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.session import Session
from fgonnx.engine.model.load import load
from fgonnx.errors import FgonnxError, InputError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation

from . import literal
from .network import Array, Inputs, Linearised, Network, Seed
from .report import Measurement, Verdict

TOLERANCE = 1e-5
"""Allowed difference of outputs, relative to the largest."""

_NOT_STEEPER = {
    *("Cast", "Clip", "Flatten", "Identity", "Relu", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    *("Sigmoid", "Softmax", "Tanh"),
}
_EXPLAINED = 1e-4  # allowed difference of gradients and maps
_NUDGE = 1e-6  # relative perturbation of the input, of the size of float32 rounding
_NUDGES = 4


@dataclass(frozen=True)
class Head:
    """The head of the converted file.

    Attributes
    ----------
    name, stripped : str
        The tensor, and the operator after it that is not explained.
    shape : tuple of int
        Shape of one sample.
    input : str
        The explained input.
    channel : int
        Axis of its channels.
    output : str
        The output that follows from the head.
    batched : bool
        Whether it takes batches of several samples.
    ids : bool
        Whether the input holds ids, of which the source has no gradient.
    """

    name: str
    stripped: str
    shape: tuple[int, ...]
    input: str
    channel: int
    output: str
    batched: bool
    ids: bool = False


def find_head(model: ir.Model, example: Inputs, head: str) -> Head:
    """Return the head that fgonnx would explain.

    Raises
    ------
    FgonnxError
        If the file cannot be explained.
    """
    names = [str(v.name) for v in model.graph.inputs]
    floating = next((i for i, a in enumerate(example) if a.ndim > 1), 0)
    explainer = Explainer(model.clone(), head=head, input=names[floating] if len(names) > 1 else None)
    r = explainer.engine(example[floating].shape).rewritten
    index = [str(v.name) for v in r.normal.model.graph.inputs].index(r.normal.input_name)
    floats = [v for v in model.graph.outputs if v.dtype is None or v.dtype.is_floating_point()]
    output = (floats or list(model.graph.outputs))[0]
    layout = r.normal.layout
    return Head(
        r.head,
        r.stripped,
        r.head_shape,
        names[index],
        layout.index("C") if "C" in layout else 1,
        str(output.name),
        r.normal.batched,
        r.normal.ids is not None,
    )


def prove(
    model: ir.Model,
    network: Network,
    samples: Mapping[str, Inputs],
    head: Head | None,
    *,
    tolerance: float = TOLERANCE,
    random_state: int = 0,
) -> list[Measurement]:
    """Run the source and the file on the same inputs and measure their differences.

    Parameters
    ----------
    model : ir.Model
        The file.
    network : Network
        The source.
    samples : mapping of str to Inputs
        Sets of samples by name.
    head : Head or None
        The head; None compares outputs only.
    tolerance : float
        Allowed difference of outputs, relative to the largest.
    random_state : int
        Seed of the perturbations that tell a difference from a kink.
    """
    session = Session(model)
    file = _File(model, head) if head is not None and not head.ids and network.linearise is not None else None
    found = []
    for name, inputs in samples.items():
        theirs = network.run(inputs)
        ours = session.run(dict(zip(session.inputs, inputs, strict=True)))
        steps = [*network.steps, *[0.0] * len(theirs)]
        for array, step, output in zip(theirs, steps, session.outputs, strict=False):
            found.append(_output(name, output, array, ours[output], step, tolerance))
        if file is not None:
            found += _explanations(file, network, name, inputs, theirs, random_state)
    return found


class _File:
    """The converted file's own explanations, one explainer per profile."""

    def __init__(self, model: ir.Model, head: Head) -> None:
        self.model, self.head = model, head
        self.inputs = [str(v.name) for v in model.graph.inputs]
        self.outputs = [str(v.name) for v in model.graph.outputs]
        self._explainers: dict[str, Explainer] = {}

    def explain(self, profile: str, inputs: Inputs, seed: Seed) -> Explanation:
        if profile not in self._explainers:
            self._explainers[profile] = Explainer(
                load(self.model.clone()),
                profile=profile,
                head="logits" if self.head.stripped else "output",
                output=self.head.output,
                input=self.head.input,
                input_gradient=True,
            )
        x: Any = dict(zip(self.inputs, inputs, strict=True)) if len(inputs) > 1 else inputs[0]
        return self._explainers[profile](x, seed=seed.weights.reshape(-1, *self.head.shape))


def _output(samples: str, name: str, theirs: Array, ours: Array, step: float, tolerance: float) -> Measurement:
    maximum, relative = distance(ours.reshape(theirs.shape) if ours.size == theirs.size else ours, theirs, name)
    if step:
        steps = maximum / step
        verdict: Verdict = "passed" if steps <= 1 + 1e-3 else "failed"
        detail = f"one step is {step:.3g}"
        return Measurement(f"output {name}", samples, steps, relative, 1.0, verdict, detail, "quantisation steps")
    verdict = "passed" if relative <= tolerance else "failed"
    return Measurement(f"output {name}", samples, maximum, relative, tolerance, verdict)


def output_steps(proto: onnx.ModelProto) -> list[float]:
    """Return the step of quantisation of every output: that of the integers it is scaled from, or 0.

    On the way may be what moves entries or is not steeper than 1, such as a Softmax.
    """
    producers = {name: node for node in proto.graph.node for name in node.output}
    constants = {t.name: t for t in proto.graph.initializer}
    steps = []
    for output in proto.graph.output:
        node = producers.get(output.name)
        while node is not None and node.op_type in _NOT_STEEPER:
            node = producers.get(node.input[0])
        scale = constants.get(node.input[1]) if node is not None and node.op_type == "DequantizeLinear" else None
        steps.append(float(onnx.numpy_helper.to_array(scale).max()) if scale is not None else 0.0)
    return steps


def distance(ours: Array, theirs: Array, name: str = "result") -> tuple[float, float]:
    """Return the largest difference, absolute and relative to the largest absolute value of `theirs`.

    Raises
    ------
    InputError
        If their shapes differ.
    """
    if ours.shape != theirs.shape:
        raise InputError(f"'{name}' has the shape {theirs.shape} in the source and {ours.shape} in the file")
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    maximum = float(np.abs(a - b).max(initial=0))
    if not np.isfinite(maximum):
        return float("inf"), float("inf")
    return maximum, maximum / max(float(np.abs(b).max(initial=0)), float(np.finfo(np.float32).tiny))


def _explanations(
    file: _File, network: Network, samples: str, inputs: Inputs, outputs: Sequence[Array], random_state: int
) -> list[Measurement]:
    linearise = network.linearise
    assert linearise is not None
    which = file.inputs.index(file.head.input)
    seed = _seed(file.head, file.outputs.index(file.head.output), which, outputs)
    theirs, x = linearise(inputs, seed), inputs[which]

    def nudged() -> list[Linearised]:
        rng = np.random.default_rng(random_state)
        size = _NUDGE * np.sqrt((x.astype(np.float64) ** 2).mean())
        moved = [(x + size * rng.standard_normal(x.shape)).astype(x.dtype) for _ in range(_NUDGES)]
        return [linearise((*inputs[:which], m, *inputs[which + 1 :]), seed) for m in moved]

    def explain(profile: str) -> Explanation:
        return file.explain(profile, inputs, seed)

    gradient = explain("reference").input_gradient
    assert gradient is not None
    found = [
        _judged(
            "input-gradient", samples, gradient, theirs.gradient, lambda: [n.gradient for n in nudged()], "autograd"
        )
    ]
    if theirs.blocks is not None and x.ndim > 2:
        found.append(_map(samples, explain, x, theirs, file.head.channel, nudged))
    return found


def _seed(head: Head, output: int, which: int, outputs: Sequence[Array]) -> Seed:
    """Choose the largest entry of every sample; before a Softmax, minus the mean."""
    rows = outputs[output].reshape(len(outputs[output]), -1)
    weights = np.zeros(rows.shape, np.float32)
    weights[np.arange(len(rows)), rows.argmax(axis=1)] = 1
    if head.stripped in ("Softmax", "LogSoftmax"):
        weights -= 1 / rows.shape[1]
    link = head.stripped if head.stripped != "LogSoftmax" else ""
    return Seed(output, which, weights.reshape(outputs[output].shape), link)


def _map(
    samples: str,
    explain: Callable[[str], Explanation],
    x: Array,
    theirs: Linearised,
    channel: int,
    nudged: Callable[[], list[Linearised]],
) -> Measurement:
    """Compare with the published map to which the file comes closest: exporters fold BatchNormalization, or do not."""
    explained: dict[str, Array] = {}
    best: tuple[float, int] | None = None
    candidates = list(literal.maps(x, theirs, channel))
    for i, (profile, _, truth) in enumerate(candidates):
        if profile not in explained:
            explained[profile] = explain(profile).saliency
        relative = distance(explained[profile], truth, "FullGrad map")[1]
        if best is None or relative < best[0]:
            best = relative, i
        if relative <= _EXPLAINED:
            break
    assert best is not None
    profile, what, truth = candidates[best[1]]

    def again() -> list[Array]:
        return [list(literal.maps(x, n, channel))[best[1]][2] for n in nudged()]

    return _judged("FullGrad map", samples, explained[profile], truth, again, f"profile {profile}, {what}")


def _judged(
    quantity: str, samples: str, ours: Array, theirs: Array, again: Callable[[], list[Array]], detail: str
) -> Measurement:
    maximum, relative = distance(ours, theirs, quantity)
    verdict: Verdict = "passed" if relative <= _EXPLAINED else "failed"
    if verdict == "failed":
        # A pre-activation within rounding of a kink takes one branch here and the other there; both are right.
        doubt = max(distance(array, theirs, quantity)[1] for array in again())
        if relative <= 5 * doubt:
            verdict = "undecided"
            detail += f"; the source's own moves by {doubt:.0e} when its input is moved by {_NUDGE:.0e}"
    return Measurement(quantity, samples, maximum, relative, _EXPLAINED, verdict, detail)


def explainable(model: ir.Model, example: Inputs, head: str) -> tuple[Head | None, str]:
    """Return what of a file is explained, and otherwise why it cannot be."""
    try:
        return find_head(model, example, head), ""
    except FgonnxError as error:
        return None, str(error)
