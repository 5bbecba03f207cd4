"""The ids that a diagnosis may name: stable, so that people filter and suppress by them.

Written by `python -m tests.docs.write_causes`, so that settings need none of the rules.
"""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "optimizer and update": (
        "optimizer-coverage", "no-update", "grad-clip", "no-step", "grad-accumulation", "step-order",
        "optimizer-state", "weights-reset", "not-frozen", "drift", "ema", "not-loaded", "lr-high", "lr-low",
        "few-steps", "lr-group", "weight-decay", "optimizer-hyperparameter", "lr-schedule",
    ),
    "graph": (
        "no-gradient", "loss-detached", "unused", "zero-gradient", "frozen", "unregistered", "tie-lost",
    ),
    "loss": (
        "double-activation", "broadcast", "loss-clamped", "loss-floor", "vacuous", "loss-ignores-output",
        "unsupervised", "target-mismatch", "loss-scale", "loss-sign", "term-missing", "term-stuck", "term-weight",
    ),
    "data": (
        "target-scale", "input-scale", "batch-changes", "degenerate-batch", "nonfinite-data", "label-conflict",
    ),
    "numerics": (
        "nonfinite-loss", "nonfinite-gradient", "nonfinite-output", "precision", "gradient-explosion", "backend",
    ),
    "architecture": (
        "dead-units", "saturation", "output-range", "capacity", "output-scale", "symmetry", "constant-output",
        "input-ignored", "batch-mixing", "stochastic", "mode-gap", "leak",
    ),
    "loop": (
        "wrong-backward", "wrong-model",
    ),
    "two-view": (
        "scale", "units", "camera-convention", "misalignment", "sky", "confidence-runaway",
    ),
}  # fmt: skip
IDS: tuple[str, ...] = tuple(cause for ids in GROUPS.values() for cause in ids)
