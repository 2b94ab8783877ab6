import numpy as np
import onnx
import torch
from captum.attr import IntegratedGradients, visualization
from onnx2torch import convert
from PIL import Image

model = convert(onnx.load("scene/detector.onnx")).eval()
pixels = np.array(Image.open("scene/scene.png"))
x = torch.tensor((pixels / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float()
window, label = np.unravel_index(int(model(x)[0, :, 4:].argmax()), model(x)[0, :, 4:].shape)


def score(batch):
    return torch.stack([model(row[None])[0, window, 4 + label] for row in batch])


attribution = IntegratedGradients(score).attribute(x, internal_batch_size=1)
values = attribution[0].permute(1, 2, 0).detach().numpy()
figure, _ = visualization.visualize_image_attr(values, pixels, method="blended_heat_map", sign="all", use_pyplot=False)
figure.savefig("seen.png")
