"""What a LightningModule asks of its Trainer, and the mistakes that are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler

pytest.importorskip("pytorch_lightning")

import pytorch_lightning as pl

from pytest_overfit import OverfitError, OverfitResult, run_overfit
from tests.integrations.lightning_modules import ByHand, Plain, batch


class Curious(Plain):
    """Reads something of its Trainer."""

    wanted = "log_dir"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        getattr(self.trainer, self.wanted)
        return super().training_step(batch, batch_idx)


def test_an_attribute_that_is_not_there_is_named() -> None:
    """And what to do."""
    with pytest.raises(OverfitError, match=r"reads self\.trainer\.log_dir") as caught:
        run_overfit(Curious(), batch())
    assert "module.trainer = Trainer(logger=False)" in str(caught.value)


def test_an_attached_trainer_is_asked(tmp_path: Path) -> None:
    """For what the stand-in does not have; it is attached again afterwards."""
    module = Curious()
    module.trainer = own = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    assert run_overfit(module, batch()).passed
    assert module.trainer is own


@pytest.mark.parametrize(("setting", "place"), [("clip_grad_norm", "gradient_clip_val"), ("lr", "configure_opt")])
def test_what_a_module_sets_itself_is_set_there(setting: str, place: str) -> None:
    """The hint names the place: there is no step to write a line into."""
    with pytest.raises(OverfitError, match=f"set .*{place}"):
        run_overfit(Plain(), batch(), None, **{setting: 0.1})  # type: ignore[arg-type]


def test_clipping_of_an_attached_trainer_is_used(tmp_path: Path) -> None:
    """A clip to nothing is found as the cause."""

    class Slow(Plain):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Slow()
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, gradient_clip_val=1e-6)
    result = run_overfit(module, batch(), max_steps=300)
    assert result.causes[0].id == "grad-clip"


class Silent(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class SilentByHand(ByHand):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class WithoutClosure(Plain):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Silent, "training_step returned None: Lightning skips such a batch"),
        (SilentByHand, "returned nothing and called no self.manual_backward"),
        (WithoutClosure, "optimizer_step never called the closure"),
    ],
)
def test_a_step_that_gives_nothing_is_told(kind: type[Plain], words: str) -> None:
    """Instead of a run that proves nothing."""
    with pytest.raises(OverfitError, match=words):
        run_overfit(kind(), batch(), supervised=False)


class Frozen(Plain):
    def configure_optimizers(self) -> Any:
        return None


class NeverStepped(ByHand):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.zero_grad()
        self.manual_backward(loss)


class Halved(Plain):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3)
        return [optimizer], [{"scheduler": lr_scheduler.StepLR(optimizer, 1, 0.5), "interval": "step"}]


class Detached(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]).detach(), batch[1])


class Cut(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.head(self.body(batch[0]).detach()), batch[1])


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (Frozen, "no-step"),
        (NeverStepped, "no-step"),
        (Halved, "lr-schedule"),
        (Cut, "no-gradient"),
        (Detached, "loss-detached"),
    ],
)
def test_mistakes_of_a_module_are_named(kind: type[Plain], cause: str) -> None:
    """Metrics beside the loss mislead nobody."""
    result: OverfitResult = run_overfit(kind(), batch(), max_steps=200)
    assert not result.passed
    assert result.causes[0].id == cause


class Staged(Plain):
    """Asks its Trainer what is going on, as the models of a forecasting library do in their properties."""

    @property
    def predicting(self) -> bool:
        return str(self.trainer.state.stage) == "predict" or self.trainer.predicting

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        trainer = self.trainer
        stage: Any = trainer.state.stage
        assert not self.predicting
        assert (stage.value, trainer.state.fn.value, trainer.state.status.value) == ("train", "fit", "running")  # type: ignore[union-attr]
        assert trainer.training
        assert not any((trainer.sanity_checking, trainer.validating, trainer.testing, trainer.evaluating))
        assert trainer.fit_loop.max_epochs == trainer.max_epochs
        assert trainer.fit_loop.epoch_loop.batch_idx == batch_idx
        assert trainer.fit_loop.epoch_loop.total_batch_idx == trainer.global_step == self.global_step
        assert trainer.val_dataloaders is None
        assert trainer.num_sanity_val_batches == []
        assert len(trainer.optimizers) == 1
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("attached", [False, True])
def test_a_training_trainer_is_what_a_module_sees(attached: bool, tmp_path: Path) -> None:
    """Its state, stage and loops, also where the Trainer that was attached is doing nothing."""
    module = Staged()
    if attached:
        module.trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    assert run_overfit(module, batch()).passed


class Hidden(Plain):
    """Reads its Trainer in a property."""

    path = "unheard_of"

    @property
    def state_of_things(self) -> Any:
        found: Any = self.trainer
        for name in self.path.split("."):
            found = getattr(found, name)
        return found

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if self.state_of_things else None


class HiddenEarly(Hidden):
    """The same before the first step."""

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers() if self.state_of_things else None


@pytest.mark.parametrize("kind", [Hidden, HiddenEarly])
@pytest.mark.parametrize("path", ["unheard_of", "fit_loop.unheard_of", "fit_loop.epoch_loop.unheard_of", "strategy.of"])
def test_what_a_property_misses_in_the_trainer_is_named(
    kind: type[Hidden], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the property, of which torch says that there is none."""
    monkeypatch.setattr(kind, "path", path)
    with pytest.raises(OverfitError) as caught:
        run_overfit(kind(), batch())
    text = str(caught.value)
    assert f"{kind.__name__} reads self.trainer.{path}" in text
    assert "module.trainer = Trainer(logger=False)" in text


class Careful(Plain):
    """Asks whether there is something before it reads it."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert not hasattr(self.trainer, "unheard_of")
        assert getattr(self.trainer, "unheard_of", 7) == 7
        assert getattr(self.trainer.fit_loop, "unheard_of", 7) == 7
        return super().training_step(batch, batch_idx)


def test_asking_for_what_is_not_there_is_allowed() -> None:
    """``hasattr``, and ``getattr`` with a default."""
    assert run_overfit(Careful(), batch()).passed


class Mistaken(Careful):
    """Has a mistake of its own, after it has asked for something that is not there."""

    @property
    def broken(self) -> Any:
        return self.nowhere

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)
        return self.absent


def test_an_attribute_error_of_the_module_stays_its_own() -> None:
    """Also where something was not found in the Trainer before."""
    with pytest.raises(AttributeError, match="has no attribute 'absent'") as caught:
        run_overfit(Mistaken(), batch())
    assert not isinstance(caught.value, OverfitError)
