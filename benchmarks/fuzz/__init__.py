"""Random small graphs over every operator that has a rule, and what becomes of each: `python -m benchmarks.fuzz`."""
