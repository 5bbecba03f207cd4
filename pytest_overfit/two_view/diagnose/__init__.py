"""What is asked of a two-view run, and what follows from the answers."""
