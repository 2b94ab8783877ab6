import numpy as np
import onnx
import torch
from onnx2torch import convert
from PIL import Image
from pytorch_grad_cam import GradCAM

models = [convert(onnx.load(name)).eval() for name in ("examples/shapes.onnx", "int8.onnx")]
correlations = []
for name in ("circle", "square", "triangle", "star", "cross", "ring"):
    pixels = np.array(Image.open(f"examples/images/{name}.png").resize((64, 64))) / 255
    x = torch.tensor((pixels - 0.5) / 0.25).permute(2, 0, 1)[None].float()
    both = []
    for model in models:
        with GradCAM(model=model, target_layers=[getattr(model, "last/relu/Relu")]) as cam:
            both.append(cam(input_tensor=x, targets=None)[0].ravel())
    correlations.append(np.corrcoef(*both)[0, 1])
print(correlations)
