import numpy as np
import onnx
import torch
from captum.attr import IntegratedGradients, visualization
from onnx import numpy_helper
from PIL import Image
from train_shapes import ShapeNet

weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in onnx.load("examples/shapes.onnx").graph.initializer}
model = ShapeNet().eval()
model.load_state_dict(weights, strict=False)
pixels = np.array(Image.open("examples/images/star.png").resize((64, 64)))
x = torch.tensor((pixels / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float()
target = int(model(x).argmax())
attribution, delta = IntegratedGradients(model).attribute(x, target=target, return_convergence_delta=True)
values = attribution[0].permute(1, 2, 0).detach().numpy()
figure, _ = visualization.visualize_image_attr(values, pixels, method="blended_heat_map", sign="all", use_pyplot=False)
figure.savefig("seen.png")
