import numpy as np
import openvino as ov
import openvino_xai as xai
from openvino_xai.explainer.explanation import Explanation
from openvino_xai.methods.black_box.base import BlackBoxXAIMethod
from openvino_xai.explainer.visualizer import Visualizer
from PIL import Image


class HideSquares(BlackBoxXAIMethod):
    """How much the score drops when a square of the picture is grey."""

    def generate_saliency_map(self, data, target, side=8):
        x = self.preprocess_fn(data)
        whole = self.get_logits(x)[0, target]
        found = np.zeros(x.shape[2:], np.float32)
        for top in range(0, x.shape[2], side):
            for left in range(0, x.shape[3], side):
                hidden = x.copy()
                hidden[..., top : top + side, left : left + side] = 0
                found[top : top + side, left : left + side] = whole - self.get_logits(hidden)[0, target]
        return {target: found}


def prepared(x):
    return ((x / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)


pixels = np.array(Image.open("examples/images/star.png").resize((64, 64)))
method = HideSquares(ov.Core().read_model("examples/shapes.onnx"), lambda output: output[0], prepared)
method.prepare_model()
explanation = Explanation(method.generate_saliency_map(pixels, 3), targets=[3], task=xai.Task.CLASSIFICATION)
explanation = Visualizer()(explanation, pixels, overlay=True, scaling=True)
Image.fromarray(explanation.saliency_map[3]).save("seen.png")
