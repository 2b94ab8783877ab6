import dianna
import dianna.visualization
import matplotlib
import numpy as np
import onnxruntime
from PIL import Image

matplotlib.use("Agg")
pixels = np.array(Image.open("scene/scene.png")).transpose(2, 0, 1)
session = onnxruntime.InferenceSession("scene/detector.onnx")


def best(batch):
    rows = [((x / 255 - 0.5) / 0.25).astype(np.float32)[None] for x in batch]
    return np.stack([session.run(None, {"image": row})[0][0, :, 4:].max(axis=0) for row in rows])


label = int(best(pixels[None])[0].argmax())
maps = dianna.explain_image(best, pixels, "RISE", labels=[label], axis_labels={0: "channels"})
figure, _ = dianna.visualization.plot_image(maps[0], pixels.transpose(1, 2, 0), show_plot=False)
figure.savefig("seen.png")
