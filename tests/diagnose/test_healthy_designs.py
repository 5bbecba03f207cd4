"""Designs that are meant and look like a mistake, each beside the mistake that its rule is for."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


def data(samples: int = 8) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=source), torch.randint(0, 3, (samples,), generator=source)


def learn(model: Any, batch: Any, loss: Any = None, *, rate: float = 1e-2, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=rate), "max_steps": 400, **settings}
    return run_overfit(model, batch, loss or (None if "step" in settings else nn.CrossEntropyLoss()), **settings)


def certain(result: OverfitResult) -> list[str]:
    """The ids of what turns a run red."""
    return [cause.id for cause in result.causes if cause.certain]


def net(width: int = 32, out: int = 3, given: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, width), nn.Tanh(), nn.Linear(width, out))


@pytest.mark.parametrize(("rate", "found"), [(1e-2, []), (3.0, ["lr-group"])])
def test_a_new_head_grows_from_next_to_nothing(rate: float, found: list[str]) -> None:
    """At a hundred times the rate of its backbone and more: fine-tuning. What is wild moves any weight."""
    torch.manual_seed(0)
    model = net(64)
    nn.init.normal_(model[2].get_parameter("weight"), std=1e-3)
    groups = [{"params": model[0].parameters(), "lr": 2e-5}, {"params": model[2].parameters(), "lr": rate}]
    assert certain(learn(model, data(), optimizer=torch.optim.Adam(groups))) == found


class Rounds(nn.Module):
    """A state that is refined without gradients, and once with them; or what is added without any."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds, self.read, self.again, self.head = rounds, nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        read = self.read(x)
        state = torch.zeros_like(read)
        with torch.no_grad():
            for _ in range(self.rounds):
                state = (self.again(state) + read).tanh()
            cut = 3 * read.tanh()
        state = (self.again(state) + read).tanh() if self.rounds else read + self.again(read) + cut
        return self.head(state)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("rounds", "found"), [(9, []), (0, ["no-gradient"])])
def test_only_the_last_round_is_differentiated(rounds: int, found: list[str]) -> None:
    assert certain(learn(lambda: Rounds(rounds), data())) == found


class Probed(nn.Module):
    """A second head reads the same features, which it may not change; or the first one reads half of them so."""

    def __init__(self, beside: bool) -> None:
        super().__init__()
        self.beside, self.trunk = beside, nn.Linear(8, 32)
        self.head, self.probe = nn.Linear(32, 3), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x).tanh()
        held = hidden.detach()
        return self.head(hidden if self.beside else hidden + 2 * held**2), self.probe(held)


@pytest.mark.parametrize("limits", [{}, {"probe": 0.05}])
@pytest.mark.parametrize(("beside", "found"), [(True, []), (False, ["no-gradient"])])
def test_a_probe_reads_features_that_it_does_not_teach(
    beside: bool, found: list[str], limits: dict[str, float]
) -> None:
    """The other head has its whole gradient. One that has a part of it is cut."""

    def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        classes, probe = model(batch[0])
        first, second = F.cross_entropy(classes, batch[1]), F.mse_loss(probe, batch[2])
        return {"objective": first + second, "classes": first, "probe": second}

    x, y = data()
    assert certain(learn(lambda: Probed(beside), (x, y, torch.randn(8, 2)), loss, **limits)) == found


