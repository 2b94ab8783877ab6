"""Remove and retrain, in an environment with the training build: `python -m benchmarks.roar`."""
