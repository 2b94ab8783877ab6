"""What the commands do, reachable from Python: many samples in, files out, in bounded memory."""
