"""The criterion of a language model: it gives the memorised sequences back."""

from __future__ import annotations

from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criterion import Criterion


def judge_generates(record: RunRecord) -> Finding:
    """Does the trained model give the memorised sequences back, token by token, from their first ones?"""
    found, allowed = record.generated, "every token of the memorised sequences"
    if found is None or not found.total:
        return Finding("generates", False, "nothing was generated", allowed, where=f"run stopped by {record.stop}")
    allowed = f"{allowed}, greedily from the first {'one' if found.prompt == 1 else found.prompt}"
    observed = f"{found.right} of {found.total} tokens right"
    if found.right == found.total:
        return Finding("generates", True, observed, allowed)
    return Finding(
        "generates",
        False,
        observed,
        allowed,
        where=found.first_wrong or None,
        hint="a small loss beside this means that training and generation see different sequences: labels shifted "
        "twice, another start token, a wrong padding or attention mask, or an answer that leaks into the input",
    )


GENERATES = Criterion(
    "generates",
    "a language model of transformers gives the memorised sequences back, greedily from their first token",
    judge=lambda record, setting, criteria: judge_generates(record),
    on=False,
    on_in_config=False,
    learning=True,
)
