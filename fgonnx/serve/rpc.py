"""gRPC: version 2 of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from fgonnx.serve import v2
from fgonnx.serve.catalogue import Entry
from fgonnx.serve.desk import Desk, Visit
from fgonnx.serve.job import EXPLAIN, Answer, Job
from fgonnx.serve.messages import MESSAGES, METHODS, SERVICE
from fgonnx.serve.refused import RefusedError
from fgonnx.serve.tensors import checked_shape, datatype_of, from_bytes, from_numbers, to_bytes

Array = npt.NDArray[Any]

_MEGABYTE = 1_000_000
_CODES = {
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    500: grpc.StatusCode.INTERNAL,
}
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def server(desk: Desk, address: str) -> tuple[grpc.aio.Server, int]:
    """Return a server that listens on an address, and its port.

    Raises
    ------
    OSError
        The address is taken.
    """
    most = desk.serving.max_body * _MEGABYTE
    options = [
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    made = grpc.aio.server(options=options, maximum_concurrent_rpcs=2 * desk.serving.max_requests)
    handlers = Rpc(desk)
    made.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    name: grpc.unary_unary_rpc_method_handler(
                        getattr(handlers, name),
                        MESSAGES[f"{name}Request"].FromString,
                        MESSAGES[f"{name}Response"].SerializeToString,
                    )
                    for name in METHODS
                },
            ),
        )
    )
    try:
        port = made.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return made, int(port)


class Rpc:
    """Methods of the service.

    Parameters
    ----------
    desk : Desk
        Where requests are taken on.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self.catalogue = desk, desk.catalogue

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer that the server is there."""
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell whether requests are taken on."""
        return MESSAGES["ServerReadyResponse"](ready=self.desk.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell whether a model takes requests."""
        try:
            self._found(request.name, request.version)
        except RefusedError:
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=self.desk.ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what the server is."""
        return MESSAGES["ServerMetadataResponse"](**{**v2.server(), "extensions": []})

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what a model takes and gives."""
        try:
            entry, _ = self._found(request.name, request.version)
        except RefusedError as error:
            await context.abort(_CODES[error.status], str(error))
        return MESSAGES["ModelMetadataResponse"](**v2.described(request.name, entry.served))

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer with a prediction, or an explanation."""

        async def handle(visit: Visit) -> Any:
            entry, explained = self._found(request.model_name, request.model_version)
            visit.about["model"] = entry.name
            wanted = [one.name for one in request.outputs]
            job = await self.desk.aside(visit, "read", lambda: _job(entry, request, wanted, explained))
            visit.about["verb"] = job.verb
            answer = await self.desk.answer(visit, job)
            return await self.desk.aside(visit, "write", lambda: _response(request, job, answer, (wanted, explained)))

        return await self._visited(context, handle)

    async def _visited(self, context: Any, handle: Callable[[Visit], Awaitable[Any]]) -> Any:
        try:
            return await self.desk.visit(Visit({"protocol": "grpc", "verb": "infer"}), handle)
        except RefusedError as error:
            return await context.abort(_CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error))

    def _found(self, name: str, version: str) -> tuple[Entry, bool]:
        name, explained = v2.plain_name(name, self.catalogue.entries)
        return self.catalogue.find(name, version), explained


def _job(entry: Entry, request: Any, wanted: list[str], explained: bool) -> Job:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise RefusedError(400, f"there are raw contents for {len(raw)} of {len(request.inputs)} inputs")
    inputs: dict[str, Array] = {}
    for one in request.outputs:
        v2.check_parameters(one.parameters, f"the output '{one.name[:80]}'", "output")
    for i, one in enumerate(request.inputs):
        where = f"the input '{one.name[:80]}'"
        v2.check_parameters(one.parameters, where, "input")
        if one.name in inputs:
            raise RefusedError(400, f"{where} is given twice")
        shape = checked_shape([int(size) for size in one.shape], where)
        if raw:
            inputs[one.name] = from_bytes(raw[i], one.datatype, shape, where)
        else:
            field = _CONTENTS.get(one.datatype, "bytes_contents")
            kind = np.bool_ if field == "bool_contents" else None
            given = getattr(one.contents, field) if field != "bytes_contents" else ()  # no texts, which NumPy pads
            inputs[one.name] = from_numbers(np.array(given, kind), one.datatype, shape, where)
    return v2.job_of(entry.served, inputs, wanted, _parameters(request.parameters), explained)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in given.items():
        which = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, which) if which else None
    return found


def _response(request: Any, job: Job, answer: Answer, asked: tuple[list[str], bool]) -> Any:
    tensors, explained = v2.answered(job, answer, *asked)
    parameter = MESSAGES["InferParameter"](bool_param=explained)
    return MESSAGES["ModelInferResponse"](
        model_name=request.model_name,
        model_version=job.served.version,
        id=request.id,
        parameters={"explained": parameter} if job.verb == EXPLAIN else {},
        outputs=[
            {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
            for name, array in tensors.items()
        ],
        raw_output_contents=[to_bytes(array) for array in tensors.values()],
    )
