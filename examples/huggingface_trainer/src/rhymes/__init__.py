"""Lines of rhymes, and a decoder that learns them."""

from rhymes.data import collate, lines
from rhymes.training import build_model, build_trainer

__all__ = ["build_model", "build_trainer", "collate", "lines"]
