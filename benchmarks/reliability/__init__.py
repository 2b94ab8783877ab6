"""Hostile files, odd options, kills and long use, and what becomes of each: `python -m benchmarks.reliability`."""
