"""Write, probe and run graphs."""
