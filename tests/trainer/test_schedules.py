"""Schedules: our own three, fvcore's where a config names them, and any other callable."""

from __future__ import annotations

import sys

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.schedules import Constant, Cosine, Schedule, WarmUpCosine, build_schedule

param_scheduler = pytest.importorskip("fvcore.common.param_scheduler")
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


LINE = {"_target_": f"{FVCORE}LinearParamScheduler", "start_value": 0.0, "end_value": 1.0}


def steps(**given: object) -> dict[str, object]:
    """A section of MultiStepParamScheduler."""
    return {"_target_": f"{FVCORE}MultiStepParamScheduler", "values": [1.0, 0.1], **given}


def composite(**given: object) -> dict[str, object]:
    """A section of CompositeParamScheduler, whole but for what is given."""
    whole = {"schedulers": [LINE, LINE], "lengths": [0.5, 0.5], "interval_scaling": ["rescaled", "rescaled"]}
    return {"_target_": f"{FVCORE}CompositeParamScheduler", **whole, **given}


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"_target_": f"{FVCORE}NoSuchScheduler"}, "has no 'NoSuchScheduler'"),
        ({"_target_": f"{FVCORE}ConstantParamScheduler", "valeu": 1.0}, "cannot be built"),
        ({"_target_": f"{FVCORE}ConstantParamScheduler", "value": -1.0}, "-1.0 at progress 0.0"),
        (composite(schedulers=[], lengths=[], interval_scaling=[]), "at least one scheduler"),
        ({key: part for key, part in composite().items() if key != "interval_scaling"}, "'interval_scaling'"),
        (composite(lengths=[0.5, 0.2]), "lengths"),
        (composite(interval_scaling=["rescaled", "stretched"]), "stretched"),
        (composite(interval_scaling=["rescaled"]), "IndexError at progress 0.5"),
        (steps(), "num_updates and milestones"),
        (steps(num_updates=10, milestones=[10]), "10"),
    ],
)
def test_a_wrong_schedule_is_a_config_error_that_names_its_key(node: dict[str, object], says: str) -> None:
    """What was found and where; never a bare exception, whatever fvcore refuses and when."""
    with pytest.raises(ConfigError, match=r"optim\.options\.lr") as caught:
        build_schedule(node, where="optim.options.lr[0].scheduler")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "values"),
    [
        ("ExponentialParamScheduler", {"start_value": 2.0, "decay": 0.25}, [2.0, 1.0, 0.5]),
        ("PolynomialDecayParamScheduler", {"base_value": 2.0, "power": 2.0}, [2.0, 0.5, 0.0]),
        ("StepParamScheduler", {"num_updates": 9, "values": [1.0, 0.5, 0.25]}, [1.0, 0.5, 0.25]),
        (
            "StepWithFixedGammaParamScheduler",
            {"base_value": 1.0, "num_decays": 2, "gamma": 0.5, "num_updates": 9},
            [1.0, 0.5, 0.25],
        ),
        ("MultiStepParamScheduler", {"num_updates": 7, "values": [1.0, 0.5, 0.25]}, [1.0, 0.5, 0.25]),
        ("MultiStepParamScheduler", {"milestones": [3, 6, 9], "values": [1.0, 0.5, 0.25]}, [1.0, 0.5, 0.25]),
    ],
)
def test_a_schedule_of_every_name(name: str, given: dict[str, object], values: list[float]) -> None:
    """Start, middle and, but for rounding, the end."""
    schedule = build_schedule({"_target_": f"{FVCORE}{name}", **given}, where="optim")
    assert [schedule(at) for at in (0.0, 0.5, 0.99999)] == pytest.approx(values, abs=1e-4)


def test_ours_are_fvcores_number_by_number() -> None:
    """At every step of a run of 600, the first of every interval among them."""
    parts = [
        param_scheduler.LinearParamScheduler(6e-5, 2e-3),
        param_scheduler.CosineParamScheduler(2e-3, 6e-5),
        param_scheduler.ConstantParamScheduler(6e-5),
    ]
    whole = param_scheduler.CompositeParamScheduler(parts, [0.03, 0.47, 0.5], ["rescaled", "rescaled", "fixed"])
    pairs: list[tuple[Schedule, Schedule]] = [
        (WarmUpCosine(2e-3, 6e-5, warm_up=0.03, until=0.5), whole),
        (Cosine(2e-3, 6e-5), parts[1]),
        (Constant(6e-5), parts[2]),
    ]
    run = [step / 600 for step in range(600)]
    for ours, theirs in pairs:
        assert [ours(at) for at in run] == [theirs(at) for at in run]


def test_a_warm_up_that_is_none_is_refused() -> None:
    """It begins at the end value, and the cosine needs some of the run."""
    for warm_up, until in ((0.0, 1.0), (0.5, 0.5), (0.1, 1.5)):
        node = {"_target_": "pytest_overfit.trainer.schedules.WarmUpCosine", "peak_value": 1.0, "end_value": 0.0}
        with pytest.raises(ConfigError, match=r"optim: warm_up .*\n  allowed: 0 < warm_up < until <= 1"):
            build_schedule({**node, "warm_up": warm_up, "until": until}, where="optim")


def test_without_fvcore_its_names_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was named, where, and what installs it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fvcore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        build_schedule(LINE, where="optim.options.lr[0].scheduler")
    assert str(caught.value).splitlines() == [
        f"optim.options.lr[0].scheduler: {FVCORE}LinearParamScheduler, and fvcore is not installed",
        "  allowed: a schedule that can be imported, such as pytest_overfit.trainer.schedules.Cosine",
        "  next: pip install fvcore",
    ]


def test_a_schedule_that_refuses_the_end_itself_is_built() -> None:
    """Some of fvcore's do: a trainer asks for the progress before a step, which is never 1."""
    assert build_schedule({"_target_": f"{__name__}.OpenEnd"}, where="optim")(0.5) == 0.5


class OpenEnd:
    def __call__(self, where: float) -> float:
        if where >= 1:
            raise RuntimeError("where must be in [0, 1)")
        return where
