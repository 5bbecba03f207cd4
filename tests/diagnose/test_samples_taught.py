"""Which samples teach and by whose target: told by effect, whatever takes them out of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Batch = dict[str, Tensor]
SOURCE = torch.Generator().manual_seed(5)
X, Y = torch.randn(7, 6, generator=SOURCE), torch.randn(7, 2, generator=SOURCE)
KIND = torch.tensor([0, 1, 2, 0, 1, 2, 1])


def learn(model: Any, batch: Any, loss: Callable[[nn.Module, Any], Tensor], **more: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 1e-2), "objective": 0.05, "max_steps": 400}
    return run_overfit(model, batch, loss, **{**settings, **more})


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, width))


def found(result: OverfitResult) -> list[tuple[str, str]]:
    return [(cause.id, cause.where) for cause in result.causes]


def but_the_last(model: nn.Module, batch: Batch) -> Tensor:
    out = model(batch["x"])
    return sum((F.l1_loss(out[i], batch["y"][i]) for i in range(len(out) - 1)), torch.zeros(())) / len(out)


def held_back(model: nn.Module, batch: Batch) -> Tensor:
    """Three samples count in the value, and give no gradient."""
    out = model(batch["x"])
    keep = torch.tensor([1, 1, 0, 1, 0, 1, 0])[:, None].bool()
    return F.mse_loss(torch.where(keep, out, out.detach()), batch["y"])


def weighed(model: nn.Module, batch: Batch) -> Tensor:
    return (F.mse_loss(model(batch["x"]), batch["y"], reduction="none").mean(1) * batch["weight"]).sum() / 5


def of_a_list(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["x"])[batch["labelled"]], batch["y"][batch["labelled"]])


def with_a_margin(model: nn.Module, batch: Batch) -> Tensor:
    return F.multi_margin_loss(model(batch["x"]), batch["kind"])


def the_hardest(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["kind"], reduction="none").topk(4).values.mean()


@pytest.mark.parametrize(
    ("loss", "samples"), [(but_the_last, "samples 6"), (held_back, "samples 2, 4, 6")], ids=["not read", "detached"]
)
def test_samples_that_teach_nothing(loss: Callable[[nn.Module, Any], Tensor], samples: str) -> None:
    result = learn(net(2), {"x": X, "y": Y}, loss, objective=0.5)
    assert not result.passed
    assert ("unsupervised", samples) in found(result)


@pytest.mark.parametrize("loss", [weighed, of_a_list, with_a_margin, the_hardest])
def test_samples_that_the_batch_leaves_out_or_that_are_right(loss: Callable[[nn.Module, Any], Tensor]) -> None:
    """A weight of the batch, a list of it, a margin that is kept, others that are harder."""
    weight, labelled = torch.tensor([1.0, 1, 0, 1, 1, 0, 1]), torch.tensor([0, 1, 4, 6])
    batch = {"x": X, "y": Y, "kind": KIND, "weight": weight, "labelled": labelled}
    result = learn(net(3 if loss in (with_a_margin, the_hardest) else 2), batch, loss)
    assert not {"unsupervised", "target-mismatch"} & {cause.id for cause in result.causes}, found(result)


def of_the_first(model: nn.Module, batch: Batch) -> Tensor:
    return F.l1_loss(model(batch["x"]), batch["y"][:1].expand(len(batch["y"]), -1))


def drawn_anew(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["kind"][torch.randperm(len(batch["kind"]))])


def smoothed_and_weighed(model: nn.Module, batch: Batch) -> Tensor:
    """Weights of classes: another label is another divisor of all."""
    return F.cross_entropy(model(batch["x"]), batch["kind"], weight=torch.tensor([1.0, 2.0, 5.0]), label_smoothing=0.05)


def of_a_pair(model: nn.Module, batch: Batch) -> Tensor:
    """Two samples mixed, and both of their targets."""
    other = torch.arange(7).roll(2)
    out, kind = model(0.8 * batch["x"] + 0.2 * batch["x"][other]), batch["kind"]
    return 0.8 * F.cross_entropy(out, kind) + 0.2 * F.cross_entropy(out, kind[other])


def contrastive(model: nn.Module, batch: Batch) -> Tensor:
    out = F.normalize(model(batch["x"]), dim=1)
    return F.cross_entropy(8 * out @ F.normalize(batch["z"], dim=1).T, torch.arange(7))


@pytest.mark.parametrize("loss", [of_the_first, drawn_anew])
def test_samples_that_are_held_against_the_target_of_another(loss: Callable[[nn.Module, Any], Tensor]) -> None:
    result = learn(net(2 if loss is of_the_first else 3), {"x": X, "y": Y, "kind": KIND}, loss)
    assert not result.passed
    assert "target-mismatch" in [cause.id for cause in result.causes]


@pytest.mark.parametrize("loss", [smoothed_and_weighed, of_a_pair, contrastive])
def test_targets_of_one_or_of_all(loss: Callable[[nn.Module, Any], Tensor]) -> None:
    batch = {"x": X, "y": Y, "kind": KIND, "z": torch.randn(7, 3, generator=torch.Generator().manual_seed(1))}
    result = learn(net(3), batch, loss, objective=0.9)
    assert not {"unsupervised", "target-mismatch"} & {cause.id for cause in result.causes}, found(result)


def slopes(model: nn.Module, batch: Any, rows: int) -> Tensor:
    """What is learnt is the derivative of the output."""
    x = batch[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return F.mse_loss(slope[:rows], batch[1][:rows])


@pytest.mark.parametrize(("rows", "right"), [(6, True), (4, False)])
def test_a_loss_of_derivatives(rows: int, right: bool) -> None:
    """No output is read: the slopes along the samples themselves tell."""
    x = torch.linspace(-2, 2, 6)[:, None]
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1, bias=False))
    result = learn(model, (x, x.cos()), lambda model, batch: slopes(model, batch, rows))
    assert [cause.id for cause in result.causes] == ([] if right else ["unsupervised"]), result.failure_text()


class Reader(nn.Module):
    """Causal by its recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read, self.head = nn.Embedding(20, 24), nn.GRU(24, 48, batch_first=True), nn.Linear(48, 20)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.read(self.embed(ids))[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("by", "found"), [(1, []), (-1, ["leak", "target-mismatch"])], ids=["next", "previous"])
