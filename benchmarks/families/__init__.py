"""Families of networks, exported, rewritten and measured: `python -m benchmarks.families`."""
