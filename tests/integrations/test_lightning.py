"""A LightningModule is trained by its own hooks, as its Trainer would, and comes back as it was."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

pytest.importorskip("pytorch_lightning")

import pytorch_lightning as pl

from pytest_overfit import OverfitError, OverfitResult, run_overfit
from pytest_overfit.integrations.lightning.module_parts import configured
from tests.integrations.lightning_modules import HEALTHY, ByHand, Clipped, Plain, Shuffled, WarmUpByStep, batch

UNREACHABLE: dict[str, Any] = {"objective": 1e-30, "diagnose": False, "keep_trained": True}


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in module.state_dict().values()]


def train_plainly(module: pl.LightningModule, steps: int, **settings: Any) -> list[torch.Tensor]:
    """The weights after Lightning's own Trainer has made these steps on the one batch."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=10, enable_model_summary=False, **quiet, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches: Any = [batch()] * (steps // 10)
        trainer.fit(module, DataLoader(batches, batch_size=None))
    return weights(module)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_modules_pass(name: str, seed: int) -> None:
    """No false alarm."""
    module, data, settings = HEALTHY[name]
    result = run_overfit(module, data, seeds=[seed], **settings)
    assert result.passed, result.summary()


@pytest.mark.parametrize("kind", [Plain, WarmUpByStep, Clipped, ByHand])
def test_steps_are_those_of_the_trainer(kind: type[pl.LightningModule], tmp_path: Path) -> None:
    """Bit for bit: optimizer, schedule by steps, clipping, manual optimisation."""
    torch.manual_seed(0)
    module = kind()
    other = kind()
    other.load_state_dict(module.state_dict())
    run_overfit(module, batch(), max_steps=30, **UNREACHABLE)
    expected = train_plainly(other, 30, default_root_dir=tmp_path)
    for mine, theirs in zip(weights(module), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_schedule_by_epochs_steps_ten_times(tmp_path: Path) -> None:
    """The same number of epochs of the same length as a Trainer that makes ten."""
    kind = HEALTHY["DecayByEpoch"][0]
    torch.manual_seed(0)
    module = kind()
    other = kind()
    other.load_state_dict(module.state_dict())
    run_overfit(module, batch(), max_steps=40, **UNREACHABLE)
    for mine, theirs in zip(weights(module), train_plainly(other, 40, default_root_dir=tmp_path), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_everything_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, attributes, the DataModule; and no file is written."""
    monkeypatch.chdir(tmp_path)
    module, data = Plain(), Shuffled()
    before, attributes, held = weights(module), dict(vars(module)), dict(vars(data))
    assert run_overfit(module, data).passed
    assert all(torch.equal(a, b) for a, b in zip(before, weights(module), strict=True))
    assert vars(module).keys() == attributes.keys()
    assert vars(module)["_trainer"] is None
    assert vars(data) == held
    assert list(tmp_path.iterdir()) == []


def test_keeping_what_was_trained_detaches_the_module_all_the_same() -> None:
    """The weights stay, the stand-in does not."""
    module = Plain()
    before = weights(module)
    run_overfit(module, batch(), keep_trained=True)
    assert not torch.equal(before[0], weights(module)[0])
    assert vars(module)["_trainer"] is None
    assert "log" not in vars(module)


def test_hooks_are_called_in_their_order() -> None:
    """As the documentation of Lightning lists them."""
    calls: list[str] = []

    def hook(name: str) -> Any:
        def told(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return getattr(super(Told, self), name)(*args, **kwargs)

        return told

    names = (
        *("setup", "configure_model", "configure_optimizers", "on_fit_start", "on_train_start"),
        *("on_train_epoch_start", "on_train_batch_start", "optimizer_step", "training_step", "on_before_zero_grad"),
        *("optimizer_zero_grad", "on_before_backward", "backward", "on_after_backward", "on_before_optimizer_step"),
        *("configure_gradient_clipping", "on_train_batch_end", "on_train_epoch_end", "teardown"),
    )
    Told = type("Told", (Plain,), {name: hook(name) for name in names})
    run_overfit(Told(), batch(), max_steps=1, objective=1e-30, diagnose=False, supervised=False)
    again = calls.index("on_train_epoch_start", calls.index("on_train_epoch_end"))  # the first step only listens
    assert (*calls[:5], *calls[again:]) == names


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda o, s: o, (1, 0)),
        (lambda o, s: [o], (1, 0)),
        (lambda o, s: ([o], [s]), (1, 1)),
        (lambda o, s: ([o], s), (1, 1)),
        (lambda o, s: {"optimizer": o}, (1, 0)),
        (lambda o, s: {"optimizer": o, "lr_scheduler": s}, (1, 1)),
        (lambda o, s: {"optimizer": o, "lr_scheduler": {"scheduler": s, "interval": "step", "frequency": 2}}, (1, 1)),
        (lambda o, s: ({"optimizer": o, "lr_scheduler": s}, {"optimizer": o}), (2, 1)),
        (lambda o, s: (o, o), (2, 0)),
        (lambda o, s: None, (0, 0)),
    ],
)
def test_every_form_of_configure_optimizers_is_read(returned: Any, found: tuple[int, int]) -> None:
    """Those of the documentation."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    optimizers, scheduled = configured(returned(optimizer, lr_scheduler.ConstantLR(optimizer)), automatic=found[0] < 2)
    assert (len(optimizers), len(scheduled)) == found
    if len(scheduled) == 1 and scheduled[0].interval == "step":
        assert scheduled[0].frequency == 2


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda o: (o, o), "2 optimizers under automatic optimisation"),
        (lambda o: {"lr_scheduler": 1}, "a mapping of lr_scheduler"),
        (lambda o: "adam", "a str where an optimizer is wanted"),
        (lambda o: ([o], [lr_scheduler.ReduceLROnPlateau(o)]), "ReduceLROnPlateau without a monitor"),
        (lambda o: ([o], [{"scheduler": lr_scheduler.ConstantLR(o), "interval": "batch"}]), "interval 'batch'"),
    ],
)
def test_a_wrong_form_is_told(returned: Any, words: str) -> None:
    """With what would have been right."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(OverfitError, match=words):
        configured(returned(optimizer), automatic=True)


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


def test_data_of_its_own_need_not_be_given() -> None:
    """A module with ``train_dataloader`` brings its batch; one without is told."""

    class Bringing(Plain):
        def train_dataloader(self) -> Any:
            batches: Any = [batch()]
            return DataLoader(batches, batch_size=None, shuffle=True)

    assert run_overfit(Bringing()).passed
    with pytest.raises(OverfitError, match="no data was given, and Plain brings none"):
        run_overfit(Plain())


def test_a_step_beside_the_module_is_what_runs() -> None:
    """A LightningModule is a module, too."""
    module = Plain()
    result = run_overfit(module, batch(), lambda model, given: F.cross_entropy(model(given[0]), given[1]))
    assert "train/loss" not in result.record.curves


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
