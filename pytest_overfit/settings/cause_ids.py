"""The ids that a diagnosis may name: stable, so that people filter and suppress by them."""

from __future__ import annotations

from collections.abc import Mapping

# The stable ids of docs/causes.md, group by group.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "optimizer and update": (
        "optimizer-coverage", "no-update", "no-step", "lr-high", "lr-low", "lr-schedule", "lr-group", "weight-decay",
        "grad-accumulation", "step-order", "optimizer-hyperparameter", "grad-clip", "optimizer-state",
        "weights-reset",
    ),
    "graph": ("no-gradient", "zero-gradient", "loss-detached", "frozen", "unregistered", "unused"),
    "loss": (
        "loss-sign", "double-activation", "broadcast", "vacuous", "term-missing", "term-weight", "term-stuck",
        "loss-ignores-output", "loss-clamped", "loss-scale", "loss-floor", "target-mismatch",
    ),
    "data": (
        "batch-changes", "target-scale", "input-scale", "degenerate-batch", "nonfinite-data", "label-conflict",
    ),
    "numerics": ("nonfinite-loss", "nonfinite-gradient", "nonfinite-output", "precision", "gradient-explosion"),
    "architecture": (
        "dead-units", "symmetry", "saturation", "capacity", "output-range", "output-scale", "constant-output",
        "input-ignored", "batch-mixing", "stochastic", "mode-gap", "leak",
    ),
    "loop": ("wrong-backward", "wrong-model"),
    "two-view": ("scale", "units", "camera-convention", "misalignment", "sky", "confidence-runaway"),
}  # fmt: skip
IDS: tuple[str, ...] = tuple(cause for ids in GROUPS.values() for cause in ids)
