"""Output for one explained sample: a JSON record, and a panel with the certificate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from fgonnx._version import __version__
from fgonnx.engine.graph import openvino
from fgonnx.engine.graph.running import ORT, Running
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.explain.detection import detected
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.head import ONLY, Head
from fgonnx.explain.parts import Features, Lanes
from fgonnx.jobs import provenance, tabled
from fgonnx.jobs.samples import Sample
from fgonnx.jobs.schema import FIELDS
from fgonnx.jobs.tabular import TABLE
from fgonnx.opencv import cv2
from fgonnx.pictures.show import plots, visual
from fgonnx.pictures.show.sheet import Certificate

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

SMOOTHED = "score, contributions and completeness are means over the noisy copies; top5 is of the clean input"

PICTURES = ("panel", "overlay", "heat")
_CHOSEN = ("layer",)  # settings that a method chooses by itself where they are left open
_TOP = 5
_SMOOTHING = 64  # standard deviation of the average, as a divisor of the picture's longer side


@dataclass(frozen=True)
class Decision:
    """All entries of the head for the samples of one explanation.

    Attributes
    ----------
    scores : numpy array, (N, entries), or None
        Values of the head; None if not available (smooth-fullgrad before a Softmax).
    probabilities : numpy array, (N, entries), or None
        Results of the operator after the head; None where the head is the output.
    labels : tuple of str or None
        One name per entry.
    shape : tuple of int
        Shape of the head for one sample.
    detected : tuple of str
        Of a detector, the class and the score of the best detection, one per sample; else empty.
    """

    scores: Array | None
    probabilities: Array | None
    labels: tuple[str, ...] | None
    shape: tuple[int, ...]
    detected: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        explanation: Explanation,
        rewritten: Rewritten,
        labels: tuple[str, ...] | None,
        classes: Sequence[str] | None = None,
    ) -> Decision:
        """Take the decision from an explanation; `classes` are names of what a detector finds."""
        count, entries = len(explanation), int(np.prod(rewritten.head_shape, initial=1))

        def rows(array: Array | None) -> Array | None:
            return array.reshape(count, -1) if array is not None and array.size == count * entries else None

        outputs = explanation.outputs
        scores = rows(explanation.scores if explanation.scores is not None else outputs.get(rewritten.head))
        probabilities = None
        if rewritten.stripped:
            # A model that ends in integers gives quantised probabilities: they are not used here.
            name = rewritten.options.output or next((n for n, a in outputs.items() if a.dtype.kind == "f"), "")
            probabilities = rows(outputs[name]) if name and outputs[name].dtype.kind == "f" else None
            if probabilities is not None and rewritten.stripped == "LogSoftmax":
                probabilities = np.exp(probabilities)
        values = probabilities if probabilities is not None else scores
        found: tuple[str, ...] = ()
        if values is not None:
            table = values.reshape(count, *rewritten.head_shape)
            head = Head(rewritten.head_shape, count, rewritten.head_axes, classes or (), lambda: table, lambda: outputs)
            found = detected(head)
        return cls(scores, probabilities, labels, rewritten.head_shape, found)

    @classmethod
    def of_heads(cls, heads: Array, rewritten: Rewritten, labels: tuple[str, ...] | None) -> Decision:
        """Take the decision from the heads alone, (N, ...), where no explanation is made."""
        scores = heads.reshape(len(heads), -1)
        values = scores.astype(np.float64)
        probabilities = None
        if sum(size > 1 for size in rewritten.head_shape) > 1:
            pass  # several axes: not one choice between classes
        elif rewritten.stripped in ("Softmax", "LogSoftmax"):
            grown = np.exp(values - values.max(axis=1, keepdims=True))
            probabilities = grown / grown.sum(axis=1, keepdims=True)
        elif rewritten.stripped == "Sigmoid":
            probabilities = np.exp(-np.logaddexp(0, -values))
        return cls(scores, probabilities, labels, rewritten.head_shape)

    def entry(self, sample: int, index: int) -> dict[str, Any]:
        """Return one entry of the head for the record."""
        return {
            "index": index,
            "position": [int(i) for i in np.unravel_index(index, self.shape)],
            "label": self.labels[index] if self.labels is not None else None,
            "score": float(self.scores[sample, index]) if self.scores is not None else None,
            "probability": float(self.probabilities[sample, index]) if self.probabilities is not None else None,
        }

    def top(self, sample: int) -> list[dict[str, Any]]:
        """Return the largest entries of the head."""
        values = self.scores if self.scores is not None else self.probabilities
        if values is None:
            return []
        order = np.argsort(-values[sample], kind="stable")[:_TOP]
        return [self.entry(sample, int(i)) for i in order]


def versions(running: Running) -> dict[str, str]:
    """Return the versions of the packages that compute an explanation."""
    others = {"openvino": openvino.version()} if running.runtime != ORT and openvino.installed() else {}
    return {
        "fgonnx": __version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        **others,
    }


def asked(running: Running) -> dict[str, str]:
    """Return the runtime that was asked for, where it is not the usual one, for the settings of a record."""
    return {"runtime": running.runtime} if running.runtime != ORT else {}


def explained(r: Rewritten) -> dict[str, Any]:
    """Return what of a model is explained, for the record of a run: the head, the input and its layout."""
    return {
        "value": r.head,
        "before": r.stripped or None,
        "shape": list(r.head_shape),
        "input": r.normal.input_name,
        "input_shape": list(r.normal.input_shape),
        "layout": r.normal.layout,
        "batch": "any" if r.normal.batched else "1",
        "notes": list(r.normal.notes),
    }


def describe(
    request: Mapping[str, Any],
    explanation: Explanation,
    decision: Decision,
    sample: Sample,
    row: int,
    files: Mapping[str, str | None],
    command: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON record of one sample.

    Parameters
    ----------
    request : mapping
        The request: the first keys of the record.
    explanation : Explanation
        The explanation of the batch.
    decision : Decision
        The head of the batch.
    sample : Sample
        The sample.
    row : int
        Its row in the batch.
    files : mapping of str to str
        The other files about it, by kind.
    command : sequence of str
        The command that explains it again.
    """
    index, other = (int(v[row]) if v is not None else None for v in (explanation.target, explanation.contrast))
    has_certificate = explanation.contributions is not None and explanation.completeness is not None
    saliency = explanation.saliency[row].astype("float32", copy=False)
    score = float(explanation.score[row])
    asked = request["settings"]
    chosen = {k: explanation.settings[k] for k, v in asked.items() if v is None and k in _CHOSEN}
    made = {
        **request,
        "runtime": explanation.settings["runtime"],
        "tensor": provenance.array_of(sample.x),
        "notes": [
            *sample.notes,
            *explanation.settings["notes"],
            *([remark] if (remark := explanation.settings.get("remarks", ("",) * (row + 1))[row]) else []),
            *([SMOOTHED] if request["settings"]["method"] == "smooth-fullgrad" else []),
            *([f"layer: {explanation.settings['layer']}"] if explanation.settings.get("layer") is not None else []),
        ],
        "settings": {**request["settings"], **chosen},
        "chosen": list(chosen),
        "explained": {
            "value": explanation.head,
            "before": explanation.head_stripped or None,
            "described": explanation.described[row],
        },
        "top5": decision.top(row),
        **({"detected": decision.detected[row]} if decision.detected else {}),
        "target": decision.entry(row, index) if index is not None else None,
        **({"contrast": decision.entry(row, other)} if other is not None else {}),
        "score": score,
        "completeness": {
            "residual": float(explanation.completeness[row]),  # type: ignore[index]
            "relative": float(explanation.relative_residual()[row]) if score else None,
            "rounding": float(explanation.rounding_residual()[row]),
        }
        if has_certificate
        else None,
        "delta": float(explanation.delta[row]) if explanation.delta is not None else None,
        "localised": {
            "amount": float(explanation.localised()[row]),
            "share": float(explanation.localised_share()[row]),
        }
        if has_certificate
        else None,
        "sites": _sites(explanation, row if has_certificate else None),
        **({"blocks": _blocks(explanation, row)} if has_certificate and explanation.blocks else {}),
        "map": {
            **provenance.array_of(saliency),
            "min": float(saliency.min()),
            "max": float(saliency.max()),
            "picture": list(sample.photo.shape[:2]) if sample.photo is not None else None,
            "frame": list(sample.frame) if sample.frame is not None else None,
        },
        "files": dict(files),
        "command": list(command),
    }
    return {f.name: made[f.name] for f in FIELDS if f.name in made}


