"""Rewritten graphs on disk: the same explanation to the last bit, and never one of another model, version or rule."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper

import fgonnx
from fgonnx.audit import evaluate
from fgonnx.audit.check import check
from fgonnx.audit.evaluate.randomisation import layers, permuted
from fgonnx.engine.graph.kept import VARIABLE
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite import cache
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rules import registry
from fgonnx.errors import FgonnxWarning
from fgonnx.explain.explainer import Explainer
from tests import skips
from tests.cli_support import CIRCLE, IMAGES, SHAPES, good, run
from tests.support import draw, model, pictures, small_cnn

ROOT = Path(__file__).resolve().parents[1]
CNN = small_cnn()
X = pictures(3)
NHWC = model(
    """(float[N,8,6,3] x) => (float[N,4] y) {
        t = Transpose<perm=[0,3,1,2]>(x)  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(t, w, b)  s = HardSwish(a)
        p = GlobalAveragePool(s)  y = Flatten(p)
    }""",
    weights=draw(w=(4, 3, 3, 3), b=(4,)),
)
QUANTISED = model(
    """(float[N,3,8,6] x) => (float[N,4] y) <float s = {0.05}, int8 z = {0}> {
        q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  a = Conv<kernel_shape=[3,3]>(d, w, b)
        r = Relu(a)  p = GlobalAveragePool(r)  f = Flatten(p)
        qf = QuantizeLinear(f, s, z)  y = DequantizeLinear(qf, s, z)
    }""",
    weights=draw(w=(4, 3, 3, 3), b=(4,)),
)
DYNAMIC = model(
    """(float[N,6] x) => (float[N,4] y) <uint8 wz = {128}> {
        q, s, z = DynamicQuantizeLinear(x)
        [c] i = MatMulInteger(q, w, z, wz)
        f = Cast<to=1>(i)
        y = Mul(f, s)
    }""",
    weights={"w": np.random.default_rng(0).integers(0, 256, (6, 4), np.uint8)},
)
HALF = model(
    "(float16[N,3,8,6] x) => (float16[N,4] y) { [c] a = Conv(x, w, b)  p = GlobalAveragePool(a)  y = Flatten(p) }",
    weights={name: array.astype(np.float16) for name, array in draw(w=(4, 3, 3, 3), b=(4,)).items()},
)
FREE = model(
    """(float[N,3,H,W] x) => (float[N,4] y) {
        a = Conv<kernel_shape=[3,3]>(x, w, b)  r = Relu(a)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Softmax(f)
    }""",
    weights=draw(w=(4, 3, 3, 3), b=(4,)),
)

BYTES = model(
    """(uint8[N,3,8,6] x) => (float[N,4] y) {
        v = Cast<to=1>(x)  a = Conv(v, w, b)  r = Relu(a)  p = GlobalAveragePool(r)  y = Flatten(p)
    }""",
    weights=draw(w=(4, 3, 3, 3), b=(4,)),
)


@pytest.fixture
def kept(tmp_path):
    """A folder for rewritten graphs that is not there yet."""
    return tmp_path / "kept"


@pytest.fixture
def from_disk_only(monkeypatch):
    """Let what is not in the cache be an error, from the call on."""

    def refuse(loaded, options):
        raise AssertionError("rewritten anew")

    return lambda: monkeypatch.setattr(cache, "build", refuse)


def entries(folder):
    return sorted(folder.glob("*")) if folder.exists() else []


def assert_identical(a, b):
    for field in fields(a):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


class TestResults:
    @pytest.mark.parametrize(
        ("source", "x", "options"),
        [
            (CNN, X, {}),
            (CNN, X, {"profile": "paper", "psi": "signed"}),
            (CNN, X, {"method": "grad-cam"}),
            (CNN, X, {"method": "integrated-gradients", "baseline": np.full((3, 8, 6), 0.1, np.float32)}),
            (CNN, X, {"method": "smooth-fullgrad", "samples": 3}),
            (CNN, X, {"method": "occlusion", "window": 3}),
            (CNN, X, {"bias_gradients": True, "input_gradient": True, "scores": True, "expose": ("b", "gradient:d")}),
            (NHWC, X.transpose(0, 2, 3, 1), {}),
            (QUANTISED, X, {}),
            (FREE, X, {"scores": True}),
            (small_cnn(batch=1, opset=11), X, {}),
            (SHAPES, pictures(2, (3, 64, 64)), {}),
        ],
        ids=lambda v: v.get("method", "-".join(v)) if isinstance(v, dict) else "",
    )
    def test_are_those_of_a_fresh_rewrite(self, kept, from_disk_only, source, x, options):
        fresh = Explainer(source, threads=1, **options)(x)
        assert_identical(Explainer(source, threads=1, cache=kept, **options)(x), fresh)
        from_disk_only()
        assert_identical(Explainer(source, threads=1, cache=kept, **options)(x), fresh)

    def test_with_a_seed_too(self, kept, from_disk_only):
        seed = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
        fresh = Explainer(CNN, threads=1, cache=kept)(X, seed=seed)
        from_disk_only()
        assert_identical(Explainer(CNN, threads=1, cache=kept)(X, seed=seed), fresh)

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("cifar10_resnet2b", (3, 32, 32)),
            ("resnet8_cifar10_mlperf", (32, 32, 3)),
            pytest.param("squeezenet1_1_qdq_int8", (3, 224, 224), marks=pytest.mark.slow),
        ],
    )
    def test_on_trained_models(self, kept, from_disk_only, shared, name, shape):
        path = shared / "models" / f"{name}.onnx"
        x = pictures(1, shape)
        fresh = Explainer(path, threads=1)(x)
        Explainer(path, threads=1, cache=kept)(x)
        from_disk_only()
        assert_identical(Explainer(path, threads=1, cache=kept)(x), fresh)

    def test_weights_beside_the_file_stay_there(self, kept, from_disk_only, tmp_path):
        path = beside(tmp_path)
        fresh = Explainer(path, threads=1, cache=kept)(X)
        from_disk_only()
        assert_identical(Explainer(path, threads=1, cache=kept)(X), fresh)

    @pytest.mark.parametrize("source", [CNN, QUANTISED, BYTES, small_cnn(batch=1)], ids=["", "int8", "uint8", "single"])
    def test_are_checked_as_a_fresh_rewrite_is(self, kept, from_disk_only, source):
        fresh = check(source, threads=1, directions=1)
        check(source, threads=1, directions=1, cache=kept)
        from_disk_only()
        found = check(source, threads=1, directions=1, cache=kept)
        assert (found.checks, found.notes) == (fresh.checks, fresh.notes)

    def test_are_compared_as_fresh_rewrites_are(self, kept, from_disk_only):
        fresh = fgonnx.compare(CNN, small_cnn(seed=1), X, threads=1)
        fgonnx.compare(CNN, small_cnn(seed=1), X, threads=1, cache=kept)
        from_disk_only()
        found = fgonnx.compare(CNN, small_cnn(seed=1), X, threads=1, cache=kept)
        np.testing.assert_equal(found.measures, fresh.measures)
        for side in ("a", "b"):
            assert_identical(getattr(found, side), getattr(fresh, side))

    def test_are_measured_as_fresh_rewrites_are(self, kept, from_disk_only):
        def measured(**options):
            subject = evaluate.Subject(CNN, threads=1, **options)
            data = evaluate.Data.of(Explainer(CNN, threads=1, **options), X)
            return [evaluate.get(name)(subject, data).values for name in ("deletion:steps=3", "weak-dependence")]

        fresh = measured()
        measured(cache=kept)
        from_disk_only()
        np.testing.assert_equal(measured(cache=kept), fresh)


def beside(folder, seed=0):
    """Save a network with its weights in a file of their own."""
    proto = small_cnn(seed=seed)
    external_data_helper.convert_model_to_external_data(proto, location="weights.bin", size_threshold=0)
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


class TestEntries:
    @pytest.mark.parametrize("source", [DYNAMIC, HALF], ids=["dynamic", "half"])
    def test_origins_of_twins_are_in_them(self, kept, from_disk_only, source):
        def known(normal):
            pairs = [*normal.twins.items(), *normal.unscaled.items()]
            return [(a.name, b.name) for a, b in pairs], [(v.name, node) for v, node in normal.origin.items()]

        loaded, folder = load(source), cache.Cache(kept)
        expected = known(folder.build(loaded, Options()).normal)
        assert expected[0]
        assert {"c", ""} <= {node for _, node in expected[1]}
        from_disk_only()
        assert known(folder.build(loaded, Options()).normal) == expected

    def test_large_weights_are_not_in_them(self, kept):
        wide = model(
            """(float[N,3,8,6] x) => (float[N,4] y) {
                a = Conv(x, w, b)  r = Relu(a)  p = GlobalAveragePool(r)  f = Flatten(p)  y = MatMul(f, v)
            }""",
            weights=draw(w=(4096, 3, 1, 1), b=(4096,), v=(4096, 4)),
        )
        Explainer(wide, cache=kept).engine()
        (entry,) = entries(kept)
        assert entry.stat().st_size < 40_000 < len(wide.SerializeToString())

    @pytest.mark.parametrize(
        "other",
        [
            lambda: Explainer(small_cnn(seed=1), cache=True),
            lambda: Explainer(CNN, psi="positive", cache=True),
            lambda: Explainer(CNN, certificate=False, cache=True),
            lambda: Explainer(CNN, method="grad-cam", cache=True),
        ],
        ids=["weights", "psi", "outputs", "method"],
    )
    def test_another_model_or_option_has_another(self, kept, monkeypatch, other):
        monkeypatch.setenv(VARIABLE, os.fspath(kept))
        Explainer(CNN, cache=True).engine()
        other().engine()
        assert len(entries(kept)) == 2

    @pytest.mark.parametrize("value", [0, 1])
    def test_a_bound_input_decides_too(self, kept, value):
        proto = model("(float[N,3] x, float s) => (float[N,3] y) { a = Mul(x, s)  y = Sigmoid(a) }")
        x = pictures(2, (3,))
        Explainer(proto, bind={"s": 2}, cache=kept)(x)
        found = Explainer(proto, bind={"s": value}, cache=kept)(x)
        assert_identical(found, Explainer(proto, bind={"s": value})(x))

    def test_permuted_weights_have_another(self, kept):
        found = layers(load(CNN).ir)
        for _, weights in found:
            source = permuted(load(CNN), weights, seed=0)
            assert_identical(Explainer(source, threads=1, cache=kept)(X), Explainer(source, threads=1)(X))
        assert len(entries(kept)) == len(found) > 1

    def test_there_are_none_of_models_that_are_made_to_be_measured_once(self, kept):
        subject = evaluate.Subject(CNN, threads=1, cache=kept)
        evaluate.get("randomisation:stages=2")(subject, evaluate.Data.of(Explainer(CNN), X))
        assert len(entries(kept)) == 1

    @pytest.mark.parametrize("name", ["__version__", "onnxruntime.__version__", "ir.__version__"])
    def test_another_version_has_another(self, kept, monkeypatch, name):
        Explainer(CNN, cache=kept).engine()
        monkeypatch.setattr(f"fgonnx.engine.rewrite.cache.{name}", "0.0.other")
        Explainer(CNN, cache=kept).engine()
        assert len(entries(kept)) == 2

    def test_another_source_of_fgonnx_has_another(self, kept, monkeypatch):
        Explainer(CNN, cache=kept).engine()
        monkeypatch.setattr(cache, "_own_source", lambda: "edited")
        Explainer(CNN, cache=kept).engine()
        assert len(entries(kept)) == 2

    def test_changed_weights_beside_the_file_have_another(self, kept, tmp_path):
        Explainer(beside(tmp_path), cache=kept).engine()
        path = beside(tmp_path, seed=1)
        os.utime(tmp_path / "weights.bin", ns=(0, 0))
        assert_identical(Explainer(path, threads=1, cache=kept)(X), Explainer(path, threads=1)(X))
        assert len(entries(kept)) == 2

    def test_there_are_none_with_rules_of_ones_own(self, kept, monkeypatch):
        monkeypatch.setattr(registry, "_RULES", {k: list(v) for k, v in registry._RULES.items()})

        @registry.homogeneous("Inverse")
        def inverse(op, y, x):
            return y

        Explainer(CNN, cache=kept).engine()
        assert entries(kept) == []

    @pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + b"\0"])
    def test_a_broken_one_is_replaced(self, kept, spoil):
        fresh = Explainer(CNN, threads=1, cache=kept)(X)
        (entry,) = entries(kept)
        whole = entry.read_bytes()
        entry.write_bytes(spoil(whole))
        assert_identical(Explainer(CNN, threads=1, cache=kept)(X), fresh)
        assert entry.read_bytes() == whole

    def test_one_under_a_foreign_name_is_replaced(self, kept):
        Explainer(CNN, cache=kept).engine()
        (entry,) = entries(kept)
        Explainer(CNN, psi="signed", cache=kept).engine()
        (other,) = set(entries(kept)) - {entry}
        entry.write_bytes(other.read_bytes())
        assert_identical(Explainer(CNN, threads=1, cache=kept)(X), Explainer(CNN, threads=1)(X))

    def test_the_one_used_longest_ago_leaves_first(self, kept, monkeypatch):
        monkeypatch.setattr(cache, "KEPT_FILES", 2)
        kept.mkdir()
        (kept / "notes.txt").write_text("not of the cache")

        def keep(psi):
            before = set(entries(kept))
            Explainer(CNN, psi=psi, cache=kept).engine()
            (new,) = set(entries(kept)) - before
            return new

        first, second = keep("abs"), keep("positive")
        os.utime(first, ns=(0, 0))
        os.utime(second, ns=(1, 1))
        Explainer(CNN, psi="abs", cache=kept).engine()  # used again
        assert keep("signed").exists()
        assert (first.exists(), second.exists(), (kept / "notes.txt").exists()) == (True, False, True)

    def test_large_ones_leave_for_their_size(self, kept, monkeypatch):
        monkeypatch.setattr(cache, "KEPT_BYTES", 1)
        Explainer(CNN, cache=kept).engine()
        assert entries(kept) == []

    def test_a_folder_that_cannot_be_written_is_no_error_but_is_said_once(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        explainer = Explainer(CNN, threads=1, cache=tmp_path / "file")
        with pytest.warns(FgonnxWarning, match="rewritten graphs are not kept: .*file' cannot be written"):
            found = explainer(X)
        assert_identical(found, Explainer(CNN, threads=1)(X))
        assert_identical(Explainer(CNN, threads=1, cache=tmp_path / "file")(X), found)

    def test_a_folder_that_cannot_be_written_is_said_on_the_command_line(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("FGONNX_CACHE", str(tmp_path / "file"))
        result = run("explain", SHAPES, CIRCLE, IMAGES / "star.png", "-o", tmp_path / "out")
        assert result.exit_code == 0
        assert result.stderr.count("warning: rewritten graphs are not kept") == 1


def test_two_processes_may_race_for_an_entry(kept, from_disk_only):
    code = f"""
