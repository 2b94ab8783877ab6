"""Cotangents by ONNX Runtime's gradient builder: a second, independent engine."""
