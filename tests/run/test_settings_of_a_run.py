"""What a run may do and must reach: declared exceptions, limits, seeds, precision, weights that may not be nudged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitError, run_overfit
from pytest_overfit.run.memory import memory_errors_told
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.runner import run as run_subject
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.task import Precision
from pytest_overfit.settings.settings import ANY_MODEL, AmpConfig, Budget
from tests.run.small_runs import Batch, adam, batch, net, run


def test_declared_exceptions_pass_and_show() -> None:
    """Undeclared they fail, with the way out; a declared frozen parameter that moves fails."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.pooler = net(), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Any:
            return self.body(x)

    undeclared = run(Pooled())
    assert undeclared.finding("gradients").observed == "2 parameter tensors: no gradient arrives"
    assert "unused=['pooler.*']" in undeclared.causes[0].advice
    declared = run(Pooled(), unused=["pooler.*"])
    assert declared.passed
    assert declared.finding("gradients").observed.endswith("declared: pooler.* unused")
    moved = run(Pooled(), unused="pooler.*", frozen=["body.0.*"]).finding("gradients")
    assert moved.observed == "2 parameter tensors: frozen, yet moves"


def test_a_part_left_out_of_the_optimizer_can_be_declared() -> None:
    """It gets a gradient, and does not move."""
    model = net()
    optimizer = torch.optim.Adam(list(model.parameters())[2:], lr=0.01)
    assert run(model, optimizer=optimizer).finding("gradients").observed == "2 parameter tensors: not in the optimizer"
    assert run(model, optimizer=optimizer, frozen=["0.*"]).passed


def test_a_negative_objective_needs_a_declaration() -> None:
    """A negative log likelihood: refused, declared unbounded with a limit, or with a negative limit."""

    def nll(model: nn.Module, data: Batch) -> Tensor:
        mean, log_variance = model(data[0]).chunk(2, -1)
        likelihood: Tensor = 0.5 * (log_variance + (data[1] - mean).square() / log_variance.exp()).mean()
        return likelihood

    assert not run(net(4), loss=nll, max_steps=200).passed
    assert run(net(4), loss=nll, unbounded=True, objective=0.0).passed
    assert run(net(4), loss=nll, objective=-0.5).passed
    with pytest.raises(OverfitError, match="unbounded"):
        run(net(4), loss=nll, unbounded=True)


def test_relative_windowed_and_lower_limits() -> None:
    """Ratio, windowed mean, accuracy."""

    def loss(model: nn.Module, data: Batch) -> Any:
        prediction = model(data[0])
        near = (prediction - data[1]).abs().amax() < 0.3
        return {"objective": F.mse_loss(prediction, data[1]), "near": near}

    result = run(loss=loss, objective={"below": 0.2, "relative": True, "window": 10}, near={"above": 0.5})
    assert result.passed, result.summary()
    assert result.finding("objective").allowed.startswith("< 0.2 of its start, mean of 10 steps")
    assert result.finding("near").allowed.startswith("> 0.5")


def test_seeds_rebuild_a_factory_and_all_or_some_have_to_pass() -> None:
    """Margins are those of the worst seed, which is named."""

    def lucky() -> nn.Module:
        first, last = nn.Linear(4, 64), nn.Linear(64, 2)
        if torch.initial_seed() == 2:  # every run is seeded before its model is built
            first.weight.requires_grad_(False)
            last.requires_grad_(False)
            first.weight.data.zero_()
        return nn.Sequential(first, nn.Tanh(), last)

    result = run(lucky, seeds=[0, 1, 2], max_steps=300)
    assert not result.passed
    assert [r.passed for r in result.runs] == [True, True, False]
    assert result.finding("seeds").observed == "2 of 3 seeds pass (0, 1)"
    assert result.finding("objective").observed.startswith("seed 2: ")
    assert run(lucky, seeds=[0, 1, 2], pass_at_least=2, max_steps=300).passed