def _sites(explanation: Explanation, row: int | None) -> list[dict[str, Any]]:
    values = [None] * len(explanation.sites) if row is None else [v for _, v in explanation.table(row)]
    total = sum(abs(v) for v in values if v is not None) or 1.0
    return [
        {
            "name": s.name,
            "node": s.node,
            "op_type": s.op_type,
            "kind": s.kind,
            "grid": list(s.grid),
            "in_map": s.in_map,
            "contribution": v,
            "share": abs(v) / total if v is not None else None,
        }
        for s, v in zip(explanation.sites, values, strict=True)
    ]


def _blocks(explanation: Explanation, row: int) -> list[dict[str, Any]]:
    residuals = explanation.block_residuals()
    return [
        {"name": name, "sum": float(total[row]), "rounding": abs(float(residuals[name][row]))}
        for name, total in explanation.blocks.items()
    ]


def arranged(x: Array, layout: str) -> Array:
    """Bring one sample of an input to (channels, *grid)."""
    letters = layout[1:]
    return np.moveaxis(x, letters.index("C"), 0) if "C" in letters else x[None]


def target_of(record: Mapping[str, Any]) -> str:
    """Return the name of what was explained."""
    target = record["target"]
    if "contrast" in record:
        return f"{_first_name(target)} rather than {_first_name(record['contrast'])}"
    own = target is not None and (target["label"] is not None or record["settings"]["target"] is None)
    described = str(record["explained"]["described"])
    if described == ONLY:
        return described
    return name_of(target) if own else described.partition(", column")[0]


