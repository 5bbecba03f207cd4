"""Twins as they are asked for, what they cost, and that everything comes back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.asking import Unanswerable
from pytest_overfit.run.twin_record import TWINS, TwinResult
from pytest_overfit.settings.ladder import layer_of_keywords, layer_of_overrides, resolve_settings
from pytest_overfit.twins.asked import HOMES
from pytest_overfit.twins.course import Course, Tolerance, beyond, sizes
from pytest_overfit.twins.elsewhere import Elsewhere, cannot_fork

Batch = tuple[Tensor, Tensor]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 1))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=generator), torch.randn(6, 1, generator=generator)


def settings(value: Any) -> Any:
    """What a marker's ``twins=`` comes to."""
    return resolve_settings(
        [layer_of_keywords("overfit(...)", {"twins": value})], where="a test"
    ).settings.criteria.twins


@pytest.mark.parametrize(
    ("value", "names", "steps"),
    [
        ("resume", ("resume",), 10),
        (["resume", "batch", "resume"], ("resume", "batch"), 10),
        ({"names": ["fused"], "steps": 4}, ("fused",), 4),
        ({"steps": 4}, TWINS, 4),
        (True, TWINS, 10),
    ],
)
def test_a_list_a_name_a_mapping_or_all(value: Any, names: tuple[str, ...], steps: int) -> None:
    """As people write it."""
    assert (settings(value).names, settings(value).steps) == (names, steps)


def test_off_by_default_and_by_a_word() -> None:
    """Nothing of the sort costs a run anything that did not ask."""
    assert settings(None) is None
    assert settings(False) is None


def test_the_command_line_and_ini_spell_it_as_a_config() -> None:
    """One ladder."""
    layer = layer_of_overrides("ini", ["overfit.criteria.twins=[resume, bfloat16]"])
    assert resolve_settings([layer], where="a test").settings.criteria.twins.names == ("resume", "bfloat16")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["resum"], "did you mean resume"),
        ("gpu", "found 'gpu'"),
        ([], "an empty list"),
        ({"names": ["resume"], "step": 3}, "an unknown key"),
        ({"steps": 1}, "a whole number from 2"),
        (3, "a list of"),
    ],
)
def test_what_is_no_twin_is_one_clear_error(value: Any, told: str) -> None:
    """It says what there is."""
    with pytest.raises(ConfigError) as error:
        settings(value)
    assert told in str(error.value)
    assert "twins" in str(error.value)


def test_impossible_parts_are_refused_at_once() -> None:
    """Before anything is trained."""
    with pytest.raises(OverfitError, match="save without load"):
        run_overfit(net(), batch(), F.mse_loss, twins="resume", save=print)
    with pytest.raises(OverfitError, match="something that can be called"):
        run_overfit(net(), batch(), F.mse_loss, twins="accumulation", accumulate=3)


class Counted:
    """A step that counts how often it is made."""

    def __init__(self) -> None:
        self.model = net()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.forwards = 0

    def step(self, batch: Batch) -> Tensor:
        self.forwards += 1
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    yield from (tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers()))
    yield from (value.clone() for each in optimizer.state.values() for value in each.values())


