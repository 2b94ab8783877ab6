"""The door out of the engine: what a malformed model makes of the code becomes an error about that model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fgonnx.engine.graph.session import first_line, refusal
from fgonnx.engine.model.load import LoadedModel
from fgonnx.errors import FgonnxError, ModelError, OptionError, TargetError, UnsupportedError


@contextlib.contextmanager
def in_words_of(loaded: LoadedModel) -> Iterator[None]:
    """Turn what is raised into an error about the source: in onnxruntime's words, where it does not take the model.

    Raises
    ------
    ModelError
        Something else than an error about options or operators was raised.
    """
    try:
        yield
    except (UnsupportedError, OptionError, TargetError):
        raise
    except Exception as error:
        if (reason := refusal(loaded.ir, loaded.folder)) is not None:
            raise ModelError(f"{loaded.name}: {reason}") from error
        if isinstance(error, FgonnxError):
            raise
        if isinstance(error, MemoryError):
            raise ModelError(
                f"{loaded.name}: rewriting it takes more memory than there is: {first_line(error)}"
            ) from error
        raise ModelError(
            f"{loaded.name}: cannot be rewritten, although onnxruntime takes it ({type(error).__name__}: "
            f"{first_line(error)}). This is a fault of fgonnx; please report it"
        ) from error
