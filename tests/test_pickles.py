"""Explainers, loaded models and errors go through pickle and copy: by source and options, with the same maps."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import errors
from fgonnx.engine.graph import kept
from fgonnx.engine.model.bind import bind
from fgonnx.engine.model.load import load
from fgonnx.errors import FgonnxError, ModelError, Refusal, UnsupportedError
from fgonnx.explain.choice import SameEntryError
from tests.cli_support import SHAPES
from tests.support import model

X = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
WAYS = {"pickle": lambda given: pickle.loads(pickle.dumps(given)), "deepcopy": copy.deepcopy, "copy": copy.copy}
CALLS: dict[str, dict[str, Any]] = {
    "fullgrad": {},
    "contrast": {"contrast": "next"},
    "attribution": {"method": "integrated-gradients", "steps": 3},
    "written attribution": {"method": "gradient-x-input"},
    "labels": {"labels": ["a", "b", "c", "d", "e", "f"], "psi": "signed", "batch_size": 1},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", CALLS)
def test_an_explainer_makes_the_same_maps(way: str, call: str) -> None:
    explainer = fgonnx.Explainer(SHAPES, **CALLS[call])
    again = WAYS[way](explainer)
    assert again.labels == explainer.labels
    assert again.running == explainer.running
    one, two = explainer(X), again(X)
    np.testing.assert_array_equal(one.saliency, two.saliency)
    assert one.described == two.described


@pytest.mark.parametrize("way", WAYS)
def test_of_a_model_without_a_file_and_of_a_written_one(way: str, tmp_path: Path) -> None:
    written = tmp_path / "written.onnx"
    onnx.save(fgonnx.rewrite(SHAPES), written)
    for source in (onnx.load(SHAPES), Path(SHAPES).read_bytes(), written):
        explainer = fgonnx.Explainer(source)
        np.testing.assert_array_equal(WAYS[way](explainer)(X).saliency, explainer(X).saliency)


@pytest.mark.parametrize("way", WAYS)
def test_with_bound_inputs(way: str) -> None:
    proto = model("(float[N,3] x, float[N,3] s) => (float[N,3] y) { t = Add(x, s) y = Relu(t) }")
    loaded = bind(load(proto), {"s": 2.0})
    again = WAYS[way](loaded)
    assert (again.bound, again.sha256) == (loaded.bound, loaded.sha256)
    x = np.ones((1, 3), np.float32)
    wanted = fgonnx.Explainer(proto, bind={"s": 2.0})
    np.testing.assert_array_equal(fgonnx.Explainer(again)(x).saliency, WAYS[way](wanted)(x).saliency)


def test_a_file_that_was_replaced_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(Path(SHAPES).read_bytes())
    content = pickle.dumps(fgonnx.Explainer(path))
    proto = onnx.load(path)
    proto.producer_name = "another"
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="is another file than when the model was pickled"):
        pickle.loads(content)


def explained(explainer: fgonnx.Explainer) -> Any:
    return explainer(X).saliency


def test_another_process_explains() -> None:
    explainer = fgonnx.Explainer(SHAPES)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(explained, explainer).result(), explained(explainer))


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error") and n != "UnsupportedError"])
@pytest.mark.parametrize("way", WAYS)
def test_errors(name: str, way: str) -> None:
    error = getattr(errors, name)("what, where")
    again = WAYS[way](error)
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("way", WAYS)
def test_errors_that_hold_more(way: str) -> None:
    given: list[FgonnxError] = [
        UnsupportedError([Refusal("n", "Op", 1, "why", "what to do")] * 2),
        SameEntryError("sample 0"),
    ]
    for error in given:
        again = WAYS[way](error)
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_the_folder_of_the_cache_is_its_owners_alone(tmp_path: Path) -> None:
    fgonnx.Explainer(SHAPES, cache=tmp_path / "kept")(X)
    assert stat.S_IMODE(os.stat(tmp_path / "kept").st_mode) == 0o700


def forged(content: bytes, change: str) -> bytes:
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    known = proto.metadata_props[-1]
    if change == "no metadata":
        del proto.metadata_props[:]
    elif change == "other outputs":
        del proto.graph.output[1:]
    elif change == "weights of another name":
        known.value = known.value.replace('"weights": {', '"weights": {"none": "none", ')
    else:
        known.value = change
    return proto.SerializeToString()


@pytest.mark.parametrize(
    "change", ["no metadata", "other outputs", "weights of another name", "5", "[]", '{"rewritten": 5, "weights": {}}']
)
def test_a_forged_entry_is_a_miss(change: str, tmp_path: Path) -> None:
    wanted = fgonnx.Explainer(SHAPES, cache=tmp_path)(X).saliency
    for entry in tmp_path.iterdir():
        content = forged(entry.read_bytes()[kept._DIGEST :], change)
        entry.write_bytes(kept._digest(entry.stem, content) + content)
    np.testing.assert_array_equal(fgonnx.Explainer(SHAPES, cache=tmp_path)(X).saliency, wanted)


@pytest.mark.parametrize("change", ["cut", "flipped", "empty"])
def test_a_broken_entry_is_a_miss(change: str, tmp_path: Path) -> None:
    wanted = fgonnx.Explainer(SHAPES, cache=tmp_path)(X).saliency
    for entry in list(tmp_path.iterdir()):
        content = entry.read_bytes()
        flipped = content[:99] + bytes([content[99] ^ 1]) + content[100:]
        entry.write_bytes({"cut": content[:-9], "empty": b"", "flipped": flipped}[change])
    np.testing.assert_array_equal(fgonnx.Explainer(SHAPES, cache=tmp_path)(X).saliency, wanted)
