"""Version 1 of the protocol: `:predict` and `:explain`, for pictures and arrays in JSON."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError
from fgonnx.jobs.panel import smoothed
from fgonnx.jobs.record import flat
from fgonnx.jobs.samples import Sample, Source
from fgonnx.pictures.read import images
from fgonnx.pictures.show import visual
from fgonnx.serve.job import EXPLAIN, PREDICT, Answer, Explained, Job
from fgonnx.serve.refused import RefusedError, refused
from fgonnx.serve.served import Served
from fgonnx.serve.tensors import datatype_of, from_numbers, to_numbers
from fgonnx.serve.v2 import condition_of, contrast_of, lacking

Array = npt.NDArray[Any]

MAPS = ("array", "png", "overlay", "npy", "none")
"""How a map may be sent."""

_BASE64, _NESTED = "b64", ("image_bytes", "image")
_DATA = re.compile(r"data:[\w/+.-]*;base64,")
_PARAMETERS = ("target", "contrast", "explain_if", "map", "sites")
_A_PICTURE = '{"b64": "..."}'


@dataclass
class Asked:
    """What a request asks for.

    Attributes
    ----------
    job : Job
        What the model is asked.
    samples : sequence of Sample or None
        The pictures among the instances.
    map : str
        How maps are sent.
    sites : bool
        Whether the contribution of every layer is sent.
    """

    job: Job
    samples: Sequence[Sample | None]
    map: str = "array"
    sites: bool = False


def asked(served: Served, verb: str, body: Any, most: int) -> Asked:
    """Return what a request asks for.

    Parameters
    ----------
    served : Served
        The model.
    verb : {"predict", "explain"}
        What is asked.
    body : any
        The request, parsed.
    most : int
        Samples that it may hold.

    Raises
    ------
    RefusedError
        It is no such request.
    FgonnxError
        An instance does not fit the model.
    """
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or not instances:
        raise RefusedError(400, f'a request is an object {{"instances": [...]}} of arrays, or pictures as {_A_PICTURE}')
    if len(instances) > most:
        raise RefusedError(413, f"there are {len(instances)} instances: at most {most} are taken in one request")
    given = [_instance(served, one, f"instance {i}") for i, one in enumerate(instances)]
    if len({tuple((k, v.shape) for k, v in sorted(x.items())) for x, _ in given}) > 1:
        raise RefusedError(400, "the instances have different sizes: send them in requests of their own")
    x = {name: served.checked(name, np.stack([one[name] for one, _ in given])) for name in given[0][0]}
    samples = [sample for _, sample in given]
    parameters = body.get("parameters")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict) or (unknown := next((k for k in parameters if k not in _PARAMETERS), None)):
        what = "are no object" if not isinstance(parameters, dict) else lacking(unknown, _PARAMETERS)
        raise RefusedError(400, f"the parameters {what}; they take {', '.join(_PARAMETERS)}")
    if not isinstance(parameters.get("sites", False), bool):
        raise RefusedError(400, "'sites' is true or false")
    if verb == PREDICT:
        if parameters:
            raise RefusedError(400, f"'{next(iter(parameters))}' has no effect on a prediction: ask for :explain")
        return Asked(Job(served, PREDICT, x), samples)
    how = parameters.get("map", "array")
    if how not in MAPS:
        raise RefusedError(400, f"there is no map '{str(how)[:40]}': choose one of {', '.join(MAPS)}")
    if how == "overlay" and None in samples:
        raise RefusedError(400, "an overlay is drawn on a picture, and an instance is an array: ask for a png")
    job = Job(
        served,
        EXPLAIN,
        x,
        _targets(served, parameters.get("target"), len(instances)),
        contrast_of(parameters.get("contrast")),
        condition_of(served, parameters.get("explain_if")),
    )
    return Asked(job, samples, how, parameters.get("sites") is True)


def _targets(served: Served, given: Any, count: int) -> list[Any] | None:
    if given is None:
        return None
    many = given if isinstance(given, list) else [given] * count
    if len(many) != count:
        raise RefusedError(400, f"there are {len(many)} targets for {count} instances: give one, or one for each")
    if not all(isinstance(one, (int, str)) and not isinstance(one, bool) for one in many):
        raise RefusedError(400, "a target is neither an index nor a text: give a class of the model")
    return [served.target(one) for one in many]


def _instance(served: Served, given: Any, where: str) -> tuple[dict[str, Array], Sample | None]:
    """Return the inputs of one sample, and the picture that it is."""
    if isinstance(given, str):
        raise RefusedError(
            400, f"{where} is a text: addresses and paths are not opened; send the picture: {_A_PICTURE}"
        )
    if isinstance(given, dict):
        names = {t.name for t in served.inputs}
        if set(given) <= names:
            if missing := names - set(given):
                raise RefusedError(400, f"{where} lacks the input '{sorted(missing)[0]}'")
            sample = None
            found = {}
            for name, value in given.items():
                of = f"{where}, the input '{name}'," if len(names) > 1 else where
                if not isinstance(value, dict):
                    found[name] = _array(served, name, value, of)
                elif name == served.input:
                    sample = _picture(served, value, of)
                    found[name] = sample.x
                else:
                    raise RefusedError(
                        400, f"{of} is an object: only '{served.input}' takes a picture; send its numbers"
                    )
            return found, sample
        if len(served.inputs) > 1:
            raise RefusedError(400, f"{where} must hold the inputs {', '.join(sorted(names))} and nothing else")
        sample = _picture(served, given, where)
        return {served.input: sample.x}, sample
    if len(served.inputs) > 1:
        raise RefusedError(400, f"{where} must be an object with the inputs {', '.join(t.name for t in served.inputs)}")
    return {served.input: _array(served, served.input, given, where)}, None


def _array(served: Served, name: str, given: Any, where: str) -> Array:
    tensor = next(t for t in served.inputs if t.name == name)
    if isinstance(given, str):
        raise RefusedError(400, f"{where} is a text: addresses and paths are not opened; send the numbers")
    return from_numbers(given, tensor.datatype, None, where)


def _picture(served: Served, given: Mapping[str, Any], where: str) -> Sample:
    """Decode a picture; nothing but the content itself is taken."""
    inner = next((given[k] for k in _NESTED if k in given), given)
    text = inner.get(_BASE64) if isinstance(inner, dict) else None
    if not isinstance(text, str):
        raise RefusedError(400, f"{where} is neither an array nor a picture: send its content in base64, {_A_PICTURE}")
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise RefusedError(400, f"{where} is an address, which is not opened: send the picture's content in base64")
    try:
        content = base64.b64decode(re.sub(r"\s", "", _DATA.sub("", text, count=1)), validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(400, f"{where} is not base64: encode the bytes of the picture's file") from None
    if not content:
        raise RefusedError(400, f"{where} is an empty picture")
    try:
        picture = images.decode(np.frombuffer(content, np.uint8), Path(where))
    except InputError as error:
        raise refused(error) from error
    return served.reader.of_picture(picture, Source(Path(where), None, where))


def predictions(served: Served, answer: Answer, count: int) -> list[Any]:
    """Return the model's outputs for every sample: of a model with one output, that one.

    An output without a row for each sample, such as a constant, is given to each whole.
    """
    whole = {t.name for t in served.outputs if t.shape and t.shape[0] >= 0}
    found = {}
    for name, array in answer.outputs.items():
        rows = to_numbers(array, f"the output '{name}'")
        alone = name in whole or not array.ndim or (count == 1 and len(array) != 1)
        found[name] = [rows] * count if alone else rows
    if any(len(rows) != count for rows in found.values()):
        raise RefusedError(422, "the model's outputs have no row for each instance: send instances one by one")
    rows = [{name: values[i] for name, values in found.items()} for i in range(count)]
    return [next(iter(row.values())) if len(row) == 1 else row for row in rows]


def explanations(question: Asked, answer: Answer) -> list[dict[str, Any] | None]:
    """Return the explanations of the samples; None for those that were not to be explained."""
    return [
        None if one is None else _explanation(question, one, sample)
        for one, sample in zip(answer.explained, question.samples, strict=True)
    ]


def _explanation(question: Asked, one: Explained, sample: Sample | None) -> dict[str, Any]:
    served = question.job.served
    score = float(one.values["score"][0])
    found: dict[str, Any] = {
        "described": one.described,
        "label": one.target["label"] if one.target else None,
        "target": one.target,
        **({"contrast": one.contrast} if one.contrast else {}),
        "score": score,
        **({"model_score": float(own[0])} if (own := one.values.get("model_score")) is not None else {}),
        "top": one.top,
        "attributions": [_attribution(served, one, score)],
        "certificate": _certificate(question, one, score),
    }
    if question.map != "none":
        found["saliency"] = _map(question, one, sample)
    return found


def _attribution(served: Served, one: Explained, score: float) -> dict[str, Any]:
    """Return what Vertex AI calls an attribution, as far as its fields mean the same."""
    rows = one.values.get("contributions")
    head = served.rewritten.head if served.rewritten is not None else ""
    return {
        "instanceOutputValue": score,
        "baselineOutputValue": float(rows[0, 1:].sum(dtype=np.float64)) if rows is not None else None,
        "approximationError": one.relative,
        "outputIndex": one.target["position"] if one.target else None,
        "outputDisplayName": one.target["label"] if one.target else None,
        "outputName": head,
    }


def _certificate(question: Asked, one: Explained, score: float) -> dict[str, Any] | None:
    if "completeness" not in one.values or "contributions" not in one.values:
        return None
    rows = one.values["contributions"][0].astype(np.float64)
    found: dict[str, Any] = {
        "residual": float(one.values["completeness"][0]),
        "relative": one.relative,
        "rounding": one.rounding,
        "input": float(rows[0]),
        "layers": float(rows[1:].sum()),
        **({"note": one.note} if one.note else {}),
    }
    r = question.job.served.rewritten
    if question.sites and r is not None:
        found["sites"] = [
            {"name": site.name, "op_type": site.op_type, "kind": site.kind, "contribution": float(value)}
            for site, value in zip(r.sites, rows, strict=True)
        ]
    return found


def _map(question: Asked, one: Explained, sample: Sample | None) -> dict[str, Any]:
    about = {"shape": list(one.saliency.shape), "datatype": datatype_of(one.saliency.dtype)}
    if question.map == "array":
        return {**about, "data": to_numbers(one.saliency, "the map")}
    if question.map == "npy":
        file = io.BytesIO()
        np.save(file, one.saliency, allow_pickle=False)
        return {**about, "npy": {_BASE64: base64.b64encode(file.getvalue()).decode()}}
    signed = one.signed
    drawn = smoothed(flat(one.saliency), signed=signed)
    if question.map == "overlay" and sample is not None:
        rgb = visual.overlay(sample.shown, drawn, signed=signed)
    else:
        rgb = visual.heat(drawn, signed=signed)
    return {**about, "png": {_BASE64: base64.b64encode(images.png(rgb)).decode()}}
