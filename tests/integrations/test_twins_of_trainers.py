"""Twins of a LightningModule, a ``transformers.Trainer`` and a model that returns its loss: through their own steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TwinResult
from tests.integrations.huggingface_models import adam, gpt2, padded
from tests.integrations.lightning_modules import Plain, WarmUpByStep, batch

NAMES = ["resume", "accumulation", "batch", "bfloat16", "fused", "checkpointing"]


def twins(model: Any, data: Any, **more: Any) -> dict[str, TwinResult]:
    """The results by name."""
    result = run_overfit(model, data, **{"twins": NAMES, "max_steps": 10, "diagnose": False, **more})
    return {twin.name: twin for twin in result.record.twins}


@pytest.mark.parametrize("module", [Plain, WarmUpByStep])
def test_a_lightning_module(module: Any) -> None:
    """Its schedule included: saved and loaded with it."""
    found = twins(module(), batch())
    assert [name for name, twin in found.items() if twin.outcome == "disagreed"] == [], [
        t.text() for t in found.values()
    ]
    assert found["resume"].outcome == "agreed", found["resume"].text()
    assert found["accumulation (2 parts)"].outcome == "agreed", found["accumulation (2 parts)"].text()


class Counting(Plain):
    """Its target moves by a number of its own, which its hooks keep, or forget."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.keeps, self.seen = keeps, 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += 1
        return super().training_step(batch, batch_idx) * (1 + 0.1 * self.seen)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seen"] = self.seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.keeps:
            self.seen = checkpoint["seen"]


@pytest.mark.parametrize("keeps", [True, False])
def test_the_hooks_of_a_lightning_module_save_and_load(keeps: bool) -> None:
    """What they forget is named."""
    found = twins(Counting(keeps), batch(), twins="resume")["resume"]
    assert found.outcome == ("agreed" if keeps else "disagreed"), found.text()
    assert keeps or any("seen" in each for each in found.missing), found.missing


def test_a_model_that_returns_its_loss() -> None:
    """Unequal token counts: weighted as the model weights them."""
    torch.manual_seed(0)
    found = twins(gpt2(), padded(), optimizer=adam(1e-3), twins=[*NAMES, "attention"])
    assert [name for name, twin in found.items() if twin.outcome == "disagreed"] == [], [
        t.text() for t in found.values()
    ]
    assert "labels[:, 1:]" in found["accumulation (3 parts)"].exchanged
    assert found["attention (eager)"].outcome == "agreed"
    assert "gradient_checkpointing_enable" in found["checkpointing"].exchanged


def test_a_trainer(tmp_path: Any) -> None:
    """Its loss counts tokens; its optimizer, schedule and clipping are its own."""
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(tmp_path),
        learning_rate=1e-3,
        max_steps=40,
        lr_scheduler_type="cosine",
        report_to=[],
        use_cpu=True,
    )
    found = twins(Trainer(gpt2(), args), padded(), twins=["resume", "accumulation", "bfloat16"])
    assert [name for name, twin in found.items() if twin.outcome == "disagreed"] == [], [
        t.text() for t in found.values()
    ]
    assert found["resume"].outcome == "agreed", found["resume"].text()
    assert found["accumulation (2 parts)"].outcome == "agreed", found["accumulation (2 parts)"].text()


class Reading(Plain):
    """Reads in its hook what Lightning's Trainer writes for it."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.read = 0

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert checkpoint["hyper_parameters"] == {"width": 3}
        assert len(checkpoint["optimizer_states"]) == 1


def test_a_hook_reads_what_the_trainer_of_lightning_writes() -> None:
    """Hyper-parameters, and the states of optimizers."""
    found = twins(Reading(), batch(), twins="resume")["resume"]
    assert found.outcome == "agreed", found.text()


@pytest.mark.parametrize(
    ("forgets", "named"), [("", ""), ("optimizer", "exp_avg of AdamW"), ("schedule", "the state of the schedule")]
)
def test_a_trainer_by_ones_own_save_and_load(tmp_path: Any, forgets: str, named: str) -> None:
    """They get the model and the optimizer that the Trainer made, which has its schedule; what they forget is named."""
    from transformers import Trainer, TrainingArguments

    def save(path: Any, model: Any, optimizer: Any) -> None:
        schedule = trainer.lr_scheduler.state_dict(), trainer.state.global_step
        torch.save((model.state_dict(), optimizer.state_dict(), schedule, torch.get_rng_state()), path)

    def load(path: Any, model: Any, optimizer: Any) -> None:
        parameters, state, schedule, random = torch.load(path)
        model.load_state_dict(parameters)
        torch.set_rng_state(random)
        if forgets != "optimizer":
            optimizer.load_state_dict(state)
        if forgets != "schedule":
            trainer.lr_scheduler.load_state_dict(schedule[0])
        trainer.state.global_step = schedule[1]

    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, lr_scheduler_type="constant", report_to=[], use_cpu=True
    )
    trainer: Any = Trainer(gpt2(), args)
    found = twins(trainer, padded(), twins=["resume"], save=save, load=load)["resume"]
    assert found.outcome == ("disagreed" if forgets else "agreed"), found.text()
    assert not forgets or any(named in each for each in found.missing), found.missing
