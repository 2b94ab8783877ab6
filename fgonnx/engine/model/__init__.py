"""Loading and saving models: weights, inputs, metadata."""
