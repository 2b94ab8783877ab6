"""Where a rewritten file runs: one folder of files, run by every runtime that is installed, in its own environment."""
