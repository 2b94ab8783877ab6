"""The same jobs beside other libraries: `python -m benchmarks.peers`."""
