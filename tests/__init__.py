"""Tests of fgonnx."""
