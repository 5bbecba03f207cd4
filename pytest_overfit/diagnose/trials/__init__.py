"""The run again, from the same start, with one thing changed."""
