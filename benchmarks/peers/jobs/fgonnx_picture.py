import fgonnx

fgonnx.explain("examples/shapes.onnx", "examples/images/star.png").overlay().save("seen.png")
