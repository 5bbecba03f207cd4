"""Averages, switches, statistics and copies that do not follow what is trained; those that need not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.run.reachable import named
from tests.diagnose.small_moves import causes, data, learn


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))


class Follower:
    """An average that is kept by an object."""

    def __init__(self, model: nn.Module) -> None:
        self.ema_model = copy.deepcopy(model).requires_grad_(False)

    def update(self, model: nn.Module, most: int) -> None:
        with torch.no_grad():
            for own, theirs in list(zip(self.ema_model.parameters(), model.parameters(), strict=True))[:most]:
                own.lerp_(theirs, 0.1)


@pytest.mark.parametrize(("most", "seen"), [(0, "4 of 4"), (2, "2 of 4"), (4, "")])
def test_an_average_that_does_not_follow(most: int, seen: str) -> None:
    """None of it, or one layer."""
    torch.manual_seed(0)
    model = body()
    follower = Follower(model)

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        follower.update(model, most)
        return loss

    result = learn(model, data(), step=step)
    assert causes(result) == (["ema"] if seen else [])
    assert not seen or result.causes[0].observed.startswith(f"{seen} tensors of ema_model")


def test_a_copy_that_is_no_average_may_stay() -> None:
    """A reference that the weights are compared with is meant to stand."""
    torch.manual_seed(0)
    model = body()
    reference = copy.deepcopy(model).requires_grad_(False)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        answer = model(batch[0])
        return F.cross_entropy(answer, batch[1]) + 1e-4 * (answer - reference(batch[0])).square().mean()  # type: ignore[no-any-return]

    assert learn(model, data(), loss).passed


class Backbone(nn.Module):
    """A backbone with a switch, and a method that takes it at its word."""

    def __init__(self, freeze_trunk: bool, call: bool, norm: bool = False) -> None:
        super().__init__()
        self.freeze_trunk = freeze_trunk
        self.trunk = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64) if norm else nn.Tanh(), nn.Tanh())
        self.head = nn.Linear(64, 3)
        if call:
            self.freeze()

    def freeze(self) -> None:
        self.trunk.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("switch", "call", "found"),
    [(True, False, ["not-frozen"]), (True, True, []), (False, False, []), (False, True, [])],
)
def test_a_switch_that_nobody_follows(switch: bool, call: bool, found: list[str]) -> None:
    result = learn(lambda: Backbone(switch, call), data(), max_steps=1000)
    assert causes(result) == found
    if found:
        assert "freeze_trunk=True" in result.causes[0].observed
        assert result.causes[0].advice == "call model.freeze() before the optimizer is built: nobody has"


def test_what_a_glob_declares_frozen_and_moves_is_named() -> None:
    result = learn(body, data(), frozen=["0.*"])
    assert causes(result) == ["not-frozen"]
    assert result.causes[0].where == "0.weight, 0.bias"


@pytest.mark.parametrize(("evaluating", "found"), [(False, ["drift"]), (True, [])])
def test_statistics_of_a_frozen_module(evaluating: bool, found: list[str]) -> None:
    def build() -> nn.Module:
        model = Backbone(True, True, norm=True)
        if evaluating:
            model.trunk.eval()
        return model

    result = learn(build, data(), max_steps=1500)
    assert causes(result) == found
    assert not found or "trunk.1.running_mean" in result.causes[0].where


def test_things_are_reached_by_the_names_that_hold_them() -> None:
    """In closures, defaults and attributes."""
    shadow: dict[str, int] = {}
    held = Follower(body())
    held.slow = [shadow]  # type: ignore[attr-defined]

    def step(other: Any = held) -> Any:
        return shadow, other

    found = [(name, thing) for name, thing in named(step) if type(thing) in (dict, list)]
    assert ("shadow", shadow) in found
    assert ("slow", held.slow) in found  # type: ignore[attr-defined]


class Heads(nn.Module):
    """Two heads over one trunk, of which the second may be frozen."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.trunk, self.near, self.far = nn.Linear(4, 64), nn.Linear(64, 2), nn.Linear(64, 2)
        self.trunk.requires_grad_(not frozen)
        self.far.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x).tanh()
        return self.near(hidden), self.far(hidden)


