"""Bit-exact fingerprints of explanations, to hold two versions of fgonnx against each other.

    python -m benchmarks.fingerprints -o before.json      # in a checkout of the one
    python -m benchmarks.fingerprints --against before.json    # in a checkout of the other

Every array of an explanation (outputs, map, scores, certificate, gradient) is hashed: of the shared models, the example
with every method, and the networks of the tests, all on seeded random inputs in one thread.
The two runs must be on the same machine and the same ONNX Runtime.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import fgonnx

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT.parent / "shared" / "models"

#: What models want besides a random array: shapes where sizes are free, inputs to bind.
SHAPES: dict[str, tuple[int, ...]] = {"silero_vad_16k_op15": (1, 576)}
BOUND: dict[str, dict[str, Any]] = {"silero_vad_16k_op15": {"sr": 16000, "state": np.zeros((2, 1, 128), np.float32)}}
LEFT_OUT = ("silero_vad_v5",)


def cases() -> Iterator[tuple[str, Any, tuple[int, ...], np.dtype[Any], dict[str, Any]]]:
    """Yield name, model, shape and type of the input, and options."""
    shapes = ROOT / "examples" / "shapes.onnx"
    for method in fgonnx_methods():
        yield f"example {method}", shapes, (3, 3, 64, 64), np.dtype(np.float32), {"method": method}
    for psi in ("positive", "signed"):
        yield f"example {psi}", shapes, (3, 3, 64, 64), np.dtype(np.float32), {"psi": psi}
    for profile in ("reference", "paper"):
        yield f"example {profile}", shapes, (3, 3, 64, 64), np.dtype(np.float32), {"profile": profile}
    for path in sorted(MODELS.glob("*.onnx")):
        if path.stem not in LEFT_OUT:
            proto = onnx.load(path, load_external_data=False)
            weights = {w.name for w in proto.graph.initializer}
            x = next(v for v in proto.graph.input if v.name not in weights).type.tensor_type
            dims = [d.dim_value or 2 for d in x.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(x.elem_type)
            bound = BOUND.get(path.stem)
            options = {"input_gradient": True} | ({"bind": bound} if bound else {})
            yield path.stem, path, SHAPES.get(path.stem, tuple(dims)), dtype, options
    yield from networks()


def fgonnx_methods() -> list[str]:
    """Return the names of all methods, wherever this version keeps them."""
    return list(fgonnx.methods.names())


def networks() -> Iterator[tuple[str, Any, tuple[int, ...], np.dtype[Any], dict[str, Any]]]:
    """Yield the networks of the tests."""
    from tests.witness import tokennets, torchnets

    for name, (build, shape) in {**torchnets.NETS, **tokennets.NETS}.items():
        for folded in (True, False):
            model = torchnets.export(build(0), (2, *shape[1:]), folded=folded)
            which = "folded" if folded else "as it is"
            yield f"{name} {which}", model, (2, *shape[1:]), np.dtype(np.float32), {"bias_gradients": True}


def fingerprint(e: fgonnx.Explanation) -> dict[str, str]:
    """Return the hash of every array of an explanation."""
    arrays: dict[str, Any] = {
        name: getattr(e, name)
        for name in (
            "saliency",
            "target",
            "score",
            "contributions",
            "completeness",
            "input_gradient",
            "attribution",
            "delta",
        )
    }
    arrays |= {f"output {name}": a for name, a in e.outputs.items()}
    arrays |= {f"bias {name}": a for name, a in e.bias_gradients.items()}
    arrays["sites"] = np.array([f"{s.name} {s.kind} {s.grid} {s.node}" for s in e.sites])
    return {name: _hash(np.asarray(a)) for name, a in arrays.items() if a is not None}


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> int:
    """Write fingerprints, or compare with those of another version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="where to write them")
    parser.add_argument("--against", type=Path, help="those of the other version")
    parser.add_argument("--only", default="", help="cases whose names hold this text")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for name, model, shape, dtype, options in cases():
        if given.only not in name:
            continue
        rng = np.random.default_rng(0)
        x = rng.uniform(0, 1, shape) * (255 if dtype == np.uint8 else 1)
        try:
            found[name] = fingerprint(fgonnx.Explainer(model, threads=1, **options)(x.astype(dtype)))
        except fgonnx.FgonnxError as error:
            found[name] = f"{type(error).__name__}: {error}"
        print(f"{name}: {'refused' if isinstance(found[name], str) else len(found[name])}", flush=True)
    record = {"onnxruntime": onnxruntime.__version__, "cases": found}
    if given.output is not None:
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.against is None:
        return 0
    other = json.loads(given.against.read_text(encoding="utf-8"))
    if other["onnxruntime"] != record["onnxruntime"]:
        print(f"another ONNX Runtime: {other['onnxruntime']} and {record['onnxruntime']}")
        return 2
    parted = []
    for name, arrays in found.items():
        before = other["cases"].get(name)
        if isinstance(arrays, dict) and isinstance(before, dict):
            parted += [f"{name}: {key}" for key in sorted(arrays | before) if arrays.get(key) != before.get(key)]
        elif isinstance(arrays, dict) != isinstance(before, dict):
            parted.append(f"{name}: explained by one version only ({arrays if isinstance(arrays, str) else before})")
    print(f"{len(found)} cases, {len(parted)} difference(s)", *parted, sep="\n  ")
    return 1 if parted else 0


if __name__ == "__main__":
    sys.exit(main())
