import dianna
import dianna.visualization
import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
pixels = np.array(Image.open("examples/images/star.png").resize((64, 64))).transpose(2, 0, 1)


def prepared(x):
    return ((x / 255 - 0.5) / 0.25).astype(np.float32)


maps = dianna.explain_image(
    "examples/shapes.onnx", pixels, "RISE", labels=[3], preprocess_function=prepared, axis_labels={0: "channels"}
)
figure, _ = dianna.visualization.plot_image(maps[0], pixels.transpose(1, 2, 0), show_plot=False)
figure.savefig("seen.png")
