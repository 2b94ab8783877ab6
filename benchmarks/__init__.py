"""Measurements: each module is run as `python -m benchmarks.NAME` in the root of the repository."""
