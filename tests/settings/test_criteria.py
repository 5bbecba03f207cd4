"""The criteria of a run: which are on, and their limits."""

from __future__ import annotations

from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.settings.criteria import Criteria, Limit


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
