"""What a run needs of memory is known before it begins; what does not fit of ours costs nobody the verdict."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose import inspector
from pytest_overfit.run import memory
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.memory import bytes_of, expected_peak
from pytest_overfit.run.optim import GradientClipper, collect_optimizers, freeze
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.settings.settings import ClipGroup


def overfitted(model: nn.Module, **settings: Any) -> OverfitResult:
    """A few samples."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(4, 6, generator=generator), torch.randn(4, 2, generator=generator)
    return run_overfit(model, data, F.mse_loss, **{"lr": 1e-2, "objective": 0.05, "max_steps": 200, **settings})


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))


@pytest.mark.parametrize(
    "build",
    [
        torch.optim.AdamW,
        torch.optim.SGD,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.LBFGS(parameters, history_size=1),
    ],
)
def test_the_peak_is_what_is_there_after_a_step(build: Any) -> None:
    """Parameters, a copy of them, gradients, and what the optimizer remembers, but for its counters."""
    model, x = net(), torch.randn(4, 6)
    optimizer = build(model.parameters())
    expected = expected_peak(model, [optimizer])
    for _ in range(3):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(x).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)
    parameters = list(model.parameters())
    kept = [value for state in optimizer.state.values() for each in state.values() for value in _tensors(each)]
    held = 2 * bytes_of(parameters) + bytes_of(p.grad for p in parameters if p.grad is not None)
    assert held + bytes_of(value for value in kept if value.dim()) == pytest.approx(expected, rel=0.3)


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Tensor)]


class Refuses(nn.Module):
    """A model that is too large in evaluation mode, which a run never asks of it and questions do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.net(x)  # type: ignore[no-any-return]


def test_a_question_that_runs_out_of_memory_is_not_asked() -> None:
    """In the model or in ours; the run passes, and says so."""
    result = overfitted(Refuses())
    assert result.passed
    assert any(asked.why.startswith("memory: OutOfMemoryError: CUDA out of memory") for asked in result.not_asked)
    assert not any(asked.ours for asked in result.not_asked)


def test_a_question_of_ours_that_runs_out_of_memory_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be reported of it."""

    def allocate(*_: Any) -> None:
        torch.empty(10**15)

    monkeypatch.setattr(inspector, "measure_moves", allocate)
    result = overfitted(net())
    (asked,) = (asked for asked in result.not_asked if asked.question == "what moves without a gradient")
    assert result.passed
    assert asked.why.startswith("memory: ")
    assert not asked.ours


@pytest.mark.parametrize("passes", [True, False])
def test_a_diagnosis_that_would_not_fit_is_not_asked(monkeypatch: pytest.MonkeyPatch, passes: bool) -> None:
    """What it takes aside is known beforehand; the verdict is that of the run."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100)
    result = overfitted(net(), objective=0.05 if passes else 1e-12, max_steps=200 if passes else 20)
    assert result.passed is passes
    why = {asked.why for asked in result.not_asked if asked.question == "the diagnosis"}
    assert why == {"memory: it takes 584 bytes, and 100 bytes are free"}


def test_a_large_run_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its record, and while it begins."""
    assert "memory needed" not in overfitted(net(), diagnose=False).record.environment
    monkeypatch.setattr("pytest_overfit.run.runner.LARGE_PEAK", 2**10)
    told = overfitted(net(), diagnose=False).record.environment["memory needed"]
    assert told == "at least 2.852 KiB, and activations"


def test_ten_billion_parameters_are_names_and_plans() -> None:
    """Freezing, optimizer, clipping, the watch of gradients, the snapshot: none holds numbers of the model."""
    with torch.device("meta"):
        layers = [nn.TransformerEncoderLayer(5120, 40, 20480, batch_first=True) for _ in range(32)]
        model = nn.ModuleDict({"embedding": nn.Embedding(32000, 5120), "layers": nn.ModuleList(layers)})
    assert bytes_of(model.parameters()) > 4e10
    tracemalloc.start()
    try:
        frozen = freeze(model, ["embedding"])
        _, optimizers = collect_optimizers(None, [p for p in model.parameters() if p.requires_grad])
        clip = GradientClipper(model, [ClipGroup(("layers.3*",), 1.0)])
        watch, start = GradientWatch(model), Snapshot()
        start.add(model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert frozen.matches[0].numel == 32000 * 5120
    assert len(watch.named) == len(list(model["layers"].parameters()))
    assert clip.groups
    assert expected_peak(model, optimizers) == pytest.approx(5 * bytes_of(model.parameters()), rel=0.06)
    assert peak < 2**24