def of_heads(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    near, far = (F.mse_loss(*pair) for pair in zip(model(batch[0]), batch[1], strict=True))
    return {"objective": near + far, "near": near, "far": far}


@pytest.mark.parametrize("steps", [60, 300])
def test_a_term_whose_own_parameters_are_frozen(steps: int) -> None:
    """However many steps there are."""
    torch.manual_seed(0)
    batch = data()[0], torch.randn(2, 6, 2)
    result = learn(lambda: Heads(True), batch, of_heads, max_steps=steps)
    assert causes(result)[0] == "frozen"
    assert result.causes[0].where == "far.weight, far.bias"
    assert learn(lambda: Heads(False), batch, of_heads).passed


class Adapted(nn.Module):
    """A frozen layer with an adapter beside it that is cut to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3)).requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(4, 1, bias=False), nn.Linear(1, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_B(self.lora_A(x))  # type: ignore[no-any-return]


def test_the_base_of_adapters_is_frozen_on_purpose() -> None:
    """More of the adapters is what helps."""
    result = learn(Adapted, data(), max_steps=200)
    assert not result.passed
    assert "frozen" not in causes(result)
    assert "capacity" in causes(result)


class Ensemble(nn.Module):
    """Copies of one member."""

    def __init__(self) -> None:
        super().__init__()
        member = body()
        self.members = nn.ModuleList(copy.deepcopy(member) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


@pytest.mark.parametrize(("rates", "found"), [((1e-2, 1e-2), ["symmetry"]), ((1e-2, 1e-3), [])])
def test_copies_are_no_defect_once_they_have_parted(rates: tuple[float, float], found: list[str]) -> None:
    """Whatever their first gradient was."""
    torch.manual_seed(0)
    model = Ensemble()
    groups = [{"params": m.parameters(), "lr": lr} for m, lr in zip(model.members, rates, strict=True)]
    assert causes(learn(model, data(), optimizer=torch.optim.Adam(groups))) == found


class Pooled(nn.Module):
    """Places weighed by a softmax, over the places or over the one number of each; or attention over few keys."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.score, self.head = kind, nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.stack([x, x.roll(1, 1), x.flip(1)], 1)  # (B, 3, 4)
        if self.kind == "one key":
            weights = (self.score(places[:, :1]) + x[:, None, :1]).softmax(-1)
            return self.head((weights * places[:, :1]).sum(1) + x)  # type: ignore[no-any-return]
        weights = self.score(places).softmax(1 if self.kind == "places" else -1)
        return self.head((weights * places).sum(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "found"), [("numbers", True), ("places", False), ("one key", False)])
def test_a_softmax_over_one_number_where_there_are_others(kind: str, found: bool) -> None:
    """A sequence of one key is that short."""
    result = learn(lambda: Pooled(kind), data(), max_steps=30)
    assert ("constant-output" in causes(result)) == found


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("prefixed", ["not-loaded"]),
        ("whole", []),
        ("another head", []),
        ("mended", []),
        ("other names", ["not-loaded"]),
    ],
)
def test_a_checkpoint_that_finds_no_place(kind: str, found: list[str]) -> None:
    """Another head may be missing, and a second load may mend the first."""
    saved = body().state_dict()

    def build() -> nn.Module:
        model = body()
        renamed = {f"backbone.{name}": value for name, value in saved.items()}
        if kind in ("prefixed", "mended"):
            model.load_state_dict(renamed, strict=False)
        if kind == "another head":
            model.load_state_dict({**{n: v for n, v in saved.items() if n < "2"}, "fc.w": torch.ones(1)}, strict=False)
        if kind == "other names":
            model.load_state_dict({"a": torch.ones(2), "b": torch.ones(3)}, strict=False)
        if kind in ("whole", "mended"):
            model.load_state_dict(saved)
        return model

    before = nn.Module.load_state_dict
    result = learn(build, data())
    assert causes(result) == found
    assert nn.Module.load_state_dict is before
    if kind == "prefixed":
        assert "'backbone.' where the model's begin with ''" in result.causes[0].advice


@pytest.mark.parametrize(("frozen", "called"), [([], False), (["head.*"], True)])
def test_a_method_is_called_only_where_something_asks_for_it(frozen: list[str], called: bool) -> None:
    """A user's freeze() may write a file, or count: without a switch, and a declaration, it is left alone."""
    calls = []

    class Counting(Backbone):
        def freeze(self) -> None:
            calls.append(1)

    learn(lambda: Counting(False, False), data(), max_steps=1000, frozen=frozen)
    assert bool(calls) is called


class Taught(nn.Module):
    """A student, and a copy of it that is frozen and in training mode; it tells the student, or feeds it."""

    def __init__(self, feeds: bool) -> None:
        super().__init__()
        self.feeds = feeds
        self.teacher = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Tanh()).requires_grad_(False)
        self.student = nn.Sequential(nn.Linear(20 if feeds else 4, 64), nn.Tanh(), nn.Linear(64, 16))
        self.criterion = nn.MSELoss(reduction="none")

    def forward(self, x: Tensor) -> Tensor:
        told = self.teacher(x)
        seen = torch.cat([x, told], 1) if self.feeds else x
        return self.criterion(self.student(seen), told).mean(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("feeds", "found"), [(False, []), (True, ["drift"])])
@pytest.mark.parametrize("by_step", [False, True])
def test_statistics_of_a_teacher_may_move(feeds: bool, found: list[str], by_step: bool) -> None:
    """Only the loss reads what it gives; where the student does too, evaluation goes by the statistics."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).mean()  # type: ignore[no-any-return]

    def step(model: nn.Module, batch: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        model.train()
        value = loss(model, batch)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value

    way = {"step": step} if by_step else {"loss": loss}
    torch.manual_seed(0)
    result = learn(lambda: Taught(feeds), data()[0] + 0.5, **way, max_steps=600, objective=0.05)
    assert causes(result) == found


def test_statistics_of_a_frozen_decoder_behind_what_is_trained() -> None:
    """No layer that is trained stands behind it."""

    class Tuned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompt = nn.Linear(4, 64)
            self.decoder = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 3)).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.prompt(x).tanh())  # type: ignore[no-any-return]

    assert causes(learn(Tuned, data(), max_steps=1500, objective=0.05)) == ["drift"]
