"""Lets the Python part of torchvision import beside a PyTorch that its compiled part was not built for.

PyPI's wheel for Linux is linked against CUDA. Beside a CPU build its library cannot be loaded, and the import stops at
operators that are then not known. They are declared here, and not implemented: what calls them fails, and no program
does.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch

MISSING = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@functools.cache
def declare_missing() -> bool:
    """Declares the operators that the import asks for where torchvision is installed and its own cannot be loaded."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        for name, schema in MISSING.items():
            torch.library.define(name, schema)
        return True
    return False
