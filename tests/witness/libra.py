"""The libra backward pass written in torch by detaching: normalisation, gates and the weights of attention."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.witness.attention import WRITTEN_OUT

GATES = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)


def gated(x: Tensor, y: Tensor) -> Tensor:
    """Return y = x h(x) with the gate h(x) held."""
    return x * (y / x).detach()


def standardised(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    """Return (x - mean) / sigma with sigma held."""
    var = x.var(axes, unbiased=False, keepdim=True)
    return (x - x.mean(axes, keepdim=True)) / torch.sqrt(var + epsilon).detach()


def _layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    axes = tuple(range(-len(self.normalized_shape), 0))
    return standardised(x, axes, self.eps) * self.weight + self.bias


def _gate(self: nn.Module, x: Tensor) -> Tensor:
    return gated(x, type(self).forward(self, x))


@contextmanager
def libra(net: nn.Module) -> Iterator[None]:
    """Give a network the libra backward pass: LayerNorm, activations with a gate, and every softmax."""
    changed = []
    for m in net.modules():
        if isinstance(m, (nn.LayerNorm, *GATES)):
            m.forward = MethodType(_layer_norm if isinstance(m, nn.LayerNorm) else _gate, m)
            changed.append(m)
    softmax = Tensor.softmax
    Tensor.softmax = lambda self, *given, **named: softmax(self, *given, **named).detach()
    try:
        yield
    finally:
        Tensor.softmax = softmax
        for m in changed:
            del m.forward


def _normalised(x: Tensor, shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return standardised(x, tuple(range(-len(shape), 0)), eps) * weight + bias


class Libra(TorchFunctionMode):
    """Give whatever runs inside the libra backward pass, function by function."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.__name__
        if name in WRITTEN_OUT:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        y = func(*args, **kwargs)
        if name == "softmax":
            return y.detach()
        if name in ("gelu", "silu", "hardswish", "mish"):
            return gated(args[0], y)
        if name == "layer_norm":
            return _normalised(*args, **kwargs)
        return y


def input_gradient(net: nn.Module, x: Tensor, target: int) -> Tensor:
    """Return the cotangent of the input for one entry of the output, float64."""
    net = net.double()
    x = x.double().requires_grad_()
    with Libra():
        score = net(x)[:, target].sum()
    return torch.autograd.grad(score, x)[0]
