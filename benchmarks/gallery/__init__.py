"""Realistic mistakes over healthy models, each with the causes that count as a right answer."""
