"""Blocks that do not come back: stopped where that is possible, named, and nothing of it left behind."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pytest_overfit import OverfitError, run_overfit
from pytest_overfit.run.process_state import SIGNALS
from pytest_overfit.run.stack_lines import is_library, users_lines
from pytest_overfit.run.watchdog import Hung, Watchdog, _Block, refused_after

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals"),
    pytest.mark.timeout(600),  # against hanging alone
]
SOON = 0.05


def hang_in_a_loop() -> None:
    while True:
        pass


def hang_in_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def hang_in_a_queue() -> None:
    queue.Queue[int]().get()


def hang_asleep() -> None:
    time.sleep(1e6)


def keep_it_once() -> None:
    try:
        hang_asleep()
    except BaseException:
        return


def turn_it_into_another() -> None:
    try:
        hang_asleep()
    except BaseException as error:
        raise ValueError("something else") from error


def line_of(function: Callable[[], None], text: str) -> int:
    """The number of the first line below the head of a function that has a text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    first = function.__code__.co_firstlineno
    return next(number for number, line in enumerate(lines[first:], first + 1) if text in line)


@pytest.mark.parametrize("hang", [hang_in_a_lock, hang_in_a_queue, hang_asleep])
def test_a_hang_is_stopped_and_its_line_named(hang: Callable[[], None]) -> None:
    """A lock, a queue and a sleep: ``Hung``, with the innermost line of the user's own code."""
    with pytest.raises(Hung) as raised, Watchdog().limited(SOON, what="training", grace=SOON):
        hang()
    found = raised.value.hang
    assert f"{hang.__name__} at " in found.where
    assert "tests/run/test_watchdog.py:" in found.where
    assert (found.limit, found.doing) == (SOON, "training")


def test_a_loop_in_python_is_stopped() -> None:
    """The line of the loop is named, by its number and its text."""
    with pytest.raises(Hung) as raised, Watchdog().limited(SOON, what="training", grace=SOON):
        hang_in_a_loop()
    first = line_of(hang_in_a_loop, "while True")
    assert any(f":{number}: " in raised.value.hang.where for number in (first, first + 1))


@pytest.mark.parametrize("hang", [keep_it_once, turn_it_into_another])
def test_what_is_kept_or_renamed_is_a_hang_all_the_same(hang: Callable[[], None]) -> None:
    """User code that swallows what stops it, or makes another error of it, does not turn it into anything else."""
    with pytest.raises(Hung) as raised, Watchdog().limited(SOON, what="training", grace=SOON):
        hang()
    assert "hang_asleep at " in raised.value.hang.where


def test_ctrl_c_is_ctrl_c() -> None:
    """What interrupts a block while it is being stopped comes through as it is."""

    def interrupted() -> None:
        try:
            hang_asleep()
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Watchdog().limited(SOON, what="training", grace=SOON):
        interrupted()


def test_nothing_is_left_behind() -> None:
    """No thread, no handler, no file descriptor, whether the block came back or not."""
    before = threading.active_count(), [signal.getsignal(getattr(signal, name)) for name in SIGNALS], open_files()
    with Watchdog().limited(60, what="training"):
        assert threading.active_count() == before[0] + 1
    for _ in range(3):
        with pytest.raises(Hung), Watchdog().limited(SOON, what="training", grace=SOON):
            hang_asleep()
    assert (threading.active_count(), [signal.getsignal(getattr(signal, n)) for n in SIGNALS], open_files()) == before


def open_files() -> int:
    return len([*Path("/dev/fd").iterdir()])


def test_no_limit_costs_nothing() -> None:
    """Without a limit there is no thread and no handler."""
    before = threading.active_count()
    watchdog = Watchdog()
    with watchdog.limited(None, what="training"):
        assert threading.active_count() == before
        assert watchdog.left() is None


