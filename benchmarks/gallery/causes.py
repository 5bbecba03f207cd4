"""The ids of the causes, group by group."""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "optimizer": (
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

IDS: tuple[str, ...] = tuple(cause for group in GROUPS.values() for cause in group)


def group_of(cause: str) -> str:
    """The group of an id, which is the category of a bug whose best answer it is."""
    return next(name for name, ids in GROUPS.items() if cause in ids)
