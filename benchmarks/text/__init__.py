"""`python -m benchmarks.text`: models of text, their maps, certificates and speed."""
