import fgonnx

fgonnx.explain("scene/detector.onnx", "scene/scene.png").overlay().save("seen.png")
