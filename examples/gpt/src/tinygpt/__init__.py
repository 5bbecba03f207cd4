"""A decoder over characters."""

from tinygpt.model import GPT, Settings
from tinygpt.optim import configure_optimizer
from tinygpt.text import decode, encode

__all__ = ["GPT", "Settings", "configure_optimizer", "decode", "encode"]
