"""The criterion of one constant sample: the same bytes at every draw and at every step."""

from __future__ import annotations

from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import BatchRecord, RunRecord
from pytest_overfit.settings.criterion import Criterion, never


def judge_constant_batch(record: RunRecord, *, may_differ: bool = False) -> Finding:
    """Did the loader hand out one sample, and is it byte-identical at the end?

    Args:
        may_differ: two draws are declared to be different ones; one of them is trained on all the same.
    """
    allowed = "one sample, the same bytes at every step"
    batch = record.batch
    if batch is None:
        return Finding("constant_batch", False, "the batch was not fingerprinted", allowed)
    if batch.randomness:
        return Finding(
            "constant_batch",
            False,
            "; ".join(batch.randomness),
            allowed,
            where="config",
            hint="switch it off: one sample means the same pixels at every step",
        )
    if batch.redraw_differences and not may_differ:
        return Finding(
            "constant_batch",
            False,
            "two draws differ: " + "; ".join(batch.redraw_differences),
            allowed,
            where="the loader",
            hint="switch off augmentation, shuffling and random sampling for this test, or pass one batch of it",
        )
    if changed := _changed(batch):
        observed, where = changed
        hint = "the model, the loss or the step writes into its batch: look for in-place operations"
        return Finding("constant_batch", False, observed, allowed, where=where, hint=hint)
    drawn = f", drawn {batch.draws} times" if batch.draws > 1 else ""
    declared = "; two draws differ, declared stochastic" if batch.redraw_differences else ""
    return Finding("constant_batch", True, f"sha256 {batch.fingerprint_start[:12]}{drawn}{declared}", allowed)


def _changed(batch: BatchRecord) -> tuple[str, str] | None:
    """(observed, where) of a batch that was another one during the run; None where it never was."""
    if batch.fingerprint_start != batch.fingerprint_end:
        where = f"{batch.fingerprint_start[:12]} became {batch.fingerprint_end[:12]}"
        return "the batch was changed during the run", where
    if batch.changed_at is not None:
        return (
            "the batch was changed during the run, and put back before its end",
            f"seen after step {batch.changed_at}",
        )
    if batch.written is not None:
        return f"{batch.written} is changed within a step, and put back before its end", "every step that was looked at"
    return None


CONSTANT_BATCH = Criterion(
    "constant_batch",
    "two draws of a loader are equal, and the batch of every step is what it was",
    judge=lambda record, setting, criteria: judge_constant_batch(record, may_differ=criteria.stochastic),
    echoes=never,
)
