"""Loading and saving models: weights by reference, inputs, metadata."""
