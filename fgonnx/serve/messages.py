"""Messages of the Open Inference Protocol for gRPC, made from the table of their fields.

They have a pool of descriptors of their own: in one process with a client library that registers the same names,
generated classes would be refused.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""What the service answers; each takes NAMERequest and gives NAMEResponse."""

_TENSOR = "name=1:string datatype=2:string shape=3:int64* parameters=4:InferParameter@ contents=5:InferTensorContents"
_DESCRIBED = "name=1:string datatype=2:string shape=3:int64*"

#: Fields as name=number:type, with * where they are repeated, @ where they are a map from texts, ? one of several.
FIELDS = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live=1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready=1:bool",
    "ModelReadyRequest": "name=1:string version=2:string",
    "ModelReadyResponse": "ready=1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name=1:string version=2:string extensions=3:string*",
    "ModelMetadataRequest": "name=1:string version=2:string",
    "ModelMetadataResponse": "name=1:string versions=2:string* platform=3:string inputs=4:.TensorMetadata* "
    "outputs=5:.TensorMetadata*",
    "ModelMetadataResponse.TensorMetadata": _DESCRIBED,
    "InferParameter": "bool_param=1:bool? int64_param=2:int64? string_param=3:string? double_param=4:double? "
    "uint64_param=5:uint64?",
    "InferTensorContents": "bool_contents=1:bool* int_contents=2:int32* int64_contents=3:int64* "
    "uint_contents=4:uint32* uint64_contents=5:uint64* fp32_contents=6:float* fp64_contents=7:double* "
    "bytes_contents=8:bytes*",
    "ModelInferRequest": "model_name=1:string model_version=2:string id=3:string parameters=4:InferParameter@ "
    "inputs=5:.InferInputTensor* outputs=6:.InferRequestedOutputTensor* raw_input_contents=7:bytes*",
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "name=1:string parameters=2:InferParameter@",
    "ModelInferResponse": "model_name=1:string model_version=2:string id=3:string parameters=4:InferParameter@ "
    "outputs=5:.InferOutputTensor* raw_output_contents=6:bytes*",
    "ModelInferResponse.InferOutputTensor": _TENSOR,
}

_FIELD = re.compile(r"(\w+)=(\d+):(\.?)(\w+)([*@?]?)")
_Proto = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="fgonnx/inference.proto", package="inference", syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for name, fields in FIELDS.items():
        outer, _, inner = name.rpartition(".")
        message = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        made[name] = message
        for field in _FIELD.finditer(fields):
            _add(message, name, *field.groups())
    return file


def _add(
    message: descriptor_pb2.DescriptorProto, within: str, name: str, number: str, nested: str, kind: str, mark: str
) -> None:
    field = message.field.add(name=name, number=int(number))
    field.label = _Proto.LABEL_REPEATED if mark in ("*", "@") and mark else _Proto.LABEL_OPTIONAL
    if mark == "?":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if mark == "@":  # a map is a list of entries on the wire
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
        value = entry.field.add(name="value", number=2, label=_Proto.LABEL_OPTIONAL)
        value.type, value.type_name = _Proto.TYPE_MESSAGE, f".inference.{kind}"
        field.type, field.type_name = _Proto.TYPE_MESSAGE, f".inference.{within}.{entry.name}"
    elif kind[0].isupper():
        field.type = _Proto.TYPE_MESSAGE
        field.type_name = f".inference.{within}.{kind}" if nested else f".inference.{kind}"
    else:
        field.type = getattr(_Proto, f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    outer = [name for name in FIELDS if "." not in name]
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{n}")) for n in outer}


MESSAGES: dict[str, Any] = _classes()
"""Classes of the messages, by name."""
