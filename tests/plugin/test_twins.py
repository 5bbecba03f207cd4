"""Twins as a user asks for them: in a marker, a call, an ini file, a config; what is shown, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_overfit import run_config
from pytest_overfit.run.sample import Sample
from pytest_overfit.run.subject import TwinParts
from pytest_overfit.run.twin_record import Twins
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.settings import Budget, OverfitSettings
from pytest_overfit.trainer.config import OverfitConfig
from tests.plugin.conftest import TinyConfig
from tests.support.batches import two_view_batch
from tests.support.tiny import Memoriser

TEST = """
import pytest, torch
from torch import nn
from torch.nn import functional as F

class Last(nn.Module):
    def forward(self, x):
        return x - x.mean(0)

def net(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1), *more)

BATCH = torch.randn(6, 4), torch.randn(6, 1)

@pytest.mark.overfit(twins=["fused", "batch"], lr=0.02)
def test_marked(overfit):
    overfit(net(), BATCH, F.mse_loss)

def test_called(overfit):
    overfit(net(Last()), BATCH, F.mse_loss, objective=10.0, twins="batch", supervised=False, diagnose=False)

@pytest.mark.overfit(lr=0.02)
def test_other(overfit):
    overfit(net(), BATCH, F.mse_loss)
"""


def test_a_marker_and_a_call(pytester: pytest.Pytester) -> None:
    """A disagreement fails the test, and says which sample, which module, by how much."""
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("--overfit-report=report", "-k", "marked or called")
    result.assert_outcomes(passed=1, failed=1, deselected=1)
    result.stdout.re_match_lines(
        [r"E +1 of \d+ criteria missed", r"E +twins: batch \(evaluation mode\): sample 0 of 6, alone, differs by .*"]
    )
    result.stdout.re_match_lines([r"E +where: outputs first differ in 3", r"E +next: docs/twins.md .*"])
    pages = [path.read_text(encoding="utf-8") for path in Path("report").rglob("runs/*/index.html")]
    assert all("the same run, executed otherwise" in page for page in pages)
    records = [json.loads(path.read_text()) for path in Path("report").rglob("record.json")]
    kept = [twin["outcome"] for each in records for twin in each["overfit"]["result"]["record"]["twins"]]
    assert sorted({*kept}) == ["agreed", "disagreed"]


def test_the_ini_file_asks_every_test_and_explain_lists_them(pytester: pytest.Pytester) -> None:
    """With where it comes from."""
    pytester.makepyfile(TEST)
    pytester.makeini("[pytest]\noverfit_set = overfit.criteria.twins=[fused, bfloat16]")
    result = pytester.runpytest_inprocess("--overfit-explain", "-k", "other or marked")
    result.assert_outcomes(deselected=1)
    result.stdout.re_match_lines([r" +twins +names fused, batch, steps 10 +@pytest.mark.overfit"])
    result.stdout.re_match_lines([r" +twins +names fused, bfloat16, steps 10 +ini"])


def test_a_typo_is_one_clear_error(pytester: pytest.Pytester) -> None:
    """It names the nearest, and where it stands."""
    pytester.makepyfile(TEST.replace('twins=["fused", "batch"]', 'twins=["fusd"]'))
    result = pytester.runpytest_inprocess("-k", "marked")
    result.stdout.re_match_lines([r".*@pytest.mark.overfit: twins.names: found 'fusd'.*did you mean fused.*"])


def test_what_can_be_called_stands_in_the_call(pytester: pytest.Pytester) -> None:
    """Not in the marker, which says so."""
    pytester.makepyfile(TEST.replace('twins=["fused", "batch"]', 'twins=["resume"], save=print'))
    result = pytester.runpytest_inprocess("-k", "marked")
    result.stdout.re_match_lines([r".*@pytest.mark.overfit: save=, a .*", r".*overfit\(model, data, save=\.\.\.\)"])


@pytest.mark.parametrize("given", ["twins: [resum]", "twins: {names: [gpu]}", "twins: {names: [resume], steps: 1}"])
def test_a_config_with_no_twin_is_one_clear_error(pytester: pytest.Pytester, tiny: TinyConfig, given: str) -> None:
    """With its key, and what there is."""
    tiny(replace=(("  threads: 1\n", f"  threads: 1\n  criteria: {{{given}}}\n"),))
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml")
    assert result.ret != 0
    told = "\n".join([*result.outlines, *result.errlines])
    assert "overfit.criteria.twins" in told
    assert "resume | accumulation" in told or "a whole number from 2 to 100" in told


def test_an_ini_file_with_no_twin_is_one_clear_error(pytester: pytest.Pytester) -> None:
    """Before anything is trained."""
    pytester.makepyfile(TEST)
    pytester.makeini("[pytest]\noverfit_set = overfit.criteria.twins=[resum]")
    result = pytester.runpytest_inprocess("-k", "other")
    assert result.ret != 0
    (line,) = [line for line in [*result.outlines, *result.errlines] if "did you mean resume" in line][:1]
    assert "twins" in line


@pytest.mark.parametrize("own", ["", "right", "forgets"])
def test_a_config(own: str) -> None:
    """Under a config as anywhere: resumed by all state dicts, or by your own; its schedules at their place."""

    def save(path: Path, model: Any, optimizer: Any) -> None:
        torch.save((model.state_dict(), optimizer.state_dict()), path)

    def load(path: Path, model: Any, optimizer: Any) -> None:
        parameters, state = torch.load(path)
        model.load_state_dict(parameters)
        if own == "right":
            optimizer.load_state_dict(state)

    criteria = Criteria(
        in_config=True,
        objective=Limit(1e9),
        camera=None,
        depth=None,
        prediction=None,
        gradients=None,
        supervised=None,
        twins=Twins(names=("resume", "accumulation", "bfloat16")),
    )
    settings = OverfitSettings(
        device="cpu", threads="keep", diagnose=False, budget=Budget(max_steps=10, hold_steps=10), criteria=criteria
    )
    config = OverfitConfig(
        path=Path("tiny.yaml").resolve(),
        exp_name="tiny",
        seed=0,
        optimizer={"_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9},
        overfit=settings,
    )
    parts = TwinParts(save, load) if own else TwinParts()
    resumed, *others = run_config(config, Memoriser(), Sample(two_view_batch()), twins=parts).record.twins
    assert [twin.text() for twin in others if twin.outcome == "disagreed"] == []
    assert resumed.outcome == ("disagreed" if own == "forgets" else "agreed"), resumed.text()
    assert own != "forgets" or any("momentum_buffer of SGD" in each for each in resumed.missing), resumed.missing


def test_under_a_config_the_call_saves_and_loads(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Your own ``save`` and ``load`` are no settings: they stand in the call."""
    tiny()
    pytester.makepyfile(
        """
        import pytest, torch

        def save(path, model, optimizer):
            torch.save((model.state_dict(), optimizer.state_dict()), path)

        def load(path, model, optimizer):
            parameters, state = torch.load(path)
            model.load_state_dict(parameters), optimizer.load_state_dict(state)

        @pytest.mark.overfit(config="tiny.yaml", twins=["resume"])
        def test_resumes(overfit):
            (twin,) = overfit(save=save, load=load).record.twins
            assert twin.outcome == "agreed" and "save and load" in twin.exchanged, twin.text()
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
