"""The work of the commands as a Python API: from many samples to files, in bounded memory."""