class Coded(nn.Module):
    """Points that all samples share, and a code of their own for each; or none of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.net = nn.Embedding(4, 8), net(64, 2, 16)

    def forward(self, sample: Tensor, points: Tensor) -> Tensor:
        return self.net(torch.cat([self.codes(sample), points], -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("rows", "found"), [((0, 1, 2, 3), []), ((0, 0, 0, 0), ["degenerate-batch"])])
def test_samples_differ_by_a_number_alone(rows: tuple[int, ...], found: list[str]) -> None:
    x, _ = data(4)
    batch = {"sample": torch.tensor(rows), "points": x[:1].repeat(4, 1), "y": x[:, :2]}

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch["sample"], batch["points"]), batch["y"])

    assert certain(learn(Coded, batch, loss)) == found


@pytest.mark.parametrize(("samples", "found"), [(1, []), (4, ["degenerate-batch"])])
def test_one_sample_may_have_a_constant_input(samples: int, found: list[str]) -> None:
    """A deep image prior; more samples than one are told apart by their inputs."""
    batch = torch.ones(samples, 8), data(1)[0].repeat(samples, 1)
    assert certain(learn(lambda: net(out=8), batch, nn.MSELoss())) == found


class Writer(nn.Module):
    """Each token from the one before: in training that of the target, or never."""

    def __init__(self, teach: bool) -> None:
        super().__init__()
        self.teach, self.words = teach, nn.Embedding(12, 32)
        self.reader, self.writer, self.head = nn.GRU(32, 32, batch_first=True), nn.GRUCell(32, 32), nn.Linear(32, 12)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        state, token, written = self.reader(self.words(source))[1][0], source[:, 0] * 0 + 11, []
        for place in range(target.shape[1]):
            state = self.writer(self.words(token), state)
            written.append(self.head(state))
            token = target[:, place] if self.training and self.teach else written[-1].argmax(-1)
        return torch.stack(written, 1)


@pytest.mark.parametrize(("teach", "found"), [(True, []), (False, ["input-ignored"])])
def test_a_target_is_read_in_training_alone(teach: bool, found: list[str]) -> None:
    source = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 10, (4, 4), generator=source), torch.randint(0, 10, (4, 3), generator=source)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(*batch).flatten(0, 1), batch[1].flatten())

    assert certain(learn(lambda: Writer(teach), batch, loss)) == found


@pytest.mark.parametrize("within", [False, True])
def test_a_mixture_of_one(within: bool) -> None:
    """Its weight is a softmax of one number, beside what is learnt; red is a gate that learns nothing for it."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        weight, mean, spread = model(batch[0]).chunk(3, -1)
        likely = (0 if within else weight.log_softmax(-1)) - spread - 0.5 * ((batch[1] - mean) / spread.exp()).square()
        return -likely.logsumexp(-1).mean()  # type: ignore[no-any-return]

    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.gate = net(), nn.Linear(8, 1) if within else None

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * (self.gate(x).softmax(-1) if self.gate else 1)  # type: ignore[no-any-return]

    result = learn(Weighed, (data()[0], data()[0][:, :1] * 3), loss, objective=-0.2)
    assert certain(result) == (["zero-gradient"] if within else [])
    assert [cause.id for cause in result.causes[:1]] == (["constant-output"] if within else [])


class Decoded(nn.Module):
    """Outputs that evaluation alone decodes, by a sigmoid; or inputs that training alone scales."""

    def __init__(self, decoded: bool) -> None:
        super().__init__()
        self.net, self.decoded = net(out=2), decoded

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.decoded:
            return self.net(x if self.decoded else 4 * x) if self.training else self.net(x).sigmoid()  # type: ignore[no-any-return]
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("decoded", "found"), [(True, []), (False, ["mode-gap"])])
def test_outputs_are_decoded_in_evaluation(decoded: bool, found: list[str]) -> None:
    assert certain(learn(lambda: Decoded(decoded), (data()[0], data(9)[0][1:, :2]), nn.MSELoss())) == found


class Mirrored(nn.Module):
    """Evaluation takes the mean of the outputs for an input and for its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net(out=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.training else (self.net(x) + self.net(x.flip(-1))) / 2  # type: ignore[no-any-return]


def test_who_asks_once_more_in_evaluation_does_not_decode() -> None:
    assert certain(learn(Mirrored, (data()[0], data(9)[0][1:, :2]), nn.MSELoss())) == ["mode-gap"]


class Chosen(nn.Module):
    """One feature for each sample: weighed in training, and the largest alone in evaluation; or the smallest."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign, self.gate, self.head = sign, nn.Linear(8, 16), net(64, given=16)

    def forward(self, x: Tensor) -> Tensor:
        scores = 2 * self.gate(x)
        hard = F.one_hot((self.sign * scores).argmax(-1), 16).float()
        return self.head(scores.softmax(-1) if self.training else hard)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("sign", "found"), [(1, []), (-1, ["mode-gap"])])
