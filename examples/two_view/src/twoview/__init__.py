"""Depth and cameras of two photographs."""

from twoview.model import PairNet

__all__ = ["PairNet"]
