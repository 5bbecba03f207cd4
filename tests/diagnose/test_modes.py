"""What repeats, and what evaluation mode makes of it: chance however it is written, statistics yet to settle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told


class Between(nn.Module):
    """A network with something in its middle that may look at ``training``."""

    def __init__(self, function: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.trunk, self.head = nn.Linear(4, 128), nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.trunk(x).tanh(), self.training))  # type: ignore[no-any-return]


def heads(x: Tensor, training: bool) -> Tensor:
    """Functional multi-head attention over the samples as a sequence of one each, with dropout."""
    eye, one = torch.eye(128), torch.ones(3 * 128)
    return F.multi_head_attention_forward(
        x[None], x[None], x[None], 128, 4, torch.cat([eye] * 3), 0 * one, None, None, False, 0.2, eye, None, training,
        need_weights=False,
    )[0][0]  # fmt: skip


def mask(x: Tensor, training: bool) -> Tensor:
    """Dropout by hand."""
    return x * (torch.rand_like(x) > 0.1) / 0.9 if training else x


def path(x: Tensor, training: bool) -> Tensor:
    """Stochastic depth by hand."""
    return x + x * x.new_empty(len(x), 1).bernoulli_(0.9) if training else 2 * x


def noise(x: Tensor, training: bool) -> Tensor:
    """A sample of a distribution, which is no dropout."""
    return x + 0.001 * torch.randn_like(x)


def run(function: Callable[[Tensor, bool], Tensor], **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    return run_overfit(
        lambda: Between(function), (torch.randn(6, 4), torch.arange(6) % 3), nn.CrossEntropyLoss(), objective=0.3,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), **settings,
    )  # fmt: skip


@pytest.mark.parametrize("dropping", [heads, mask, path])
def test_dropout_that_goes_on_in_evaluation_is_a_defect_however_it_is_written(
    dropping: Callable[[Tensor, bool], Tensor],
) -> None:
    """Memorised all the same, and red; silent where it looks at the mode, or is allowed by its name."""
    result = run(lambda x, training: dropping(x, True))
    assert [cause.id for cause in result.causes] == ["stochastic"]
    assert result.finding("objective").passed
    assert not result.passed
    assert run(dropping).passed
    assert run(lambda x, training: dropping(x, True), allow=["stochastic"]).passed
    declared = run(lambda x, training: dropping(x, True), stochastic=True)
    assert declared.passed == (dropping is not heads)  # torch's own dropout is nothing that trains


def added(x: Tensor, size: Tensor | float) -> Tensor:
    """A sample around features."""
    return x + size * torch.randn_like(x)


def test_noise_in_evaluation_is_a_defect_where_nothing_learns_its_size() -> None:
    """Of a fixed size; silent in training alone, of a size that the features have made, and declared."""
    result = run(lambda x, training: added(x, 0.1 * float(x.detach().std())))
    assert [cause.id for cause in result.causes] == ["stochastic"]
    assert not result.passed
    for meant in (
        run(lambda x, training: added(x, 0.1) if training else x),
        run(lambda x, training: added(x, 0.1 * x.mean(1, keepdim=True).exp())),
        run(lambda x, training: added(x, 0.1), stochastic=True),
    ):
        assert "stochastic" not in [cause.id for cause in meant.causes]


class Sequence(nn.Module):
    """Places that are weighed, with something that happens to them on the way."""

    def __init__(self, between: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.between, self.trunk, self.head = between, nn.Linear(4, 64), nn.Linear(5 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.trunk(x).tanh(), self.training).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("between", "found"),
    [
        (lambda x, training: torch.cat([x[:, :-1], 0.2 * x[:, -1:]], 1) if training else x, True),
        (lambda x, training: x.roll(1, 1) if training else x, True),
        (lambda x, training: x.cumsum(1) if not training else x, True),
        (lambda x, training: F.dropout(x, 0.05, training), False),
        (lambda x, training: x * 1.0 if training else x.clone(), False),
        (lambda x, training: x + (x.round() - x).detach() if training else x.round(), False),
    ],
)
def test_what_a_module_does_in_one_mode_alone(between: Callable[[Tensor, bool], Tensor], found: bool) -> None:
    """Places that come in another order, are weighed or summed; what is the same in both modes, or chance, is meant."""
    torch.manual_seed(0)
    data = torch.randn(6, 5, 4), torch.arange(6) % 3
    result = run_overfit(
        lambda: Sequence(between), data, nn.CrossEntropyLoss(), objective=0.3, stochastic=True,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )  # fmt: skip
    causes = [(cause.id, cause.where) for cause in result.causes]
    assert causes == ([("mode-gap", "module Sequence (Sequence)")] if found else [])
    assert result.passed != found


class Cell(nn.Module):
    """A norm of its own kind, which keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(32))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = self.mean.lerp(x.detach().mean(0), 0.1)
            return x - x.mean(0)
        return x - self.mean


