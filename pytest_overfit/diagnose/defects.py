"""The criterion that no loss can meet: a mistake that a probe has found, whatever the run has reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_overfit.diagnose.cause import GROUPS, Cause
from pytest_overfit.judge.finding import Finding

ALLOWED = "no mistake that is certain"


# What other criteria already fail a run for: told there, and not twice.
COVERED: Mapping[str, tuple[str, ...]] = {
    "gradients": (*GROUPS["graph"], *GROUPS["optimizer and update"]),
    "finite": (*GROUPS["numerics"], "nonfinite-data"),
    "constant_batch": ("batch-changes",),
    "supervised": ("vacuous", "loss-ignores-output", "loss-scale", "degenerate-batch"),
}


def not_probed() -> Finding:
    """The finding of a run that no probe can look into: what FSDP2 shards, no rank can run alone."""
    return Finding(
        "defects",
        False,
        "not probed: the model is sharded over ranks (strategy fsdp)",
        ALLOWED,
        hint="run it once with strategy ddp, or in one process, where it fits; here switch it off: defects=False",
    )


def judge_defects(
    causes: Sequence[Cause], *, allow: Sequence[str] = (), missed: Sequence[str] = (), looked: bool = True
) -> Finding:
    """No probe found a mistake that is certain.

    Args:
        causes: what the run is diagnosed with.
        missed: the other criteria that are missed: what they are missed for is not told twice.
        allow: ids that are declared to be meant.
        looked: False where nothing was probed, which is no pass.
    """
    if not looked:
        return Finding(
            "defects",
            False,
            "nothing was probed",
            ALLOWED,
            hint="leave diagnose on, or switch the criterion off: defects=False",
        )
    told = {id for criterion in missed for id in COVERED.get(criterion, ())}
    certain = [cause for cause in causes if cause.certain and cause.id not in allow and cause.id not in told]
    if certain:
        first = certain[0]
        more = f"; and {', '.join(cause.id for cause in certain[1:])}" if len(certain) > 1 else ""
        return Finding(
            "defects", False, f"{first.id}: {first.observed}{more}", ALLOWED, where=first.where,
            hint=f"{first.advice}; if it is meant, declare it: allow=[{first.id!r}]",
        )  # fmt: skip
    declared = f"; declared: {', '.join(allow)} allowed" if allow else ""
    beside = f" beside what {' and '.join(c for c in missed if c in COVERED)} found" if told else ""
    return Finding("defects", True, f"none found{beside}{declared}", ALLOWED)