def test_mixed_precision_is_an_option() -> None:
    """The record says which."""
    result = run(amp="bfloat16", objective=0.05)
    assert result.passed, result.summary()
    assert result.record.environment["precision"] == "bfloat16"
    assert result.record.environment["gradients read"] == "every 20 steps"


def test_a_loss_without_a_graph_is_a_finding() -> None:
    """Not torch's own error."""
    result = run(loss=lambda m, b: F.mse_loss(m(b[0]).detach(), b[1]))
    assert result.record.stop == "detached"
    assert "not connected to the model" in result.finding("gradients").observed


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_out_of_memory_says_how_much_was_asked(device: str) -> None:
    """Torch's two ways of saying it."""
    texts = {
        "cpu": "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4294967296000 bytes. Error code 12 (Cannot allocate memory)",
        "cuda": "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which ...",
    }
    kind = RuntimeError if device == "cpu" else torch.cuda.OutOfMemoryError
    asked = {"cpu": "3.906 TiB more were asked for", "cuda": "20.00 GiB more were asked for"}[device]
    with pytest.raises(OverfitError, match=asked), memory_errors_told(torch.device("cpu"), "here"):
        raise kind(texts[device])
    with pytest.raises(RuntimeError, match="shapes"), memory_errors_told(torch.device("cpu"), "here"):
        raise RuntimeError("shapes cannot be multiplied")


def test_a_real_allocation_that_fails_is_told() -> None:
    """Through the whole run."""
    with pytest.raises(OverfitError, match=r"out of memory on cpu, .* more were asked for"):
        run(loss=lambda m, b: m(b[0]).sum() + torch.empty(10**15).sum())


def test_a_replay_is_the_same_run() -> None:
    """Same seed, same curve, dropout included; another seed, another curve."""

    def curve(seed: int) -> tuple[float, ...]:
        model = nn.Sequential(net(), nn.Dropout(0.2))
        settings = replace(ANY_MODEL, amp=AmpConfig(False))
        record: RunRecord = run_subject(Subject(model, batch(), F.mse_loss, adam, name="replay"), settings, seed=seed)
        return record.curves["objective"][:30]

    assert curve(0) == curve(0) != curve(1)


@pytest.mark.parametrize("names", [("a.b", "a_b"), ("forward", "type"), ("", "model")])
def test_models_of_any_names_are_all_trained(names: tuple[str, str]) -> None:
    """Also of two that differ by a dot, and of one that is called as what every module has."""
    nets = {name: net() for name in names}
    result = run(nets, loss=lambda m, b: F.mse_loss(sum(m[name](b[0]) for name in names), b[1]), objective=0.05)
    assert result.passed, result.summary()
    assert len(result.record.parameters) == 8


def test_a_parameter_beside_the_model_is_trained_and_comes_back() -> None:
    """One that the loss and the optimizer hold, and no module."""
    model, latent = net(), nn.Parameter(torch.zeros(6, 2))
    optimizer = torch.optim.Adam([*model.parameters(), latent], lr=0.05)
    loss = lambda m, b: F.mse_loss(0.01 * m(b[0]) + latent, b[1])  # noqa: E731
    result = run(model, loss=loss, optimizer=optimizer, objective=0.05)
    assert result.passed, result.summary()
    assert not latent.any()


