import fgonnx

fgonnx.explain("sound/tones.onnx", "sound/tones.wav", "high").save("seen")
