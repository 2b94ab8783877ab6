import numpy as np
import onnx
import torch
from onnx2torch import convert
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image

model = convert(onnx.load("scene/detector.onnx")).eval()
pixels = np.array(Image.open("scene/scene.png")) / 255
x = torch.tensor((pixels - 0.5) / 0.25).permute(2, 0, 1)[None].float()


def best(output):
    return output[..., 4:].max()


with GradCAM(model=model, target_layers=[getattr(model, "last/relu/Relu")]) as cam:
    map_ = cam(input_tensor=x, targets=[best])[0]
Image.fromarray(show_cam_on_image(pixels.astype(np.float32), map_, use_rgb=True)).save("seen.png")
