"""Rewrite a loaded model into one that explains itself, and cache the results."""
