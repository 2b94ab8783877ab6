"""From a loaded model to one that explains itself: the steps, and the cache of their results."""
