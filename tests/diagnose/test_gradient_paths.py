"""What gradients reach and what they do not: cuts, teachers, others' parameters, declarations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytest_overfit import OverfitResult, run_overfit


def data() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=drawn), torch.arange(6) % 3


def learn(model: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 300, **settings}
    if "step" not in settings:
        loss = loss or nn.CrossEntropyLoss()
    return run_overfit(model, data(), loss, **settings)


def first(result: OverfitResult) -> str:
    return result.causes[0].id if result.causes else ""


class Tower(nn.Module):
    """An encoder with a layer that nothing reads, and one whose result nothing uses."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        self.encoder = nn.ModuleDict({"stem": nn.Linear(4, 64), "idle": nn.Linear(64, 64), "pooler": nn.Linear(64, 8)})
        self.mask_token, self.head = nn.Parameter(torch.zeros(1, 64)), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder["stem"](x).tanh()
        near = (x.detach().norm(dim=1) <= 1e6)[:, None]
        self.encoder["pooler"](x)
        return self.head((x.detach() if self.cut else x) * near)  # type: ignore[no-any-return]


def test_the_advised_glob_matches_what_is_idle_and_nothing_else() -> None:
    """It can be pasted; a wider one is an error that names what learns."""
    result = learn(Tower)
    assert first(result) == "unused"
    assert "no call of the run reads 3" in result.causes[0].observed
    exact = ["mask_token", "encoder.idle.*", "encoder.pooler.*"]
    assert result.causes[0].advice.endswith(f"unused={exact!r}")
    assert learn(Tower, unused=exact).passed
    wide = learn(Tower, unused=["encoder.*", "mask_token"])
    assert wide.finding("gradients").where == "encoder.stem.weight, encoder.stem.bias"
    assert f"unused={exact!r}" in str(wide.finding("gradients").hint)


def test_what_is_cut_off_is_not_unused() -> None:
    """A declaration of idle parameters hides no detached encoder; one of frozen parameters says what is meant."""
    unused = ["encoder.idle.*", "encoder.pooler.*", "mask_token"]
    result = learn(lambda: Tower(cut=True), unused=["encoder*", "mask_token"])
    assert first(result) == "no-gradient"
    assert result.causes[0].observed.startswith(".detach() cuts the graph in ")
    assert result.causes[0].observed.endswith("(2 of them declared unused)")
    assert learn(lambda: Tower(cut=True), unused=unused, frozen=["encoder.stem.*"]).passed


class Refining(nn.Module):
    """Rounds that are cut from each other on purpose, and a last cut that keeps all of them from the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.round, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.trunk(x)
        for _ in range(3):
            state = state + torch.tanh(self.round(state.detach()))
        return self.head(x.new_ones(len(x), 8)) + self.last(state)  # type: ignore[no-any-return]

    def last(self, state: Tensor) -> Tensor:
        return state[:, :3].detach()


def test_of_several_cuts_the_last_one_is_named() -> None:
    """Without any other one no gradient would arrive all the same."""
    result = learn(Refining)
    assert first(result) == "no-gradient"
    assert "return state[:, :3]" in result.causes[0].advice, result.causes[0].advice


class Taught(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.parts = nn.ModuleDict({"student": nn.Linear(4, 8), name: nn.Linear(4, 8), "head": nn.Linear(8, 3)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = self.parts[self.name](x)
        hidden = self.parts["student"](x)
        return self.parts["head"](hidden), (hidden - wanted).square().mean()


def taught(model: nn.Module, batch: Any) -> Tensor:
    answer, gap = model(batch[0])
    return F.cross_entropy(answer, batch[1]) + 1e-3 * gap  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "found"), [("teacher", ""), ("trunk", "no-gradient")])
def test_a_teacher_runs_without_gradients_on_purpose(name: str, found: str) -> None:
    assert first(learn(lambda: Taught(name), taught)) == found


class Wrapped(nn.Module):
    """Blocks under reentrant checkpointing, over an embedding that is frozen."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant, self.stem = reentrant, nn.Linear(4, 64).requires_grad_(False)
        self.block, self.head = nn.Sequential(nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, self.stem(x), use_reentrant=self.reentrant))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_over_inputs_without_a_gradient() -> None:
    result = learn(lambda: Wrapped(True))
    assert first(result) == "no-gradient"
    assert "reentrant checkpointing" in result.causes[0].observed
    assert "use_reentrant=False" in result.causes[0].advice
    assert learn(lambda: Wrapped(False)).passed


