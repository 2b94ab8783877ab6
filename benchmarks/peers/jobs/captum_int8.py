import numpy as np
import onnx
import torch
from captum.attr import IntegratedGradients
from onnx2torch import convert
from PIL import Image

models = [convert(onnx.load(name)).eval() for name in ("examples/shapes.onnx", "int8.onnx")]
correlations = []
for i, name in enumerate(("circle", "square", "triangle", "star", "cross", "ring")):
    pixels = np.array(Image.open(f"examples/images/{name}.png").resize((64, 64)))
    x = torch.tensor((pixels / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float()
    both = [IntegratedGradients(model).attribute(x, target=i).detach().numpy().ravel() for model in models]
    correlations.append(np.corrcoef(*both)[0, 1])
print(correlations)