def name_of(entry: Mapping[str, Any]) -> str:
    """Return the name of an entry of the head: its label, or its index."""
    label = entry["label"]
    if label is not None:
        return str(label)
    several = sum(1 for i in entry["position"] if i) > 1
    return f"{entry['index']} {tuple(entry['position'])}" if several else str(entry["index"])


def _first_name(entry: Mapping[str, Any]) -> str:
    """Return the first of the synonyms that a label lists."""
    return name_of(entry).partition(",")[0]


def value_of(entry: Mapping[str, Any]) -> str:
    """Format score and probability of an entry of the head, if known."""
    score, probability = entry["score"], entry["probability"]
    parts = [f"{score:.4g}"] if score is not None else []
    parts += [f"{probability:.1%}"] if probability is not None else []
    return ", ".join(parts)


def flat(saliency: Array) -> npt.NDArray[np.float64]:
    """Return a map as a picture: sequences become one row, volumes are summed over depth."""
    array = saliency.astype(np.float64)
    while array.ndim > 2:
        array = array.sum(axis=0)
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


def draw(
    record: Mapping[str, Any],
    sample: Sample,
    saliency: Array,
    kind: str,
    placed: Array | None,
    values: Array,
    parts: Lanes | Features | None = None,
) -> RGB:
    """Draw the picture of one sample.

    Parameters
    ----------
    record : mapping
        From `describe`.
    sample : Sample
        The sample.
    saliency : numpy array
        Its map.
    kind : {"panel", "overlay", "heat"}
        Photo, explanation and certificate; the map overlaid on the whole photo; or the map alone.
    placed : numpy array, (H, W), or None
        The map in the coordinates of the whole photo.
    values : numpy array, (channels, *grid)
        The input: sequences and volumes are drawn from it.
    parts : Lanes, Features or None
        The map of a series with channels in lanes, or of a row of a table by features.
    """
    signed = record["settings"]["psi"] == "signed"
    if (
        kind == "panel"
        and sample.photo is None
        and (plotted := _plot(record, sample, saliency, values, parts)) is not None
    ):
        return plotted
    map_ = smoothed(flat(saliency), signed=signed)
    if kind == "heat":
        return visual.heat(map_, signed=signed)
    if kind == "overlay" and placed is not None and sample.photo is not None:
        return visual.overlay(sample.photo, smoothed(placed, signed=signed), signed=signed)
    shown = _wide_enough(sample.shown)
    if kind == "overlay":
        return visual.overlay(shown, map_, signed=signed)
    return visual.panel(shown, map_, _certificate(record, sample), signed=signed, height=480)


def _certificate(record: Mapping[str, Any], sample: Sample) -> Certificate:
    return Certificate(_title(record, sample), _lines(record), _bars(record))


def _plot(
    record: Mapping[str, Any], sample: Sample, saliency: Array, values: Array, parts: Lanes | Features | None
) -> RGB | None:
    """Draw a sequence, a row of a table or a volume; None for a picture."""
    signed = record["settings"]["psi"] == "signed"
    if isinstance(parts, Features):
        return tabled.waterfall_of(record, sample, parts, _certificate(record, sample))
    if isinstance(parts, Lanes):
        return tabled.lanes_of(sample, values, parts, _certificate(record, sample), signed=signed)
    if saliency.ndim == 2 and sample.named is not None and sample.named.axes:
        return tabled.spectrogram_of(sample, values.mean(axis=0), saliency, _certificate(record, sample), signed=signed)
    grid = tuple(size for size in saliency.shape if size > 1)
    map_, rows = saliency.reshape(grid), values.reshape(len(values), *grid)
    certificate = _certificate(record, sample)
    if len(grid) == 1:
        return plots.sequence(rows, map_, certificate, signed=signed, rate=sample.rate, start=sample.start)
    if len(grid) == 3:
        return plots.volume(rows.mean(axis=0), map_, certificate, signed=signed)
    return None


