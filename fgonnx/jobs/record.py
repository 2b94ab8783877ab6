"""The JSON record of an explained sample, and names of what it holds; `panel` draws it."""

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
from fgonnx.jobs import provenance
from fgonnx.jobs.samples import Sample
from fgonnx.jobs.schema import FIELDS
from fgonnx.wording import amount

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

AVERAGED = "smooth-fullgrad"
"""The method whose score, contributions and completeness are means over noisy copies."""

SMOOTHED = "score, contributions and completeness are means over the noisy copies; top5 is of the clean input"

PICTURES = ("panel", "overlay", "heat")
_CHOSEN = ("layer",)  # settings that a method chooses by itself where they are left open
_TOP = 5


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
    own = None if explanation.model_score is None else float(explanation.model_score[row])
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
            *([averaged(score, own)] if own is not None else []),
            *([f"layer: {explanation.settings['layer']}"] if explanation.settings.get("layer") is not None else []),
        ],
        "settings": {**request["settings"], **chosen},
        "chosen": list(chosen),
        "explained": {
            "value": explanation.head,
            "before": explanation.head_stripped or None,
            "shape": list(decision.shape),
            "described": explanation.described[row],
        },
        "top5": decision.top(row),
        **({"detected": decision.detected[row]} if decision.detected else {}),
        "target": decision.entry(row, index) if index is not None else None,
        **({"contrast": decision.entry(row, other)} if other is not None else {}),
        "score": score,
        **({"model_score": own} if own is not None else {}),
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


def averaged(mean: float, own: float) -> str:
    """Return a note that names the model's score beside the mean over noisy copies."""
    if amount(mean) == amount(own):
        return SMOOTHED
    return f"the model's score is {amount(own)}, the mean over the noisy copies {amount(mean)}: {SMOOTHED}"


def score_of(record: Mapping[str, Any]) -> float:
    """Return the score that the model gives the sample, also where the record's own is a mean over noisy copies."""
    return float(record.get("model_score", record["score"]))


def mean_of(record: Mapping[str, Any]) -> float | None:
    """Return the mean score over noisy copies where a method explains that; else None."""
    return float(record["score"]) if "model_score" in record else None


def summed_of(record: Mapping[str, Any]) -> str:
    """Return what the contributions add up to, in words."""
    return "score" if mean_of(record) is None else "mean score"


def target_of(record: Mapping[str, Any]) -> str:
    """Return the name of what was explained."""
    target = record["target"]
    if "contrast" in record:
        return f"{first_name(target, record)} rather than {first_name(record['contrast'], record)}"
    own = target is not None and (target["label"] is not None or record["settings"]["target"] is None)
    described = str(record["explained"]["described"])
    if described == ONLY:
        return described
    return name_of(target, record) if own else described.partition(", column")[0]


def name_of(entry: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the name of an entry of a record's head: its label, or its index, with the position among several axes."""
    label = entry["label"]
    if label is not None:
        return str(label)
    return f"{entry['index']} {tuple(entry['position'])}" if several(record) else str(entry["index"])


def entry_name(entry: Mapping[str, Any], *, several: bool) -> str:
    """Return the label of an entry; without one its index, or its position in a head of several axes."""
    if entry["label"] is not None:
        return str(entry["label"])
    return str(tuple(entry["position"]) if several else entry["index"])


def several(record: Mapping[str, Any]) -> bool:
    """Return whether a record's head has several axes: its entries are not classes alone."""
    return sum(size > 1 for size in record["explained"]["shape"]) > 1


def first_name(entry: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the first of the synonyms that a label lists; an entry of no label by its whole name."""
    return name_of(entry, record).partition(",")[0] if entry["label"] is not None else name_of(entry, record)


def value_of(entry: Mapping[str, Any]) -> str:
    """Format score and probability of an entry of the head, if known."""
    score, probability = entry["score"], entry["probability"]
    parts = [amount(score)] if score is not None else []
    parts += [f"{probability:.1%}"] if probability is not None else []
    return ", ".join(parts)


def flat(saliency: Array) -> npt.NDArray[np.float64]:
    """Return a map as a picture: sequences become one row, volumes are summed over depth."""
    array = saliency.astype(np.float64)
    while array.ndim > 2:
        array = array.sum(axis=0)
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


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
