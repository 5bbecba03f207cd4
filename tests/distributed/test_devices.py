"""Workers of pytest-xdist and ranks take the GPUs in turn; a device with a number is taken as it stands."""

from __future__ import annotations

import pytest
import torch

from pytest_overfit.errors import ConfigError
from pytest_overfit.plugin.processes import worker_number
from pytest_overfit.run import device
from pytest_overfit.run.device import choose_device, choose_threads
from pytest_overfit.run.place import Place
from pytest_overfit.settings.launch import Launch, launched

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch counts under CUDA_VISIBLE_DEVICES=5,2,7."""
    monkeypatch.setattr(device, "_count", lambda kind: 3 if kind == "cuda" else 0)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("requested", ["auto", "cuda"])
def test_workers_take_the_gpus_in_turn(requested: str) -> None:
    """gwK gets device K mod n of those that the session inherited."""
    taken = [choose_device(requested, turn=Place(worker=number, workers=5).turn).device for number in range(5)]
    assert [one.index or 0 for one in taken] == [0, 1, 2, 0, 1]
    assert {one.type for one in taken} == {"cuda"}


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("requested", ["cuda:2", "cpu"])
def test_a_named_device_wins(requested: str) -> None:
    """Whoever writes a number, or the CPU, means it."""
    assert choose_device(requested, turn=1).device == torch.device(requested)


@pytest.mark.parametrize(("name", "number"), [("gw0", 0), ("gw11", 11), (None, 0)])
def test_the_number_of_a_worker(name: str | None, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of the variable that pytest-xdist sets."""
    if name is None:
        monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    else:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", name)
    assert worker_number() == number


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight idle cores over four workers."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    assert choose_threads("auto", workers=Place(workers=4).shares) == 2


def test_a_launch_is_read_from_the_environment() -> None:
    """All of torchrun's variables, or none."""
    assert launched({**TORCHRUN, "LOCAL_WORLD_SIZE": "2"}) == Launch(3, 4, local_rank=1, local_size=2)
    assert launched({"RANK": "0", "WORLD_SIZE": "2"}) is None


@pytest.mark.parametrize(
    ("change", "told"), [({"RANK": "x"}, "RANK: found 'x'"), ({"RANK": "4"}, "RANK 4 of WORLD_SIZE 4")]
)
def test_a_launch_that_makes_no_sense(change: dict[str, str], told: str) -> None:
    """In the house form."""
    with pytest.raises(ConfigError) as error:
        launched({**TORCHRUN, **change})
    assert told in str(error.value)
    assert "allowed: " in str(error.value)
