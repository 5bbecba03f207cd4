"""A small net over two views, importable from the root of this repository."""

from pairnet.model import PairNet

__all__ = ["PairNet"]
