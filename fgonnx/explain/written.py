"""Files that fgonnx wrote, opened again: they run as they are, with the options they were written with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx import bounds
from fgonnx.engine import methods
from fgonnx.engine.model.arrangement import Arrangement
from fgonnx.engine.model.layouts import samples_first
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.arrange import turn
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.rewrite.options import ARGMAX, Options
from fgonnx.engine.rewrite.rewritten import Rewritten, parse_sites
from fgonnx.errors import ModelError, OptionError, TargetError
from fgonnx.wording import first_line, parameter

_PREFIX = "fgonnx."
_KEPT = ("method", "profile", "psi", "head", "output", "engine", "backward", "contrast", "target")
_NEEDED = ("saliency", "score")
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError)


def with_samples_first(loaded: LoadedModel) -> LoadedModel:
    """Return a written file whose batch is not the first axis with samples first; any other model as it is."""
    places = loaded.ir.metadata_props.get(f"{_PREFIX}arrangement")
    known = _parsed(places) if places is not None and loaded.arrangement is None else None
    try:
        return turn(loaded, Arrangement(**known)) if isinstance(known, dict) else loaded
    except _DAMAGED as error:
        raise _damaged(loaded, error) from error


def is_written(loaded: LoadedModel) -> bool:
    """Tell whether a model is a file that fgonnx wrote."""
    return f"{_PREFIX}source_outputs" in loaded.ir.metadata_props


def opened(loaded: LoadedModel) -> Rewritten | None:
    """Return what a written file is, from its metadata; None for any other model.

    Raises
    ------
    OptionError
        It lacks outputs that an explanation has.
    """
    known = {k.removeprefix(_PREFIX): _parsed(v) for k, v in loaded.ir.metadata_props.items() if k.startswith(_PREFIX)}
    try:
        return _described(loaded, known)
    except _DAMAGED as error:
        raise _damaged(loaded, error) from error


def _damaged(loaded: LoadedModel, error: Exception) -> ModelError:
    return ModelError(
        f"{loaded.name}: its metadata does not describe what fgonnx writes ({first_line(error)}); write it again, or "
        "explain its source"
    )


def _described(loaded: LoadedModel, known: Mapping[str, Any]) -> Rewritten | None:
    """Return a written file as its metadata describes it; None where these describe no such file."""
    if not {"sites", "head_shape", "source_outputs", "input"} <= set(known):
        return None
    _check_types(known)
    produced = {str(v.name) for v in loaded.ir.graph.outputs}
    if absent := {*known["source_outputs"], *known["outputs"].values()} - produced:
        raise LookupError(f"there is no output '{min(absent)}'")
    values = {str(v.name): v for v in loaded.ir.graph.inputs}
    batched, names = known["batch"] == "any", known["outputs"]
    x = values.get(known["input"])
    layout = samples_first(text) if (text := str(known.get("layout", ""))) else ""
    if x is None:
        return None
    selector, contrast = known.get("selector", ""), known.get("contrast_input", "")
    needed = [*_NEEDED, *(("target", "contrast") if "contrast" in known else ())]
    missing = [name for name in needed if name not in names]
    if missing:
        raise OptionError(
            f"{loaded.name} was written without the output {' and '.join(missing)}, which an explanation has; explain "
            "its source, or write it with the default outputs"
        )
    options = _options(known, seed=bool(selector) and values[selector].dtype != ir.DataType.INT64)
    dims = x.shape.dims if x.shape is not None else ()
    shape = (1, *(d for d in dims[1:] if isinstance(d, int)))
    outputs = [v for v in loaded.ir.graph.outputs if v.name in known["source_outputs"]]
    return Rewritten(
        model=loaded.ir,
        options=options,
        normal=Normal(
            loaded.ir,
            x,
            known["input"],
            shape,
            layout,
            batched,
            outputs,
            ids=x if "rows" in known else None,
            vocabulary=_span(known.get("vocabulary")),
        ),
        head=known["head_value"],
        head_shape=tuple(known["head_shape"]),
        stripped=known.get("head_stripped", ""),
        sites=tuple(parse_sites(known["sites"])),
        names=names,
        selector=selector,
        source_outputs=tuple(known["source_outputs"]),
        contrast=contrast,
        blocks=tuple(known.get("blocks", ())),
    )


def _span(given: Any) -> tuple[int, int] | None:
    """Return the least and the largest id that a file names."""
    if given is None:
        return None
    least, most = given
    if type(least) is not int or type(most) is not int:
        raise TypeError("'vocabulary' is no pair of numbers")
    return least, most


def _check_types(known: Mapping[str, Any]) -> None:
    """Refuse entries of other types than fgonnx writes, such as texts for sizes.

    Raises
    ------
    TypeError
        There is one.
    """
    lists: tuple[tuple[str, type], ...] = (("head_shape", int), ("source_outputs", str), ("sites", dict))
    of_sites: tuple[tuple[str, type], ...] = (
        *(("name", str), ("op_type", str), ("kind", str), ("in_map", bool), ("grid", list)),
    )
    for name, kind in lists:
        if not isinstance(known[name], list) or any(type(v) is not kind for v in known[name]):
            raise TypeError(f"'{name}' is no list of that kind")
    for site in known["sites"]:
        for entry, kind in of_sites:
            if type(site.get(entry)) is not kind:
                raise TypeError(f"'sites' has no '{entry}'")
    for name in ("input", "head_value", "batch"):  # a name of digits is a number in JSON
        if not isinstance(known.get(name), (str, int)):
            raise TypeError(f"'{name}' is no text")
    if not isinstance(known["outputs"], dict) or not all(isinstance(v, str) for v in known["outputs"].values()):
        raise TypeError("'outputs' is no mapping of names")


def _parsed(text: str) -> Any:
    """Return a metadata entry: JSON where it is no plain text."""
    bounds.check_nesting(text, "a metadata entry", ModelError)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _options(known: Mapping[str, Any], *, seed: bool) -> Options:
    """Return the options a file was written with, as far as they say what its map is."""
    given = {name: known[name] for name in _KEPT if known.get(name) is not None}
    settings = {f.name: known[f.name] for f in fields(methods.find(given["method"]).settings) if f.name in known}
    try:
        return Options(**given, settings=settings, seed=seed)
    except OptionError:  # arrays among the settings are described by a hash alone
        return Options(**given, seed=seed)


def fixed_entry(o: Options) -> int | None:
    """Return the entry that a file was written for; None where it is the largest, or given."""
    return o.target if isinstance(o.target, int) and o.target >= 0 else None


def check_call(r: Rewritten, where: str, *, seed: bool, contrast: Any, forward: bool) -> None:
    """Refuse what a written file does not compute.

    Raises
    ------
    OptionError
        It takes no cotangent, wants one, has no contrast or another one, or not all entries of the head.
    """
    o = r.options
    if seed != o.seed:
        takes = "a cotangent of its head (seed=)" if o.seed else "no cotangent, and explains single entries"
        raise OptionError(f"{where} was written to take {takes}; explain its source")
    fixed = not r.contrast and contrast is not None and contrast != o.contrast
    if fixed or (contrast is None) != (o.contrast is None):
        how = "without a contrast" if o.contrast is None else f"with contrast={o.contrast!r}"
        raise OptionError(f"{where} was written {how}, and explains nothing else; explain its source")
    if forward and "head" not in r.names:
        raise OptionError(f"{where} was written without the output head; explain its source")


def check_target(r: Rewritten, where: str, indices: npt.NDArray[np.int64]) -> None:
    """Refuse another target than the one that a file was written for; -1 stands for what it explains.

    Raises
    ------
    TargetError
        It is another one.
    """
    fixed = r.options.target
    given = {int(i) for i in indices} - {-1}
    if given and (isinstance(fixed, str) or given != {fixed}):
        explains = "the largest entry" if fixed in (ARGMAX, -1) else f"entry {fixed}"
        raise TargetError(
            f"{where} was written with {parameter('target', fixed)}: it explains {explains} alone; explain its "
            f"source, or write it with {parameter('target', 'input')}"
        )