@pytest.mark.parametrize("kind", [lambda: nn.BatchNorm1d(32), Cell, lambda: nn.LayerNorm(32)])
@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_a_step_that_trains_in_evaluation_mode(kind: Callable[[], nn.Module], when: str) -> None:
    """Put there at its start, or left there by the step before; nothing is said where nothing has a mode."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        if when == "before":
            model.eval()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if when == "after":
            model.eval()
        return loss.detach()

    torch.manual_seed(0)
    result = run_overfit(
        lambda: nn.Sequential(nn.Linear(4, 32), kind(), nn.Tanh(), nn.Linear(32, 3)),
        (torch.randn(6, 4), torch.arange(6) % 3), step=step, objective=0.1,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )  # fmt: skip
    found = when != "never" and not isinstance(kind(), nn.LayerNorm)
    assert [(cause.id, cause.where) for cause in result.causes] == ([("mode-gap", "1")] if found else [])


class OwnTrain(nn.Sequential):
    """Says itself which of its parts change their mode, as the models of segmentation libraries do."""

    def train(self, mode: bool = True) -> OwnTrain:
        for part in self:
            part.train(mode)
        self.training = mode
        return self


@pytest.mark.parametrize(("mode", "cause"), [(False, "mode-gap"), (True, "")])
def test_a_train_of_its_own_hides_no_mode(mode: bool, cause: str) -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        model.train(mode)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    torch.manual_seed(0)
    result = run_overfit(
        lambda: OwnTrain(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 3)),
        (torch.randn(6, 4), torch.arange(6) % 3), step=step, objective=0.1,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )  # fmt: skip
    assert told(result) == cause


def test_a_sample_that_is_drawn_is_no_dropout() -> None:
    """Noise that a model adds in both modes, and that it learns under."""
    assert run(noise).passed


def normalised(momentum: float = 0.01, train_alone: bool = False) -> OverfitResult:
    """A stack of batch norms over two values a channel, which passes before its running statistics have settled."""
    torch.manual_seed(0)

    class Norm(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (-1 if train_alone and self.training else 1)

    blocks = [layer for _ in range(5) for layer in (nn.Linear(64, 64), Norm(64, momentum=momentum), nn.Tanh())]
    model = nn.Sequential(nn.Linear(4, 64), *blocks, nn.Linear(64, 3))
    data = 50 + 20 * torch.randn(3, 4), torch.arange(3)
    return run_overfit(model, data, nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))


def test_statistics_that_have_yet_to_settle_are_no_gap() -> None:
    """Evaluation is far from training after so few steps; with the statistics of these weights it is not."""
    result = normalised()
    assert result.evidence is not None
    probed = result.evidence.probed
    assert probed.evaluation is not None
    assert probed.evaluation > 1
    assert probed.evaluation_settled == pytest.approx(probed.training, abs=0.01)
    assert result.passed


def test_statistics_that_never_follow_and_modes_that_differ_are_one() -> None:
    """A momentum of nothing; a sign in training alone."""
    for result in (normalised(momentum=1e-5), normalised(train_alone=True)):
        assert [cause.id for cause in result.causes] == ["mode-gap"]


def test_evaluation_that_returns_no_element_depends_on_nothing() -> None:
    """A detector whose boxes are below their threshold: nothing that could be moved."""

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.net(x)
            return scores if self.training else scores[scores.amax(1) > 1e6]  # type: ignore[no-any-return]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = model(batch[0])
        return F.cross_entropy(scores, batch[1]) if len(scores) else scores.sum()

    torch.manual_seed(0)
    data = torch.randn(6, 4), torch.arange(6) % 3
    result = run_overfit(Detector, data, loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    assert result.passed
    assert not result.causes


def test_a_batch_norm_that_has_no_momentum_breaks_no_question() -> None:
    """A frozen one of a user's own: it inherits, and keeps two buffers alone."""

    class Held(nn.BatchNorm1d):
        def __init__(self, width: int) -> None:
            super().__init__(width, affine=False)
            del self.momentum

        def forward(self, x: Tensor) -> Tensor:
            assert self.running_mean is not None
            assert self.running_var is not None
            held = (x - self.running_mean) / (self.running_var + 1e-5).sqrt()
            return held if self.training else -held

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), Held(64), nn.Tanh(), nn.Linear(64, 3))
    result = run_overfit(
        model, (torch.randn(6, 4), torch.arange(6) % 3), nn.CrossEntropyLoss(), objective=0.3,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )  # fmt: skip
    assert [cause.id for cause in result.causes] == ["mode-gap"]
    assert not [each for each in result.not_asked if each.ours]


