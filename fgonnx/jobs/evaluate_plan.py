"""What an evaluation measures: the methods, the measures, and on how many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.texts import TEXT_MEASURES
from fgonnx.engine import methods
from fgonnx.engine.rewrite.options import parse_list, with_changes
from fgonnx.fields import MODEL, RUNNING, check_choice, check_choices, check_fields, documented, option

METHODS = (
    "fullgrad",
    "simple-fullgrad",
    "gradient",
    "gradient-x-input",
    "integrated-gradients",
    "grad-cam",
    "edge",
    "random",
)
MEASURES = (
    "pixel-perturbation",
    "pixel-perturbation-most",
    "deletion",
    "insertion",
    "average-drop",
    "sparseness",
    "pointing-game",
    "energy",
    "completeness",
)
TARGETS = ("predicted", "label")

_PSI = "psi="  # an option of every method, given like a setting


@documented
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and on how many images."""

    methods: tuple[str, ...] = option(
        METHODS,
        "Methods, with settings and psi as in rise:samples=500 or fullgrad:psi=positive, or 'all'; docs/methods.md "
        "lists them. "
        f"Default: {', '.join(METHODS)}.",
        panel="",
        metavar="A,B",
        parse=parse_list,
    )
    measures: tuple[str, ...] | None = option(
        None,
        "Measures, with options as in deletion:fill=black:steps=20, or 'all': "
        f"{', '.join(evaluate.names())}. Default: the quick ones.",
        panel="",
        metavar="A,B",
        parse=parse_list,
    )
    masks: Path | None = option(
        None,
        "Where the evidence is: pictures of the same name, .png, white on the object; or a boxes.csv with the "
        "columns image, left, top, right, bottom.",
        panel=MODEL,
        metavar="DIR",
    )
    target: str = option(
        "predicted",
        "What is explained and measured: predicted (what the model decides for), or label (the true class).",
    )
    limit: int | None = option(None, "Images, the first ones by name. Default: all.", panel=RUNNING, least=1)
    seed: int = option(0, "Seed of all that is drawn.", panel=RUNNING, least=0)
    shown: int = option(6, "Images in the picture of all maps.", panel=RUNNING, least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, target=TARGETS)
        chosen_methods(self.methods)
        of_known(self.measures)


def chosen_methods(chosen: Sequence[str]) -> list[str]:
    """Return the methods of a plan, each once, with settings that were checked."""
    if tuple(chosen) == ("all",):
        return list(methods.names())
    for text in chosen:
        name, settings = settings_of(text, lambda: np.zeros((1, 1)))
        with_changes(None, None, {"method": name, **settings})
    return list(dict.fromkeys(chosen))


def chosen_measures(chosen: Sequence[str] | None) -> list[evaluate.Measure]:
    """Return the measures of a plan, each once; the quick ones by default."""
    every = chosen == ("all",)
    return [evaluate.get(name) for name in (evaluate.names() if every else dict.fromkeys(chosen or MEASURES))]


def of_known(chosen: Sequence[str] | None) -> None:
    """Refuse measures that exist neither for pictures nor for texts."""
    for name in chosen or ():
        if name != "all" and name not in TEXT_MEASURES:
            evaluate.get(name)


def settings_of(text: str, references: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a method and its settings; with reference inputs if it needs some and none are given."""
    name, *given = text.split(":")
    check_choice("methods", name, methods.names())
    method = methods.find(name)
    psi = [t.partition("=")[2] for t in given if t.startswith(_PSI)]
    settings = method.parse([t for t in given if not t.startswith(_PSI)]) | ({"psi": psi[-1]} if psi else {})
    if "references" in {f.name for f in fields(method.settings)} - settings.keys():
        settings["references"] = references()
    return name, settings