class Rounded(nn.Module):
    """Levels that are learnt, and values that are moved to the nearest of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.levels, self.head = nn.Linear(4, 64), nn.Parameter(torch.linspace(-1, 1, 9)), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).tanh()
        nearest = self.levels[(x[..., None] - self.levels).abs().argmin(-1)]
        return self.head(x + (nearest - x).detach())  # type: ignore[no-any-return]


def test_a_straight_through_estimator_is_not_advised_away() -> None:
    result = learn(Rounded)
    assert first(result) == "no-gradient"
    assert result.causes[0].where == "levels"
    assert result.causes[0].advice.startswith("leave .detach() there")


class Hyper(nn.Module):
    """A layer whose weights another one makes."""

    def __init__(self, anew: bool) -> None:
        super().__init__()
        self.anew, self.maker, self.head = anew, nn.Linear(4, 3 * 16), nn.Linear(16, 3)
        self.code = nn.Parameter(torch.ones(4))
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        made = self.maker(self.code).view(3, 16)
        if self.anew:
            self.head.weight = nn.Parameter(made)
            return self.head(self.body(x))  # type: ignore[no-any-return]
        return F.linear(self.body(x), self.head.weight + made, self.head.bias)


def test_a_parameter_that_forward_builds_anew_is_one_cause() -> None:
    result = learn(lambda: Hyper(True))
    assert first(result) == "no-gradient"
    line = Hyper.forward.__code__.co_firstlineno + 3
    assert result.causes[0].where == f"head.weight, test_gradient_paths.py:{line}"
    assert "code, maker.weight, maker.bias get no gradient" in result.causes[0].observed
    assert not {"unregistered", "optimizer-coverage"} & {cause.id for cause in result.causes}
    assert learn(lambda: Hyper(False)).passed


def body() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))


def of_both(judge: nn.Module) -> Any:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        answer = model(batch[0])
        return F.cross_entropy(answer, batch[1]) + 1e-3 * judge(answer).square().mean()  # type: ignore[no-any-return]

    return loss


@pytest.mark.parametrize("kind", ["left out", "evaluating", "frozen", "trained"])
def test_parameters_of_a_loss(kind: str) -> None:
    """They are named where they are to learn and no optimizer has them."""
    torch.manual_seed(0)
    model, judge = body(), nn.Linear(3, 5)
    if kind == "evaluating":
        judge.eval()
    judge.requires_grad_(kind != "frozen")
    held = [*model.parameters(), *(judge.parameters() if kind == "trained" else ())]
    result = learn(model, of_both(judge), optimizer=torch.optim.Adam(held, 1e-2))
    assert first(result) == ("optimizer-coverage" if kind == "left out" else "")
    if kind == "left out":
        assert result.causes[0].where == "Linear.weight, Linear.bias"


def test_an_optimizer_of_the_step_counts_wherever_it_is_kept() -> None:
    """Also where it steps seldom."""
    torch.manual_seed(0)
    other, seen = nn.Linear(4, 3), [0]
    own = torch.optim.SGD(other.parameters(), 0.1)

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1]) + 1e-3 * F.cross_entropy(other(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen[0] += 1
        if seen[0] % 5 == 0:
            own.step()
            own.zero_grad()
        return loss

    assert learn(body, step=step).passed


def test_a_point_that_a_derivative_is_taken_by_is_nobodys_parameter() -> None:
    torch.manual_seed(0)
    points = torch.linspace(0, 1, 6)[:, None].expand(6, 4).clone().requires_grad_()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
        return F.cross_entropy(model(batch[0]), batch[1]) + 1e-4 * slope.square().mean()

    assert learn(body, loss).passed


def test_a_forgotten_backward_is_counted() -> None:
    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.step()
        return loss

    result = learn(body, step=step, max_steps=30)
    assert first(result) == "no-gradient"
    assert result.causes[0].observed.startswith(
        "no backward pass in the first 3 of 30 training steps, and 30 optimizer"
    )


def test_an_update_that_is_written_out_steps_as_well() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad  # type: ignore[operator, misc]
        return loss

    assert learn(body, step=step, optimizer=None, max_steps=600).passed


class Keyed(nn.Module):
    """Attention of which the bias of the keys shifts all logits alike."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 32) for _ in range(3))
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).T / 32**0.5).softmax(-1)
        return self.head(self.v(x) + weights @ self.v(x))  # type: ignore[no-any-return]


def test_the_bias_of_keys_is_not_dead() -> None:
    """Its gradient is zero by mathematics, whatever rounding leaves of it."""
    result = learn(Keyed, max_steps=20, criteria=None)
    assert "zero-gradient" not in {cause.id for cause in result.causes}
    assert learn(Keyed, max_steps=600).passed