def test_tokens_that_are_shifted_the_wrong_way(by: int, found: list[str]) -> None:
    """What an output has to predict it has read already."""
    ids = torch.stack([torch.randperm(20, generator=SOURCE)[:9] for _ in range(3)])
    ids[:, 0] = torch.tensor([0, 1, 2])

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        wanted = batch.roll(-by, 1)
        wanted[:, -1 if by > 0 else 0] = -100
        return F.cross_entropy(model(batch).flatten(0, 1), wanted.flatten())

    torch.manual_seed(0)
    result = learn(Reader(), ids, loss)
    assert [cause.id for cause in result.causes] == found, result.failure_text()


class Images(nn.Module):
    """Pictures of any size in a list, one row of numbers for each."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Tanh())
        self.head = nn.Linear(32, 4)

    def forward(self, images: list[Tensor]) -> Tensor:
        return self.head(torch.stack([self.trunk(each[None]).mean((0, 2, 3)) for each in images]))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("rows", "found"), [(4, ["samples 4"]), (5, [])])
def test_samples_that_are_no_rows_of_a_tensor(rows: int, found: list[str]) -> None:
    images = [torch.randn(3, 6 + k, 7, generator=SOURCE) for k in range(5)]

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return F.cross_entropy(model(batch["images"])[:rows], batch["kind"][:rows])

    result = learn(Images(), {"images": images, "kind": torch.tensor([0, 1, 2, 3, 1])}, loss)
    assert [cause.where for cause in result.causes] == found, result.failure_text()
    assert all(cause.id == "unsupervised" for cause in result.causes)


def test_samples_that_others_are_compared_with_are_taught_by() -> None:
    """A gradient is stopped on purpose."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        out = model(batch["x"])
        return F.mse_loss(out[:3], batch["y"][:3]) + 0.01 * F.mse_loss(out[:3], out[3:6].detach())

    result = learn(net(2), {"x": X[:6], "y": Y[:6]}, loss, objective=0.5)
    assert "unsupervised" not in [cause.id for cause in result.causes], found(result)


