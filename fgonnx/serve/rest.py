"""HTTP: version 2 of the protocol, version 1 with `:explain`, health, and metrics."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy.typing as npt
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fgonnx import bounds
from fgonnx.errors import InputError
from fgonnx.serve import v1, v2
from fgonnx.serve.catalogue import Entry
from fgonnx.serve.desk import Desk, Visit
from fgonnx.serve.job import EXPLAIN, PREDICT
from fgonnx.serve.refused import RefusedError, refused
from fgonnx.serve.tensors import checked_shape, datatype_of, from_bytes, from_numbers, to_bytes, to_numbers
from fgonnx.serve.watch import CONTENT_TYPE

Array = npt.NDArray[Any]

_MEGABYTE = 1_000_000
_MOST_LISTS = 1_000_000
"""Lists and objects in JSON: what takes time is not their bytes, but that each one is made."""
_DIGITS = 12
_LENGTH = "inference-header-content-length"
_AGAIN = {"Retry-After": "1"}
_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_PLACES = (
    "GET /v2/health/live, /v2/health/ready, /v2, /v2/models/NAME, /metrics, /v1/models; POST /v2/models/NAME/infer, "
    "/v1/models/NAME:predict, /v1/models/NAME:explain"
)


def app(desk: Desk) -> Starlette:
    """Return the application."""
    return Rest(desk).app


class Rest:
    """Handlers of HTTP.

    Parameters
    ----------
    desk : Desk
        Where requests are taken on.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self.catalogue = desk, desk.catalogue
        model = "/v2/models/{name}"
        versioned = f"{model}/versions/{{version}}"
        get = {
            "/v2": self._server,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            model: self._model,
            versioned: self._model,
            f"{model}/ready": self._model_ready,
            f"{versioned}/ready": self._model_ready,
            "/v1/models": self._models,
            "/v1/models/{name}": self._model_1,
            "/metrics": self._metrics,
        }
        post = {
            f"{model}/infer": self._infer,
            f"{versioned}/infer": self._infer,
            "/v1/models/{name}:predict": self._predict,
            "/v1/models/{name}:explain": self._explain,
            "/v1/models/{name}:{verb}": self._no_verb,
        }
        self.app = Starlette(
            routes=[
                *(Route(path, handler, methods=["POST"]) for path, handler in post.items()),
                *(Route(path, handler, methods=["GET"]) for path, handler in get.items()),
            ],
            exception_handlers={HTTPException: _no_such_place},
        )

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        return _json({"ready": self.desk.ready}, 200 if self.desk.ready else 503)

    async def _server(self, request: Request) -> Response:
        return _json(v2.server())

    async def _metrics(self, request: Request) -> Response:
        return Response(self.desk.watch.page(), headers={"Content-Type": CONTENT_TYPE})

    async def _models(self, request: Request) -> Response:
        return _json({"models": list(self.catalogue.entries)})

    async def _model(self, request: Request) -> Response:
        try:
            entry, _ = self._found(request)
        except RefusedError as error:
            return _refusal(error)
        return _json(v2.described(request.path_params["name"], entry.served))

    async def _model_ready(self, request: Request) -> Response:
        try:
            name = self._found(request)[0].name
        except RefusedError as error:
            return _refusal(error)
        return _json({"name": name, "ready": self.desk.ready}, 200 if self.desk.ready else 503)

    async def _no_verb(self, request: Request) -> Response:
        raise HTTPException(404)

    async def _model_1(self, request: Request) -> Response:
        named = request.path_params["name"]
        if named not in self.catalogue.entries and named.rpartition(":")[2] in (PREDICT, EXPLAIN):
            raise HTTPException(405, headers={"Allow": "POST"})
        try:
            name = self._found(request)[0].name
        except RefusedError as error:
            return _refusal(error)
        return _json({"name": name, "ready": self.desk.ready})

    def _found(self, request: Request) -> tuple[Entry, bool]:
        """Return the model that an address names, and whether it is its explained twin."""
        name, explained = v2.plain_name(request.path_params["name"], self.catalogue.entries)
        return self.catalogue.find(name, request.path_params.get("version", "")), explained

    async def _infer(self, request: Request) -> Response:
        async def handle(visit: Visit) -> Response:
            entry, explained = self._found(request)
            visit.about["model"] = entry.name
            if explained:  # else it is known when it is read
                self.desk.check(entry.name, EXPLAIN)
            body = await self._body(request)
            length = request.headers.get(_LENGTH)
            asked = await self.desk.aside(visit, "read", lambda: _Infer(entry, body, length, explained))
            visit.about["verb"] = asked.job.verb
            answer = await self.desk.answer(visit, asked.job)
            return await self.desk.aside(visit, "write", lambda: asked.response(request.path_params["name"], answer))

        return await self._visited("v2", "infer", handle)

    async def _predict(self, request: Request) -> Response:
        return await self._asked(request, PREDICT)

    async def _explain(self, request: Request) -> Response:
        return await self._asked(request, EXPLAIN)

    async def _asked(self, request: Request, verb: str) -> Response:
        async def handle(visit: Visit) -> Response:
            entry, _ = self._found(request)
            visit.about["model"] = entry.name
            self.desk.check(entry.name, verb)
            body = await self._body(request)
            most = self.desk.serving.max_samples
            asked = await self.desk.aside(
                visit, "read", lambda: v1.asked(entry.served, verb, _parsed(body, "the request"), most)
            )
            answer = await self.desk.answer(visit, asked.job)

            def written() -> Response:
                found: dict[str, Any] = {"predictions": v1.predictions(asked.job.served, answer, asked.job.count)}
                if verb == EXPLAIN:
                    found["explanations"] = v1.explanations(asked, answer)
                return _json(found)

            return await self.desk.aside(visit, "write", written)

        return await self._visited("v1", verb, handle)

    async def _visited(self, protocol: str, verb: str, handle: Callable[[Visit], Awaitable[Response]]) -> Response:
        try:
            found: Response = await self.desk.visit(Visit({"protocol": protocol, "verb": verb}), handle)
        except RefusedError as error:
            return _refusal(error)
        return found

    async def _body(self, request: Request) -> bytes:
        """Read a request's body, as far as it may be long."""
        most = self.desk.serving.max_body * _MEGABYTE
        too_long = RefusedError(413, f"the request is longer than {self.desk.serving.max_body} MB")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusedError(415, "compressed requests are not unpacked: send the content as it is")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_long

        async def read() -> bytes:
            found = bytearray()
            async for part in request.stream():
                found += part
                if len(found) > most:
                    raise too_long
            return bytes(found)

        try:
            return await asyncio.wait_for(read(), self.desk.serving.timeout)
        except ClientDisconnect:
            raise RefusedError(499, "whoever asked is gone") from None
        except TimeoutError:
            raise RefusedError(408, "the request did not come to its end in time") from None


