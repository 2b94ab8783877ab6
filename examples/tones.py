"""A recording with two tones in noise, and a network that hears them: both made by construction, without training.

`python examples/tones.py FOLDER` writes tones.wav and tones.onnx. The network filters the recording by a sine and a
cosine of every pitch, squares and adds both, and takes the mean over time: its scores are how much of a low and of a
high tone there is.
"""

import argparse
import wave
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

RATE = 8000
"""Samples in a second."""

PITCHES = {"low": 440.0, "high": 1320.0}
"""Frequencies of the tones, in hertz, by the names of the classes."""

PLAYED = (("low", 0.25, 0.55), ("high", 0.9, 1.05))
"""Tone, beginning and end in seconds."""

_SECONDS, _FILTER = 1.5, 256  # length of the recording, and of a filter in samples


def recording(seed: int = 0) -> np.ndarray:
    """Return the recording, float32 in -1..1."""
    time = np.arange(round(_SECONDS * RATE)) / RATE
    sound = 0.05 * np.random.default_rng(seed).standard_normal(len(time))
    for name, start, end in PLAYED:
        inside = (time >= start) & (time < end)
        sound += 0.4 * inside * np.sin(2 * np.pi * PITCHES[name] * time)
    return np.clip(sound, -1, 1).astype(np.float32)


def network() -> onnx.ModelProto:
    """Return the network: a recording (N, T) in, a score for each pitch (N, 2) out."""
    phase = 2 * np.pi * np.arange(_FILTER) / RATE
    window = np.hanning(_FILTER) / _FILTER
    filters = np.stack([window * f(phase * pitch) for pitch in PITCHES.values() for f in (np.sin, np.cos)])
    # Energy of both filters of a pitch, minus what the noise alone gives.
    weights = {
        "filters": filters[:, None].astype(np.float32),
        "pairs": np.kron(np.eye(len(PITCHES)), [[4000.0, 4000.0]])[..., None].astype(np.float32),
        "noise": np.full(len(PITCHES), -0.1, np.float32),
        "channel": np.array([1]),
        "time": np.array([2]),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["sound", "channel"], ["one"]),
        helper.make_node("Conv", ["one", "filters"], ["heard"], strides=[16]),
        helper.make_node("Mul", ["heard", "heard"], ["squared"]),
        helper.make_node("Conv", ["squared", "pairs", "noise"], ["energy"]),
        helper.make_node("Relu", ["energy"], ["above"]),
        helper.make_node("ReduceMean", ["above", "time"], ["scores"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info("sound", onnx.TensorProto.FLOAT, ["N", "T"])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", len(PITCHES)])],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(made, {"fgonnx.labels": '["low", "high"]', "fgonnx.rate": str(RATE)})
    onnx.checker.check_model(made)
    return made


def write(folder: str | Path) -> None:
    """Write tones.wav and tones.onnx."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with wave.open(str(Path(folder, "tones.wav")), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((32767 * recording()).astype("<i2").tobytes())
    onnx.save(network(), Path(folder, "tones.onnx"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where tones.wav and tones.onnx go")
    write(parser.parse_args().folder)
