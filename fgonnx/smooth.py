"""smooth-fullgrad: signed maps averaged over noisy copies of the input, psi afterwards.

The average is taken run by run, outside the graph, so that memory does not grow with the number of copies; a second,
small graph turns the averaged maps into the saliency map with the same code that the one-run methods use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx import aggregate
from fgonnx.axes import Placement
from fgonnx.emit import PREFIX, Emitter
from fgonnx.errors import OptionError
from fgonnx.rewrite import Rewritten
from fgonnx.runtime import Session

Array = npt.NDArray[Any]

#: Key of the map among the results; no output of the model's own has such a name.
SALIENCY = f"{PREFIX}saliency"


@dataclass(frozen=True)
class Smoothing:
    """How smooth-fullgrad is sampled.

    Attributes
    ----------
    samples : int
        Noisy copies per input, 1 or more.
    sigma : float
        Standard deviation of the noise as a fraction of max - min of the input, 0 or more.
    random_state : int
        Seed.
    """

    samples: int = 25
    sigma: float = 0.15
    random_state: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.sigma < 0:
            raise OptionError(
                f"samples={self.samples}, sigma={self.sigma}: give at least one sample and a sigma of at least 0"
            )


def explain(
    r: Rewritten, session: Session, smoothing: Smoothing, feeds: dict[str, Array], index: int, step: int
) -> dict[str, Array]:
    """Explain one sample; its noise depends on the seed and the sample's index alone, not on the batch size.

    Returns what the session returns, with the map (SALIENCY) in place of the signed ones; score, contributions and
    completeness are means over the noisy copies, the model's own outputs those of the clean input.
    """
    name = r.normal.input_name
    clean = session.run(feeds)
    fixed = dict(feeds)
    if "target" in r.names:
        fixed[r.selector] = clean[r.names["target"]]
    x = feeds[name].astype(np.float64)
    rng = np.random.default_rng([smoothing.random_state, index])
    scale = smoothing.sigma * float(x.max() - x.min())
    averaged = [k for k in r.names if k in ("score", "contributions", "completeness") or k.startswith("signed_map_")]
    sums: dict[str, Array] = {}
    for start in range(0, smoothing.samples, step):
        count = min(step, smoothing.samples - start)
        noisy = x + rng.standard_normal((count, *x.shape[1:])) * scale
        copies = {k: np.repeat(v, count, axis=0) if v.ndim else v for k, v in fixed.items()}
        copies[name] = noisy.astype(feeds[name].dtype)
        results = session.run(copies, [r.names[k] for k in averaged])
        for k in averaged:
            total = results[r.names[k]].astype(np.float64).sum(axis=0, keepdims=True)
            sums[k] = sums[k] + total if k in sums else total
    means = {k: (v / smoothing.samples).astype(clean[r.names[k]].dtype) for k, v in sums.items()}
    maps = [means[k] for k in averaged if k.startswith("signed_map_")]
    result = {k: v for k, v in clean.items() if not k.startswith("signed_map_")}
    result.update({r.names[k]: v for k, v in means.items() if not k.startswith("signed_map_")})
    result[SALIENCY] = combine(maps, _grid(r), r.options.psi, r.options.profile)
    return result


def _grid(r: Rewritten) -> tuple[int, ...]:
    return tuple(s for s, letter in zip(r.normal.input_shape, r.normal.layout, strict=False) if letter in "DHWF")


def combine(maps: list[Array], grid: tuple[int, ...], psi: str, profile: str) -> Array:
    """Turn signed maps (1, channels, *grid) into the saliency map with onnxruntime."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="combine")
    op = Emitter(graph)
    signed = []
    for i, m in enumerate(maps):
        value = ir.Value(name=f"map_{i}", shape=ir.Shape(m.shape), type=ir.TensorType(ir.DataType.from_numpy(m.dtype)))
        graph.inputs.append(value)
        axes = tuple(range(m.ndim))
        signed.append(aggregate.Signed(value, Placement(m.shape, axes, (-1, *m.shape[1:]), True)))
    result = aggregate.saliency(op, signed, grid, psi=psi, profile=profile)
    result.shape = ir.Shape([1, *grid])
    graph.outputs.append(result)
    session = Session(ir.Model(graph, ir_version=8), providers=["cpu"])
    return session.run({f"map_{i}": m for i, m in enumerate(maps)})[str(result.name)]
