"""python explain.py explained.onnx picture.png map.png: without fgonnx."""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, picture, out = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
height, width = session.get_inputs()[0].shape[2:]
seen = ImageOps.exif_transpose(Image.open(picture))
if seen.mode.startswith("I"):  # 16 bits, which convert("RGB") cuts off at 255
    seen = Image.fromarray(np.rint(np.asarray(seen) / 257).astype(np.uint8))
seen = seen.convert("RGBA")
seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
pixels = np.asarray(seen.resize((width, height), Image.Resampling.BOX), np.float32) / 255
x = ((pixels - 0.5) / 0.25).transpose(2, 0, 1)[None]  # as the model was trained

names = ["saliency", "target", "score", "completeness"]
saliency, target, score, residual = session.run(names, {session.get_inputs()[0].name: x})
print(f"class {target[0]}, score {score[0]:.4f}, residual {residual[0]:.1e}")

level = (saliency[0] - saliency.min()) / (saliency.max() - saliency.min())
Image.fromarray(np.rint(255 * level).astype(np.uint8)).save(out)