def test_everything_comes_back_bit_for_bit() -> None:
    """Parameters, buffers, optimizer, modes, attributes, generators: whatever the twins exchanged."""
    made = Counted()
    for _ in range(2):
        made.step(batch())
    before, attributes = list(state(made.model, made.optimizer)), [dict(vars(m)) for m in made.model.modules()]
    groups = [{**group, "params": None} for group in made.optimizer.param_groups]
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    names = [name for name in TWINS if name not in ("compile", "ranks")]
    result = run_overfit(made.model, batch(), step=made.step, twins=names, max_steps=12, diagnose=False)
    assert {twin.name.partition(" (")[0] for twin in result.record.twins} == set(names)
    assert all(torch.equal(a, b) for a, b in zip(before, state(made.model, made.optimizer), strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert groups == [{**group, "params": None} for group in made.optimizer.param_groups]
    for module, held in zip(made.model.modules(), attributes, strict=True):
        assert vars(module).keys() == held.keys()
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_trained_model_is_what_was_trained() -> None:
    """Twins run beside it, and leave what ``keep_trained`` leaves."""
    trained = []
    for twins in (None, ["accumulation", "bfloat16"]):
        model = net()
        run_overfit(model, batch(), F.mse_loss, twins=twins, max_steps=12, diagnose=False, keep_trained=True)
        trained.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


def test_the_verdict_names_what_could_not_be_asked() -> None:
    """And where nothing could be asked there is none."""
    one = (torch.randn(1, 4), torch.randn(1, 1))
    model = nn.Linear(4, 1)
    result = run_overfit(model, one, F.mse_loss, twins=["batch", "fused"], max_steps=5, diagnose=False, objective=100.0)
    finding = result.finding("twins")
    assert finding.passed
    assert "not asked: the batch has one sample" in finding.observed
    result = run_overfit(model, one, F.mse_loss, twins=["batch"], max_steps=5, diagnose=False, objective=100.0)
    assert not result.finding("twins").judged
    assert not result.finding("twins").passed


def test_every_twin_has_a_home() -> None:
    """Of each name there is a function."""
    assert {*HOMES} == {*TWINS, "port"} - {"resume"}


def test_the_first_quantity_that_differs_is_named() -> None:
    """In the order of the steps; what is within the noise of the run itself is none."""
    one = Course([1.0, 0.5], [{"w": torch.ones(2)}], {"w": torch.ones(2)}, {"w": 1.0})
    other = Course([1.0, 0.6], [{"w": torch.tensor([1.0, 1.5])}], {"w": torch.ones(2)}, {"w": 1.0})
    found = sizes(one, other, Tolerance(0.01, 0.1, 0.1))
    assert beyond(found, Tolerance(0.01, 0.1, 0.1), {}, set()) == (("gradient", 1, "w"), 0.1)
    assert beyond(found, Tolerance(0.01, None, 0.1), {}, set()) == (("loss", 2, ""), 0.02)
    assert beyond(found, Tolerance(0.01, None, 0.1), {("loss", 2, ""): 0.1}, set()) is None
    lacking = Course([1.0, float("nan")], [{}], {}, {})
    assert beyond(sizes(one, lacking, Tolerance(9.0, 9.0, None)), Tolerance(9.0, 9.0, None), {}, set()) == (
        ("gradient", 1, "w"),
        9.0,
    )


def test_another_process_does_a_job_and_ends() -> None:
    """It stands where it was forked; what it raises is told."""
    held = {"value": 1}
    there = Elsewhere(lambda job: held["value"] + job["add"])
    broken = Elsewhere(lambda job: job["lacking"])
    held["value"] = 50
    assert there.do({"add": 2}) == 3
    with pytest.raises(Exception, match="KeyError"):
        broken.do({})
    unused = Elsewhere(lambda job: None)
    unused.close()


def test_a_daemon_has_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker of a DataLoader is one: Python forks nothing there."""
    assert cannot_fork() == ""
    monkeypatch.setitem(vars(multiprocessing.current_process())["_config"], "daemon", True)
    assert cannot_fork() == "a daemon cannot be forked"
    with pytest.raises(Unanswerable, match="daemon"):
        Elsewhere(lambda job: None).do({})


def test_a_process_that_dies_is_told() -> None:
    """At once, not when its time is over."""
    with pytest.raises(Unanswerable, match="died"):
        Elsewhere(lambda job: os.kill(os.getpid(), signal.SIGKILL)).do({})


def test_a_result_says_itself() -> None:
    """One line each."""
    told = TwinResult("fused", "disagreed", "Adam", steps=10, step=2, what="the loss", size=0.5, allowed=1e-4)
    assert told.text() == "fused: the loss differs by 0.5 of its size, allowed 0.0001 (Adam): step 2"
    assert TwinResult("export", "not asked", why="no").text() == "export: not asked: no"


def test_a_run_that_does_not_repeat_itself_is_no_pass() -> None:
    """What nothing can put back moves the loss: neither the run's fault in a twin, nor agreement."""
    drawn = iter(range(10**6))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1]) * (1 + 0.1 * next(drawn))

    result = run_overfit(net(), batch(), loss, twins="fused", max_steps=12, diagnose=False, objective=1e6)
    assert {twin.outcome for twin in result.record.twins} == {"not asked"}, result.record.twins
    assert "does not repeat itself" in result.record.twins[0].why
    assert not result.finding("twins").judged


def test_without_a_folder_for_temporary_files_the_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only machine."""

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    result = run_overfit(net(), batch(), F.mse_loss, twins=["resume", "fused"], max_steps=12, diagnose=False)
    resume, *fused = result.record.twins
    assert "no folder for temporary files" in resume.why
    assert {twin.outcome for twin in fused} == {"agreed"}


def test_ctrl_c_in_a_twin_ends_the_run_as_it_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not asked, and everything comes back."""
    made = [0]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        made[0] += 1
        if made[0] == 20:
            raise KeyboardInterrupt
        return F.mse_loss(model(batch[0]), batch[1])

    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    given: dict[str, Any] = {"supervised": False, "diagnose": False, "objective": 1e-9}
    result = run_overfit(model, batch(), loss, twins=["fused", "batch"], max_steps=12, **given)
    assert result.record.stop == "interrupted"
    assert [twin.why for twin in result.record.twins] == ["interrupted", "interrupted"]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_what_a_twin_needs_asks_it() -> None:
    """Nobody saves and loads, or accumulates, for nothing; what is asked beside it stays asked."""

    def accumulate(model: nn.Module, batches: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        losses = [F.mse_loss(model(x), y) * len(x) / 6 for x, y in batches]
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return torch.stack(losses).sum()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    for twins, names in ((None, {"accumulation"}), ("fused", {"fused", "accumulation"})):
        result = run_overfit(
            model, batch(), F.mse_loss, twins=twins, accumulate=accumulate, max_steps=12, diagnose=False
        )
        assert {twin.name.partition(" (")[0] for twin in result.record.twins} == names
        assert {twin.outcome for twin in result.record.twins} == {"agreed"}, result.record.twins
