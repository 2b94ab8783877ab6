"""`config.pbtxt` of a model: how Triton Inference Server batches it, runs it and names its classes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from google.protobuf.text_encoding import CEscape
from onnx import TensorProto

from fgonnx.errors import ModelError, OptionError
from fgonnx.fields import RUNNING, check_choices, check_fields, documented, option
from fgonnx.jobs.waiting import waiting

_REPOSITORY = "What is written"

DEVICES = ("auto", "cpu", "gpu")
LABELS = "labels.txt"
"""The file of class names, beside `config.pbtxt`."""

ONE_REQUEST = (
    "the server makes no batches of requests (max_batch_size: 0): samples of one batch influence each other, or the "
    "graph takes one at a time"
)
"""Why requests are run one at a time."""

_TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.BOOL: "BOOL",
    TensorProto.STRING: "STRING",
    **{getattr(TensorProto, f"{sign}INT{bits}"): f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


@documented
@dataclass(frozen=True, kw_only=True)
class Exporting:
    """What of a model repository is written, and how a server runs it."""

    name: str | None = option(
        None,
        "Name of the model; the explained one is NAME_explained. Default: the file's name.",
        panel=_REPOSITORY,
        metavar="NAME",
    )
    version: int | None = option(
        None,
        "Version, the name of its folder. Default: the one after the last.",
        panel=_REPOSITORY,
        least=1,
        most=(1 << 31) - 1,
    )
    plain: bool = option(
        True,
        "Write the explained model alone.",
        panel=_REPOSITORY,
        flag="--no-plain",
        switch=True,
        parse=operator.not_,
        python="In Python, whether the model itself is written beside it.",
    )
    max_batch: int = option(
        8,
        "Largest batch that the server makes of requests; models of a fixed batch run one request at a time.",
        panel=RUNNING,
        least=1,
        most=1 << 20,
    )
    max_delay: float = waiting(RUNNING, 60_000)
    instances: int = option(
        1, "How many of each model run side by side, on every device.", panel=RUNNING, least=1, most=1024
    )
    device: str = option("auto", "auto (a GPU where there is one), cpu or gpu.", panel=RUNNING)

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, device=DEVICES)
        if self.name is not None and (not self.name.strip(". ") or set(self.name) & set('/\\:*?"<>|\x00')):
            raise OptionError(f"'{self.name}' is no name of a model, which is the name of a folder; give another one")


class _Word(str):
    """A value that is written without quotes."""


def config(
    proto: onnx.ModelProto,
    name: str,
    how: Exporting,
    classes: str | None = None,
    notes: dict[str, str] | None = None,
    *,
    batched: bool = True,
) -> str:
    """Return the text of `config.pbtxt`.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    name : str
        Its name, that of its folder.
    how : Exporting
        How it runs.
    classes : str, optional
        The output that `labels.txt` names the entries of.
    notes : dict of str to str, optional
        Parameters that the server passes on to whoever asks for the configuration.
    batched : bool
        Whether samples of strangers may meet in one batch, where the sizes allow it.

    Raises
    ------
    ModelError
        An input or output is no tensor, or of a type that Triton does not have.
    """
    given = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in given]
    batched = batched and all(_begins_free(v) for v in (*inputs, *proto.graph.output))
    fields: list[tuple[str, Any]] = [
        ("name", name),
        ("backend", "onnxruntime"),
        ("max_batch_size", how.max_batch if batched else 0),
        *(("input", _tensor(v, batched)) for v in inputs),
    ]
    for value in proto.graph.output:
        named = [("label_filename", LABELS)] if value.name == classes else []
        fields.append(("output", [*_tensor(value, batched), *named]))
    fields.append(
        ("instance_group", [("count", how.instances), ("kind", _Word(f"KIND_{how.device.upper()}"))]),
    )
    if batched:
        fields.append(("dynamic_batching", [("max_queue_delay_microseconds", round(how.max_delay * 1000))]))
    fields.append(("version_policy", [("latest", [("num_versions", 1)])]))
    for key, text in (notes or {}).items():
        fields.append(("parameters", [("key", key), ("value", [("string_value", text)])]))
    return "\n".join(_lines(fields)) + "\n"


def batches(text: str) -> bool:
    """Tell whether a configuration lets the server batch requests."""
    return "max_batch_size: 0" not in text.splitlines()


def takes_batches(proto: onnx.ModelProto) -> bool:
    """Tell whether every input of a model has a free batch."""
    given = {t.name for t in proto.graph.initializer}
    return all(_begins_free(v) for v in proto.graph.input if v.name not in given)


def _begins_free(value: onnx.ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return len(dims) > 0 and not dims[0].HasField("dim_value")


def _tensor(value: onnx.ValueInfoProto, batched: bool) -> list[tuple[str, Any]]:
    """Return the fields of an input or output; a batch is not among its sizes."""
    kind = value.type.tensor_type.elem_type
    if kind not in _TYPES or not value.type.tensor_type.HasField("shape"):
        raise ModelError(
            f"'{value.name}' is no tensor of a type and a number of axes that Triton has; leave it out of the model"
        )
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
    dims = dims[1:] if batched else dims
    scalar: list[tuple[str, Any]] = (
        [("reshape", [("shape", [])])] if not dims else []
    )  # Triton knows no tensor without sizes
    found: list[tuple[str, Any]] = [
        ("name", value.name),
        ("data_type", _Word(f"TYPE_{_TYPES[kind]}")),
        ("dims", dims or [1]),
    ]
    return [*found, *scalar]


def _lines(fields: Sequence[tuple[str, Any]], indent: str = "") -> list[str]:
    found = []
    for key, value in fields:
        if isinstance(value, list) and (not value or isinstance(value[0], int)):
            found.append(f"{indent}{key}: [{', '.join(map(str, value))}]")
        elif isinstance(value, list):
            found += [f"{indent}{key} {{", *_lines(value, f"{indent}  "), f"{indent}}}"]
        elif isinstance(value, str) and not isinstance(value, _Word):
            found.append(f'{indent}{key}: "{CEscape(value.encode(errors="replace"), as_utf8=False)}"')
        else:
            found.append(f"{indent}{key}: {value}")
    return found
