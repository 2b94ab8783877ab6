"""Is the explanation right, and do two models agree? Checks, comparisons and measures."""
