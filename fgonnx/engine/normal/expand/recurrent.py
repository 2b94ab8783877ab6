"""RNN, GRU and LSTM written out step by step in MatMul, Add, Mul and their activations.

Formulas and the order of gates are those of the operators' pages: https://onnx.ai/onnx/operators/onnx__LSTM.html,
onnx__GRU.html, onnx__RNN.html. Every step is exact, so the certificate holds through time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dims_of, optional, required
from fgonnx.engine.normal.expand.controlflow import MOST_STEPS, replace

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_PLAIN = {"Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"}
# Parameters an activation takes, with the operator page's defaults.
_PARAMETERS: dict[str, dict[str, float]] = {
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Elu": {"alpha": 1.0},
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
}

Activation = Callable[[ir.Value], ir.Value]


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent layer.

    Attributes
    ----------
    op : Emitter
        Writes the steps.
    r : ir.Value
        Recurrent weights, transposed: (H, gates * H).
    r_bias : ir.Value or None
        Recurrent bias, (gates * H,).
    peepholes : sequence of ir.Value or None
        Of an LSTM: input, output, forget, (H,) each.
    activations : sequence of callable
        In the operator's order f, g, h.
    hidden : int
        H.
    clip : float or None
        Bound on what goes into the activations.
    linear_before_reset, input_forget : bool
        Options of GRU and LSTM.
    """

    op: Emitter
    r: ir.Value
    r_bias: ir.Value | None
    peepholes: tuple[ir.Value, ...] | None
    activations: tuple[Activation, ...]
    hidden: int
    clip: float | None
    linear_before_reset: bool
    input_forget: bool

    def act(self, index: int, v: ir.Value) -> ir.Value:
        """Clip and activate."""
        if self.clip is not None:
            v = self.op.Clip(v, -self.clip, self.clip)
        return self.activations[index](v)

    def split(self, v: ir.Value, parts: int) -> tuple[ir.Value, ...]:
        """Cut the last axis into gates."""
        return self.op.several("Split", v, [self.hidden] * parts, axis=-1, outputs=parts)

    def recurrent(self, h: ir.Value) -> ir.Value:
        """h R^T, with the recurrent bias."""
        product = self.op.MatMul(h, self.r)
        return product if self.r_bias is None else self.op.Add(product, self.r_bias)

    def rnn(self, x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        """H = f(x + h R^T)."""
        return self.act(0, self.op.Add(x, self.recurrent(h))), c

    def gru(self, x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        """z, r = f(.); n = g(x_n + r * (h R_n^T + b)) or g(x_n + (r * h) R_n^T + b); H = (1 - z) n + z h."""
        op, size = self.op, self.hidden
        xz, xr, xn = self.split(x, 3)
        if self.linear_before_reset:
            hz, hr, hn = self.split(self.recurrent(h), 3)
            z, r = self.act(0, op.Add(xz, hz)), self.act(0, op.Add(xr, hr))
            n = self.act(1, op.Add(xn, op.Mul(r, hn)))
        else:
            gates = op.MatMul(h, op.Slice(self.r, [0], [2 * size], [1]))
            if self.r_bias is not None:
                gates = op.Add(gates, op.Slice(self.r_bias, [0], [2 * size], [0]))
            hz, hr = self.split(gates, 2)
            z, r = self.act(0, op.Add(xz, hz)), self.act(0, op.Add(xr, hr))
            candidate = op.MatMul(op.Mul(r, h), op.Slice(self.r, [2 * size], [3 * size], [1]))
            if self.r_bias is not None:
                candidate = op.Add(candidate, op.Slice(self.r_bias, [2 * size], [3 * size], [0]))
            n = self.act(1, op.Add(xn, candidate))
        return op.Add(op.Mul(op.Sub(1.0, z), n), op.Mul(z, h)), c

    def lstm(self, x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        """i, o, f, g of the operator's page; C = f c + i g, H = o h(C)."""
        op = self.op
        i, o, f, g = self.split(op.Add(x, self.recurrent(h)), 4)
        if self.peepholes is not None:
            i, f = op.Add(i, op.Mul(self.peepholes[0], c)), op.Add(f, op.Mul(self.peepholes[2], c))
        i = self.act(0, i)
        f = op.Sub(1.0, i) if self.input_forget else self.act(0, f)
        new = op.Add(op.Mul(f, c), op.Mul(i, self.act(1, g)))
        if self.peepholes is not None:
            o = op.Add(o, op.Mul(self.peepholes[1], new))
        return op.Mul(self.act(0, o), self.activations[2](new)), new


def expand(model: ir.Model, node: ir.Node) -> bool:
    """Unroll a recurrent layer; False if its sequence length is unknown or above MOST_STEPS."""
    graph = model.graph
    kind, gates = node.op_type, _GATES[node.op_type]
    x, w, r = (required(node, i) for i in range(3))
    b, lengths, h0, c0, p = (optional(node, i) for i in range(3, 8))
    option = {name: a.value for name, a in node.attributes.items()}
    batch_first = bool(option.get("layout", 0))
    steps = dims_of(x)[1 if batch_first else 0]
    if not isinstance(steps, int) or steps > MOST_STEPS:
        return False
    hidden = int(dims_of(r)[2])  # type: ignore[arg-type]
    op = Emitter(graph, prefix=f"{node.name or node.op_type}/")
    if batch_first:
        x = op.Transpose(x, perm=[1, 0, 2])
        h0, c0 = (None if v is None else op.Transpose(v, perm=[1, 0, 2]) for v in (h0, c0))
    directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
        option.get("direction", "forward")
    ]
    functions = list(option.get("activations", _ACTIVATIONS[kind] * len(directions)))
    alphas, betas = list(option.get("activation_alpha", [])), list(option.get("activation_beta", []))
    rows, last_h, last_c = [], [], []
    for d, backwards in enumerate(directions):
        per = len(_ACTIVATIONS[kind])
        chosen = tuple(_activation(op, f, alphas, betas) for f in functions[d * per : (d + 1) * per])

        def pick(v: ir.Value, d: int = d) -> ir.Value:
            return op.Squeeze(op.Slice(v, [d], [d + 1], [0]), [0])

        r_bias = x_bias = None
        if b is not None:
            x_bias, r_bias = op.several("Split", pick(b), [gates * hidden] * 2, axis=0, outputs=2)
        cell = Cell(
            op,
            op.Transpose(pick(r), perm=[1, 0]),
            r_bias,
            op.several("Split", pick(p), [hidden] * 3, axis=0, outputs=3) if p is not None else None,
            chosen,
            hidden,
            option.get("clip"),
            bool(option.get("linear_before_reset", 0)),
            bool(option.get("input_forget", 0)),
        )
        projected = op.MatMul(x, op.Transpose(pick(w), perm=[1, 0]))
        if x_bias is not None:
            projected = op.Add(projected, x_bias)
        zero = _zeros(op, x, hidden)
        h = pick(h0) if h0 is not None else zero
        c = pick(c0) if c0 is not None else zero
        ys: list[ir.Value] = [zero] * steps
        for t in range(steps - 1, -1, -1) if backwards else range(steps):
            xt = op.Gather(projected, np.array(t, np.int64), axis=0)
            new_h, new_c = {"RNN": cell.rnn, "GRU": cell.gru, "LSTM": cell.lstm}[kind](xt, h, c)
            if lengths is not None:
                # After the end of a sequence the state is kept and the output is zero.
                running = op.Unsqueeze(op.Greater(lengths, np.array(t, np.int32)), [1])
                ys[t] = op.Where(running, new_h, zero)
                h, c = op.Where(running, new_h, h), op.Where(running, new_c, c)
            else:
                ys[t], h, c = new_h, new_h, new_c
        rows.append(op.Concat(*(op.Unsqueeze(y, [0, 1]) for y in ys), axis=0))
        last_h.append(op.Unsqueeze(h, [0]))
        last_c.append(op.Unsqueeze(c, [0]))
    outputs = [op.Concat(*rows, axis=1), op.Concat(*last_h, axis=0), op.Concat(*last_c, axis=0)]
    if batch_first:
        outputs = [op.Transpose(outputs[0], perm=[2, 0, 1, 3]), *(op.Transpose(v, perm=[1, 0, 2]) for v in outputs[1:])]
    for v, old in zip(outputs, node.outputs, strict=False):
        v.type = old.type
    replace(graph, node, outputs[: len(node.outputs)])
    return True


def _zeros(op: Emitter, x: ir.Value, hidden: int) -> ir.Value:
    """Zeros (N, H), N the middle axis of (T, N, C)."""
    batch = op.Slice(op.Shape(x), [1], [2], [0])
    zero = op.constant(np.zeros((), x.dtype.numpy() if x.dtype is not None else np.float32))
    return op.Expand(zero, op.Concat(batch, np.array([hidden], np.int64), axis=0))


def _activation(op: Emitter, name: Any, alphas: list[float], betas: list[float]) -> Activation:
    """Return an activation by its (case-insensitive) name; parameters are consumed in order, as the page says."""
    text = name.decode() if isinstance(name, bytes) else str(name)
    known = next((k for k in (*_PLAIN, *_PARAMETERS) if k.lower() == text.lower()), None)
    if known is None:
        raise ValueError(f"unknown activation {text!r} in a recurrent layer")
    if known in _PLAIN:
        return getattr(op, known)
    values = dict(_PARAMETERS[known])
    if "alpha" in values and alphas:
        values["alpha"] = alphas.pop(0)
    if "beta" in values and betas:
        values["beta"] = betas.pop(0)
    if known == "Affine":
        return lambda v: op.Add(op.Mul(v, values["alpha"]), values["beta"])
    if known == "ScaledTanh":
        return lambda v: op.Mul(op.Tanh(op.Mul(v, values["beta"])), values["alpha"])
    return lambda v: op.emit(known, v, **values)


EXPANDERS: dict[str, Callable[[ir.Model, ir.Node], bool]] = dict.fromkeys(_GATES, expand)
