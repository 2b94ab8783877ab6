"""An exported model repository in Triton Inference Server: `python -m benchmarks.triton`."""
