"""What an explanation costs on a GPU: `python -m benchmarks.gpu`."""