import fgonnx, sys
from tests.support import pictures, small_cnn
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    print(fgonnx.Explainer(small_cnn(), threads=1, cache={os.fspath(kept)!r})(pictures(3)).saliency.tobytes().hex())
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) for _ in range(2)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    printed = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    from_disk_only()
    found = Explainer(CNN, threads=1, cache=kept)(X).saliency.tobytes().hex()
    assert printed == [[found] * 3] * 2
    assert len(entries(kept)) == 1


class TestFolder:
    def test_none_is_used_unasked(self, kept, monkeypatch):
        monkeypatch.setenv(VARIABLE, os.fspath(kept))
        Explainer(CNN).engine()
        assert entries(kept) == []

    def test_can_be_switched_off(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "off")
        assert cache.opened(True) is None

    def test_is_the_users_by_default(self, monkeypatch):
        platformdirs = skips.without("platformdirs")
        monkeypatch.delenv(VARIABLE)
        assert cache.opened(True).folder == platformdirs.user_cache_path("fgonnx", appauthor=False)


COMMANDS = {
    "explain": (CIRCLE,),
    "check": (CIRCLE, "--directions", 1),
    "compare": (SHAPES, CIRCLE),
    "evaluate": (IMAGES, "--limit", 2, "--methods", "edge,rise:samples=3", "--measures", "deletion,weak-dependence"),
}


