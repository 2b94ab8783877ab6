"""Initial weights, by the conventions of the architecture."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fgonnx.fields import accepted
from fgonnx.training.network import Network

# They roughly halve the variance of a signal: weights of variance 2 / fan_in before them preserve it.
_RECTIFIERS = {"Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "Elu", "Celu", "Gelu", "Mish", "Swish", "Softplus"}
_BETWEEN = {
    "Add",
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Identity",
    "Reshape",
    "Dropout",
}
_KERNELS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_NORMALISATIONS = {"BatchNormalization", "InstanceNormalization", "LayerNormalization"}


def reinitialise(network: Network, seed: int) -> None:
    """Draw new random weights for a network, in place.

    Kernels of convolutions and dense layers are normal with variance 2 / fan_in where a rectifier follows (He et al.,
    ICCV 2015), else 2 / (fan_in + fan_out) (Glorot and Bengio, AISTATS 2010). Scales of normalisations are 1, slopes of
    PRelu 0.25, biases and all others 0; running means 0, running variances 1.

    Parameters
    ----------
    network : Network
        Its weights and statistics are overwritten.
    seed : int
        The same seed gives the same weights.

    Raises
    ------
    OptionError
        The seed is no whole number of 0 or more.
    """
    rng = np.random.default_rng(accepted("seed", seed, int, least=0))
    written: set[str] = set()
    for node in network.path:
        for i, v in enumerate(node.inputs):
            name = _stored(v, network)
            if name is None or name in written:
                continue
            written.add(name)
            array = network.weights.get(name, network.statistics.get(name))
            assert array is not None
            kernel = node.op_type in _KERNELS and (i == 1 or node.op_type == "MatMul")
            if kernel and array.ndim > 1:
                fan_in, fan_out = _fans(node, array.shape)
                variance = 2 / fan_in if _rectified(node) else 2 / (fan_in + fan_out)
                array[...] = rng.normal(0, np.sqrt(variance), array.shape)
            elif node.op_type in _NORMALISATIONS:
                array[...] = 1 if i in (1, 4) else 0
            else:
                array[...] = 0.25 if node.op_type == "PRelu" else 0


def _stored(v: ir.Value | None, network: Network) -> str | None:
    """Return the name of the weight that a value is, also if reshaped or transposed."""
    while v is not None and v.name not in network.weights and v.name not in network.statistics:
        node = v.producer()
        if node is None or len([i for i in node.inputs if i is not None and i.const_value is None]) > 0:
            return None
        v = node.inputs[0]
    return str(v.name) if v is not None else None


def _fans(node: ir.Node, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan-in and fan-out of a kernel."""
    cells = int(np.prod(shape[2:], initial=1))
    if node.op_type == "Conv":
        return shape[1] * cells, shape[0] * cells
    if node.op_type == "ConvTranspose":
        return shape[0] * cells, shape[1] * cells
    transposed = node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int()
    return (shape[1], shape[0]) if transposed else (shape[-2], shape[-1])


def _rectified(node: ir.Node) -> bool:
    """Tell whether the first node after a layer that is not affine is a rectifier; x sigmoid(x) counts as one."""
    (out,) = node.outputs
    users = [use.node for use in out.uses()]
    kinds = {n.op_type for n in users}
    if kinds & _RECTIFIERS or {"Sigmoid", "Mul"} <= kinds:
        return True
    return any(_rectified(n) for n in users if n.op_type in _BETWEEN)
