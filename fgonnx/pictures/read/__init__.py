"""What comes in: pictures, sound, labels, and the preprocessing a model expects."""
