"""AttnLRP written in torch: every operator hands relevance back by its rule, in place of a gradient.

The rules of Achtibat et al. (ICML 2024), each as an autograd function whose backward pass takes the relevance of the
output and returns that of the inputs. A mode of torch puts them in place of the operators of a network, which must be
in float64: the stabiliser of their divisions is far below the differences that count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.witness.attention import WRITTEN_OUT

_EPSILON = 1e-14


def _share(r: Tensor, z: Tensor) -> Tensor:
    return r / (z + torch.where(z < 0, -_EPSILON, _EPSILON))


class _Sum(torch.autograd.Function):
    """z = f(x), f affine: R_x = x times the transpose of f applied to R_z / z. Also of several x: z = f(x, y)."""

    @staticmethod
    def forward(ctx: Any, f: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(*xs)
        return f(*xs)

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> tuple[Tensor | None, ...]:
        xs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            z = ctx.f(*xs)
        return None, *(x * g for x, g in zip(xs, torch.autograd.grad(z, xs, _share(r, z)), strict=True))


class _Product(torch.autograd.Function):
    """z = sum a b: a and b get half of the relevance of each term."""

    @staticmethod
    def forward(ctx: Any, f: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(a, b)
        return f(a, b)

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> tuple[None, Tensor, Tensor]:
        a, b = (v.detach().requires_grad_() for v in ctx.saved_tensors)
        with torch.enable_grad():
            z = ctx.f(a, b)
        ga, gb = torch.autograd.grad(z, (a, b), _share(r, 2 * z))
        return None, a * ga, b * gb


class _Same(torch.autograd.Function):
    """z = h(x), entry by entry: R_x = R_z."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return f(x)

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> tuple[None, Tensor]:
        return None, r


class _Softmax(torch.autograd.Function):
    """R_i = x_i (R_i - s_i sum_j R_j)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        s = torch.softmax(x, dim)
        ctx.dim = dim
        ctx.save_for_backward(x, s)
        return s

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> tuple[Tensor, None]:
        x, s = ctx.saved_tensors
        return x * (r - s * r.sum(ctx.dim, keepdim=True)), None


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    centred = _Sum.apply(lambda v: v - v.mean(axes, keepdim=True), x)
    divided = _Same.apply(lambda v: v / torch.sqrt(v.pow(2).mean(axes, keepdim=True) + eps), centred)
    return _Sum.apply(lambda v: v * weight + bias, divided)


_MOVES = {
    *("cat", "chunk", "contiguous", "expand", "flatten", "permute", "reshape", "roll", "transpose", "unbind", "view"),
    *("__getitem__", "clone", "dropout", "pad", "repeat", "split", "squeeze", "stack", "unflatten", "unsqueeze"),
    *("__get__", "new_zeros", "_assert", "dim", "is_contiguous", "numel", "size", "stochastic_depth", "type"),
}
_AFFINE = {
    *(
        "add",
        "__add__",
        "__radd__",
        "__iadd__",
        "add_",
        "adaptive_avg_pool2d",
        "avg_pool2d",
        "batch_norm",
        "conv2d",
        "linear",
        "mean",
    ),
    *("sub", "sum"),
}
_IN_PLACE = {"add_": torch.add, "__iadd__": torch.add}  # the value that is overwritten is not read again
_PRODUCTS = {"matmul", "__matmul__", "bmm", "mul", "__mul__", "__rmul__", "div", "__truediv__"}
_ENTRYWISE = {"elu", "gelu", "hardswish", "hardtanh", "mish", "pow", "relu", "relu6", "silu", "tanh"}


class Relevance(TorchFunctionMode):
    """Replace the operators of what runs inside by those that hand back relevance; refuse what has no rule here."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.__name__
        if name in _IN_PLACE:
            func = _IN_PLACE[name]
        given = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if not given and name not in ("cat", "stack"):
            return func(*args, **kwargs)

        def f(*tensors: Tensor) -> Any:
            filled = list(args)
            for i, tensor in zip(given, tensors, strict=True):
                filled[i] = tensor
            return func(*filled, **kwargs)

        if name in WRITTEN_OUT:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        tensors = [args[i] for i in given]
        if name in _MOVES:
            return func(*args, **kwargs)
        if name == "softmax":
            return _Softmax.apply(args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1))
        if name == "layer_norm":
            return _layer_norm(*args, **kwargs)
        if name in _PRODUCTS and len(tensors) == 2:
            return _Product.apply(f, *tensors)
        if name in _AFFINE | _PRODUCTS:
            return _Sum.apply(f, *tensors)
        if name in _ENTRYWISE:
            return _Same.apply(f, *tensors)
        raise NotImplementedError(f"{name} has no rule here")


def attribution(net: torch.nn.Module, x: Tensor, target: int) -> Tensor:
    """Return the relevance of every entry of the input for one entry of the output, float64."""
    net = net.double()
    for p in net.parameters():
        p.requires_grad_(False)
    x = x.double().requires_grad_()
    with Relevance():
        y = net(x)
    score = y[:, target]
    return torch.autograd.grad(score, x, score.detach())[0]
