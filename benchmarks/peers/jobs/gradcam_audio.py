import wave

import numpy as np
import onnx
import torch
from onnx import version_converter
from onnx2torch import convert
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

older = version_converter.convert_version(onnx.load("sound/tones.onnx"), 17)
model = convert(older).eval()
with wave.open("sound/tones.wav") as file:
    sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)[None] / 32767
with GradCAM(model=model, target_layers=[model.Relu]) as cam:
    map_ = cam(input_tensor=torch.tensor(sound), targets=[ClassifierOutputTarget(1)])[0]
