"""What an explanation costs, beside everything else that could be called: `python -m benchmarks.speed`."""
