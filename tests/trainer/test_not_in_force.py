"""A value of a config that a schedule overrides is a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer.loading import load_config
from tests.support.configs import write_tiny

OWN = "start_value: ${optim.optimizer.lr}"
NOTE = "optim.optimizer.lr = 1e-09 is not used: the schedule optim.options.lr sets 0 to 0.05"


@pytest.mark.parametrize(("start", "notes"), [(OWN, ()), ("start_value: 0.05", (NOTE,))])
def test_a_rate_that_the_schedule_overrides_is_a_note(tmp_path: Path, start: str, notes: tuple[str, ...]) -> None:
    """One that the schedule is made of is in force."""
    path = write_tiny(tmp_path, replace=((OWN, start),))
    assert load_config(path, ["optim.optimizer.lr=1e-9"]).notes == notes
    assert load_config(path, ["optim.optimizer.lr=0.05"]).notes == ()


@pytest.mark.parametrize("name", ["quick", "single_pair_test", "single_pair_518"])
def test_the_rates_of_the_shipped_configs_are_in_force(name: str) -> None:
    """Whatever is set."""
    path = Path(__file__).parents[2] / "example_configs" / f"{name}.yaml"
    assert not [note for note in load_config(path, ["optim.optimizer.lr=1e-9"]).notes if "not used" in note]
