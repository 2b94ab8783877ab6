"""A classifier as a function of its weights: loss, gradients and statistics of a batch, from its ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.session import Session
from fgonnx.engine.model.load import LoadedModel, ModelLike, load
from fgonnx.engine.normal.normalise import Normal, lift_constants, normalise
from fgonnx.engine.rewrite.head import find_head, per_sample_shape
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rules.linear import per_channel
from fgonnx.engine.walk import backward
from fgonnx.engine.walk.witness import ort_training
from fgonnx.engine.walk.witness.lower import LOWERINGS, Lowering
from fgonnx.errors import ModelError
from fgonnx.fields import accepted

Array = npt.NDArray[Any]

# Which inputs of an operator are weights if they are initializers; of an Add, the operand that is one.
_WEIGHTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "Add": (0, 1),
}
_MOVED = ("Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze")


@dataclass(frozen=True)
class Step:
    """Results of one batch.

    Attributes
    ----------
    loss : float
        Mean cross-entropy.
    hits : int
        Number of correctly classified samples.
    gradients : dict of str to numpy array
        Gradients of the loss, by weight.
    statistics : dict of str to numpy array
        Mean and unbiased variance over the batch, by the running statistic that they update.
    """

    loss: float
    hits: int
    gradients: dict[str, Array]
    statistics: dict[str, Array]


class Network:
    """A classifier with trainable weights.

    BatchNormalization uses the statistics of the batch in training, differentiated through, and updates its running
    statistics, as usual; if the exporter has folded it, the convolutions are trained as they are. Dropout, which
    exporters remove, is not restored.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto, ir.Model or LoadedModel
        The classifier: one explained input, and an output with one logit (or probability) per class.
    input : str, optional
        Its input, if it has several.
    threads : int
        Threads within an operator. With one, training is bit-reproducible.

    Attributes
    ----------
    weights, statistics : dict of str to numpy array
        By the names of the initializers; they may be modified in place.
    classes : int
        Number of logits.

    Raises
    ------
    OptionError
        If `input` or `threads` is of another type or out of range.
    ProviderError
        If the training build of ONNX Runtime is not installed.
    ModelError
        If the model is not a classifier, or has no weights.
    UnsupportedError
        If the training build has no gradient for an operator.
    """

    def __init__(self, model: ModelLike | LoadedModel, *, input: str | None = None, threads: int = 1) -> None:
        input = accepted("input", input, str | None)
        threads = accepted("threads", threads, int, least=1)
        ort_training.require()
        self.loaded = load(model)
        self._threads = threads
        normal = normalise(self.loaded, input_name=input)
        head, _ = find_head(normal, Options(), self.loaded)
        self.classes = prod(per_sample_shape(head, normal.batched, self.loaded.name))
        if not normal.batched:
            raise ModelError(f"{self.loaded.name}: takes one sample at a time; export it with a free batch to train it")
        self.input_name, self.head = normal.input_name, str(head.name)
        self.path = _path(normal, head)
        found = dict(_weights(self.path, normal.x))
        if not found:
            raise ModelError(f"{self.loaded.name}: none of its weights is an initializer that could be trained")
        self.weights = {name: np.array(v.const_value.numpy()) for name, v in found.items() if v.const_value is not None}
        self.statistics: dict[str, Array] = {}
        built, self._names, self._averages = self._differentiated(normal, head, list(found.values()))
        self._session = Session(built, providers=["cpu"], threads=threads)

    def step(self, x: Array, labels: Array) -> Step:
        """Return loss and gradients for a batch; weights are not changed.

        Parameters
        ----------
        x : numpy array
            (N, ...), the model's input.
        labels : numpy array
            (N,) classes.
        """
        feeds = {self._names[n]: w for n, w in self.weights.items()}
        feeds[self._names[self.input_name]] = x
        feeds["labels"] = np.asarray(labels, np.int64)
        found = self._session.run(feeds)
        gradients = {n: found[f"{self._names[n]}_grad"] for n in self.weights}
        statistics = {n: found[output].reshape(-1) for n, output in self._averages.items()}
        return Step(float(found["loss"]), int(found["hits"]), gradients, statistics)

    def model(self) -> onnx.ModelProto:
        """Return the original model with the current weights and statistics."""
        model = self.loaded.ir.clone()
        lift_constants(model)
        for name, array in {**self.weights, **self.statistics}.items():
            model.graph.initializers[name].const_value = ir.tensor(array, name=name)
        proto: onnx.ModelProto = ir.to_proto(model)
        return proto

    def logits(self, x: Array, batch_size: int = 256) -> Array:
        """Return the logits of samples, (N, classes), with the running statistics."""
        batch_size = accepted("batch_size", batch_size, int, least=1)
        model = self.model()
        if self.head not in {o.name for o in model.graph.output}:
            model.graph.output.append(onnx.ValueInfoProto(name=self.head))
        session = Session(model, providers=["cpu"], threads=self._threads)
        parts = [
            session.run({self.input_name: x[i : i + batch_size]}, [self.head])[self.head]
            for i in range(0, len(x), batch_size)
        ]
        return np.concatenate(parts).reshape(len(x), self.classes)

    def _differentiated(
        self, normal: Normal, head: ir.Value, weights: list[ir.Value]
    ) -> tuple[ir.Model, dict[str, str], dict[str, str]]:
        """Return the graph of a step, the names of weights and input in it, and those of batch statistics."""
        op = Emitter(normal.model.graph, backward.active_values(self.path, weights))
        normalised = _BatchStatistics()
        lowerings: dict[str, Lowering] = {**LOWERINGS, "BatchNormalization": normalised}
        copy = ort_training.Copy(op, self.path, normal.model.opset_imports[""], lowerings)
        batch = [v for pair in normalised.batch.values() for v in pair]
        top = copy.twins[head]
        model = ort_training.build(copy.model([top, *batch]), str(top.name), copy.sources)
        graph = model.graph
        values = {str(v.name): v for node in graph for v in node.outputs}
        del graph.outputs[:]
        _with_loss(graph, values[str(top.name)], f"{top.name}_grad", self.classes)
        names = {str(v.name): copy.inputs[v] for v in [*weights, normal.x]}
        names[self.input_name] = names[str(normal.x.name)]
        graph.outputs.extend(values[f"{names[str(v.name)]}_grad"] for v in weights)
        origin = {twin: v for v, twin in copy.twins.items()}
        averages = {}
        for running, followed in normalised.batch.items():
            for old, new in zip(running, followed, strict=True):
                original = origin[old]
                assert original.const_value is not None
                self.statistics[str(original.name)] = np.array(original.const_value.numpy())
                averages[str(original.name)] = str(new.name)
                graph.outputs.append(values[str(new.name)])
        graph.sort()
        return model, names, averages


def _path(normal: Normal, head: ir.Value) -> list[ir.Node]:
    nodes = list(normal.model.graph)
    constants = [v for v in normal.model.graph.initializers.values() if backward.differentiable(v)]
    return backward.path(nodes, backward.active_values(nodes, [normal.x, *constants]), head)


def _weights(path: list[ir.Node], x: ir.Value) -> Iterator[tuple[str, ir.Value]]:
    """Yield the weights of a path: initializers that its layers read.

    An Add before the first layer is preprocessing.
    """
    behind: set[ir.Value] = set()
    for node in path:
        reached = any(v in behind for v in node.inputs)
        for i in _WEIGHTS.get(node.op_type, ()) if not node.domain else ():
            v = _origin(node.inputs[i]) if i < len(node.inputs) else None
            if v is None or v.const_value is None or v.const_value.size < 2 or v.dtype != ir.DataType.FLOAT:
                continue
            if node.op_type != "Add" or reached:
                behind.update(node.outputs)
                yield str(v.name), v
        if reached:
            behind.update(node.outputs)


def _origin(v: ir.Value | None) -> ir.Value | None:
    """Return the initializer that a value is a reshaped or transposed form of."""
    while v is not None and (node := v.producer()) is not None:
        if node.op_type not in _MOVED:
            return None
        v = node.inputs[0]
    return v


class _BatchStatistics:
    """Expands BatchNormalization with the mean and variance of the batch.

    Attributes
    ----------
    batch : dict
        From the running mean and variance to the mean and the unbiased variance of the batch.
    """

    def __init__(self) -> None:
        self.batch: dict[tuple[ir.Value, ir.Value], tuple[ir.Value, ir.Value]] = {}

    def __call__(
        self,
        op: Emitter,
        y: ir.Value,
        *inputs: ir.Value,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        training_mode: int = 0,
    ) -> ir.Value:
        x, scale, b, mean, var = inputs
        rank = op.rank(x)
        axes = [0, *range(2, rank)]
        average = op.ReduceMean(x, axes, keepdims=1)
        centred = op.Sub(x, average)
        variance = op.ReduceMean(op.Mul(centred, op.Identity(centred)), axes, keepdims=1)
        channels = float(op.size(x, 1))
        count = op.Div(op.Cast(op.Size(x), to=ir.DataType.FLOAT.value), channels)
        unbiased = op.Div(op.Mul(variance, count), op.Max(op.Sub(count, 1.0), 1.0))
        self.batch[mean, var] = op.Identity(average), unbiased
        standard = op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))
        return op.Add(op.Mul(standard, per_channel(op, scale, rank)), per_channel(op, b, rank))


def _with_loss(graph: ir.Graph, logits: ir.Value, seed: str, classes: int) -> None:
    """Add the mean cross-entropy, the number of hits, and the cotangent (softmax - onehot) / N under its name."""
    labels = ir.Value(name="labels", shape=ir.Shape(["N"]), type=ir.TensorType(ir.DataType.INT64))
    given = next(v for v in graph.inputs if v.name == seed)
    graph.inputs.remove(given)
    graph.inputs.append(labels)
    op = Emitter(graph, prefix="loss/")
    flat = op.Reshape(logits, [-1, classes])
    hot = op.OneHot(labels, np.array(classes, np.int64), op.constant(np.array([0, 1], np.float32)), axis=1)
    count = op.Cast(op.Size(labels), to=ir.DataType.FLOAT.value)
    cotangent = op.Div(op.Sub(op.Softmax(flat, axis=1), hot), count)
    shaped = op.Reshape(cotangent, op.Shape(logits))
    given.replace_all_uses_with(shaped)
    each = op.ReduceSum(op.Mul(op.LogSoftmax(flat, axis=1), hot), [1], keepdims=0)
    right = op.Equal(op.ArgMax(flat, axis=1, keepdims=0), labels)
    loss = op.Neg(op.ReduceMean(each, [0], keepdims=0))
    hits = op.ReduceSum(op.Cast(right, to=ir.DataType.INT64.value), [0], keepdims=0)
    for value, name, dtype in ((loss, "loss", ir.DataType.FLOAT), (hits, "hits", ir.DataType.INT64)):
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape([])
        graph.outputs.append(value)