@pytest.mark.parametrize(
    ("rows", "unread"),
    [
        ([0] * 7, "samples 1, 2, 3, 4 and 2 more"),
        ([0, 1, 2, 3, 0, 1, 2], "samples 4, 5, 6"),
        ([6, 5, 4, 3, 2, 1, 0], ""),
    ],
)
def test_samples_that_the_model_never_reads(rows: list[int], unread: str) -> None:
    """Others stand in their rows, with their targets: the limit is met; another order of all is fine."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            out = self.net(x[rows])
            return {"out": out, "loss": F.mse_loss(out, y[rows])}

    result = learn(Reads(), {"x": X, "y": Y}, lambda model, batch: model(**batch)["loss"])
    assert [each for each in found(result) if each[0] != "batch-mixing"] == ([("input-ignored", unread)] * bool(unread))


@pytest.mark.parametrize(
    ("loss", "right"),
    [
        (lambda model, batch: F.mse_loss(model(batch), batch), True),
        (lambda model, batch: F.mse_loss(model(batch).flip(0), batch), False),
        (lambda model, batch: F.mse_loss(model(batch), batch.roll(2, 0)), False),
        (lambda model, batch: F.mse_loss(model(batch)[:-1], batch[1:]), True),
    ],
    ids=["itself", "turned", "rolled", "the next one"],
)
def test_inputs_that_are_their_own_targets(loss: Callable[[nn.Module, Tensor], Tensor], right: bool) -> None:
    """What is restored is another sample's; along a sequence the next one is meant."""
    result = learn(net(6), X, loss, objective=0.6)
    assert [cause.id for cause in result.causes] == ([] if right else ["target-mismatch"]), found(result)


@pytest.mark.parametrize("rows", [2, 4])
def test_the_target_of_the_first_for_few(rows: int) -> None:
    """One row that is held against another is no sequence."""
    first = {"x": X[:rows], "y": Y[:rows]}
    result = learn(net(2), first, lambda m, b: F.mse_loss(m(b["x"]), b["y"][:1].expand(rows, -1)))
    assert [cause.id for cause in result.causes][:1] == ["target-mismatch"], found(result)


@pytest.mark.parametrize(
    ("counts", "batch", "right"),
    [
        (lambda out, y: (out.flatten(0, 1)[:-1], y.flatten()[:-1]), {}, False),
        (lambda out, y: (out.flatten(0, 1)[4:], y.flatten()[4:]), {}, False),
        (lambda out, y: (out.flatten(0, 1), y.flatten()), {}, True),
        (lambda out, y: (out[:, :-1].flatten(0, 1), y[:, :-1].flatten()), {}, True),
        (lambda out, y: (out.flatten(0, 1), y.flatten()), {"ending": True}, True),
    ],
    ids=["all but the last", "but the first four", "all", "but the last of each", "no label at the end"],
)
def test_places_that_a_slice_leaves_out(counts: Any, batch: dict[str, Any], right: bool) -> None:
    """Tokens of all samples in one row, of which some at an end are not read."""
    source = torch.Generator().manual_seed(3)
    x, y = torch.randint(0, 20, (4, 6), generator=source), torch.randint(0, 5, (4, 6), generator=source)
    if batch:
        y[-1, -2:] = -100

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(*counts(model(batch["x"]), batch["y"]))

    result = learn(Reader(), {"x": x, "y": y}, loss, objective=0.3)
    assert [cause.id for cause in result.causes] == ([] if right else ["unsupervised"]), result.failure_text()


def test_a_stream_of_tokens_has_no_label_behind_its_end() -> None:
    """All rows in one: every token predicts the next one, and the last one none."""
    ids = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(3))

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return F.cross_entropy(model(batch).flatten(0, 1)[:-1], batch.flatten()[1:])

    assert "unsupervised" not in [cause.id for cause in learn(Reader(), ids, loss).causes]


@pytest.mark.parametrize(
    ("taken", "found"),
    [
        (lambda out: out, []),
        (lambda out: out.flip(1), ["target-mismatch"]),
        (lambda out: out[:, :-1], ["unsupervised"]),
    ],
    ids=["as they are", "turned", "but the last"],
)
def test_samples_behind_the_axis_of_time(taken: Callable[[Tensor], Tensor], found: list[str]) -> None:
    """Spikes of every step: (steps, samples, classes)."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.net(x * k) for k in (0.5, 1.0)])

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        out = taken(model(batch["x"])).mean(0)
        return F.cross_entropy(out, batch["kind"][: len(out)])

    result = learn(Steps(), {"x": X, "kind": KIND}, loss)
    assert [cause.id for cause in result.causes] == found, result.failure_text()