def test_a_choice_is_soft_in_training(sign: int, found: list[str]) -> None:
    """What costs the objective nothing is meant."""
    assert certain(learn(lambda: Chosen(sign), data(6), max_steps=600)) == found


@pytest.mark.parametrize(("flags", "found"), [({"freeze_norm": True, "freeze_epochs": 5}, []),
                                              ({"freeze_trunk": True}, ["not-frozen"])])  # fmt: skip
def test_a_flag_is_about_what_it_names(flags: dict[str, Any], found: list[str]) -> None:
    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = nn.Linear(8, 32), nn.Linear(32, 3)
            vars(self).update(flags)

        def freeze_stem(self) -> None:
            self.trunk.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.trunk(x).tanh())  # type: ignore[no-any-return]

    assert certain(learn(Flagged, data())) == found


class Routed(nn.Module):
    """Six experts, of which each sample takes the one that it likes best; or all, and of one nothing."""

    def __init__(self, skips: bool) -> None:
        super().__init__()
        self.skips, self.router = skips, nn.Linear(8, 6)
        self.experts = nn.ModuleList(net() for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        best, chosen = self.router(x).softmax(-1).max(-1)
        out = x.new_zeros(len(x), 3)
        for place, expert in enumerate(self.experts):
            if self.skips:
                out = out + (place != 1) * expert(x)
            else:
                rows = chosen == place
                out[rows] = best[rows, None] * expert(x[rows])
        return out + 0 * best[:, None] if self.skips else out


@pytest.mark.parametrize(("skips", "found"), [(False, []), (True, ["zero-gradient"])])
def test_an_expert_that_no_sample_chooses(skips: bool, found: list[str]) -> None:
    """Another batch of the same numbers chooses it."""
    result = learn(lambda: Routed(skips), data(4), unused=["router.*"] if skips else [])
    assert (result.passed, certain(result)) == (not skips, found)


def test_a_term_of_what_the_model_keeps_is_no_penalty_on_weights() -> None:
    class Balanced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.kept = net(), torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.net[:2](x)
            self.kept = 10 * (hidden.mean(0).square().sum() + 1)
            return self.net[2](hidden)  # type: ignore[no-any-return]

    def loss(model: Any, batch: Any, *, own: bool) -> dict[str, Tensor]:
        classes = F.cross_entropy(model(batch[0]), batch[1])
        other = 10 * (model.net[0].weight.square().sum() + 1) if own else model.kept
        return {"objective": classes + other, "classes": classes, "other": other}

    for own in (True, False):
        result = learn(Balanced, data(), partial(loss, own=own), max_steps=60)
        assert ("weight-decay" in [cause.id for cause in result.causes]) == own


@pytest.mark.parametrize("counted", ["model", "loss"])
@pytest.mark.parametrize(("slope", "found"), [(1e-3, []), (0.0, ["term-weight"])])
def test_a_term_whose_weight_is_still_warming_up(slope: float, found: list[str], counted: str) -> None:
    """It has none before step 2000, and the run is over then; or it never has any."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(out=6)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
            self.calls: Tensor

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            return self.net(x).split(3, -1)  # type: ignore[no-any-return]

    calls = 0

    def loss(model: Any, batch: Any) -> dict[str, Tensor]:
        nonlocal calls
        first, second = model(batch[0])
        calls += 1
        at = model.calls.item() if counted == "model" else calls
        weight = slope * min(max(at - 2000, 0), 1000)
        classes, code = F.cross_entropy(first, batch[1]), (second - 3).square().mean()
        return {"objective": classes + weight * code, "classes": classes, "code": code}

    assert certain(learn(Counting, data(), loss)) == found
