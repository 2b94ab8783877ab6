"""Writing, probing and running graphs."""
