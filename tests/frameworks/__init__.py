"""Converters from frameworks that live in an environment of their own (`.ci/run` makes it); skipped elsewhere."""

import importlib
import os
import warnings
from functools import partial

import numpy as np

from tests import skips

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def needed(*names):
    """Import packages, or skip, unless FGONNX_FRAMEWORKS names one of them; what they warn of then is not ours."""
    wanted = set(os.environ.get("FGONNX_FRAMEWORKS", "").split(","))
    load = importlib.import_module if wanted & set(names) else partial(skips.without, reason=skips.FRAMEWORK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [load(name) for name in names]
    return found[0] if len(found) == 1 else found


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agrees(report, *, explained=True, maps=True):
    """Assert what every conversion must show: outputs to 1e-5, the gradient and the literal map to 1e-4."""
    assert report.passed, report.measurements
    quantities = {m.quantity.split()[0] for m in report.measurements}
    wanted = {"output", *(["input-gradient"] if explained else []), *(["FullGrad"] if explained and maps else [])}
    assert quantities == wanted
    assert report.worst("output") < 1e-5
    assert {m.verdict for m in report.measurements} == {"passed"}
    assert all(dims[0] == "N" for dims in (*report.inputs.values(), *report.outputs.values()))
