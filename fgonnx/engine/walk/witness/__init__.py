"""Cotangents by ONNX Runtime's gradient builder: a second, independent source of them."""
