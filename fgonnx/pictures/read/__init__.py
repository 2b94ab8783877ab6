"""Reading pictures and recordings, and the preprocessing that a model expects."""
