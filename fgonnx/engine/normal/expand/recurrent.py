"""RNN, GRU and LSTM written out in MatMul, Add, Mul and their activations, step by step or all steps at once.

Formulas and the order of gates are those of the operators' pages: https://onnx.ai/onnx/operators/onnx__LSTM.html,
onnx__GRU.html, onnx__RNN.html. Every step is exact, so the certificate holds through time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import say_why
from fgonnx.engine.graph.values import dims_of, optional, producer_of, required
from fgonnx.engine.normal.expand.controlflow import MOST_STEPS, replace
from fgonnx.engine.normal.recurrence import ROLE

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

Activation = Callable[[Emitter, ir.Value], ir.Value]
Product = Callable[[Emitter, ir.Value], ir.Value]


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
    product : callable or None
        Computes h R^T of a layer whose weights are quantised, in place of `r`.
    """

    op: Emitter
    r: ir.Value
    r_bias: ir.Value | None
    peepholes: tuple[ir.Value, ...] | None
    activations: Sequence[Activation]
    hidden: int
    clip: float | None
    linear_before_reset: bool
    input_forget: bool
    product: Product | None = None

    def act(self, index: int, v: ir.Value) -> ir.Value:
        """Clip and activate."""
        if self.clip is not None:
            v = self.op.Clip(v, -self.clip, self.clip)
        return self.activations[index](self.op, v)

    def split(self, v: ir.Value, parts: int) -> tuple[ir.Value, ...]:
        """Cut the last axis into gates."""
        return self.op.several("Split", v, [self.hidden] * parts, axis=-1, outputs=parts)

    def recurrent(self, h: ir.Value) -> ir.Value:
        """h R^T, with the recurrent bias."""
        product = self.op.MatMul(h, self.r) if self.product is None else self.product(self.op, h)
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
        return op.Mul(self.act(0, o), self.activations[2](op, new)), new


