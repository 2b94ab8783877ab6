import numpy as np
import openvino as ov
import openvino_xai as xai
from PIL import Image


def prepared(x):
    return ((x / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)


explainers = [
    xai.Explainer(ov.Core().read_model(name), task=xai.Task.CLASSIFICATION, preprocess_fn=prepared)
    for name in ("examples/shapes.onnx", "int8.onnx")
]
correlations = []
for i, name in enumerate(("circle", "square", "triangle", "star", "cross", "ring")):
    pixels = np.array(Image.open(f"examples/images/{name}.png").resize((64, 64)))
    both = [explainer(pixels, targets=[i]).saliency_map[i].ravel() for explainer in explainers]
    correlations.append(np.corrcoef(*both)[0, 1])
print(correlations)
