"""Verbs of `pytest-overfit` that are about the tool itself: a first test, a cause's section, the machine."""
