import numpy as np
import fgonnx


def shifted(sample, step: int = 4):
    """The gradient, averaged over shifts of the picture."""
    shifts = [(y, x) for y in (-step, 0, step) for x in (-step, 0, step)]
    moved = np.concatenate([np.roll(sample.x, shift, (-2, -1)) for shift in shifts])
    back = [np.roll(g, (-y, -x), (-2, -1)) for g, (y, x) in zip(sample.gradients(moved), shifts)]
    return np.mean(back, axis=0)


fgonnx.method("shifted", gradient=True)(shifted)
fgonnx.explain("examples/shapes.onnx", "examples/images/star.png", method="shifted").overlay().save("seen.png")
