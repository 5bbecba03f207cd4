"""Gradient clipping by group of modules."""

from __future__ import annotations

from typing import Any

from torch import nn


class GroupClipper:
    """One norm per group; a trainable parameter that is in no group is an error."""

    def __init__(self, configs: Any) -> None:
        self.configs = configs

    def __call__(self, model: nn.Module) -> None:
        left = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for group in self.configs:
            members = [name for name in left if any(part in name for part in group.module_name)]
            nn.utils.clip_grad_norm_([left.pop(name) for name in members], group.max_norm)
        if left:
            raise ValueError(f"in no group: {', '.join(left)}")
