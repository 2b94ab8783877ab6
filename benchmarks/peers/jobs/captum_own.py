import numpy as np
import onnx
import torch
from captum.attr import Saliency, visualization
from captum.attr._utils.attribution import GradientAttribution
from onnx import numpy_helper
from PIL import Image
from train_shapes import ShapeNet


class Shifted(GradientAttribution):
    """The gradient, averaged over shifts of the picture."""

    def attribute(self, inputs, target, step=4):
        shifts = [(y, x) for y in (-step, 0, step) for x in (-step, 0, step)]
        moved = torch.cat([torch.roll(inputs, shift, (-2, -1)) for shift in shifts])
        found = Saliency(self.forward_func).attribute(moved, target=target, abs=False)
        back = [torch.roll(g, (-y, -x), (-2, -1)) for g, (y, x) in zip(found, shifts)]
        return torch.stack(back).mean(dim=0, keepdim=True)


weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in onnx.load("examples/shapes.onnx").graph.initializer}
model = ShapeNet().eval()
model.load_state_dict(weights, strict=False)
pixels = np.array(Image.open("examples/images/star.png").resize((64, 64)))
x = torch.tensor((pixels / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float()
attribution = Shifted(model).attribute(x, int(model(x).argmax()))
values = attribution[0].permute(1, 2, 0).detach().numpy()
figure, _ = visualization.visualize_image_attr(values, pixels, method="blended_heat_map", sign="all", use_pyplot=False)
figure.savefig("seen.png")
