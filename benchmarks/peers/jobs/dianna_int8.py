import dianna
import numpy as np
from PIL import Image


def prepared(x):
    return ((x / 255 - 0.5) / 0.25).astype(np.float32)


correlations = []
for name in ("circle", "cross", "ring", "square", "star", "triangle"):
    pixels = np.array(Image.open(f"examples/images/{name}.png").resize((64, 64))).transpose(2, 0, 1)
    both = []
    for model in ("examples/shapes.onnx", "int8.onnx"):
        np.random.seed(0)  # the same masks
        maps = dianna.explain_image(
            model, pixels, "RISE", labels=[3], preprocess_function=prepared, axis_labels={0: "channels"}
        )
        both.append(maps[0].ravel())
    correlations.append(np.corrcoef(*both)[0, 1])
assert min(correlations) > 0.9
