import wave

import matplotlib
import numpy as np
import onnx
import torch
from captum.attr import IntegratedGradients, visualization
from onnx import version_converter
from onnx2torch import convert

older = version_converter.convert_version(onnx.load("sound/tones.onnx"), 17)
model = convert(older).eval()
with wave.open("sound/tones.wav") as file:
    sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)[None] / 32767
attribution = IntegratedGradients(model).attribute(torch.tensor(sound), target=1, internal_batch_size=1)
matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # the newest matplotlib has it no more
figure, _ = visualization.visualize_timeseries_attr(
    attribution.T.detach().numpy(), sound.T, method="overlay_individual", use_pyplot=False
)
figure.savefig("seen.png")
