"""Explanations in another runtime than ONNX Runtime: held against it, refused where they part, chosen by time.

A runtime may compute the model rightly and its gradient wrongly, which neither the outputs nor a certificate of its own
would show. So what it gives is compared with what ONNX Runtime computes of the same graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph import openvino
from fgonnx.engine.graph.running import ORT
from fgonnx.engine.graph.session import Session, refusal
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.portable import portable_violations
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import FgonnxError, ModelError, NumericError, OptionError
from fgonnx.wording import distinct, parameter

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

_ROUNDING = 1e-3
"""Of the largest value of a result: other differences need a reason."""

_CHANGES = (1e-6, 1e-6, 1e-5)
"""Relative changes of the input that show what rounding does to a map: a ReLU near zero switches."""

_TIMES_ROUNDING, _FAR = 10.0, 3e-2
_LEAST = 1e-6

_CALLS, _ENOUGH = 3, 2.0
"""Timed calls of each runtime, and seconds after which there are no more."""

_PAUSE = 0.02
"""Seconds before a timed call: threads of the other runtime wait for work by spinning."""

_SUM = ("score", "contributions", "completeness")
OTHERWISE = f"Run it in ONNX Runtime ({parameter('runtime', ORT)})"


def not_run(loaded: LoadedModel) -> ModelError:
    """Return the error for a graph that OpenVINO does not run: in words about the source, if it has any."""
    own = refusal(loaded.ir, loaded.folder)
    if own is not None:
        return ModelError(f"{loaded.name}: {own}")
    if (why := openvino.refusal(loaded.ir)) is not None:
        return ModelError(f"{loaded.name}: {why}. {OTHERWISE}")
    return ModelError(f"{loaded.name}: OpenVINO reads the model, but does not run its explanation. {OTHERWISE}")


def hold(loaded: LoadedModel, r: Rewritten, feeds: Feeds, ours: Feeds) -> None:
    """Hold results of OpenVINO against those of ONNX Runtime for the same graph.

    Parameters
    ----------
    loaded : LoadedModel
        The source.
    r : Rewritten
        The rewritten graph.
    feeds : mapping of str to numpy array
        Its inputs.
    ours : mapping of str to numpy array
        What OpenVINO gives.

    Raises
    ------
    NumericError
        A result differs beyond what rounding does to it.
    """
    reference = Session(r.model, folder=loaded.folder, providers=["cpu"])
    fixed = _fixed(r, feeds, ours)
    theirs = reference.run(fixed, list(ours))
    apart = _differences(r, ours, theirs)
    if max(apart.values(), default=0.0) <= _ROUNDING:
        return
    allowed = _rounding(r, reference, fixed, theirs)
    for name, value in apart.items():
        bound = max(_ROUNDING, min(_TIMES_ROUNDING * allowed[name], _FAR))
        if not value <= bound:
            raise NumericError(
                f"{loaded.name}: '{name}' in OpenVINO is not what ONNX Runtime computes: "
                f"{_exceeded(value, bound, allowed[name])}. No explanation is given. {OTHERWISE}"
            )


def _exceeded(value: float, bound: float, rounding: float) -> str:
    """Say by how much a result differs, which bound that exceeds, and why it is this one."""
    if not np.isfinite(value):
        return "it has another shape, or other values that are infinite or NaN"
    found, most = distinct(value, bound)
    if bound == _ROUNDING:
        why = "that of every result"
    elif bound == _FAR:
        why = "the most allowed whatever rounding makes"
    else:
        why = f"{_TIMES_ROUNDING:g} times what rounding makes"
    return f"it differs by {found} of its largest value, more than {most}, {why}; rounding makes {rounding:.1e}"


def _differences(r: Rewritten, ours: Feeds, theirs: Feeds) -> dict[str, float]:
    """Return the largest difference of every result, relative to its largest value."""
    of_score = [r.names[n] for n in _SUM if r.names.get(n) in theirs]
    largest = max((float(np.abs(theirs[n]).max(initial=0.0)) for n in of_score), default=0.0)
    found = {}
    for name, array in theirs.items():
        if ours[name].shape != array.shape:
            found[name] = float("inf")
        elif array.dtype.kind == "f":
            a, b = ours[name].astype(np.float64), array.astype(np.float64)
            scale = largest if name in of_score else float(np.abs(b).max(initial=0.0))
            finite = np.isfinite(a) & np.isfinite(b)
            same = np.array_equal(np.isfinite(a), np.isfinite(b))
            worst = float(np.abs(a - b)[finite].max(initial=0.0))
            found[name] = worst / max(scale, _LEAST) if same else float("inf")
    return found


def _fixed(r: Rewritten, part: Feeds, results: Feeds) -> dict[str, Array]:
    """Return inputs that ask for what the results explain: the largest of two like entries may be the other one."""
    fixed = dict(part)
    for name, output in ((r.selector, "target"), (r.contrast, "contrast")):
        if name and r.names.get(output) in results and not r.options.seed:
            fixed[name] = results[r.names[output]].astype(np.int64)
    return fixed


def _rounding(r: Rewritten, reference: Session, part: Feeds, results: Feeds) -> dict[str, float]:
    """Return what changes of the input in its last digits do to the results in ONNX Runtime itself."""
    name = r.normal.input_name
    worst = dict.fromkeys(results, 0.0)
    x = part[name]
    if x.dtype.kind != "f":
        return worst
    for seed, step in enumerate(_CHANGES):
        noise = np.random.default_rng(seed).uniform(-step, step, x.shape)
        found = reference.run({**part, name: (x * (1 + noise)).astype(x.dtype)}, list(results))
        for key, value in _differences(r, found, results).items():
            worst[key] = max(worst[key], value)
    return worst


def check_chosen(loaded: LoadedModel, r: Rewritten, fed: Feeds, results: Feeds) -> None:
    """Refuse results of other entries than those asked for: runtimes may ignore an input that has a default value.

    Raises
    ------
    NumericError
        An entry is another one.
    """
    if r.options.seed:
        return
    for name, output in ((r.selector, "target"), (r.contrast, "contrast")):
        if name in fed and output in r.names:
            asked, found = (np.ravel(a) for a in (fed[name], results[r.names[output]]))
            wrong = (asked >= 0) & (asked != found)
            if wrong.any():
                raise NumericError(
                    f"{loaded.name}: asked for the entry {asked[wrong][0]}, the runtime explains {found[wrong][0]}: it "
                    f"ignores what is asked for. No explanation is given. {OTHERWISE}, on its own providers"
                )


def check_form(options: Options, file: Rewritten | None, where: str) -> None:
    """Refuse graphs that OpenVINO does not take, or gets wrong.

    Raises
    ------
    OptionError
        The engine writes ONNX Runtime's own operators, or a written file is not in the portable form.
    """
    if options.engine != "fgonnx":
        raise OptionError(
            f"{parameter('engine', options.engine)} writes operators of ONNX Runtime, which OpenVINO does not have; "
            "leave out one of them"
        )
    if file is not None and portable_violations(ir.to_proto(file.model)):
        raise OptionError(
            f"{where} was not written in the portable form, which OpenVINO needs: it computes wrong maps of other "
            f"files. Write it with {parameter('form', 'portable')}, explain its source, or run it in ONNX Runtime "
            f"({parameter('runtime', ORT)})"
        )


def fastest(calls: Mapping[str, Callable[[], Any]]) -> str:
    """Return which of several calls takes the least time, called by turns.

    Parameters
    ----------
    calls : mapping of str to callable
        The calls, by name. The first one must not fail; others that do are left out.
    """
    seconds: dict[str, list[float]] = {}
    for name, call in calls.items():
        try:
            call()
        except FgonnxError:
            if not seconds:
                raise
        else:
            seconds[name] = []
    start = time.perf_counter()
    for _ in range(_CALLS if len(seconds) > 1 else 0):
        for name, measured in seconds.items():
            time.sleep(_PAUSE)
            before = time.perf_counter()
            calls[name]()
            measured.append(time.perf_counter() - before)
        if time.perf_counter() - start > _ENOUGH:
            break
    return min(seconds, key=lambda name: min(seconds[name], default=0.0))
