"""Tests that need the training build of ONNX Runtime; `.ci/run` runs them in an environment of their own."""
