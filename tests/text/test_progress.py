"""What a run is busy with as one line of text."""

from __future__ import annotations

import pytest

from pytest_overfit.text.progress import duration, phase_line, progress_line, time_line

ROW = {"objective": 0.312345, "loss_camera": 0.02, "loss_reg_depth": 0.05, "lr": 1e-3}


def test_training_names_step_time_left_losses_and_rate() -> None:
    """The terms by the criteria's names, whatever the loss calls them."""
    line = "quick  120/400  objective 0.3123  camera 0.02  depth 0.05  22.4/s  0:05<0:13"
    assert progress_line("quick", 120, 400, ROW, steps_per_second=22.42, elapsed=5.4, seconds_left=12.6) == line
    assert len(line) <= 80


@pytest.mark.parametrize(
    ("width", "left"),
    [
        (75, "quick  120/400  objective 0.3123  camera 0.02  depth 0.05  "),
        (65, "120/400  objective 0.3123  camera 0.02  depth 0.05  "),
        (40, "120/400  0.3123  0.02  0.05  "),
        (30, "120/400  0.3123  "),
        (20, "120/400  "),
    ],
)
def test_on_a_narrow_terminal_the_numbers_stay(width: int, left: str) -> None:
    """The rate goes first, then the name, the words, the terms; never the clock."""
    line = progress_line("quick", 120, 400, ROW, steps_per_second=22.42, elapsed=5.4, seconds_left=12.6, width=width)
    assert line == f"{left}0:05<0:13"
    assert len(line) <= width


@pytest.mark.parametrize("width", [80, 60, 40, 20])
def test_a_phase_keeps_its_clock_on_a_narrow_terminal(width: int) -> None:
    """The name goes first, then the words, then the detail."""
    line = phase_line("tests/test_model.py::test_learns", "trial 3/9", "lr 0.0001, step 40/400", 75.2, width=width)
    assert "trial 3/9" in line
    assert line.endswith(("at most 1 min 15 s left", "<1:15"))
    assert len(line) <= width


def test_training_leaves_out_what_is_not_known() -> None:
    """A loss without camera; the first step, whose rate says nothing."""
    assert progress_line("x", 1, 2, {"objective": 1.0}) == "x  1/2  objective 1"


def test_a_phase_has_its_detail_and_its_time_where_there_are() -> None:
    """A trial says which it is and what it changes."""
    assert phase_line("quick", "warm-up") == "quick  warm-up"
    assert phase_line("quick", "trial 3/9", "lr 0.0001, step 40/400", 75.2) == (
        "quick  trial 3/9: lr 0.0001, step 40/400, at most 1 min 15 s left"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_a_duration_is_rounded_as_people_round(seconds: float, said: str) -> None:
    """No 60 s, no negative time."""
    assert duration(seconds) == said


def test_the_time_of_a_run_is_told_by_phase() -> None:
    """In the order in which they came; nothing where nothing was timed."""
    assert time_line({"warm-up": 0.31, "trials": 1.24}) == "time: warm-up 0.3 s, trials 1.2 s"
    assert time_line({}) == ""
