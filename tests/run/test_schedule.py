"""Schedules by fvcore's names, with and without fvcore."""

from __future__ import annotations

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.run.schedule import build_schedule

FVCORE = "fvcore.common.param_scheduler."


def test_warm_up_then_cosine() -> None:
    """The guide's composite: linear up over 5 %, cosine down over the rest."""
    schedule = build_schedule(
        {
            "_target_": f"{FVCORE}CompositeParamScheduler",
            "schedulers": [
                {"_target_": f"{FVCORE}LinearParamScheduler", "start_value": 0.0, "end_value": 1.0},
                {"_target_": f"{FVCORE}CosineParamScheduler", "start_value": 1.0, "end_value": 0.0},
            ],
            "lengths": [0.05, 0.95],
            "interval_scaling": ["rescaled", "rescaled"],
        },
        where="optim.options.lr[0].scheduler",
    )
    assert schedule(0.0) == 0.0
    assert schedule(0.025) == pytest.approx(0.5)
    assert schedule(0.05) == pytest.approx(1.0)
    assert schedule(0.525) == pytest.approx(0.5)
    assert schedule(1.0) == pytest.approx(0.0)


def test_fixed_scaling_sees_the_progress_of_the_run() -> None:
    """A fixed part is read at the run's own progress."""
    line = {"_target_": f"{FVCORE}LinearParamScheduler", "start_value": 0.0, "end_value": 1.0}
    schedule = build_schedule(
        {
            "_target_": f"{FVCORE}CompositeParamScheduler",
            "schedulers": [line, line],
            "lengths": [0.5, 0.5],
            "interval_scaling": ["fixed", "rescaled"],
        },
        where="here",
    )
    assert schedule(0.4) == pytest.approx(0.4)
    assert schedule(0.6) == pytest.approx(0.2)


def test_multi_step_changes_at_its_milestones() -> None:
    """Milestones are interval ends out of num_updates."""
    node = {
        "_target_": f"{FVCORE}MultiStepParamScheduler", "values": [1.0, 0.1, 0.01], "num_updates": 10,
        "milestones": [4, 8],
    }  # fmt: skip
    schedule = build_schedule(node, where="here")
    assert [schedule(x) for x in (0.0, 0.39, 0.4, 0.79, 0.8, 1.0)] == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"_target_": f"{FVCORE}NoSuchScheduler"}, "has no 'NoSuchScheduler'"),
        ({"_target_": f"{FVCORE}ConstantParamScheduler", "valeu": 1.0}, "cannot be built"),
        ({"_target_": f"{FVCORE}ConstantParamScheduler", "value": -1.0}, "-1.0 at progress 0.0"),
        ({"_target_": f"{FVCORE}CompositeParamScheduler", "schedulers": [], "lengths": []}, "0 schedulers"),
    ],
)
def test_a_wrong_schedule_is_a_config_error_that_names_its_key(node: dict[str, object], says: str) -> None:
    """What was found and where; never a bare Hydra exception."""
    with pytest.raises(ConfigError, match=r"optim\.options\.lr") as caught:
        build_schedule(node, where="optim.options.lr[0].scheduler")
    assert says in str(caught.value)


def test_a_schedule_that_refuses_the_end_itself_is_built() -> None:
    """Some of fvcore's do: a trainer asks for the progress before a step, which is never 1."""
    assert build_schedule({"_target_": f"{__name__}.OpenEnd"}, where="optim")(0.5) == 0.5


class OpenEnd:
    def __call__(self, where: float) -> float:
        if where >= 1:
            raise RuntimeError("where must be in [0, 1)")
        return where