def test_a_signal_that_is_taken_is_left_alone() -> None:
    """The handlers of other people stay what they are: another signal is found."""
    name = next(name for name in SIGNALS if hasattr(signal, name))
    taken = signal.signal(getattr(signal, name), lambda number, frame: None)
    try:
        mine = signal.getsignal(getattr(signal, name))
        with pytest.raises(Hung), Watchdog().limited(SOON, what="training", grace=SOON):
            hang_asleep()
        assert signal.getsignal(getattr(signal, name)) is mine
    finally:
        signal.signal(getattr(signal, name), taken)


def test_the_innermost_block_counts_and_the_outer_one_goes_on() -> None:
    """A block within a block: its own limit, and then time for the outer one to come to its end."""
    watchdog = Watchdog()
    with watchdog.limited(60, what="training"):
        with pytest.raises(Hung) as raised, watchdog.limited(SOON, what="probes", grace=SOON):
            hang_asleep()
        left = watchdog.left()
        assert left is not None
        assert left > 0
    assert raised.value.hang.doing == "probes"


def test_after_the_users_code_nothing_is_stopped() -> None:
    """What is put back after a run is not interrupted, however long it takes."""
    watchdog = Watchdog()
    with watchdog.limited(SOON, what="training", grace=SOON):
        watchdog.over()
        time.sleep(10 * SOON)


def test_a_slow_step_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every step takes forty seconds, one that passes the limit has as much time to come to its end."""
    clock = 1000.0
    monkeypatch.setattr("pytest_overfit.run.watchdog.time", SimpleNamespace(monotonic=lambda: clock))
    watchdog = Watchdog()
    block = _Block(limit=60.0, grace=2.0, what="", began=clock, due=clock + 62.0, children=frozenset())
    watchdog.on_phase("training", "", None)
    watchdog.alive()
    assert watchdog._due(block) == 1062.0
    clock += 40.0
    watchdog.alive()
    assert watchdog._due(block) == 1120.0
    clock += 5.0
    watchdog.on_phase("probes", "", None)  # a pause between two phases is no step
    clock += 500.0
    watchdog.alive()
    assert watchdog._due(block) == 1120.0


def test_off_the_main_thread_it_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """No signal reaches another thread: the line is told on stderr, and the block is a hang once it comes back."""
    done = threading.Event()
    raised: list[Hung] = []

    def hang_for_a_while() -> None:
        try:
            with Watchdog().limited(SOON, what="training", grace=SOON):
                done.wait()
        except Hung as hung:
            raised.append(hung)

    thread = threading.Thread(target=hang_for_a_while)
    thread.start()
    told = ""
    while "cannot be stopped here" not in told:
        time.sleep(SOON)
        told += capfd.readouterr().err
    done.set()
    thread.join()
    assert "did not come back within 0.05 s (training): hang_for_a_while at tests/run/test_watchdog.py" in told
    assert len(raised) == 1


def test_a_debugger_may_take_its_time() -> None:
    """Whoever looks at the block with pdb is not stopped."""

    class Tracer:
        def __call__(self, *args: object) -> None:
            return None

    Tracer.__module__ = "bdb"
    before = sys.gettrace()
    sys.settrace(Tracer())
    try:
        with Watchdog().limited(SOON, what="training", grace=SOON):
            until = time.monotonic() + 10 * SOON
            while time.monotonic() < until:
                time.sleep(SOON)
    finally:
        sys.settrace(before)


def test_what_is_no_run_is_refused() -> None:
    """A loader that hangs is an error with the three parts of a message."""
    with pytest.raises(OverfitError) as raised, refused_after(SOON, what="loader"):
        hang_asleep()
    assert "loader: HUNG: did not come back within 0.05 s (loader): hang_asleep at " in str(raised.value)
    assert "allowed: to come back within max_seconds (0.05 s)" in str(raised.value)
    assert "next: mend what that line waits for" in str(raised.value)


def test_lines_are_the_users_own() -> None:
    """Installed code, Python's own and ours are left out; of nothing but those the innermost line is kept."""
    frame = sys._getframe()
    assert users_lines(frame)[0].startswith("test_lines_are_the_users_own at tests/run/test_watchdog.py:")
    assert is_library(torch.__file__)
    assert is_library(threading.__file__)
    assert is_library("<string>")
    assert not is_library(__file__)
    assert users_lines(None) == ()


