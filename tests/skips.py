"""Why a test is skipped: every reason once, with what would run such a test.

Tests skip through this module alone, so that the summary of a run can count them by reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

import pytest


@dataclass(frozen=True)
class Reason:
    """A reason to skip tests.

    Attributes
    ----------
    name : str
        What is missing.
    runs : str
        Where such tests run.
    article : str
        What the name has before it in a sentence.
    """

    name: str
    runs: str
    article: str = "a "

    def message(self, detail: str = "") -> str:
        return f"{self.name}: {detail or self.runs}"


SHARED = Reason(
    "trained models", "with the folder of trained models, which is no part of the repository, beside it", ""
)
TRAINING = Reason("training build", "in the environment that .ci/run makes with the training build of ONNX Runtime")
INFERENCE = Reason("inference build", "with any other build of ONNX Runtime than the training build", "an ")
FRAMEWORK = Reason("framework", "in the environments that .ci/run makes for the frameworks of the converters")
ENVIRONMENT = Reason("environment", "where `python -m benchmarks.runtimes --install` has put the runtime", "an ")
PACKAGE = Reason("package", "where the package is installed; the extra `test` brings those that install everywhere")
SYSTEM = Reason("system", "on the operating systems that have what is tested")
PROCESSOR = Reason("processor", "on processors for which onnxruntime has the kernels that are tested")

BROWSER = Reason("browser", "where Chromium is installed")

REASONS = (SHARED, TRAINING, INFERENCE, FRAMEWORK, ENVIRONMENT, PACKAGE, SYSTEM, PROCESSOR, BROWSER)


def now(reason: Reason, detail: str = "") -> NoReturn:
    """Skip the test that runs."""
    pytest.skip(reason.message(detail))


def when(condition: bool, reason: Reason, detail: str = "") -> pytest.MarkDecorator:
    """Return the mark of tests that are skipped under a condition."""
    return pytest.mark.skipif(condition, reason=reason.message(detail))


def without(package: str, reason: Reason = PACKAGE) -> ModuleType:
    """Import a package, or skip the test or module that needs it."""
    return pytest.importorskip(package, reason=reason.message(f"{package} is not installed"))


def find(message: str) -> Reason | None:
    """Return the reason behind the message of a skipped test; None where it was skipped in another way."""
    name = message.removeprefix("Skipped: ").partition(": ")[0]
    return next((r for r in REASONS if r.name == name), None)
