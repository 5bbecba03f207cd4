"""Kinds of mistakes of public reports that one batch forgives, each beside the program as it should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions import own_loads
from tests.support.told import told


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"optimizer": lambda p: torch.optim.Adam(p, lr=5e-3), "max_steps": 400, "objective": 0.05}
    return run_overfit(model, batch, loss, **given | settings)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Forecaster(nn.Module):
    """Replaces the target's column by its lag, or by mistake another one."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column, self.rnn, self.head = column, nn.GRU(3, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, series: Tensor) -> Tensor:
        lagged = series.clone()
        lagged[:, 1:, self.column] = series[:, :-1, self.column]
        lagged[:, 0, self.column] = 0
        return self.head(self.rnn(lagged)[0])[..., 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("column", "cause"), [(2, ""), (0, "leak")])
def test_a_decoder_may_be_given_the_series_of_which_it_reads_the_past(column: int, cause: str) -> None:
    series = normal(6, 8, 3)
    batch = {"series": series, "target": series[:, :, 2].clone()}
    loss = lambda model, b: F.mse_loss(model(b["series"]), b["target"])  # noqa: E731
    result = learn(lambda: Forecaster(column), batch, loss)
    assert told(result) == cause
    if cause:
        assert "series" in result.causes[0].where
        assert "target stands in series" in result.causes[0].observed


class Registration(nn.Module):
    """Makes the fixed image of the moving one, which it warps, or of anything."""

    def __init__(self, warps: bool) -> None:
        super().__init__()
        self.warps = warps
        self.net = nn.Sequential(
            nn.Conv2d(2, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 2 if warps else 1, 3, padding=1)
        )

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([moving, fixed], 1))
        if not self.warps:
            return out
        grid = F.affine_grid(torch.eye(2, 3).expand(len(moving), 2, 3), list(moving.shape), align_corners=True)
        return F.grid_sample(moving, grid + 0.3 * out.permute(0, 2, 3, 1), align_corners=True)


@pytest.mark.parametrize(("warps", "cause"), [(True, ""), (False, "leak")])
def test_an_image_may_guide_the_warp_of_another_one_onto_it(warps: bool, cause: str) -> None:
    moving = F.interpolate(normal(2, 1, 5, 5), size=(12, 12), mode="bicubic", align_corners=True)
    batch = {"moving": moving, "fixed": moving.roll(1, 3) * 1.0}
    loss = lambda model, b: F.mse_loss(model(b["moving"], b["fixed"]), b["fixed"])  # noqa: E731
    assert told(learn(lambda: Registration(warps), batch, loss, objective=0.1)) == cause


class Turned(torch.autograd.Function):
    """Turns the gradient around."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -0.05 * grad


class AsFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Turned.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class AsMethod(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, grad_output: Tensor) -> Tensor:
        return -0.05 * grad_output


class Trainer(nn.Module):
    """A method of that name of which no autograd function knows: it is called."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("reversal", "cause"), [(AsFunction, ""), (AsMethod, "wrong-backward"), (Trainer, "")])
def test_a_gradient_is_turned_by_a_function(reversal: type[nn.Module], cause: str) -> None:
    class Speaker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.turn = nn.Sequential(nn.Linear(6, 32), nn.Tanh()), reversal()
            self.style, self.voice = nn.Linear(32, 3), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x)
            return self.style(hidden), self.voice(self.turn(hidden))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        style, voice = model(batch["x"])
        one, other = F.cross_entropy(style, batch["style"]), F.cross_entropy(voice, batch["voice"])
        return {"objective": one + other, "style": one, "voice": other}

    batch = {"x": normal(9, 6), "style": torch.arange(9) % 3, "voice": torch.arange(9) % 2}
    assert told(learn(Speaker, batch, loss, objective=False, style=0.1)) == cause


