"""One sample of a comparison, in words: its row, its picture, and what is called what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.comparison import Comparison, measures
from fgonnx.audit.comparison.alignment import GIVES, HEAD, READS
from fgonnx.explain.head import LARGEST
from fgonnx.jobs import record
from fgonnx.jobs.samples import Sample
from fgonnx.pictures.show import pair
from fgonnx.pictures.show.sheet import Certificate
from fgonnx.wording import amount, shortened

_NAME = 56

# Names of measures in the final table; the others are in the files only.
CALLED = {
    "top1": "same decision",
    "score_difference": "score difference",
    "rank_correlation": "rank correlation",
    "ssim": "SSIM",
    "overlap": "top 5 % in common",
    "pointing": "same peak",
    "quantisation_b": "rounding in B",
    "layer_error": "largest layer error",
}

CALLED_OF_TEXTS = CALLED | {"overlap": "top words in common", "pointing": "same word on top"}

WHERE = {READS: "what it reads", GIVES: "what it gives", HEAD: "the answer"}


def decided(
    found: Comparison,
    i: int,
    choices: tuple[int, int],
    names: Sequence[str] | None,
    shapes: Sequence[tuple[int, ...]],
) -> dict[str, Any]:
    """Return what of a row is about the decisions for sample i; `shapes` are those of both heads, for one sample."""

    def label(index: int | None) -> str | None:
        return names[index] if names is not None and index is not None else None

    target = None if found.a.target is None else int(found.a.target[i])
    first, second = shapes
    if [size for size in first if size > 1] == [size for size in second if size > 1]:
        second = first  # axes of one entry apart, the same head: positions in both are written alike
    probabilities = [None if p is None else float(p[i]) for p in (found.probability_a, found.probability_b)]
    return {
        "target": target,
        "target_label": label(target),
        "explained": found.a.described[i],
        "choice_a": choices[0],
        "choice_b": choices[1],
        "position_a": _position(choices[0], first),
        "position_b": _position(choices[1], second),
        "label_a": label(choices[0]),
        "label_b": label(choices[1]),
        "score_a": float(found.a.score[i]),
        "score_b": float(found.b.score[i]),
        "probability_a": probabilities[0],
        "probability_b": probabilities[1],
    }


def _position(index: int, shape: tuple[int, ...]) -> list[int] | None:
    """Return the position of an entry of a head of several axes; None where it has one axis."""
    return [int(i) for i in np.unravel_index(index, shape)] if sum(size > 1 for size in shape) > 1 else None


def rest(found: Comparison, i: int) -> dict[str, Any]:
    """Return what of a row is about rounding and the residual of sample i."""
    return {
        "rounding_a": float(found.rounding_a[i].sum()),
        "rounding_b": float(found.rounding_b[i].sum()),
        "residual": float(found.residual()[i]),
    }


def picture(
    found: Comparison, i: int, row: Mapping[str, Any], sample: Sample, names: tuple[str, str], signed: bool
) -> npt.NDArray[np.uint8]:
    """Draw both maps of sample i, and what differs."""
    a, b = measures.same_size(found.a.saliency[i], found.b.saliency[i])
    same = row["choice_a"] == row["choice_b"]
    title = f"{'same decision' if same else 'OTHER DECISION'}: {called(row, 'b')}   ({sample.source.path.name})"
    named = [{"name": p.layer if p.where != HEAD else p.name, "op_type": p.op_type} for p in found.points]
    difference = (found.parts_b + found.rounding_b - found.parts_a - found.rounding_a)[i]
    bars: dict[str, float] = {"input": float(difference[-1])}
    once = list({entry["name"]: entry for entry in named}.values())
    short = dict(zip([e["name"] for e in once], record.short_names(once), strict=True))
    largest = int(found.added[i].argmax())
    stands_out = f"{short[named[largest]['name']]}, {WHERE[found.points[largest].where]}"
    for entry, value in zip(named, difference[:-1], strict=True):
        name = short[entry["name"]]
        bars[name] = bars.get(name, 0.0) + float(value)
    return pair.draw(
        sample.shown,
        a,
        b,
        Certificate(title, _lines(row, stands_out), list(bars.items())),
        names=names,
        signed=signed,
    )


def _lines(row: Mapping[str, Any], stands_out: str) -> list[str]:
    """Describe the measurements in lines of text."""
    return [
        *scores_said(row),
        f"maps: rank correlation {row['rank_correlation']:.3f}, correlation {row['correlation']:.3f}, "
        f"SSIM {row['ssim']:.3f}",
        f"strongest 5 %: {row['overlap']:.0%} in common; peaks {row['peak_distance']:.1%} of the side apart",
        f"rounding: {row['quantisation_a']:.1%} of A's contributions, {row['quantisation_b']:.1%} of B's",
        f"largest error of a layer: {row['layer_error']:.1%} ({stands_out})",
    ]


def scores_said(row: Mapping[str, Any]) -> list[str]:
    """Return what both models say of a sample, in lines of text."""
    target, largest = row["explained"].removesuffix(LARGEST), row["explained"].endswith(LARGEST)
    target = row["target_label"] or target
    lines = []
    for letter in "ab":
        probability = row[f"probability_{letter}"]
        own = row["target"] in (None, row[f"choice_{letter}"])
        chooses = "chooses" if row[f"position_{letter}"] is None else "its largest entry is"
        chosen = "" if own else f"; {chooses} {called(row, letter)}"
        whose = "its" if row["target"] == row[f"choice_{letter}"] else "A's"
        of = f", {whose} largest" if largest and not row["target_label"] else ""
        lines.append(
            f"{letter.upper()}: score {amount(row[f'score_{letter}'])}"
            + (f", probability {probability:.1%}" if probability is not None else "")
            + f" for {target}{of}"
            + chosen
        )
    return [
        *lines,
        f"score B - score A: {amount(row['score_b'] - row['score_a'], signed=True)}, "
        f"{row['score_difference']:.1%} of A's largest",
    ]


def called(row: Mapping[str, Any], letter: str) -> str:
    """Return the name of a model's decision, its position in a head of several axes, or its index."""
    label, position = row[f"label_{letter}"], row[f"position_{letter}"]
    if label is not None:
        return str(label)
    return str(row[f"choice_{letter}"] if position is None else tuple(position))


def shortened_layers(names: Sequence[str]) -> dict[str, str]:
    """Shorten names of layers: the first of fused ones (joined by ";") where it is one's own, long paths elided."""
    names = list(dict.fromkeys(names))
    often = Counter(name.partition(";")[0] for name in names)
    first = [f if often[f := name.partition(";")[0]] == 1 else name for name in names]
    return dict(zip(names, shortened(first, _NAME), strict=True))
