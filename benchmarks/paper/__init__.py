"""The experiments of the FullGrad paper on ONNX files: `python -m benchmarks.paper` writes docs/paper.md."""