@dataclass(frozen=True)
class Steps:
    """All steps of one direction.

    Attributes
    ----------
    kind : str
        "RNN", "GRU" or "LSTM".
    x : ir.Value
        What the input contributes to every step, (T, N, gates * H).
    h, c : ir.Value
        Initial states, (N, H).
    lengths : ir.Value or None
        Lengths of the sequences, (N,).
    zero : ir.Value
        Zeros, (N, H).
    count : int
        T.
    backwards : bool
        Whether the last step comes first.
    """

    kind: str
    x: ir.Value
    h: ir.Value
    c: ir.Value
    lengths: ir.Value | None
    zero: ir.Value
    count: int
    backwards: bool

    def step(self, cell: Cell, x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return both states behind a step, or behind all steps at once."""
        return {"RNN": cell.rnn, "GRU": cell.gru, "LSTM": cell.lstm}[self.kind](x, h, c)


def expand(model: ir.Model, node: ir.Node) -> bool:
    """Write a recurrent layer out; step by step up to MOST_STEPS, above them as a Scan.

    False if its sequence length is unknown.
    """
    graph = model.graph
    quantised = node.op_type == "DynamicQuantizeLSTM"
    kind = "LSTM" if quantised else node.op_type
    gates = _GATES[kind]
    x, w, r = (required(node, i) for i in range(3))
    b, lengths, h0, c0, p = (optional(node, i) for i in range(3, 8))
    option = {name: a.value for name, a in node.attributes.items()}
    batch_first = bool(option.get("layout", 0))
    count = dims_of(x)[1 if batch_first else 0]
    if not isinstance(count, int):
        return say_why(node, "its number of steps depends on the batch size")
    long = count > MOST_STEPS
    if long and x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return say_why(node, f"it has {count} steps in half precision, in which it is written out up to {MOST_STEPS}")
    if long and quantised:
        return say_why(node, f"it has {count} steps, and with quantised weights it is written out up to {MOST_STEPS}")
    hidden = int(dims_of(r)[1 if quantised else 2])  # type: ignore[arg-type]
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
        named = [_named(f, alphas, betas) for f in functions[d * per : (d + 1) * per]]

        def pick(v: ir.Value, d: int = d) -> ir.Value:
            return op.Squeeze(op.Slice(v, [d], [d + 1], [0]), [0])

        r_bias = x_bias = None
        if b is not None:
            x_bias, r_bias = op.several("Split", pick(b), [gates * hidden] * 2, axis=0, outputs=2)
        w_product, r_product = (_product(node, i, pick) if quantised else None for i in (8, 10))
        cell = Cell(
            op,
            op.Transpose(pick(r), perm=[1, 0]),
            r_bias,
            op.several("Split", pick(p), [hidden] * 3, axis=0, outputs=3) if p is not None else None,
            named,
            hidden,
            option.get("clip"),
            bool(option.get("linear_before_reset", 0)),
            bool(option.get("input_forget", 0)),
            r_product,
        )
        projected = w_product(op, x) if w_product is not None else op.MatMul(x, op.Transpose(pick(w), perm=[1, 0]))
        if x_bias is not None:
            projected = op.Add(projected, x_bias)
        zero = _zeros(op, x, hidden)
        h, c = (pick(v) if v is not None else zero for v in (h0, c0))
        run = Steps(kind, projected, h, c, lengths, zero, count, backwards)
        y, h, c = (_scanned if long else _unrolled)(cell, run)
        rows.append(y)
        last_h.append(op.Unsqueeze(h, [0]))
        last_c.append(op.Unsqueeze(c, [0]))
    outputs = [op.Concat(*rows, axis=1), op.Concat(*last_h, axis=0), op.Concat(*last_c, axis=0)]
    if batch_first:
        outputs = [op.Transpose(outputs[0], perm=[2, 0, 1, 3]), *(op.Transpose(v, perm=[1, 0, 2]) for v in outputs[1:])]
    for v, old in zip(outputs, node.outputs, strict=False):
        v.type = old.type
    replace(graph, node, outputs[: len(node.outputs)])
    return True


def _product(node: ir.Node, at: int, pick: Callable[[ir.Value], ir.Value]) -> Product:
    """Return the product with quantised weights, whose scale and zero point are inputs from `at` on.

    The other operand is quantised by its own range.
    """
    weights, scale, zero = (pick(required(node, i)) for i in (1 if at == 8 else 2, at, at + 1))

    def product(op: Emitter, v: ir.Value) -> ir.Value:
        q, own, offset = op.several("DynamicQuantizeLinear", v, outputs=3)
        return op.Mul(
            op.Cast(op.MatMulInteger(q, weights, offset, zero), to=ir.DataType.FLOAT.value), op.Mul(own, scale)
        )

    return product


def _unrolled(cell: Cell, run: Steps) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Write one step after the other; return the results (T, 1, N, H) and both final states."""
    op, h, c = cell.op, run.h, run.c
    ys: list[ir.Value] = [run.zero] * run.count
    layer = op.unique("steps")
    for t in range(run.count - 1, -1, -1) if run.backwards else range(run.count):
        with op.recording() as nodes:
            xt = op.Gather(run.x, np.array(t, np.int64), axis=0)
            new_h, new_c = run.step(cell, xt, h, c)
        steps.mark(nodes, layer, t)
        if run.lengths is not None:
            # After the end of a sequence the state is kept and the output is zero.
            running = op.Unsqueeze(op.Greater(run.lengths, np.array(t, np.int32)), [1])
            ys[t] = op.Where(running, new_h, run.zero)
            h, c = op.Where(running, new_h, h), op.Where(running, new_c, c)
        else:
            ys[t], h, c = new_h, new_h, new_c
    return op.Concat(*(op.Unsqueeze(y, [0, 1]) for y in ys), axis=0), h, c


def _scanned(cell: Cell, run: Steps) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The same as a Scan for the states before every step, and all steps at once; see `normal.recurrence`."""
    op, x = cell.op, run.x
    running = None
    if run.lengths is not None:
        place = op.constant(np.arange(run.count, dtype=np.int32).reshape(-1, 1, 1))
        running = op.Less(place, op.Unsqueeze(run.lengths, [0, 2]))
    initial = [run.h, run.c] if run.kind == "LSTM" else [run.h]
    before = _states_before(cell, run, initial, x, running)
    h, c = before[0], before[-1]
    new = list(run.step(cell, x, h, c))[: len(initial)]
    if running is not None:
        new = [op.Where(running, v, old) for v, old in zip(new, before, strict=True)]
    # One node for both states, so that neither is lost if nothing reads it.
    parts = [cell.hidden] * len(new)
    behind = op.several("Split", op.Concat(*new, axis=-1), parts, axis=-1, outputs=len(new), name="behind")
    producer_of(behind[0]).meta[ROLE] = (str(producer_of(before[0]).name), "behind")
    y = behind[0] if running is None else op.Where(running, behind[0], run.zero)
    last = [op.Gather(v, np.array(0 if run.backwards else run.count - 1, np.int64), axis=0) for v in behind]
    return op.Unsqueeze(y, [1]), last[0], last[-1] if run.kind == "LSTM" else run.c


def _states_before(
    cell: Cell, run: Steps, initial: list[ir.Value], x: ir.Value, running: ir.Value | None
) -> list[ir.Value]:
    """Write the Scan; return the states before every step, (T, N, H) each."""
    op = cell.op
    name = op.unique("states")
    kind = x.dtype or ir.DataType.FLOAT
    inputs = [ir.Value(name=f"{name}/{n}", type=ir.TensorType(kind)) for n in ("h", "c")[: len(initial)]]
    taken = [ir.Value(name=f"{name}/x", type=ir.TensorType(kind))]
    if running is not None:
        taken.append(ir.Value(name=f"{name}/running", type=ir.TensorType(ir.DataType.BOOL)))
    body = ir.Graph([*inputs, *taken], [], nodes=[], opset_imports=dict(op.graph.opset_imports), name=name)
    inner = Emitter(body, prefix=f"{name}/")
    new = list(run.step(dataclasses.replace(cell, op=inner), taken[0], inputs[0], inputs[-1]))[: len(initial)]
    if running is not None:
        new = [inner.Where(taken[1], v, old) for v, old in zip(new, inputs, strict=True)]
    body.outputs.extend(inner.Identity(v) for v in (*new, *inputs))
    for v in body.outputs:
        v.type = ir.TensorType(kind)
    given = [x] if running is None else [x, running]
    attributes = [ir.AttrGraph("body", body), ir.AttrInt64("num_scan_inputs", len(given))]
    if run.backwards:  # entry t of every value is that of step t, whichever comes first
        attributes.append(ir.AttrInt64s("scan_input_directions", [1] * len(given)))
        attributes.append(ir.AttrInt64s("scan_output_directions", [1] * len(initial)))
    scan = ir.Node("", "Scan", [*initial, *given], attributes, num_outputs=2 * len(initial), name=name)
    scan.meta[ROLE] = (name, "scan")
    for i, v in enumerate(scan.outputs):
        v.name, v.type = f"{name}:{i}", ir.TensorType(kind)
    op.place(scan)
    return list(scan.outputs[len(initial) :])


def _zeros(op: Emitter, x: ir.Value, hidden: int) -> ir.Value:
    """Zeros (N, H), N the middle axis of (T, N, C)."""
    batch = op.Slice(op.Shape(x), [1], [2], [0])
    zero = op.constant(np.zeros((), x.dtype.numpy() if x.dtype is not None else np.float32))
    return op.Expand(zero, op.Concat(batch, np.array([hidden], np.int64), axis=0))


def _named(name: Any, alphas: list[float], betas: list[float]) -> Activation:
    """Return an activation by its (case-insensitive) name; parameters are consumed in order, as the page says."""
    text = name.decode() if isinstance(name, bytes) else str(name)
    known = next((k for k in (*_PLAIN, *_PARAMETERS) if k.lower() == text.lower()), None)
    if known is None:
        raise ValueError(f"unknown activation {text!r} in a recurrent layer")
    values = dict(_PARAMETERS.get(known, {}))
    if "alpha" in values and alphas:
        values["alpha"] = alphas.pop(0)
    if "beta" in values and betas:
        values["beta"] = betas.pop(0)
    if known == "Affine":
        return lambda op, v: op.Add(op.Mul(v, values["alpha"]), values["beta"])
    if known == "ScaledTanh":
        return lambda op, v: op.Mul(op.Tanh(op.Mul(v, values["beta"])), values["alpha"])
    return lambda op, v: op.emit(known, v, **values)


EXPANDERS: dict[str, Callable[[ir.Model, ir.Node], bool]] = dict.fromkeys(_GATES, expand)

QUANTISED: dict[tuple[str, str], Callable[[ir.Model, ir.Node], bool]] = {
    ("com.microsoft", "DynamicQuantizeLSTM"): expand
}
