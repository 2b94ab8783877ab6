"""Explanations in Python sessions and notebooks: anything that holds a sample goes in, pictures come out."""
