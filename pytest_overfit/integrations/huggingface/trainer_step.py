"""One training step of a ``transformers.Trainer``: its loss, its clipping, its optimizer, its schedule."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pytest_overfit.run.update import Detached


class TrainerStep:
    """The step and the loss of a Trainer, without its loop.

    Args:
        scheduler: stepped after every step; None: the learning rate stays.
        own: the Trainer's class has a ``training_step`` of the user's, which goes backward itself.
    """

    def __init__(self, trainer: Any, optimizer: Optimizer, scheduler: Any, *, own: bool) -> None:
        self.trainer, self.optimizer, self.own = trainer, optimizer, own
        self.scheduler = None if isinstance(scheduler, ReduceLROnPlateau) else scheduler
        self.logged: dict[str, Any] = {}
        acts = bool(trainer.args.fp16) and trainer.args.device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda" if acts else "cpu", enabled=acts)
        self.counts = "num_items_in_batch" in inspect.signature(trainer.compute_loss).parameters

    def step(self, batch: Any) -> Any:
        """Zero, forward, backward, clip, step, schedule."""
        trainer, model = self.trainer, self.trainer.model
        self.optimizer.zero_grad()
        if self.own:
            objective = trainer.training_step(model, _shallow(batch), *self._count(batch))
        else:
            objective = self._loss(batch)
            if not objective.requires_grad:
                raise Detached
            self.scaler.scale(objective).backward()
            if self.scaler.is_enabled():
                self.scaler.unscale_(self.optimizer)
        if trainer.args.max_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        if self.scaler.is_enabled() and not self.own:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        trainer.state.global_step += 1
        return {**self.logged, "objective": objective}

    def loss(self, model: Any, batch: Any) -> Any:
        """The Trainer's loss of one batch, and what it logged."""
        return {"objective": self._loss(batch), **self.logged}

    def log(self, logs: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """``Trainer.log``: numbers become terms of the run, and reach no callback."""
        plain = {name: value.detach() if isinstance(value, Tensor) else value for name, value in logs.items()}
        self.logged.update({name: v for name, v in plain.items() if isinstance(v, (int, float, Tensor))})

    def state_dict(self) -> dict[str, Any]:
        """What goes on from step to step, beside the model and the optimizer."""
        schedule = None if self.scheduler is None else copy.deepcopy(self.scheduler.state_dict())
        state = {"schedule": schedule, "scaler": self.scaler.state_dict()}
        return {**state, "global_step": self.trainer.state.global_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.scheduler is not None:
            self.scheduler.load_state_dict(copy.deepcopy(state["schedule"]))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.trainer.state.global_step = state["global_step"]
        self.logged.clear()

    def _loss(self, batch: Any) -> Any:
        counted = {"num_items_in_batch": self._count(batch)[0]} if self.counts else {}
        return self.trainer.compute_loss(self.trainer.model, _shallow(batch), **counted)

    def _count(self, batch: Any) -> tuple[Any]:
        """The number of labels in a batch, where this version of the Trainer counts them."""
        samples = getattr(self.trainer, "get_batch_samples", None)
        if samples is None or not self.counts:
            return (None,)
        takes_device = "device" in inspect.signature(samples).parameters
        device = (self.trainer.model.device,) if takes_device else ()
        return (samples(iter([batch]), 1, *device)[1],)


def _shallow(batch: Any) -> Any:
    """A Trainer takes entries out of its batch."""
    return copy.copy(batch) if isinstance(batch, Mapping) else batch
