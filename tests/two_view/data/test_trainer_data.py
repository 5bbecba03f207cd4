"""A trainer's own data object, whatever form it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.settings import OverfitSettings
from pytest_overfit.trainer.config import OverfitConfig, TrainerConfig
from pytest_overfit.two_view.data.trainer_data import TrainerData, draw_sample
from tests.support.batches import two_view_batch

HERE = __name__


def raw_batch() -> dict[str, Any]:
    """As a loader gives it, before it is normalised."""
    batch = two_view_batch()
    del batch["avg_scale"]
    return batch


class Epochs:
    """The protocol: ``seed`` is settable, ``get_loader(epoch)`` gives batches."""

    def __init__(self, jitter: float = 0.0, extra: Any = None) -> None:
        self.seed, self.jitter, self.extra, self.asked = 0, jitter, extra, list[int]()

    def get_loader(self, epoch: int) -> Iterator[dict[str, Any]]:
        self.asked.append(epoch)
        batch = raw_batch()
        batch["images"] = batch["images"] * (1 - self.jitter * torch.rand(()))
        yield batch


class Plain:
    """An iterable without a seed."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return iter([raw_batch()])


class Neither:
    """Gives nothing."""


class Empty(Plain):
    """Without a batch."""

    def __iter__(self) -> Iterator[Any]:
        return iter([])


class Tuples(Plain):
    """Of batches that are no mappings."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(1, 2)])


def in_place(batch: dict[str, Any]) -> None:
    batch["images"] = batch["images"] * 0


def gives_text(batch: dict[str, Any]) -> str:
    return "a batch"


def data(name: str, *, prepare: str | None = None, **arguments: Any) -> TrainerData:
    config = OverfitConfig(
        Path(__file__),
        "a",
        import_roots=(Path(__file__).parent,),
        trainer=TrainerConfig({"_target_": f"{HERE}.{name}", **arguments}),
        overfit=OverfitSettings(prepare_batch=prepare),
    )
    return TrainerData(config)


def test_the_protocol() -> None:
    """The seed is set, sections arrive with attributes, two epochs are asked for, one constant sample comes out."""
    theirs = data("Epochs", extra={"sizes": [{"width": 3}]})
    sample = draw_sample(theirs)
    assert theirs.source.seed == theirs.config.seed
    assert theirs.source.extra.sizes[0].width == 3
    assert theirs.source.asked == [0, 1]
    assert (sample.differences, sample.randomness) == ((), ())
    assert "avg_scale" in sample.train


def test_a_draw_is_the_same_each_time_and_draws_nothing_from_the_process() -> None:
    """Two objects of one config draw the same numbers, whatever the state of the generators; epochs differ."""
    before = torch.get_rng_state()
    first, again = (draw_sample(data("Epochs", jitter=0.5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.train["images"], again.train["images"])
    assert first.differences[0].startswith("images: ")
    assert "colours alone change" in first.randomness[0]


def test_a_plain_iterable_will_do() -> None:
    """It need not take a seed."""
    assert draw_sample(data("Plain")).differences == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [("Neither", "a Neither without get_loader"), ("Empty", "gives no batch"), ("Tuples", "a batch that is a tuple")],
)
def test_what_hands_out_no_batch_is_named(name: str, says: str) -> None:
    """With what would have been accepted."""
    with pytest.raises(OverfitError, match=r"^data\.train") as caught:
        data(name).draw(0)
    assert says in str(caught.value)


def test_their_preparation_replaces_ours() -> None:
    """It may change the batch in place; what is no batch is an error."""
    prepared = draw_sample(data("Epochs", prepare=f"{HERE}.in_place")).train
    assert not prepared["images"].any()
    assert "avg_scale" not in prepared
    with pytest.raises(OverfitError, match="gives_text returned a str"):
        draw_sample(data("Epochs", prepare=f"{HERE}.gives_text"))


def test_repetition_comes_before_the_normalisation() -> None:
    """The second sample is seen from the other camera."""
    theirs = data("Epochs")
    assert theirs.config.trainer is not None
    theirs.config = replace(theirs.config, trainer=replace(theirs.config.trainer, repeat_batch=True))
    batch = draw_sample(theirs).train
    assert batch["images"].shape[0] == 2
    assert torch.equal(batch["images"][0, 1], batch["images"][1, 0])
    torch.testing.assert_close(batch["extrinsics"][1, 0], torch.eye(4)[:3], rtol=0, atol=1e-5)
