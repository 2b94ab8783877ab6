import wave

import dianna
import dianna.visualization
import matplotlib
import numpy as np
import onnxruntime

matplotlib.use("Agg")
with wave.open("sound/tones.wav") as file:
    sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)[:, None] / 32767
session = onnxruntime.InferenceSession("sound/tones.onnx")


def run(batch):
    return session.run(None, {"sound": np.asarray(batch)[..., 0].astype(np.float32)})[0]


maps = dianna.explain_timeseries(run, sound, "RISE", labels=[1], n_masks=1000)
dianna.visualization.plot_timeseries(
    range(len(sound)),
    sound[:, 0],
    [{"index": i, "start": i, "stop": i + 1, "weight": w} for i, w in enumerate(maps[0].ravel())],
    show_plot=False,
)