@pytest.mark.parametrize(("copied", "cause"), [(True, ""), (False, "weights-reset")])
def test_weights_that_are_swapped_for_an_average_come_back(copied: bool, cause: str) -> None:
    model, count = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2)), [0]
    average = {name: t.clone() for name, t in model.state_dict().items()}

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        count[0] += 1
        with torch.no_grad():
            for name, t in model.state_dict().items():
                average[name].lerp_(t, 0.2)
        if count[0] % 10 == 0:
            state = model.state_dict()
            kept = {name: t.clone() for name, t in state.items()} if copied else state
            model.load_state_dict(average)
            model.load_state_dict(kept)
        return loss.detach()

    result = learn(model, (normal(8, 6), normal(8, 2, seed=2)), step=step)
    assert told(result) == cause
    if cause:
        assert result.causes[0].where.startswith("test_public_reports.py:")


def test_a_look_at_what_is_loaded_that_breaks_leaves_the_load_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on, and says what was not asked."""

    def broken(module: nn.Module, given: Any) -> bool:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(own_loads, "_are_its_own", broken)
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "")

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.load_state_dict({name: t.clone() for name, t in model.state_dict().items()})
        return loss.detach()

    net = lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    result = learn(net, (normal(8, 6), normal(8, 2, seed=2)), step=step)
    assert result.record.steps > 1
    assert [each.question for each in result.not_asked if each.ours] == ["whether a module loads its own tensors"]


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize(("reduction", "cause"), [("batchmean", ""), ("mean", "loss-scale")])
@pytest.mark.parametrize("beside", [True, False])
def test_a_divergence_beside_another_term_is_one_of_samples(reduction: str, cause: str, beside: bool) -> None:
    """By itself it may be of any size."""

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        out = model(batch["x"])
        teacher = (8.0 * F.one_hot(batch["y"], 5)).softmax(1)
        near = F.kl_div(out.log_softmax(1), teacher, reduction=reduction)
        return 0.1 * F.cross_entropy(out, batch["y"]) + 0.9 * near if beside else near

    batch = {"x": normal(10, 6), "y": torch.arange(10) % 5}
    net = lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 5))  # noqa: E731
    result = learn(net, batch, loss)
    assert told(result) == (cause if beside else "")
    if cause and beside:
        assert 'reduction="batchmean"' in result.causes[0].advice


class Recogniser(nn.Module):
    """Returns its own loss, in which what cannot be aligned costs nothing."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride, self.body, self.head = stride, nn.GRU(8, 32, batch_first=True), nn.Linear(32, 6)

    def forward(self, frames: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        made = self.head(self.body(frames)[0][:, :: self.stride]).log_softmax(2).transpose(0, 1)
        ends = torch.full((len(frames),), len(made))
        return F.ctc_loss(made, labels, ends, lengths, reduction="sum", zero_infinity=True) / len(frames)


@pytest.mark.parametrize(("stride", "cause"), [(1, ""), (3, "unsupervised")])
def test_a_target_that_is_longer_than_the_output_teaches_nothing(stride: int, cause: str) -> None:
    labels = torch.randint(1, 6, (4, 7), generator=torch.Generator().manual_seed(3))
    batch = {"frames": normal(4, 15, 8), "labels": labels, "lengths": torch.tensor([3, 7, 6, 2])}
    result = learn(lambda: Recogniser(stride), batch, lambda model, b: model(**b), max_steps=600)
    assert told(result) == cause
    if cause:
        assert result.causes[0].where == "samples 1, 2"
        assert "zero_infinity" in result.causes[0].advice


class OwnLoss(nn.Module):
    """A decoder that shifts the labels by so many places, and returns its loss."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift, self.embed, self.rnn = shift, nn.Embedding(20, 48), nn.GRU(48, 48, batch_first=True)
        self.head = nn.Linear(48, 20)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.rnn(self.embed(input_ids))[0])
        places = logits.shape[1] - self.shift
        return F.cross_entropy(logits[:, :places].flatten(0, 1), labels[:, self.shift :].flatten())


@pytest.mark.parametrize(("shift", "cause"), [(1, ""), (2, "target-mismatch")])
def test_labels_are_shifted_once_in_a_model_that_returns_its_loss(shift: int, cause: str) -> None:
    ids = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(row))[:9] for row in range(3)])
    result = learn(lambda: OwnLoss(shift), {"input_ids": ids, "labels": ids}, lambda model, b: model(**b))
    assert told(result) == cause
    if cause:
        assert "shifted twice" in result.causes[0].observed


@pytest.mark.parametrize(("share", "cause"), [(1.0, "grad-accumulation"), (1 / 3, ""), (1 / 9, "grad-accumulation")])
def test_micro_batches_of_a_model_that_returns_its_loss_are_divided_once(share: float, cause: str) -> None:
    ids = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(row))[:9] for row in range(3)])

    def step(model: nn.Module, batch: Tensor, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for part in batch.chunk(3):
            loss = model(input_ids=part, labels=part)
            (loss * share).backward()
            total += loss.detach() / 3
        optimizer.step()
        return total

    assert told(learn(lambda: OwnLoss(1), ids, step=step)) == cause


class Ahead(nn.Module):
    """Attention over tokens, which are its labels too, under a triangle that begins at a diagonal; returns its loss."""

    def __init__(self, diagonal: int) -> None:
        super().__init__()
        self.diagonal, self.embed = diagonal, nn.Embedding(20, 32)
        self.place = nn.Parameter(normal(9, 32))
        self.layer, self.head = nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True), nn.Conv1d(32, 20, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.ones(9, 9, dtype=torch.bool).triu(self.diagonal)
        logits = self.head(self.layer(self.embed(tokens) + self.place, hidden).transpose(1, 2))
        return F.cross_entropy(logits[..., :-1], tokens[:, 1:])


@pytest.mark.parametrize(("diagonal", "cause"), [(1, ""), (2, "leak"), (9, "leak")])
def test_a_model_that_returns_its_loss_does_not_read_the_next_token(diagonal: int, cause: str) -> None:
    ids = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(row))[:9] for row in range(3)])
    result = learn(lambda: Ahead(diagonal), ids, lambda model, b: model(b))
    assert told(result) == cause
    if cause:
        assert "later places arrive in layer" in result.causes[0].observed


class Placed(nn.Module):
    """Attention with a table of positions, of which all places take one row, or none."""

    def __init__(self, take: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.take, self.enter, self.head = take, nn.Linear(5, 32), nn.Linear(32, 2)
        self.register_buffer("pe", normal(1, 30, 32))
        self.layer = nn.TransformerEncoderLayer(32, 2, 48, 0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.enter(x) + self.take(self.get_buffer("pe"), x.shape[1])))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("take", "cause"),
    [
        (lambda pe, n: pe[:, :n], ""),
        (lambda pe, n: pe[:, n], "input-ignored"),
        (lambda pe, n: 0.0, "input-ignored"),
    ],
)
def test_positions_are_told_apart(take: Callable[[Tensor, int], Tensor], cause: str) -> None:
    batch = normal(3, 7, 5), normal(3, 7, 2, seed=2)
    result = learn(lambda: Placed(take), batch, lambda model, b: F.mse_loss(model(b[0]), b[1]))
    assert told(result) == cause
    if cause:
        assert result.causes[0].where == "pe"


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize(("inside", "cause"), [(False, ""), (True, "grad-accumulation")])
def test_gradients_of_micro_batches_are_zeroed_once(inside: bool, cause: str, parts: int) -> None:
    """Though the loss of the last one, which is reported, falls."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        for x, y in zip(batch[0].chunk(parts), batch[1].chunk(parts), strict=True):
            if inside:
                optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            (loss / parts).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    net = lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    assert told(learn(net, (normal(6, 6), normal(6, 2, seed=2)), step=step)) == cause


def test_a_perturbation_may_be_found_by_passes_of_its_own() -> None:
    """As adversarial training does, of the same samples."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        x = batch[0].clone()
        for _ in range(2):
            x.requires_grad_()
            optimizer.zero_grad()
            F.mse_loss(model(x), batch[1]).backward()  # type: ignore[no-untyped-call]
            assert x.grad is not None
            x = (x + 0.01 * x.grad.sign()).detach()
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    net = lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    assert told(learn(net, (normal(6, 6), normal(6, 2, seed=2)), step=step)) == ""
