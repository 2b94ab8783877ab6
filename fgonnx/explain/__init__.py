"""Explain arrays: targets, batches, results."""
