"""What a run may do and must reach: its records, the ladder that they come from, and the table of every setting."""
