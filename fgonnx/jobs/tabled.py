"""Explanations of series and tables: their parts, what the record says of them, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import FgonnxError
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.parts import METHODS, Features, Lanes, features, lanes
from fgonnx.jobs.reading import TIME
from fgonnx.jobs.record import summed_of
from fgonnx.jobs.samples import Sample
from fgonnx.jobs.schema import FIELDS
from fgonnx.jobs.tabular import TABLE
from fgonnx.pictures.show import lanes as plotted
from fgonnx.pictures.show import plots, waterfall
from fgonnx.pictures.show.sheet import RGB, Certificate

Array = npt.NDArray[Any]


def wants_gradient(loaded: LoadedModel, options: Options) -> bool:
    """Tell whether a map may be one of channels over time, which the gradient of the input splits into lanes."""
    try:
        return options.method in METHODS and len(dims_of(loaded.input(options.input))) == 3
    except FgonnxError:  # said where it is explained
        return False


def signed(options: Options) -> Options:
    """Return options for the rows of a table: what features add has a sign, or it would not add up to the score."""
    return replace(options, psi="signed") if options.psi == "abs" and options.method in METHODS else options


def parts_of(e: Explanation, row: int, sample: Sample, layout: str) -> Lanes | Features | None:
    """Return the parts of which the map of a series or of a row of a table is made; None of anything else."""
    if sample.named is not None and sample.named.kind == TABLE:
        return features(e, row)
    if layout == "NF" and sample.named is None:
        return None
    found = lanes(e, row, sample.x, layout)
    return found if found is not None and (len(found.channels) > 1 or sample.named is not None) else None


def names_of(sample: Sample, count: int) -> tuple[str, ...]:
    """Return the names of channels or features."""
    names = sample.named.names if sample.named is not None else ()
    usual = ("input",) if count == 1 else tuple(f"channel {i}" for i in range(count))
    return names if len(names) == count else usual


def described(made: Mapping[str, Any], sample: Sample, parts: Lanes | Features | None) -> dict[str, Any]:
    """Return a record with what is known of a series or of a row of a table."""
    found: dict[str, Any] = dict(made)
    if isinstance(parts, Features):
        names = names_of(sample, len(parts.contributions))
        found["features"] = {
            "names": list(names),
            "values": [float(v) for v in sample.x],
            "contributions": [float(v) for v in parts.contributions],
            "biases": parts.biases,
        }
    elif isinstance(parts, Lanes):
        named = sample.named
        shares, inside = parts.shares()
        found["series"] = {
            "channels": list(names_of(sample, len(shares))),
            "units": named.units if named is not None and named.units else None,
            "recording": named.label if named is not None and named.label else None,
            "rate": sample.rate,
            "start": sample.start,
            "padded": named.padded if named is not None else 0,
            "shares": shares,
            "inside": inside if parts.inside is not None else None,
            "peaks": [int(np.abs(lane).argmax()) for lane in parts.channels],
        }
    return {f.name: found[f.name] for f in FIELDS if f.name in found}


def lanes_of(sample: Sample, values: Array, parts: Lanes, certificate: Certificate, *, signed: bool) -> RGB:
    """Draw a series in lanes; `values` is the input, (channels, T)."""
    named = sample.named
    series = plotted.Series(
        values,
        parts.channels,
        parts.inside,
        names_of(sample, len(values)),
        named.units if named is not None else "",
        sample.rate,
        sample.start,
        named.padded if named is not None else 0,
    )
    return plotted.draw(series, certificate, signed=signed)


def waterfall_of(made: Mapping[str, Any], sample: Sample, parts: Features, certificate: Certificate) -> RGB:
    """Draw a row of a table as a waterfall."""
    names = names_of(sample, len(parts.contributions))
    values = [f"{float(v):.6g}" for v in sample.x]
    bars = waterfall.rows(names, values, [float(v) for v in parts.contributions], parts.biases)
    return waterfall.draw(bars, made["score"], certificate, total=summed_of(made))


def spectrogram_of(sample: Sample, values: Array, saliency: Array, certificate: Certificate, *, signed: bool) -> RGB:
    """Draw a spectrogram; `values` and the map are of the input's grid."""
    axes = sample.named.axes if sample.named is not None else ()
    across = axes.index(TIME)
    turned = [array.T if across == 0 else array for array in (values, saliency.astype(np.float64))]
    named = (axes[1 - across], TIME)
    return plots.spectrogram(turned[0], turned[1], certificate, signed=signed, axes=named, rate=sample.rate)
