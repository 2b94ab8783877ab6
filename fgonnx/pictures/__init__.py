"""Reading pictures and recordings, and drawing results."""