class Still(nn.Module):
    """A norm of its own kind, whose statistics somebody may have forgotten to update."""

    def __init__(self, follows: bool) -> None:
        super().__init__()
        self.follows = follows
        self.register_buffer("mean", torch.zeros(64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.mean: Tensor
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x - self.mean
        self.calls += 1
        if self.follows:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("norm", "found"),
    [
        (lambda: nn.BatchNorm1d(64, momentum=0.0), ["running_mean and running_var"]),
        (lambda: nn.BatchNorm1d(64, momentum=0.1), []),
        (lambda: Still(follows=False), ["mean"]),
        (lambda: Still(follows=True), []),
    ],
    ids=["batch norm, momentum 0", "batch norm", "by hand, forgotten", "by hand"],
)
def test_statistics_of_one_module_that_stand_still(norm: Callable[[], nn.Module], found: list[str]) -> None:
    """The objective hardly feels it, since a norm of samples follows; a counter that goes on is no statistics."""
    torch.manual_seed(0)
    result = run_overfit(
        lambda: nn.Sequential(
            nn.Linear(4, 64), norm(), nn.Tanh(), nn.Linear(64, 64), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 3)
        ),
        (torch.randn(8, 4), torch.arange(8) % 3), nn.CrossEntropyLoss(), objective=0.05,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )  # fmt: skip
    assert [(cause.id, cause.where.partition(" (")[0]) for cause in result.causes] == [
        ("mode-gap", "module 1") for _ in found
    ]
    assert all(f"{names} stand still" in cause.observed for names, cause in zip(found, result.causes, strict=True))


@pytest.mark.parametrize(
    ("between", "found"),
    [
        (lambda x, training: x[:, torch.randperm(5)], True),
        (lambda x, training: x.gather(2, torch.rand(x.shape).argsort(2)), True),
        (lambda x, training: torch.roll(x, int(torch.randint(1, 5, ())), 1), True),
        (lambda x, training: x[:, torch.randperm(5)].mean(1, keepdim=True).expand_as(x), False),
        (lambda x, training: x[:, torch.tensor([3, 1, 4, 0, 2])], False),
    ],
    ids=["places", "channels", "rolled", "no matter", "fixed"],
)
def test_an_order_that_is_drawn_in_every_call(between: Callable[[Tensor, bool], Tensor], found: bool) -> None:
    """Learnt all the same, where it is; what does not care for the order, or has one for good, is not named."""
    torch.manual_seed(0)
    data = torch.randn(6, 5, 4), torch.arange(6) % 3
    result = run_overfit(
        lambda: Sequence(between), data, nn.CrossEntropyLoss(), objective=0.9, max_steps=800,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )  # fmt: skip
    assert [cause.id for cause in result.causes] == (["stochastic"] if found else [])
    assert result.passed != found
