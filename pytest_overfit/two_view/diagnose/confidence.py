"""A confidence that takes the objective down in place of the depth: what the loss pays for it, and what that bought."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.two_view.diagnose.views import SURE, percent, plain_number

HALF = 0.5


@dataclass(frozen=True)
class ConfidencePrice:
    """What a loss pays for the confidence `name` of a depth that is as wrong as that which was trained.

    A sound loss pays for doubt where the depth is right, and for certainty where it is wrong: between them lies a best
    confidence, which follows the error. `way` is where there is none: `larger` or `smaller` is cheaper however wrong
    or right the depth is, `apart` if only the confidences of pixels beside each other count. `start` and `end` are the
    objective of the run; `without` that of its end with the confidence of its start; `error` the median relative error
    of the depth.
    """

    name: str
    way: str
    start: float
    end: float
    without: float
    error: float

    @property
    def bought(self) -> bool:
        """At least half of what the objective fell by is of the confidence alone."""
        return self.without - self.end >= HALF * (self.start - self.end) > 0


WAYS = {
    "larger": "the larger it is the lower the objective, however wrong depth is",
    "smaller": "the smaller it is the lower the objective, however right depth is",
    "apart": "only its ratio from pixel to pixel counts, which moves to where depth is right",
}
ADVICE = (
    "multiply the error by the confidence and pay for doubt, with a gradient for both: (c * error - a * log c).mean(), "
    "or bound the confidence in the loss"
)


def confidence_pays(evidence: Evidence) -> Iterator[Cause]:
    """The objective came down by a confidence that the loss rewards whatever the depth is.

    Certain where that alone met the limit, or made half of the fall of a run that failed.
    """
    for price in evidence.fact(ConfidencePrices) or ():
        limit = evidence.limit_of_objective()
        met = limit is not None and price.end < limit <= price.without
        if evidence.learned and not met:
            continue
        certain = met or price.bought
        swallowed = (
            f"the objective is {plain_number(price.end)}, and {plain_number(price.without)} with the confidence "
        )
        yield Cause(
            "confidence-runaway", f"output {price.name}",
            f"{swallowed}of the start, while depth is off by {percent(price.error)}: {WAYS[price.way]}",
            ADVICE,
            evidence={"objective": price.end, "with the confidence of the start": price.without, "error": price.error},
            certain=certain, weight=SURE if certain else 0.8,
        )  # fmt: skip


class ConfidencePrices(tuple[ConfidencePrice, ...]):
    """Those of all confidences of which a loss pays for one end alone."""

    __slots__ = ()


def wrong_way(scaled: Mapping[str, tuple[float, ...]], noise: float) -> str:
    """Which way a loss pays without end, "" where it pays for none.

    Args:
        scaled: objectives under a confidence as it was, and ten times as large at each place: `larger` of a depth that
            is grossly wrong. `smaller`: a tenth at each place, of a depth that is nearly right. `worse` and `better`:
            the same of a depth that is ten times as wrong.
        noise: a difference that is none.
    """
    for way, beside in (("larger", "worse"), ("smaller", "better")):
        values, others = scaled[way], scaled[beside]
        if any(math.isnan(value) for value in (*values, *others)):
            continue
        falls = [a - b for a, b in itertools.pairwise(values)]
        sensible = [other - value for value, other in zip(values, others, strict=True)]
        worthless = sensible[-1] <= 0.01 * sensible[0]
        endless = falls[-1] >= HALF * falls[0] > noise
        if min(falls) >= -noise and max(falls) > noise and (worthless or endless):
            return way
    known = not any(math.isnan(value) for values in scaled.values() for value in values)
    return "apart" if known and all(max(values) - min(values) <= noise for values in scaled.values()) else ""
