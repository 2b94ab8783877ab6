"""Forms of a gradient that run fast on ONNX Runtime; docs/forms.md says why each."""
