import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from train_shapes import ShapeNet


class PositiveCAM(BaseCAM):
    """Grad-CAM with the weights of positive gradients alone."""

    def get_cam_weights(self, input_tensor, target_layer, target_category, activations, grads):
        return np.maximum(grads, 0).mean(axis=(2, 3))


weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in onnx.load("examples/shapes.onnx").graph.initializer}
model = ShapeNet().eval()
model.load_state_dict(weights, strict=False)
pixels = np.array(Image.open("examples/images/star.png").resize((64, 64))) / 255
x = torch.tensor((pixels - 0.5) / 0.25).permute(2, 0, 1)[None].float()
with PositiveCAM(model=model, target_layers=[model.last]) as cam:
    map_ = cam(input_tensor=x, targets=None)[0]
Image.fromarray(show_cam_on_image(pixels.astype(np.float32), map_, use_rgb=True)).save("seen.png")
