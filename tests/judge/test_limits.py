"""The limits and the trend: what meets them, what only seems to."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.limits import held_since, judge_limit
from pytest_overfit.judge.monotonic import Monotonic, climbs_of, judge_monotonic, running_median
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Criteria, Limit
from tests.support.records import falling, record

LIMITS = {"objective": Limit(0.01), "camera": Limit(0.001), "depth": Limit(0.01)}


def limit(run: RunRecord, name: str, below: float = 0.01, limits: dict[str, Limit] = LIMITS) -> Finding:
    return judge_limit(run, name, Limit(below), hold_steps=5, limits=limits)


def test_a_held_limit_passes_with_margin_and_steps() -> None:
    """A term below its limit to the end passes, and the finding says by how much and since when."""
    finding = limit(record(), "objective")
    assert finding.passed
    assert finding.observed == "objective 0.005"
    assert finding.margin == pytest.approx(2.0)
    assert finding.steps_to_pass == 90


def test_a_missed_limit_says_observed_allowed_where_next() -> None:
    """The text of a miss has its three parts."""
    run = record(curves={"objective": falling(4.0, 0.5), "loss_camera": falling(0.5, 0.0408)}, stop="max_steps")
    assert limit(run, "camera", 0.001).text() == (
        "camera: loss_camera 0.0408 (start 0.5, best 0.0408), allowed < 0.001 for 5 steps in a row\n"
        "  where: loss_camera, step 100 of 1000, cpu, seed 0\n"
        "  next: it fell and stopped: look at the learning rate, loss weights, frozen modules "
        "and the data of this sample"
    )


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        (
            [4.0 * 0.98**i for i in range(100)],
            "it falls, and would reach its limit at step 300 to 1800: give it more steps",
        ),
        (
            [4.0 * 0.998**i for i in range(100)],
            "it falls, and would not reach its limit in 20 times as many steps: look at the learning rate",
        ),
        (falling(4.0, 0.02), "close: give it more steps"),
        ([2.0 - 0.04 * i for i in range(5)] + [1.8 - 0.15 * i for i in range(4)], "it still falls at its end"),
        (
            [4.0 * 0.9**i * (1.0 + 0.9 * (-1) ** i) for i in range(53)],
            "it was within its limit at step 38, and not to the end: let the learning rate decay to 0, or lower it",
        ),
        ((4.0,) * 100, "it did not fall: look at the learning rate"),
    ],
)
def test_the_shape_of_a_miss_says_what_to_try(curve: tuple[float, ...], says: str) -> None:
    """Still falling, nearly there, flat."""
    hint = limit(record(curves={"objective": tuple(curve)}, stop="max_steps"), "objective").hint
    assert str(hint).startswith(says)


def test_one_step_above_the_limit_in_the_last_five_fails() -> None:
    """Holding means every one of the last steps."""
    curve = (*falling(4.0, 0.005)[:-3], 0.02, 0.005, 0.005)
    assert not limit(record(curves={"objective": curve}), "objective").passed


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_is_never_below_a_limit(bad: float) -> None:
    """NaN compares as nothing; it must not slip through."""
    assert not limit(record(curves={"objective": (*falling(4.0, 0.005)[:-1], bad)}), "objective").passed


def test_a_term_that_the_loss_does_not_give_lists_the_terms() -> None:
    """A missing term is a failure that names what there is."""
    run = record(curves={"objective": falling(4.0, 0.005), "loss_reg_depth": falling(1.0, 0.001)})
    finding = limit(run, "camera")
    assert not finding.passed
    assert finding.where == "terms of the loss: objective, loss_reg_depth"
    assert "overfit.criteria.camera: false" in str(finding.hint)


@pytest.mark.parametrize(
    ("stop", "says"),
    [("max_seconds", "cut short by max_seconds: 100 of 1000 steps in 2.0 s"), ("interrupted", "interrupted")],
)
def test_a_run_that_was_cut_short_is_no_pass(stop: str, says: str) -> None:
    """Low losses do not save a run that the clock or the user ended."""
    finding = limit(record(stop=stop), "objective")
    assert not finding.passed
    assert says in finding.observed


def test_a_loss_that_is_zero_at_every_step_proves_nothing() -> None:
    """The all-zero dummy batch meets every limit and is red on each."""
    finding = limit(record(curves={"objective": (0.0,) * 50}), "objective")
    assert not finding.passed
    assert finding.observed == "objective is exactly 0 at every step and proves nothing"
    assert not judge_monotonic(
        record(curves={"objective": (0.0,) * 50}), Monotonic(), {"objective": Limit(0.01)}
    ).passed


def test_a_nan_in_the_curve_is_no_fall() -> None:
    """A NaN in the middle is named with its step."""
    curve = (*falling(4.0, 1.0, 30), math.nan, *falling(1.0, 0.001, 30))
    finding = judge_monotonic(record(curves={"objective": curve}), Monotonic(), {"objective": Limit(0.01)})
    assert finding.observed == "objective is nan at step 31"


def test_a_run_without_a_step_says_so() -> None:
    """No curve, no missing term."""
    assert limit(record(curves={}, steps=0), "camera").observed == "no step was made"


def test_a_negative_objective_needs_a_bounded_term_below_its_limit() -> None:
    """Runaway confidence with a wrong camera: the objective is below its limit and is no success."""
    curves = {
        "objective": falling(1.0, -0.0365),
        "loss_camera": falling(0.5, 0.0408),
        "loss_reg_depth": falling(0.8, 0.02),
    }
    finding = limit(record(curves=curves), "objective")
    assert not finding.passed
    assert "is negative and proves nothing alone" in finding.observed
    assert "loss_camera is 0.0408, limit < 0.001" in finding.observed


def test_a_negative_objective_passes_beside_bounded_terms_that_hold() -> None:
    """A confidence term may carry the total below zero once depth and camera are right; the report says so."""
    curves = {**record().curves, "objective": falling(1.0, -0.3)}
    finding = limit(record(curves=curves), "objective")
    assert finding.passed
    assert "negative" in finding.observed


def test_a_negative_objective_alone_is_no_success() -> None:
    """Without a bounded term with a limit a negative total proves nothing."""
    finding = limit(record(curves={"objective": falling(1.0, -5.0)}), "objective", limits={"objective": Limit(0.01)})
    assert not finding.passed
    assert "no bounded term has a limit of its own" in finding.observed


def test_a_flipped_sign_shows_the_terms_that_rose() -> None:
    """The objective falls without end while what it is made of rises."""
    curves = {"objective": falling(-1.0, -500.0), "loss_camera": falling(0.5, 90.0), "loss_reg_depth": falling(0.5, 60)}
    finding = limit(record(curves=curves), "objective")
    assert not finding.passed
    assert "loss_camera rose from 0.5 to 90" in finding.observed


def test_a_noisy_fall_is_monotonic() -> None:
    """Single rising steps are normal: the trend is what must fall."""
    curve = tuple(value * (1.3 if i % 3 else 0.8) for i, value in enumerate(falling(4.0, 0.005)))
    finding = judge_monotonic(record(curves={"objective": curve}), Monotonic(), {"objective": Limit(0.01)})
    assert finding.passed
    assert finding.observed == "1 falling, largest climb 0%"
    assert not judge_monotonic(
        record(curves={"objective": curve}), Monotonic(strict=True), {"objective": Limit(0.01)}
    ).passed


def test_a_climb_that_is_left_is_named_with_its_step() -> None:
    """A curve that ends on a hill fails, with its height and place; one that comes down again says so."""
    limits = {"objective": Limit(0.01)}
    curve = (*falling(4.0, 1.0, 50), *falling(3.0, 2.0, 50))
    finding = judge_monotonic(record(curves={"objective": curve}), Monotonic(window=5), limits)
    assert not finding.passed
    assert finding.observed == "objective ends 100% above its best 1, at 2 in step 100"
    assert finding.allowed == "medians of 5 steps come back from climbs of more than 25%"
    for end in (0.005, 0.9):  # below the limit, or below the earlier best
        recovered = record(curves={"objective": (*falling(4.0, 1.0, 50), *falling(3.0, end, 50))})
        finding = judge_monotonic(recovered, Monotonic(window=5), limits)
        assert finding.passed
        assert re.fullmatch(r"1 falling, largest climb \d+%, recovered", finding.observed)
        assert not judge_monotonic(recovered, Monotonic(strict=True), limits).passed


def test_a_climb_that_is_never_made_good_is_left() -> None:
    """Down again to 10 % above its best is no recovery; a small hill at the end of one that recovered is no climb."""
    limits, window = {"objective": Limit(0.01)}, Monotonic(window=5)
    curve = (*falling(4.0, 1.0, 50), *falling(3.0, 1.1, 50))
    finding = judge_monotonic(record(curves={"objective": curve}), window, limits)
    assert not finding.passed
    told = "objective climbs 190% above its best 1, at 2.903 in step 53, and does not come back to it: 1.1 at the end"
    assert finding.observed == told
    hill = (*falling(4.0, 1.0, 50), *falling(3.0, 0.9, 50), *[1.0] * 10)
    finding = judge_monotonic(record(curves={"objective": hill}), window, limits)
    assert finding.passed
    assert finding.observed.endswith(", recovered")


def test_without_a_config_nobody_asks_for_it() -> None:
    """A call or a marker may, and gets the wider floor; under a config it is on."""
    assert Criteria().monotonic is None
    assert Criteria(monotonic=True).monotonic == Monotonic(floor=0.05)
    assert Criteria(in_config=True).monotonic == Monotonic()


def test_a_flat_curve_is_not_monotonic() -> None:
    """Not rising is not enough."""
    finding = judge_monotonic(record(curves={"objective": (2.0,) * 60}), Monotonic(), {"objective": Limit(0.01)})
    assert not finding.passed
    assert finding.observed == "objective does not fall: 2 at the start, 2 at the end"


def test_noise_below_the_limit_is_no_climb() -> None:
    """Once below its limit a term may do what it likes, even below zero."""
    curve = (*falling(4.0, 0.0001, 60), *([0.009, -0.5, 0.0001] * 20))
    assert judge_monotonic(record(curves={"objective": curve}), Monotonic(window=3), {"objective": Limit(0.01)}).passed


def test_a_dip_at_zero_of_a_signed_curve_is_no_climb() -> None:
    """An objective on its way below zero: a small hill near zero is a small share of its fall, whatever the ratio."""
    curve = (*falling(4.0, 0.003, 60), *falling(0.05, -0.3, 60))
    assert judge_monotonic(record(curves={"objective": curve}), Monotonic(window=5), {"objective": Limit(0.01)}).passed
    cut = (*falling(4.0, 0.003, 60), 0.05, 0.05, 0.05)
    assert not judge_monotonic(
        record(curves={"objective": cut}), Monotonic(window=3), {"objective": Limit(0.01)}
    ).passed
    signed = (*falling(4.0, -0.003, 60), 0.05, 0.05, 0.05)
    assert judge_monotonic(record(curves={"objective": signed}), Monotonic(window=3), {"objective": Limit(0.01)}).passed


def test_a_small_hill_at_the_bottom_is_noise() -> None:
    """Three thousandths of the fall so far; a strict trend still counts it."""
    curve = {"objective": (*falling(4.0, 0.012, 60), *[0.02] * 9)}
    limits = {"objective": Limit(0.01)}
    assert judge_monotonic(record(curves=curve), Monotonic(window=5), limits).passed
    assert not judge_monotonic(record(curves=curve), Monotonic(strict=True), limits).passed


def test_a_noisy_run_is_judged_by_its_share_of_the_fall() -> None:
    """What was declared stochastic may bounce above its floor."""
    curve = {"objective": (*falling(1.0, 0.02, 60), *[0.05] * 9)}
    limits = {"objective": Limit(0.01)}
    assert not judge_monotonic(record(curves=curve), Monotonic(window=5), limits).passed
    assert judge_monotonic(record(curves=curve), Monotonic(window=5), limits, noisy=True).passed


def test_a_run_shorter_than_the_window_falls_when_it_ends_below_its_limit() -> None:
    """One median of all its steps says nothing of where it got to."""
    curve = {"objective": (1.0, 0.5, 0.05, 0.009, 0.008)}
    assert judge_monotonic(record(curves=curve), Monotonic(), {"objective": Limit(0.01)}).passed


def test_limits_of_every_kind() -> None:
    """Ratio, mean, lower bound; the margin grows with the distance, and a NaN is within nothing."""
    curves = {"objective": falling(2.0, 0.05), "accuracy": tuple(reversed(falling(1.0, 0.0)))}
    run = record(curves=curves)
    ratio = judge_limit(run, "objective", Limit(0.1, relative=True), hold_steps=5, limits=LIMITS)
    assert (ratio.passed, ratio.observed) == (True, "objective 0.025 of its start")
    assert ratio.allowed == "< 0.1 of its start for 5 steps in a row"
    assert ratio.margin == pytest.approx(4.0)
    mean = judge_limit(run, "objective", Limit(0.06, window=20), hold_steps=5, limits=LIMITS)
    assert not mean.passed
    assert mean.allowed == "< 0.06, mean of 20 steps for 5 steps in a row"
    above = judge_limit(run, "accuracy", Limit(above=0.5), hold_steps=5, limits=LIMITS)
    assert above.passed
    assert above.margin is not None
    assert above.margin > 1
    assert above.allowed == "> 0.5 for 5 steps in a row"
    assert not Limit(above=0.5).holds(math.nan)


def test_a_declared_unbounded_objective_passes_by_its_stated_limit() -> None:
    """A negative limit is a declaration too."""
    run = record(curves={"objective": falling(1.0, -5.0)})
    only = {"objective": Limit(0.0)}
    stated = judge_limit(run, "objective", Limit(0.0), hold_steps=5, limits=only, unbounded=True)
    assert stated.passed
    assert stated.observed == "objective -5 (negative); declared unbounded"
    assert judge_limit(run, "objective", Limit(-1.0), hold_steps=5, limits=only).passed
    assert not judge_limit(run, "objective", Limit(0.0), hold_steps=5, limits=only).passed


def test_a_signed_curve_can_climb_too() -> None:
    """Half of the fall lost again is a climb, before and after zero."""
    curve = (*falling(4.0, -1.0, 60), *falling(2.5, 1.4, 60))
    finding = judge_monotonic(record(curves={"objective": curve}), Monotonic(window=5), {"objective": Limit(0.01)})
    assert not finding.passed
    assert finding.observed.startswith("objective ends 29% above its best -1, at 1.4 in step 120")


def test_a_small_climb_says_how_small_it_is() -> None:
    """From 2 to 5 above a limit of 1, after a fall by hundreds: the floor decides, and is named."""
    curves = {"objective": (*falling(1000.0, 2.0, 60), *(5.0,) * 20)}
    limits = {"objective": Limit(1.0)}
    assert judge_monotonic(record(curves=curves), Monotonic(window=5, floor=0.01), limits).passed
    found = judge_monotonic(record(curves=curves), Monotonic(window=5), limits)
    assert not found.passed
    assert found.observed == "objective ends 150% above its best 2, at 5 in step 80, 0.3% of its fall"
    assert "Climbs below 0.3% of the fall are noise: overfit.criteria.monotonic.floor" in str(found.hint)


def test_nothing_to_judge_is_a_failure() -> None:
    """No steps, no verdict."""
    assert not judge_monotonic(record(curves={}, steps=0), Monotonic(), LIMITS).passed


@given(st.lists(st.floats(0.02, 10.0), min_size=1, max_size=60))
def test_a_sorted_fall_never_climbs(values: list[float]) -> None:
    """Property: a curve that only falls has no climb, whatever the window."""
    curve = sorted(values, reverse=True)
    assert [*climbs_of(running_median(curve, 7), 0.01)] == []


@given(st.lists(st.floats(-1.0, 1.0), max_size=40), st.floats(-1.0, 1.0))
def test_held_since_is_the_first_step_of_the_last_good_stretch(curve: list[float], below: float) -> None:
    """Property: from that step on every value is below, and the one before is not."""
    step = held_since(curve, Limit(below))
    assert all(value < below for value in curve[step - 1 :])
    assert step == 1 or not curve[step - 2] < below


def test_a_small_fall_needs_a_stated_limit() -> None:
    """A pass that takes less than half of its start says so; by a default that nobody chose it is none."""
    run = record(curves={"objective": falling(0.0114, 0.0098)})
    stated, default = (
        judge_limit(run, "objective", Limit(0.01, stated=known), hold_steps=5, limits=LIMITS) for known in (True, False)
    )
    assert stated.passed
    assert stated.observed == "objective 0.0098; fell by only 14%"
    assert not default.passed
    assert default.observed == "objective starts at 0.0114 and passes at 0.0098: fell by only 14%"
    half = record(curves={"objective": falling(0.02, 0.0098)})
    assert judge_limit(half, "objective", Limit(0.01, stated=False), hold_steps=5, limits=LIMITS).passed


@pytest.mark.parametrize(
    ("curve", "wanted", "best", "hint"),
    [
        ((3.0, 2.0, 0.5, 0.01), Limit(below=1.0, above=0.1), "best 0.5", "it fell below its lower limit"),
        ((-1.0, -1.0, -1.0, -1.0), Limit(below=-5.0), "best -1", "it did not fall"),
        ((-5.0, -4.95, -4.93, -4.91), Limit(below=-10.0), "best -5", "it did not fall"),
    ],
)
def test_what_is_next_follows_from_both_limits_and_below_zero(
    curve: tuple[float, ...], wanted: Limit, best: str, hint: str
) -> None:
    """A curve that fell through its band is not told to go on; one below zero that stands still did not fall."""
    run = record(curves={"objective": curve}, stop="max_steps")
    finding = judge_limit(run, "objective", wanted, hold_steps=5, limits=LIMITS)
    assert best in finding.observed
    assert (finding.hint or "").startswith(hint)
