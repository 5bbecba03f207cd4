"""pykan: networks whose edges are splines."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from kan import KAN
from torch import Tensor

from benchmarks.wild.case import Program
from benchmarks.wild.parts import squared_error, uniform


def surface() -> tuple[Tensor, Tensor]:
    """Points of a square, and a smooth function of them."""
    x = 2 * uniform(40, 2) - 1
    return x, torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:].square())


def programs() -> Iterator[Program]:
    """A function of two numbers."""
    yield Program(
        "kan/KAN",
        "kan",
        lambda: KAN(width=[2, 4, 1], grid=3, k=3, seed=0, auto_save=False, symbolic_enabled=False, save_act=False),
        surface,
        squared_error,
        0.02,
        lr=2e-2,
        given={"unused": ["symbolic_fun.*"]},  # the formulas are off
        traits=frozenset(["regression", "tuple", "splines"]),
    )
