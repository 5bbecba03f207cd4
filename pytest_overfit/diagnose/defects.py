"""The criterion that no loss can meet: a mistake that a probe has found, whatever the run has reached."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.errors.asking import REPORT, NotAsked
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.globs import as_list, is_allowed, places_of
from pytest_overfit.settings.cause_ids import GROUPS
from pytest_overfit.settings.criterion import Criterion

ALLOWED = "no mistake that is certain"
DEFECTS = Criterion("defects", "no probe finds a mistake that is certain, whatever the loss has reached")

# What other criteria already fail a run for: told there, and not twice.
COVERED: Mapping[str, tuple[str, ...]] = {
    "gradients": (*GROUPS["graph"], *GROUPS["optimizer and update"]),
    "finite": (*GROUPS["numerics"], "nonfinite-data"),
    "constant_batch": ("batch-changes",),
    "supervised": ("vacuous", "loss-ignores-output", "loss-scale", "degenerate-batch", "leak"),
}


def judge_defects(
    causes: Sequence[Cause],
    *,
    allow: Sequence[str] = (),
    missed: Sequence[str] = (),
    unlooked: str = "",
    not_asked: Sequence[NotAsked] = (),
    doubtful: bool = False,
) -> Finding:
    """No probe found a mistake that is certain.

    Args:
        causes: what the run is diagnosed with.
        missed: the other criteria that are missed: what they are missed for is not told twice.
        allow: ids that are declared to be meant, ``id:glob`` at some places.
        unlooked: why nothing was probed, or not everything; then nothing that was found is no pass.
        not_asked: the questions that have no answer. After a mistake of ours nothing found is no pass either.
        doubtful: the causes were read from evidence that a mistake of ours left holes in: none of them is certain.
    """
    told = {id for criterion in missed for id in COVERED.get(criterion, ())}
    meant = [cause for cause in causes if is_allowed(cause.id, cause.where, allow)]
    certain = [cause for cause in causes if cause.certain and cause not in meant and cause.id not in told]
    if certain and not doubtful:
        first = certain[0]
        more = f"; and {', '.join(cause.id for cause in certain[1:])}" if len(certain) > 1 else ""
        return Finding(
            "defects", False, f"{first.id}: {first.observed}{more}", ALLOWED, where=first.where,
            hint=f"{first.advice}; if it is meant, declare it: allow={_declaration(first)}",
        )  # fmt: skip
    if unlooked:
        return Finding("defects", False, f"not asked: {unlooked}", ALLOWED, judged=False)
    if broken := [each for each in not_asked if each.ours]:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        observed = f"not asked: {broken[0].question}{more}: {broken[0].why}; {REPORT}"
        return Finding("defects", False, observed, ALLOWED, judged=False)
    declared = f"; declared: {', '.join(allow)} allowed" if allow else ""
    beside = f" beside what {' and '.join(c for c in missed if c in COVERED)} found" if told else ""
    open_ = f"; {len(not_asked)} question{'' if len(not_asked) == 1 else 's'} not asked" if not_asked else ""
    return Finding("defects", True, f"none found{beside}{declared}{open_}", ALLOWED)


def _declaration(cause: Cause) -> str:
    """The narrowest declaration that covers a cause: at its place where that has one name."""
    places = places_of(cause.where)
    named = len(places) == 1 and re.fullmatch(r"[\w.]+", places[0].split(" ")[-1]) is not None
    return as_list([f"{cause.id}:{places[0].split(' ')[-1]}" if named else cause.id])
