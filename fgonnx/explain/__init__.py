"""Arrays in, explanations out."""