class Stuck(Dataset[int]):
    """Hangs at its fifth sample."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 4:
            hang_asleep()
        return index


def test_a_loaders_worker_says_where_it_is() -> None:
    """The worker's own line is named, and no worker is left."""
    others = set(torch.multiprocessing.active_children())  # of tests before
    loader = DataLoader(Stuck(), batch_size=2, num_workers=2)
    with pytest.raises(Hung) as raised, Watchdog().limited(1.0, what="the loader", grace=SOON):
        list(loader)
    assert raised.value.hang.where.startswith("waiting for a DataLoader worker: hang_asleep at tests/run/test_watchdog")
    workers = set(torch.multiprocessing.active_children()) - others
    for worker in workers:
        worker.join(60)  # one that was told to end may not have yet on a busy machine
    assert [worker for worker in workers if worker.is_alive()] == []


class Late(nn.Module):
    """Hangs at its thirty-first call."""

    calls: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Late.calls.append(0)
        if len(Late.calls) > 30:
            hang_asleep()
        return self.layer(x)  # type: ignore[no-any-return]


def test_a_run_that_hangs_ends_with_a_verdict_and_everything_put_back() -> None:
    """Outside of pytest too: red, with the steps until then; weights, generators and modes are as before."""
    Late.calls = []
    model, batch = Late().eval(), (torch.randn(8, 4), torch.randn(8, 1))
    run_overfit(model, batch, F.mse_loss, max_steps=1, diagnose=False)  # whatever is imported late is imported now
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    result = run_overfit(model, batch, F.mse_loss, max_seconds=5.0, objective=1e-9)
    assert torch.equal(state, torch.get_rng_state())
    assert not result.passed
    assert result.record.stop == "hung"
    assert result.record.steps > 0
    assert [finding.name for finding in result.findings if finding.missed] == ["objective"]
    assert "HUNG: did not come back within 5 s (training): hang_asleep at" in result.finding("objective").observed
    assert "note: stack: hang_asleep at " in result.failure_text()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_a_seed_that_hangs_is_red_whatever_the_others_reach() -> None:
    """``pass_at_least`` forgives seeds that miss a limit, and none that hangs."""
    built: list[int] = []

    def factory() -> nn.Module:
        built.append(0)
        if len(built) > 1:
            hang_asleep()
        torch.manual_seed(0)
        return nn.Linear(4, 1)

    data = torch.randn(8, 4), torch.zeros(8, 1)
    limits: dict[str, Any] = {
        "objective": 1e9,
        "supervised": False,
        "gradients": False,
        "defects": False,
        "diagnose": False,
    }
    result = run_overfit(factory, data, F.mse_loss, seeds=[0, 1, 2], pass_at_least=1, max_seconds=1.0, **limits)
    assert len(result.runs) == 2
    assert not result.passed
    assert result.record.stop == result.runs[1].record.stop == "hung"
    assert [finding.name for finding in result.findings if finding.missed] == ["objective"]


class Warm(nn.Module):
    """A model whose building takes a while, as imports do on a busy machine."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        time.sleep(seconds)
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def test_the_seconds_of_training_begin_with_the_first_step() -> None:
    """Whatever stood before took more than ``max_seconds``, and is no hang: the run has all its steps."""
    data = torch.randn(8, 4), torch.randn(8, 1)
    limits: dict[str, Any] = {"objective": 1e-9, "diagnose": False, "max_steps": 30, "supervised": False}
    run = run_overfit(lambda: Warm(1.2), data, F.mse_loss, max_seconds=1.0, **limits)
    assert (run.record.stop, run.record.steps) == ("max_steps", 30)


def test_a_limit_begins_anew_where_it_is_told_to() -> None:
    """Never after a block has been told to stop."""
    watchdog = Watchdog()
    watchdog.renew()  # nothing is limited
    with watchdog.limited(60, what="warm-up"):
        block = watchdog._blocks[-1]
        block.began -= 59
        assert (watchdog.left() or 0.0) < 2
        watchdog.renew()
        assert (watchdog.left() or 0.0) > 50
        assert block.due > block.began + 60
