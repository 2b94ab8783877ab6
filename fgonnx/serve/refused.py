"""Why a request has no result: a status of HTTP, and a sentence."""

from __future__ import annotations

from fgonnx.bounds import Bounds
from fgonnx.errors import FgonnxError, ModelError, NumericError, UnsupportedError
from fgonnx.fields import spellings

_OF_REQUESTS = ("target", "contrast")
_OF_THE_MODEL = (ModelError, NumericError, UnsupportedError)


class RefusedError(Exception):
    """A request that is answered without a result.

    Parameters
    ----------
    status : int
        Status of HTTP: 400 for what is wrong in itself, 404, 413 for what is too large, 422 for what the model does not
        answer, 429 and 503 for what comes at a bad time, 504 for what took too long.
    why : str
        A sentence for whoever asked.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def refused(error: FgonnxError) -> RefusedError:
    """Return what is answered where fgonnx refuses: 422 if the reason is the model, else 400."""
    options: list[str] = []

    def spelled(name: str, value: str) -> str:
        if name in _OF_REQUESTS:
            return f"{name}={value}"
        options.append(name)
        shown = value.strip("'\"")
        if name in spellings(Bounds):
            return f"--bound {name}={shown}"
        return f"--{name.replace('_', '-')} {shown}".rstrip()

    why = error.spelled(spelled).removeprefix("sample 0: ")
    if options:
        why += "; what begins with -- is an option of the server"
    return RefusedError(422 if isinstance(error, _OF_THE_MODEL) else 400, why)
