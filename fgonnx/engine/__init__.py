"""Graphs in, graphs out: from a model to one that explains itself. Knows no picture, no terminal and no batch."""