def _bars(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    names = short_names(record["sites"])
    values = [s["contribution"] for s in record["sites"]]
    return [(n, v) for n, v in zip(names, values, strict=True) if v is not None]


def short_names(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Shorten names of layers to the parts that few others share; a number gets its operator as a prefix."""
    names = [re.sub(r":\d+$", "", s["name"].partition(";")[0]) for s in sites]  # TFLite joins fused names with ";"
    parts = [[p for p in re.split(r"[/:]", name) if p] for name in names]
    count = Counter(p for some in parts for p in set(some))
    own = ["/".join(p for p in some if count[p] <= max(2, len(names) // 3)) for some in parts]
    often = Counter(own)
    short = [o if o and often[o] == 1 else name for o, name in zip(own, names, strict=True)]
    named = [f"{s['op_type']} {n}" if n.isdigit() else n for s, n in zip(sites, short, strict=True)]
    often = Counter(named)
    return [n if often[n] == 1 else str(s["name"]) for s, n in zip(sites, named, strict=True)]


def smoothed(map_: Array, *, signed: bool) -> Array:
    """Smooth a signed map to be drawn: single pixels of alternating sign would be unreadable."""
    if not signed or min(map_.shape) == 1:
        return map_
    return np.asarray(cv2.GaussianBlur(map_, (0, 0), max(map_.shape) / _SMOOTHING), np.float64)


def _wide_enough(rgb: RGB) -> RGB:
    """Stretch the strip of a sequence to a visible height."""
    height, width = rgb.shape[:2]
    if height * 8 >= width:
        return rgb
    return np.asarray(cv2.resize(rgb, (width, max(1, width // 8)), interpolation=cv2.INTER_NEAREST), np.uint8)


def _title(record: Mapping[str, Any], sample: Sample) -> str:
    named = sample.named
    which = "" if named is None else f", {named.label}" if named.label else ""
    if named is not None and named.kind == TABLE:
        which = f", row {sample.source.row}"
    return f"{target_of(record)}   ({sample.source.path.name}{which})"


def _lines(record: Mapping[str, Any]) -> Sequence[str]:
    """Describe the certificate in lines of text."""
    target, top = record["target"], record["top5"]
    before = record["explained"]["before"]
    known = target is not None and target["probability"] is not None
    probability = f", probability {target['probability']:.1%}" if known else ""
    described = record["explained"]["described"]
    other = record.get("contrast")
    obvious = described == target_of(record) or described.endswith(", the largest") or other is not None
    lines = [] if obvious else [f"explained: {described}"]
    stage = f" before {before}" if before else ""
    if other is None:
        lines += [f"score {record['score']:.5g}{stage}{probability}"]
    else:
        lines += [f"{name_of(entry)}: {value_of(entry)}" for entry in (target, other) if entry["score"] is not None]
        lines += [f"difference {record['score']:.5g}{stage}"]
    # The largest entry of a head with several axes is not a choice between classes.
    classes = all(sum(i > 0 for i in entry["position"]) < 2 for entry in [*top, *([target] if target else [])])
    if "detected" in record:
        if record["detected"] not in described:
            lines.append(f"the model's own choice: {record['detected']}")
    elif top and target is not None and classes and top[0]["index"] != target["index"]:
        lines.append(f"the model's own choice: {name_of(top[0])} ({value_of(top[0])})")
    completeness, localised = record["completeness"], record["localised"]
    if completeness is not None:
        relative = completeness["relative"]
        lines.append(
            f"sum of all contributions {record['score'] - completeness['residual']:.5g}"
            + (f", off by {relative:.0e} of the score" if relative is not None else "")
        )
    if record.get("blocks"):
        worst = max(block["rounding"] for block in record["blocks"])
        lines.append(f"at each of {len(record['blocks'])} blocks the same sum, off by at most {worst:.0e}")
    if localised is not None:
        lines.append(f"the map shows {localised['share']:.1%} of what contributes")
    s = record["settings"]
    layers = f", profile {s['profile']}" if record["sites"] else ""
    back = f", backward {s['backward']}" if "backward" in s else ""
    lines.append(f"{s['method']}{layers}, psi {s['psi']}{back}")
    if s["psi"] == "signed":
        if other is not None:
            lines.append(f"red: for {_first_name(target)}; blue: for {_first_name(other)}")
        if len([size for size in record["map"]["shape"] if size > 1]) > 1:
            lines.append("drawn as an average over neighbouring pixels; the .npy is not averaged")
    return lines
