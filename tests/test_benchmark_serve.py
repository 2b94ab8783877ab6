"""The load test at its smallest: it runs, every answer is right, and the page is what the stored results render to."""

import pytest

from tests import skips

for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    skips.without(package)

import json  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks import serve  # noqa: E402


@pytest.fixture(scope="module")
def inputs():
    return serve.Inputs(serve.SHAPES)


def test_another_inputs_answer_is_wrong(inputs):
    assert inputs.close(0, inputs.right[0])
    assert not any(inputs.close(i, inputs.right[0]) for i in range(1, serve.DIFFERENT))
    assert not inputs.close(0, {"saliency": np.zeros_like(inputs.right[0]["saliency"])})


@pytest.mark.slow
def test_every_answer_under_load_is_its_own_inputs(inputs):
    with serve.service(serve.SHAPES) as server:
        for verb in serve.VERBS:
            cell = serve.measured(server, inputs, verb, 4, 0.3, "")
            assert (cell.wrong, cell.other) == (0, {})
            assert cell.answers > 4
        assert server.end() == 0


@pytest.mark.slow
def test_a_kill_and_a_new_start_mix_nothing_up(inputs):
    found = serve.restarted(serve.SHAPES, inputs, 1.0)
    assert (found["wrong"], found["exit code"]) == (0, 0)
    assert set(found["statuses"]) <= {"200", "no connection"}


def test_the_page_is_what_is_stored():
    assert serve.PAGE.read_text(encoding="utf-8") == serve.rendered(
        json.loads(serve.STORED.read_text(encoding="utf-8"))
    )
