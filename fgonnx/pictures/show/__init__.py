"""What goes out: pictures of maps, plots over time, and comparisons, on one kind of paper."""
