"""How an output was laid out anew on its way into a loss: whether the scores of one label belong to one place."""

from __future__ import annotations

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
    places = torch.arange(1, predicted.numel() // classes + 1, dtype=torch.float32, device=predicted.device)
    own = places.reshape(predicted.shape[:1] + predicted.shape[2:]).unsqueeze(1).expand(predicted.shape)
    with torch.no_grad():
        labels, made_by, views = _followed(predicted.grad_fn, own)
        if not views or not _mixed(labels, classes, _features(labels, classes, made_by)):
            return ""
    return f"{views[0]} was reshaped to {tuple(predicted.shape)}"


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


def _mixed(labels: Tensor, classes: int, features: int | None) -> bool:
    """Whether the scores of one label are no box of what the layer gave, or a part of an axis of its places."""
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
    along = [axis for axis in range(labels.dim()) if int(wide[axis].max()) > 1]
    return features is not None and len(along) == 1 and along[0] != features and classes < labels.shape[along[0]]