class _Infer:
    """A request of version 2: JSON, with or without raw bytes behind it."""

    def __init__(self, entry: Entry, body: bytes, length: str | None, explained: bool) -> None:
        head, raw = _split(body, length)
        given = _parsed(head, "the request")
        if not isinstance(given, dict) or not isinstance(given.get("inputs"), list):
            raise RefusedError(400, 'a request is an object {"inputs": [...]} of tensors')
        self.id = given.get("id")
        if self.id is not None and not isinstance(self.id, str):
            raise RefusedError(400, "the id of the request is no text")
        parameters = _parameters(given, "the request")
        self.all_binary = _switch(parameters, _ALL_BINARY, False)
        wanted = given.get("outputs", [])
        if not isinstance(wanted, list):
            raise RefusedError(400, "the outputs of the request are no list")
        self.binary = {
            _name(one, "an output"): _switch(_parameters(one, "an output", "output"), _BINARY, self.all_binary)
            for one in wanted
        }
        self.explained = explained
        inputs = {}
        at = 0
        for one in given["inputs"]:
            name = _name(one, "an input")
            if name in inputs:
                raise RefusedError(400, f"the input '{name[:80]}' is given twice")
            inputs[name], at = _tensor(one, raw, at, f"the input '{name[:80]}'")
        if at != len(raw):
            raise RefusedError(400, f"there are {len(raw) - at} bytes more than the inputs have")
        self.job = v2.job_of(entry.served, inputs, list(self.binary), parameters, explained)

    def response(self, name: str, answer: Any) -> Response:
        """Return the answer, in JSON or raw bytes as each output was asked for."""
        tensors, explained = v2.answered(self.job, answer, list(self.binary), self.explained)
        outputs, raw = [], []
        for key, array in tensors.items():
            one: dict[str, Any] = {"name": key, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
            if self.binary.get(key, self.all_binary):
                raw.append(to_bytes(array))
                one["parameters"] = {_SIZE: len(raw[-1])}
            else:
                one["data"] = to_numbers(array.ravel(), f"the output '{key}'")
            outputs.append(one)
        found: dict[str, Any] = {"model_name": name, "model_version": self.job.served.version, "outputs": outputs}
        if self.id is not None:
            found["id"] = self.id
        if self.job.verb == EXPLAIN:
            found["parameters"] = {"explained": explained}
        if not raw:
            return _json(found)
        head = _encoded(found)
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        return Response(b"".join([head, *raw]), headers=headers)


def _split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    if length is None:
        return body, memoryview(b"")
    if not length.isdecimal() or len(length) > _DIGITS or int(length) > len(body):
        raise RefusedError(
            400, f"the header {_LENGTH} is {length[:20]}: give the bytes of the JSON before the raw data"
        )
    return body[: int(length)], memoryview(body)[int(length) :]


def _tensor(one: Mapping[str, Any], raw: memoryview, at: int, where: str) -> tuple[Array, int]:
    """Return a tensor, and where the raw bytes of the next one begin."""
    datatype = str(one.get("datatype"))
    shape = checked_shape(one.get("shape"), where)
    size = _parameters(one, where, "input").get(_SIZE)
    if size is None:
        if "data" not in one:
            raise RefusedError(400, f"{where} has no data")
        return from_numbers(one["data"], datatype, shape, where), at
    if type(size) is not int or not 0 <= size <= len(raw) - at:
        raise RefusedError(400, f"{where} has {len(raw) - at} raw bytes, and says that they are {str(size)[:20]}")
    return from_bytes(raw[at : at + size], datatype, shape, where), at + size


def _parameters(one: Mapping[str, Any], where: str, kind: str = "request") -> Mapping[str, Any]:
    found = one.get("parameters") or {}
    if not isinstance(found, dict):
        raise RefusedError(400, f"the parameters of {where} are no object")
    v2.check_parameters(found, where, kind)
    return found


def _switch(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        raise RefusedError(400, f"'{name}' is true or false")
    return found


def _name(one: Any, where: str) -> str:
    name = one.get("name") if isinstance(one, dict) else None
    if not isinstance(name, str):
        raise RefusedError(400, f"{where} has no name")
    return name


def _parsed(content: bytes, where: str) -> Any:
    """Parse JSON.

    Raises
    ------
    RefusedError
        It is none.
    """
    if (lists := content.count(b"[") + content.count(b"{")) > _MOST_LISTS:
        raise RefusedError(
            413,
            f"{where} has {lists:,} lists and objects: at most {_MOST_LISTS:,} are read; send raw bytes (version 2)",
        )
    try:
        text = content.decode("utf-8")
        bounds.check_nesting(text, where, InputError)
        return json.loads(text)
    except InputError as error:
        raise refused(error) from error
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}: {error.msg}"
    except UnicodeDecodeError:
        why = "no text in UTF-8"
    except (ValueError, RecursionError):  # beyond what Python reads
        why = f"a number has more than {sys.get_int_max_str_digits():,} digits"
    raise RefusedError(400, f"{where} is not JSON ({why})")


def _encoded(found: Any) -> bytes:
    return json.dumps(found, allow_nan=False, separators=(",", ":")).encode()


def _json(found: Any, status: int = 200) -> Response:
    return Response(_encoded(found), status, media_type="application/json")


def _refusal(error: RefusedError) -> Response:
    response = _json({"error": str(error)}, error.status)
    if error.status in (429, 503):
        response.headers.update(_AGAIN)
    return response


async def _no_such_place(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    why = "there is no such address" if status == 404 else f"it does not take {request.method}"
    response = _json({"error": f"{why}; there are: {_PLACES}"}, status)
    response.headers.update(getattr(error, "headers", None) or {})
    return response
