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

from pytest_overfit import OverfitError, run_overfit
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
