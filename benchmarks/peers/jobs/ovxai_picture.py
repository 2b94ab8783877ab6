import numpy as np
import openvino as ov
import openvino_xai as xai
from PIL import Image

pixels = np.array(Image.open("examples/images/star.png").resize((64, 64)))


def prepared(x):
    return ((x / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)


model = ov.Core().read_model("examples/shapes.onnx")
explainer = xai.Explainer(model, task=xai.Task.CLASSIFICATION, preprocess_fn=prepared)
explanation = explainer(pixels, targets=[3], overlay=True)
Image.fromarray(explanation.saliency_map[3]).save("seen.png")
