"""The supervision map: what of every output counts in every term, and which samples teach nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.run.supervision_record import Taught
from pytest_overfit.text.numbers import debug_lines

TOKENS = torch.arange(2, 26).view(4, 6) % 17 + 2


class Tagger(nn.Module):
    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(20, 24), nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.gru(self.embed(tokens))[0])  # type: ignore[no-any-return]


def shifted(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["tokens"])[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


def in_place(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["tokens"]).mT, batch["labels"])


def run(batch: Any, loss: Any, model: Any = Tagger, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 300, **settings}
    return run_overfit(model, batch, loss, **settings)


def taught(result: OverfitResult, term: str = "objective") -> Taught:
    assert result.record.supervision is not None
    return next(line for line in result.record.supervision.taught if line.term == term)


def labelled(**rows: Any) -> dict[str, Tensor]:
    """Tokens with labels: those of whole rows, or of places, that do not count."""
    labels = (7 * TOKENS) % 20 if rows.get("other") else TOKENS.clone()
    labels[:, :2] = -100
    for row in rows.get("without", ()):
        labels[row] = -100
    return {"tokens": TOKENS, "labels": labels, **rows.get("beside", {})}


def test_places_samples_and_labels_are_counted() -> None:
    """A prompt that does not count is no defect; the last place of a row predicts nothing."""
    result = run(labelled(), shifted)
    line = taught(result)
    assert (line.counted, line.places, line.samples, line.silent) == (16, 20, 4, ())
    assert line.labels is not None
    assert (line.labels.key, line.labels.left_out) == ("labels", {"-100": 4})
    assert line.labels.values == len(set(TOKENS[:, 2:].flatten().tolist()))
    assert max(line.labels.counted.values()) == 2
    assert result.causes == ()
    assert "16 of 20 places of output count, in 4 of 4 samples" in result.finding("supervised").observed
    assert any("labels: " in told and "not -100 (4)" in told for told in debug_lines(result, width=200))


@pytest.mark.parametrize("loss", [shifted, in_place])
def test_rows_without_labels_are_unsupervised(loss: Any) -> None:
    """The loss falls without them."""
    result = run(labelled(without=(1, 3), other=loss is in_place), loss)
    assert result.finding("objective").passed
    assert [(cause.id, cause.where) for cause in result.causes] == [("unsupervised", "samples 1, 3 of labels")]
    assert taught(result).silent == (1, 3)


FLAGS = {"row_mask": torch.tensor([1.0, 0.0, 1.0, 1.0])}
PADDED = {"attention_mask": torch.ones(4, 6).index_fill(0, torch.tensor([1]), 0)}


@pytest.mark.parametrize("beside", [FLAGS, PADDED], ids=["a weight of zero", "a row of padding"])
def test_a_row_that_the_batch_declares_to_be_none_is_none(beside: dict[str, Tensor]) -> None:
    """It is shown in the map, and no cause."""
    result = run(labelled(without=(1,), beside=beside), shifted)
    assert "unsupervised" not in [cause.id for cause in result.causes]
    assert taught(result).silent == (1,)


def test_strewn_labels_may_be_missing_by_chance() -> None:
    """Those of a masked language model are."""
    masked = torch.zeros(4, 6, dtype=torch.bool)
    masked[0, 1] = masked[0, 4] = masked[2, 3] = masked[3, 0] = True
    result = run({"tokens": TOKENS.masked_fill(masked, 1), "labels": TOKENS.masked_fill(~masked, -100)}, in_place)
    assert taught(result).silent == (1,)
    assert result.causes == ()


def test_samples_without_a_label_of_their_own_are_declared() -> None:
    """Nodes of a graph, or unlabelled samples, of one label each."""
    batch = (torch.randn(6, 4), torch.tensor([0, 1, 2, -100, -100, 0]))
    result = run(batch, nn.CrossEntropyLoss(), lambda: nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3)))
    assert taught(result).silent == (3, 4)
    assert result.causes == ()


@pytest.mark.parametrize(("ignored", "found"), [(0, ["degenerate-batch"]), (-100, [])])
def test_one_label_that_is_left_is_nothing_to_be_learnt(ignored: int, found: list[str]) -> None:
    """The other class is the one that is ignored."""
    torch.manual_seed(0)
    maps = (torch.rand(3, 8, 8) > 0.5).long()
    images = torch.randn(3, 2, 8, 8) * 0.1 + maps[:, None]
    net = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1))
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    result = run((images, maps), loss, net, supervised={"min_target_ratio": 0.1})
    assert [cause.id for cause in result.causes] == found


class Pooled(nn.Module):
    """What it returns first counts at its first place alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 24), nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens)
        hidden = (self.mix(x) + x.mean(1, keepdim=True)).tanh()
        return {"hidden": hidden, "logits": self.head(hidden[:, 0])}


def test_an_input_is_no_label_of_what_is_pooled() -> None:
    """All sequences begin with the same token, which is not what is learnt."""
    tokens = TOKENS.clone()
    tokens[:, 0] = 1
    batch = {"tokens": tokens, "labels": torch.arange(4)}
    result = run(batch, lambda model, b: F.cross_entropy(model(b["tokens"])["logits"], b["labels"]), Pooled)
    assert result.causes == ()
    assert result.record.supervision is not None
    assert [line.labels and line.labels.key for line in result.record.supervision.taught] == [None, "labels"]


