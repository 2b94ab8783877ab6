"""Version 2 of the protocol (Open Inference Protocol): tensors by name, in whichever way they were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx._version import __version__
from fgonnx.explain import choice
from fgonnx.jobs.audit import condition
from fgonnx.serve.job import EXPLAIN, LARGEST, PREDICT, Answer, Job
from fgonnx.serve.options import CONDITIONS
from fgonnx.serve.refused import RefusedError
from fgonnx.serve.served import Served, Tensor
from fgonnx.serve.tensors import datatype_of
from fgonnx.wording import near

Array = npt.NDArray[Any]

SUFFIX = "_explained"
"""Behind the name of a model, the same model whose answers are explained unless outputs are named."""

SELECTOR = "target_index"
_PARAMETERS = ("target", "contrast", "explain_if")
_OF_CLIENTS = ("binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout")
_RESERVED = "triton_"
_OF_TENSORS = {"input": ("binary_data_size",), "output": ("binary_data",)}
_ANYWHERE = ("content_type",)

EXTENSIONS = ("binary_tensor_data",)


def plain_name(name: str, known: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the name of the model that is meant, and whether its answers are explained without being asked."""
    if name not in known and name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in known:
        return name.removesuffix(SUFFIX), True
    return name, False


def server() -> dict[str, Any]:
    """Return the metadata of the server."""
    return {"name": "fgonnx", "version": __version__, "extensions": list(EXTENSIONS)}


def check_parameters(given: Mapping[str, Any], where: str, kind: str = "request") -> None:
    """Refuse parameters that have no meaning, apart from those that clients of the protocol send by themselves.

    Parameters
    ----------
    given : mapping
        The parameters.
    where : str
        What has them, for messages.
    kind : {"request", "input", "output"}
        What has them.

    Raises
    ------
    RefusedError
        There is such a parameter.
    """
    own = _OF_TENSORS.get(kind, _PARAMETERS)
    taken = {*own, *_ANYWHERE, *(_OF_CLIENTS if kind == "request" else ())}
    for name in given:
        if name not in taken and not name.startswith(_RESERVED):
            raise RefusedError(400, f"the parameters of {where} {lacking(name, own)}; they take {', '.join(own)}")


def lacking(name: Any, known: Sequence[str]) -> str:
    """Say that there is no such name, and which one may be meant."""
    return f"have no '{str(name)[:40]}'{near(str(name)[:40], known)}"


def described(name: str, served: Served) -> dict[str, Any]:
    """Return the metadata of a model: its own inputs and outputs, then those of its explanation."""

    def listed(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors]

    return {
        "name": name,
        "versions": [served.version],
        "platform": "onnx_onnxv1",
        "inputs": listed(served.inputs),
        "outputs": listed([*served.outputs, *served.explained_outputs()]),
    }


def job_of(
    served: Served, inputs: Mapping[str, Array], outputs: Sequence[str], parameters: Mapping[str, Any], explained: bool
) -> Job:
    """Return what a request asks for.

    Parameters
    ----------
    served : Served
        The model.
    inputs : mapping of str to numpy array
        The tensors that were sent: the model's inputs, and `target_index` if wanted.
    outputs : sequence of str
        Names of outputs that are wanted; none for the model's own.
    parameters : mapping
        "target", "contrast" and "explain_if".
    explained : bool
        Whether the model is asked for by the name of its explained twin.

    Raises
    ------
    RefusedError
        Names do not exist.
    FgonnxError
        A tensor does not fit, or target or condition are none.
    """
    check_parameters(parameters, "the request")
    known = {t.name for t in served.outputs}
    more = set(served.names().values())
    for name in outputs:
        if name not in known | more:
            raise RefusedError(
                400, f"there is no output '{name[:80]}'; there are: {', '.join([*known, *sorted(more)])}"
            )
    own = {t.name for t in served.inputs}
    selector = SELECTOR if SELECTOR not in own else ""
    for name in inputs:
        if name not in own and name != selector:
            raise RefusedError(400, f"there is no input '{name[:80]}'; there is: {', '.join(sorted(own))}")
    if missing := own - set(inputs):
        raise RefusedError(400, f"the input '{sorted(missing)[0]}' is missing")
    for tensor in served.inputs:  # checked as Triton does: a client that sends another type means another model
        if (sent := datatype_of(inputs[tensor.name].dtype)) != tensor.datatype:
            raise RefusedError(
                400, f"input '{tensor.name}' is {tensor.datatype}, this one is {sent}: send {tensor.datatype}"
            )
    x = {name: served.checked(name, inputs[name]) for name in own}
    served.check_counts(x)
    count = len(x[served.input])
    asks = bool(more & set(outputs)) or (explained and not outputs)
    if not asks:
        given = [name for name in _PARAMETERS if parameters.get(name) is not None]
        if given or selector in inputs:
            raise RefusedError(
                400,
                f"'{(given or [selector])[0]}' has no effect where no explanation is asked for: name an output of it, "
                "such as saliency",
            )
        return Job(served, PREDICT, x)
    targets: list[Any] | None = None
    if selector in inputs:
        targets = _indices(served, inputs[selector], count)
    elif parameters.get("target") is not None:
        targets = [served.target(parameters["target"])] * count
    return Job(
        served,
        EXPLAIN,
        x,
        targets,
        contrast_of(parameters.get("contrast")),
        condition_of(served, parameters.get("explain_if")),
        together=True,
    )


def contrast_of(given: Any) -> Any:
    """Return a contrast as a request gives it, which names no file."""
    if given is None or isinstance(given, int):
        return given
    if not isinstance(given, str):
        raise RefusedError(400, "contrast is neither an index nor a label: give one of them, or 'next'")
    return choice.parse(given, files=False)


def condition_of(served: Served, given: Any) -> condition.Condition | None:
    """Return the condition of a request, or that of the service."""
    if given is None:
        return served.condition
    if not isinstance(given, str):
        raise RefusedError(400, "explain_if is no text: write for example 'probability < 0.8'")
    found = condition.parse(given, names=CONDITIONS)
    served.check_condition(found)
    return found


def _indices(served: Served, given: Array, count: int) -> list[Any] | None:
    if given.dtype.kind not in "iu" or given.size != count:
        raise RefusedError(400, f"'{SELECTOR}' must hold one whole number for each sample, -1 for the largest entry")
    indices = [int(i) for i in given.ravel()]
    if set(indices) == {LARGEST} and served.of_classes:
        return None
    return [i if i == LARGEST else served.target(i) for i in indices]


def answered(job: Job, answer: Answer, outputs: Sequence[str], explained: bool) -> tuple[dict[str, Array], bool]:
    """Return the tensors of an answer, and whether they are explained.

    Raises
    ------
    RefusedError
        The method has no such output.
    """
    found = dict(answer.outputs)
    rows = [row for row in answer.explained if row is not None]
    named = job.served.names()
    if rows:
        found[named["saliency"]] = np.stack([row.saliency for row in rows])
        for name in rows[0].values:
            found[named[name]] = np.concatenate([row.values[name] for row in rows])
    if not outputs:
        return found, bool(rows)
    lacking = [name for name in outputs if name not in found]
    if lacking and rows:
        raise RefusedError(400, f"this explanation has no output '{lacking[0]}'")
    return {name: found[name] for name in outputs if name in found}, bool(rows)
