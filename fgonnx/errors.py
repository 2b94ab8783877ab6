"""The one family of errors: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "CertificateWarning",
    "FgonnxError",
    "FgonnxWarning",
    "InputError",
    "ModelError",
    "NumericError",
    "OptionError",
    "PreprocessingError",
    "ProviderError",
    "Refusal",
    "TargetError",
    "UnsupportedError",
]

MARKS = ("\ue000", "\ue001", "\ue002")
"""Around a parameter in a message, and between its name and its value: programs spell parameters their own way."""

_MARKED = re.compile("{}(.*?){}(.*?){}".format(*MARKS), re.DOTALL)


class FgonnxError(Exception):
    """Base class of every error that fgonnx raises on purpose."""

    def __str__(self) -> str:
        """Return the message, with parameters as Python spells them: ``psi='signed'``."""
        return self.spelled(lambda name, value: f"{name}={value}")

    def spelled(self, how: Callable[[str, str], str]) -> str:
        """Return the message with its parameters spelled another way.

        Parameters
        ----------
        how : callable
            Takes the name of a parameter and its value as Python writes it ("" where none is named).

        Returns
        -------
        str
        """
        return _MARKED.sub(lambda found: how(found[1], found[2]), super().__str__())


class ModelError(FgonnxError):
    """The model file cannot be loaded, is invalid, or is not one that can be explained."""


class InputError(FgonnxError):
    """An array or a picture does not fit the model, cannot be read, or holds NaN or infinity."""


class PreprocessingError(FgonnxError):
    """A preprocessing description is unknown, incomplete or does not fit the model's input."""


class TargetError(FgonnxError):
    """The target is out of range, of the wrong length, or an unknown label."""


class NumericError(FgonnxError):
    """The model's weights or results hold NaN or infinity."""


class OptionError(FgonnxError):
    """An option has a value that does not exist or does not go with another option."""


class ProviderError(FgonnxError):
    """ONNX Runtime is missing, or a requested execution provider is not available."""


class FgonnxWarning(UserWarning):
    """Something that was asked for is left out, and the results do not depend on it; base class of other warnings."""


class CertificateWarning(FgonnxWarning):
    """The contributions of an explanation do not sum to the score: its map may be wrong."""


@dataclass(frozen=True)
class Refusal:
    """Why one node cannot be explained.

    Attributes
    ----------
    node : str
        Name of the node in the model.
    op_type : str
        Operator, with its domain in front when it is not a standard one.
    version : int
        Version of the operator set the node was read with.
    why : str
        What is missing.
    what_to_do : str
        A way out for the user.
    """

    node: str
    op_type: str
    version: int
    why: str
    what_to_do: str


class UnsupportedError(FgonnxError):
    """Nodes on the path from the input to the explained output have no usable rule.

    Parameters
    ----------
    refusals : sequence of Refusal
        All of them, not only the first.
    """

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        lines = [
            f"{len(self.refusals)} node(s) on the path from the input to the explained output cannot be explained:"
        ]
        for r in self.refusals:
            lines.append(f"  node '{r.node}' ({r.op_type}, opset {r.version}): {r.why}. {r.what_to_do}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[UnsupportedError], tuple[tuple[Refusal, ...]]]:
        """Pickle by the refusals, of which the message is made."""
        return type(self), (self.refusals,)
