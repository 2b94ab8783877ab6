import numpy as np
import openvino as ov
import openvino_xai as xai
from openvino_xai.explainer import ExplainMode
from PIL import Image

pixels = np.array(Image.open("scene/scene.png"))


def prepared(x):
    return ((x / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)


def detected(output):
    rows = output[0][0]
    x, y, w, h = rows[:, :4].T
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    best = rows[:, 4:].max(axis=1).argsort()[::-1][:1]
    return boxes[best][None], rows[best, 4:].max(axis=1)[None], rows[best, 4:].argmax(axis=1)[None]


explainer = xai.Explainer(
    ov.Core().read_model("scene/detector.onnx"),
    task=xai.Task.DETECTION,
    preprocess_fn=prepared,
    postprocess_fn=detected,
    explain_mode=ExplainMode.BLACKBOX,
)
explanation = explainer(pixels, targets=[0], overlay=True)
Image.fromarray(next(iter(explanation.saliency_map.values()))).save("seen.png")
