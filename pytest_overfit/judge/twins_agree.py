"""The criterion of twins: the same run, executed otherwise, comes to the same."""

from __future__ import annotations

from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.twin_record import Twins
from pytest_overfit.settings.criterion import Criterion


def judge_twins(record: RunRecord) -> Finding:
    """Do all twins agree that could be asked? What could not be asked is named, and is no pass on its own."""
    allowed = "every twin agrees"
    results, told = record.twins, [twin.text() for twin in record.twins]
    wrong = [twin for twin in results if twin.outcome == "disagreed"]
    if wrong:
        rest = f"; and {len(wrong) - 1} more: {', '.join(twin.name for twin in wrong[1:])}" if wrong[1:] else ""
        hint = "docs/twins.md says what each twin exchanges, and what usually keeps it from agreeing"
        observed = f"{wrong[0].name}: {wrong[0].observed}{rest}"
        return Finding("twins", False, observed, allowed, where=wrong[0].where or None, hint=hint)
    agreed = [twin.name for twin in results if twin.outcome == "agreed"]
    if not agreed:
        why = "; ".join(told) if told else f"the run was stopped by {record.stop}"
        return Finding("twins", False, why, allowed, judged=False)
    asked = [line for twin, line in zip(results, told, strict=True) if twin.outcome == "not asked"]
    observed = f"{len(agreed)} agree: {', '.join(agreed)}"
    return Finding("twins", True, "; ".join([observed, *asked]), allowed)


TWINS_AGREE = Criterion(
    "twins",
    "the same run, executed otherwise, comes to the same: resumed, accumulated, in bfloat16, compiled, ...",
    Twins(),
    judge=lambda record, setting, criteria: judge_twins(record),
    on=False,
    on_in_config=False,
)