def what(path: Path) -> object:
    """Return what a file holds, but for the command that wrote it and when: the commands compared here differ."""
    if path.suffix != ".json":
        return path.read_bytes()
    return {name: value for name, value in json.loads(path.read_bytes()).items() if name not in ("command", "time")}


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=pytest.mark.slow) if c == "evaluate" else c for c in COMMANDS]
)
class TestCommands:
    @pytest.fixture(autouse=True)
    def _folder(self, kept, monkeypatch):
        monkeypatch.setenv(VARIABLE, os.fspath(kept))

    def said(self, command, folder, *options):
        """Return what a command prints, or the files that it writes."""
        out = () if command == "check" else ("-o", folder)
        text = good(command, SHAPES, *COMMANDS[command], *out, "--threads", 1, *options)
        return text if command == "check" else {p.relative_to(folder): what(p) for p in folder.rglob("*.*")}

    def test_take_graphs_from_disk_and_say_the_same(self, command, tmp_path, from_disk_only):
        fresh = self.said(command, tmp_path / "fresh", "--no-cache")
        assert self.said(command, tmp_path / "first") == fresh
        from_disk_only()
        assert self.said(command, tmp_path / "second") == fresh

    @pytest.mark.parametrize(("folder", "options"), [("off", ()), ("kept", ("--no-cache",))])
    def test_keep_none_where_they_are_asked_not_to(self, command, tmp_path, monkeypatch, folder, options):
        monkeypatch.setattr(cache, "_packed", lambda *_: pytest.fail("a graph is kept"))
        monkeypatch.setenv(VARIABLE, folder)
        self.said(command, tmp_path / "out", *options)