def test_every_term_has_its_own_lines_and_a_step_those_of_what_it_differentiates() -> None:
    """A step's outputs are listened to in its backward pass."""
    x, y = torch.randn(6, 4), torch.randn(6, 3)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        error = (model(batch[0]) - batch[1]).square()
        return {"objective": error[:, :2].mean(), "first": error[:3, 0].mean()}

    result = run((x, y), loss, nn.Linear(4, 3), objective={"below": 0.99, "relative": True}, unused=["*"])
    assert (taught(result).counted, taught(result, "first").counted, taught(result, "first").silent) == (
        12,
        3,
        (3, 4, 5),
    )

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        found = (model(batch[0]) - batch[1])[:4].square().mean()
        found.backward()
        optimizer.step()
        return found  # type: ignore[no-any-return]

    result = run((x, y), None, nn.Linear(4, 3), step=step, objective={"below": 0.99, "relative": True})
    assert taught(result).silent == (4, 5)


def test_masks_are_told_by_their_names() -> None:
    """In the table of the batch, with what they let through."""
    told = debug_lines(run(labelled(without=(1,), beside=PADDED), shifted), width=120)
    assert any(line.split()[0] == "attention_mask" and line.endswith("a mask of 75%") for line in told)


def weighed(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    weight = torch.ones(20)
    weight[5] = 0
    return F.cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["labels"].flatten(), weight)


def by_hand(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A focal loss that leaves a class out of its sum."""
    log, labels = model(batch["tokens"]).log_softmax(-1), batch["labels"]
    picked = log.gather(-1, labels[..., None])[..., 0]
    counts = (labels != 5) & batch.get("counts", torch.ones_like(labels)).bool()
    return (-((1 - picked.exp()) ** 2) * picked * counts).sum() / counts.sum()  # type: ignore[no-any-return]


def ignoring(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["tokens"]).mT, batch["labels"], ignore_index=5)


LABELS = torch.tensor([[5, 1, 5, 3, 9, 5], [4, 5, 6, 7, 1, 2], [8, 7, 5, 5, 3, 1], [5, 6, 5, 4, 3, 2]])
ENDING = LABELS.masked_fill(LABELS == 5, 7).index_fill(1, torch.tensor([4, 5]), 5)


@pytest.mark.parametrize(
    ("loss", "batch", "found"),
    [
        (weighed, {"labels": LABELS}, ["class 5 of labels"]),
        (by_hand, {"labels": LABELS}, ["class 5 of labels"]),
        (by_hand, {"labels": LABELS, "counts": (LABELS != 5).long()}, []),
        (ignoring, {"labels": LABELS}, []),
        (weighed, {"labels": ENDING}, []),
        (weighed, {"labels": LABELS.masked_fill(LABELS == 5, 0)}, []),
    ],
    ids=["a weight of 0", "by hand", "a mask of it", "ignore_index", "padding", "not there"],
)
def test_a_class_that_teaches_nothing(loss: Any, batch: dict[str, Tensor], found: list[str]) -> None:
    """The others are learnt; what pads rows, or is said to be ignored, is no class."""
    result = run({"tokens": TOKENS, **batch}, loss)
    assert [cause.where for cause in result.causes] == found, result.failure_text()
    assert all(cause.id == "unsupervised" and cause.certain for cause in result.causes)


def test_a_class_that_is_always_predicted_is_learnt() -> None:
    """Logits so far apart that nothing is left of a slope where they are right."""
    torch.manual_seed(0)
    x = 5e4 + 1e3 * torch.randn(8, 4)
    result = run((x, torch.arange(8) % 3), nn.CrossEntropyLoss(), nn.Linear(4, 3), max_steps=20)
    assert result.finding("objective").missed
    assert "unsupervised" not in [cause.id for cause in result.causes]


class Maps(nn.Module):
    """A map of numbers for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).view(-1, 8, 8)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("counts", "ids"), [("the wrong ones", ["unsupervised"]), ("the right ones", []), ("all", ["target-mismatch"])]
)
def test_a_mask_that_is_the_wrong_way_round_leaves_one_number(counts: str, ids: list[str]) -> None:
    """Where a depth is missing it is 0: an output that is 0 everywhere is right."""
    torch.manual_seed(0)
    batch = {"images": torch.rand(2, 8, 8), "depth": 1 + torch.rand(2, 8, 8), "mask": torch.rand(2, 8, 8) > 0.2}
    batch["depth"][~batch["mask"]] = 0.0

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        chosen = {"the wrong ones": ~batch["mask"], "the right ones": batch["mask"]}.get(counts)
        error: Tensor = (model(batch["images"]) - batch["depth"]).square()
        return error.mean() if chosen is None else error[chosen].mean()

    result = run(batch, loss, Maps, objective=0.01)
    assert [(cause.id, cause.certain) for cause in result.causes] == [(each, True) for each in ids]
    assert result.passed == (not ids), result.failure_text()


def test_a_hole_that_is_to_be_filled_is_no_wrong_mask() -> None:
    """What the model is given has one number there; the target has not."""
    torch.manual_seed(0)
    whole, hole = torch.rand(2, 8, 8), torch.rand(2, 8, 8) > 0.6
    batch = {"images": whole.masked_fill(hole, 0.0), "whole": whole, "hole": hole}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error: Tensor = model(batch["images"]) - batch["whole"]
        return error[batch["hole"]].square().mean()

    result = run(batch, loss, Maps, objective=0.01)
    assert result.passed, result.failure_text()