def test_a_lazy_model_under_a_step_of_its_own_passes() -> None:
    """There are no initial weights to put back: whether it falls by them is not asked."""
    model = nn.Sequential(nn.LazyLinear(32), nn.Tanh(), nn.LazyLinear(2))

    def step(m: Any, b: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(m(b[0]), b[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    result = run(model, loss=None, step=step, objective=0.05, max_steps=300)
    assert result.passed, result.summary()
    assert any("lazy module" in each.why for each in result.not_asked)


def test_weights_that_may_not_be_nudged_are_probed_as_they_are() -> None:
    """A covariance stays one under training, and hardly under noise."""
    model = net()
    model.covariance = nn.Parameter(torch.eye(2))

    def loss(m: Any, b: Batch) -> Tensor:
        normal = torch.distributions.MultivariateNormal(torch.zeros(2), covariance_matrix=m.covariance)
        likely: Tensor = normal.log_prob(b[1] * 0).mean()  # type: ignore[no-untyped-call]
        return F.mse_loss(m(b[0]), b[1]) - 0.01 * likely

    result = run(model, loss=loss, objective=0.1, max_steps=300)
    assert result.passed, result.summary()


def test_every_seed_starts_from_the_same_weights_though_the_trained_ones_are_kept() -> None:
    """Those of the last seed stay."""
    model = net()
    before = model[0].weight.detach().clone()  # type: ignore[index]
    result = run(model, seeds=[0, 1], keep_trained=True, objective=0.05)
    assert result.passed, result.summary()
    assert len({each.record.curves["objective"][0] for each in result.runs}) == 1
    assert not torch.equal(model[0].weight, before)  # type: ignore[index]


def test_a_share_of_the_start_is_one_while_the_run_goes_too() -> None:
    """Evaluation agrees once it is below that share, and not below that share of one."""
    torch.manual_seed(0)
    inputs, targets = batch()[0], 0.3 * batch()[1]
    model = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32, momentum=0.02), nn.Tanh(), nn.Linear(32, 2))
    limit = {"below": 0.1, "relative": True}
    given = {"train_val": True, "val_data": (inputs, targets), "max_steps": 400}
    result = run(model, (inputs, targets), objective=limit, **given)
    assert result.passed, result.summary()


class Pair(NamedTuple):
    depth: Tensor


def test_predictions_in_mixed_precision_keep_their_class() -> None:
    """With their numbers in float32."""
    model = net()
    seen: set[tuple[type, torch.dtype]] = set()

    def loss(predictions: Any, data: Batch) -> Tensor:
        seen.add((type(predictions), predictions.depth.dtype))
        return F.mse_loss(predictions.depth, data[1])

    subject = Subject(model, batch(), loss, adam, predict=lambda m, b: Pair(m(b[0])))
    run_subject(subject, replace(ANY_MODEL, amp=AmpConfig(True, "bfloat16"), budget=Budget(max_steps=6)))
    assert seen == {(Pair, torch.float32)}


def test_what_cannot_come_to_an_end_is_refused_at_once() -> None:
    """A generation that nobody can be asked for; a limit on what is a hyper-parameter's name."""
    calls = 0

    def loss(m: Any, b: Batch) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return {"objective": F.mse_loss(m(b[0]), b[1]), "weight_decay": m[0].weight.square().sum()}

    with pytest.raises(OverfitError, match="cannot be asked to generate"):
        run(loss=loss, generates=True)
    assert calls == 0
    with pytest.raises(OverfitError, match="the loss gives no term 'weight_decay'"):
        run(loss=loss, weight_decay=100.0)


@pytest.mark.parametrize("optimizer", [None, adam])
def test_a_model_that_is_frozen_as_a_whole_is_told(optimizer: Any) -> None:
    """Whoever builds the optimizer."""
    result = run_overfit(net(), batch(), F.mse_loss, optimizer=optimizer, freeze=["*"])
    assert result.record.stop == "no_trainable_parameters"
    assert "all 4 parameter tensors are frozen" in result.finding("gradients").observed


def test_a_closure_gets_gradients_that_are_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """LBFGS under a scaler that acts."""
    seen: list[float] = []

    class Listening(torch.optim.LBFGS):
        def step(self, closure: Any) -> Any:  # type: ignore[override]
            def heard() -> Any:
                value = closure()
                seen.append(max(float(p.grad.abs().max()) for group in self.param_groups for p in group["params"]))
                return value

            return super().step(heard)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Precision, "scaler", lambda precision, device: torch.amp.GradScaler("cpu", enabled=True))
    run(optimizer=lambda parameters: Listening(parameters, lr=0.1), amp="bfloat16", max_steps=3)
    assert seen[0] < 10
