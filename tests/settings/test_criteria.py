"""The criteria of a run: which are on, and their limits."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.settings.call_settings import settings_of_call
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.settings import Budget


def test_names_of_criteria() -> None:
    """The criteria that are on are listed in the order of the report, terms after the headline limits."""
    criteria = Criteria(
        in_config=True, camera=None, finite=False, terms={"loss_T": Limit(0.001)}, train_val=TrainVal(), monotonic=None
    )
    assert criteria.names() == (
        "supervised", "constant_batch", "gradients", "objective", "depth", "loss_T", "train_val", "prediction",
        "defects",
    )  # fmt: skip
    assert Criteria(in_config=True, defects=False).names() == Criteria(in_config=True).names()[:-1]


def test_limits() -> None:
    """The limits that are on come by criterion name: objective, camera, depth, then the terms."""
    criteria = Criteria(in_config=True, camera=None, terms={"loss_T": Limit(0.002), "a": Limit(-1.5)}, depth=Limit(0.5))
    below = [(name, limit.below) for name, limit in criteria.limits().items()]
    assert below == [("objective", 0.01), ("depth", 0.5), ("loss_T", 0.002), ("a", -1.5)]
    assert Criteria(in_config=True, objective=None, camera=None, depth=None).limits() == {}


def test_a_limit_of_a_record_may_be_a_number() -> None:
    """As in every other form; what is no limit is refused, and never left unjudged."""
    given: Any = {"aux": 1, "acc": {"above": 0.9}, "off": False}
    criteria = Criteria(objective=0.5, terms=given)
    assert criteria.limits() == {"objective": Limit(0.5), "aux": Limit(1.0), "acc": Limit(above=0.9)}
    wrong: Any
    for wrong in ("0.5", True):
        with pytest.raises(TypeError, match=r"aux: .* is no limit"):
            Criteria(terms={"aux": wrong})


@pytest.mark.parametrize(
    ("criteria", "budget", "keywords"),
    [
        (Criteria(objective=0.05), None, {"accuracy": {"above": 0.99}}),
        (Criteria(objective=0.05), None, {"stochastic": True}),
        (None, Budget(max_seconds=60), {"max_steps": 20}),
    ],
)
def test_a_keyword_beside_a_record_of_its_section_is_refused(
    criteria: Criteria | None, budget: Budget | None, keywords: dict[str, object]
) -> None:
    """The record would silently stand in its place."""
    with pytest.raises(ConfigError, match=f"{next(iter(keywords))} beside a"):
        settings_of_call(criteria, budget, keywords)
    assert settings_of_call(criteria, budget, {"seeds": [1]}).seeds == (1,)
