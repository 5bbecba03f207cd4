"""Characters to tokens and back."""

from __future__ import annotations

import string

import torch
from torch import Tensor

ALPHABET = string.ascii_lowercase + " .,'\n"


def encode(text: str) -> Tensor:
    """Tokens (1, T) of a text of T characters."""
    return torch.tensor([[ALPHABET.index(character) for character in text]])


def decode(tokens: Tensor) -> str:
    """The text of tokens (1, T)."""
    return "".join(ALPHABET[token] for token in tokens[0].tolist())
