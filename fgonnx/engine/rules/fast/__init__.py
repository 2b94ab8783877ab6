"""Fast forms: vector-Jacobian products in the operators that run fast on ONNX Runtime; docs/forms.md says why each."""
