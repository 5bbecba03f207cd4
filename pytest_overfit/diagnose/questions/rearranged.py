"""How an output was laid out anew on its way into a loss: whether the scores of one label belong to one place."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

VIEWS = frozenset({"ViewBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0"})
MOVES = frozenset({
    "TransposeBackward0", "PermuteBackward0", "TBackward0", "CloneBackward0", "UnsqueezeBackward0", "SqueezeBackward0",
    "SqueezeBackward1", "SliceBackward0", "SelectBackward0", "AliasBackward0",
})  # fmt: skip
AS_IT_IS = frozenset({"ToCopyBackward0", "LogSoftmaxBackward0", "SoftmaxBackward0", "NativeDropoutBackward0"})
LINEAR, CONVOLUTION = frozenset({"AddmmBackward0", "MmBackward0"}), "ConvolutionBackward0"
MOST = 1 << 22  # scores
SEQUENCES = 3  # axes: time, samples, classes


def scrambled(predicted: Tensor) -> str:
    """How the scores (N, C, ...) that a classifier's loss gets were mixed up by a reshape; empty where they were not.

    Every label is told to the scores that it is compared with, and these are followed back through views and
    exchanged axes, as a gradient is, to what the last layer gave. There those of one label are a line, or a box: a
    reshape in the place of a transpose leaves scores of several places.

    Example:
        >>> layer = torch.nn.Linear(8, 5)
        >>> logits = layer(torch.randn(4, 7, 8))
        >>> scrambled(logits.reshape(4, 5, 7)), scrambled(logits.transpose(1, 2))
        ('(4, 7, 5) was reshaped to (4, 5, 7)', '')
    """
    classes = predicted.shape[1] if predicted.dim() > 1 else 0
    if not 1 < classes < predicted.numel() <= MOST or predicted.grad_fn is None:
        return ""
    with torch.no_grad():
        labels, made_by, views = _followed(predicted.grad_fn, _numbered(predicted, but=(1,)))
        if not views or not _mixed(labels, classes, _features(labels, classes, made_by)):
            return ""
    return f"{views[0]} was reshaped to {tuple(predicted.shape)}"


def scrambled_sequences(predicted: Tensor) -> str:
    """How the scores (T, N, C) that a loss of sequences gets were mixed up by a reshape; empty where they were not.

    As with ``scrambled``, those of one place belong together, and besides those of one sample do: they are one row of
    an axis as long as there are samples, where the layer has one.

    Example:
        >>> scores = torch.nn.Linear(8, 5)(torch.randn(4, 7, 8))
        >>> scrambled_sequences(scores.reshape(7, 4, 5)), scrambled_sequences(scores.transpose(0, 1))
        ('(4, 7, 5) was reshaped to (7, 4, 5)', '')
    """
    if predicted.dim() != SEQUENCES or not 1 < predicted.numel() <= MOST or predicted.grad_fn is None:
        return ""
    _, samples, classes = predicted.shape
    with torch.no_grad():
        places, made_by, views = _followed(predicted.grad_fn, _numbered(predicted, but=(2,)))
        rows, *_ = _followed(predicted.grad_fn, _numbered(predicted, but=(0, 2)))
        mixed = views and samples > 1 and _mixed(rows, predicted.numel() // samples, None, samples)
        mixed = mixed or (views and classes > 1 and _mixed(places, classes, _features(places, classes, made_by)))
    return f"{views[0]} was reshaped to {tuple(predicted.shape)}" if mixed else ""


def _numbered(predicted: Tensor, but: tuple[int, ...]) -> Tensor:
    """1, 2, ... along all axes but some, along which it is the same number."""
    sizes = [1 if axis in but else size for axis, size in enumerate(predicted.shape)]
    numbers = torch.arange(1, math.prod(sizes) + 1, dtype=torch.float32, device=predicted.device)
    return numbers.reshape(sizes).expand(predicted.shape)


def _followed(node: Any, labels: Tensor) -> tuple[Tensor, str, list[tuple[int, ...]]]:
    """The label of each score where it was made, what made it, and the shapes that reshapes on the way began with."""
    views, before = list[tuple[int, ...]](), labels
    while (name := node.name()) in VIEWS | MOVES | AS_IT_IS and node.next_functions[0][0] is not None:
        before = labels
        labels = labels if name in AS_IT_IS else node(labels)
        node = node.next_functions[0][0]
        if name in VIEWS and node.name() in LINEAR and before.shape[-1] == labels.shape[-1]:
            return before, node.name(), views  # that one is the layer's own
        views += [tuple(labels.shape)] if name in VIEWS else []
    return labels, node.name(), views


def _features(labels: Tensor, classes: int, made_by: str) -> int | None:
    """The axis that a layer has its features on; None where it is not known."""
    if made_by in LINEAR:
        return labels.dim() - 1
    if made_by == CONVOLUTION:
        return 1
    candidates = [axis for axis in {1, labels.dim() - 1} if labels.shape[axis] == classes]
    return candidates[0] if len(candidates) == 1 else None


def _mixed(labels: Tensor, classes: int, features: int | None, samples: int = 0) -> bool:
    """Whether the scores of one label are no box of what the layer gave, or a part of an axis of its places.

    Args:
        classes: how many scores a label has.
        samples: a label is one of so many samples: the box is one row of an axis of that length, where there is one.
    """
    used = labels.nonzero()
    if len(used) % classes:
        return False
    of = labels[tuple(used.T)].long()
    widths = []
    for axis in range(labels.dim()):
        pairs = torch.unique(torch.stack([of, used[:, axis]]), dim=1)[0]
        widths.append(torch.bincount(pairs)[1:])
    wide = torch.stack(widths)  # axis by label: how many places of it the scores stand on
    wide = wide[:, wide[0] > 0]
    if bool((wide.prod(dim=0) != classes).any()):
        return True
    if samples in labels.shape:
        return not any(size == samples and int(wide[axis].max()) == 1 for axis, size in enumerate(labels.shape))
    along = [axis for axis in range(labels.dim()) if int(wide[axis].max()) > 1]
    return features is not None and len(along) == 1 and along[0] != features and classes < labels.shape[along[0]]
