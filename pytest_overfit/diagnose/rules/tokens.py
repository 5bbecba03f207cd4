"""The labels of sequences of tokens: which place of a sequence they stand at, and which of them count."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence


def padding_counts(evidence: Evidence) -> Iterator[Cause]:
    """The loss reads labels where the attention mask says that there is no token."""
    seen = evidence.record.supervision
    if seen is not None and seen.padding:
        yield Cause(
            "target-mismatch",
            "labels",
            f"{seen.padding} labels stand where attention_mask is 0, and the loss counts them: padding is learnt too",
            "set the labels of padding to -100, which the loss leaves out",
            "shown",
            {"labels": seen.padding},
            certain=True,
            weight=0.93,
        )


def wrong_place(evidence: Evidence) -> Iterator[Cause]:
    """A decoder that has learnt to predict its own token, or the one after the next."""
    said = evidence.record.generated
    if said is None or len(said.ahead) < 3 or said.ahead[1] > 0.5 or not evidence.learned:
        return
    itself, _, later = said.ahead
    if max(itself, later) < 0.9:
        return
    observed, advice = (
        ("predicts the token after the next", "shift once: the models of transformers shift labels in their loss")
        if later > itself
        else ("predicts the very token that it reads", "shift the labels: position t has to predict token t + 1")
    )
    yield Cause(
        "target-mismatch",
        "labels",
        f"at {max(itself, later):.0%} of the places the trained decoder {observed}, at {said.ahead[1]:.0%} the next "
        "one",
        advice,
        "shown",
        {"itself": itself, "next": said.ahead[1], "after_next": later},
        certain=True,
        weight=0.96,
    )


RULES = (padding_counts, wrong_place)
