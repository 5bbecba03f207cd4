"""One training step as Lightning's loop makes it: the hooks in their order, the closure, the schedules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors import OverfitError
from pytest_overfit.integrations.lightning.module_parts import Scheduled
from pytest_overfit.integrations.lightning.stand_in import Trainer, missing_told
from pytest_overfit.run.call_task import count_positional
from pytest_overfit.run.update import Detached
from pytest_overfit.untrusted.objects import defines

RESULTS = ("loss",)  # of a mapping that training_step returns: no term beside the objective


class Loop:
    """The train step of a module, and its loss.

    Args:
        transfer: the hooks around the transfer of a batch (the datamodule's, or the module's), each called with a
            batch and its index.
    """

    def __init__(self, module: Any, trainer: Trainer, transfer: list[Callable[[Any, int], Any]]) -> None:
        self.module, self.trainer, self.transfer = module, trainer, transfer
        self.steps = 0
        self.logged: dict[str, Any] = {}
        self.metrics: dict[int, Any] = {}  # torchmetrics that were logged: reset after an epoch
        self.result: Any = None
        self.objective: Any = None

    # What a run calls.

    def step(self, batch: Any) -> Any:
        """A whole training step; returns the objective and what was logged."""
        with missing_told(self.trainer):
            return self._step(batch)

    def _step(self, batch: Any) -> Any:
        module, trainer = self.module, self.trainer
        at = trainer.batch_idx = self.steps % trainer.num_training_batches
        trainer.is_last_batch = at + 1 == trainer.num_training_batches
        if at == 0:
            module.on_train_epoch_start()
        batch = self._transferred(batch, at)
        if module.on_train_batch_start(batch, at) == -1:
            raise _skipped("on_train_batch_start returned -1", self.steps)
        self.objective = self.result = None
        trainer.strategy.differentiated = []
        if module.automatic_optimization:
            self._optimise(batch, at)
        else:
            self.result = self._training_step(batch, at)
            self.objective = self._of_manual(self.result)
        self._schedule("step", at)
        module.on_train_batch_end(_as_outputs(self.result), batch, at)
        self.steps += 1
        if trainer.is_last_batch:
            self._end_epoch()
        return self._terms()

    def loss(self, model: Any, batch: Any) -> Any:
        """The objective of one batch under automatic optimisation, and what was logged; nothing is updated."""
        with missing_told(self.trainer):
            self.result = self._training_step(self._transferred(batch, 0), 0)
        self.objective = _loss_of(self.result, self.steps)
        return self._terms()

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """``self.log``: the last value of a name, as a number or a tensor without a graph."""
        if defines(value, "compute", "reset"):
            self.metrics[id(value)] = value
            latest = getattr(value, "_forward_cache", None)  # of this batch; else so far, where it was only updated
            value = value.compute() if latest is None else latest
        if isinstance(value, Tensor):
            value = value.detach()
        if isinstance(value, (int, float, Tensor)):
            self.logged[name] = self.trainer.logged_metrics[name] = value

    def state_dict(self) -> dict[str, Any]:
        """What goes on from step to step, beside the module and the optimizers."""
        trainer = self.trainer
        counted = {"steps": self.steps, "epoch": trainer.current_epoch, "global_step": trainer.global_step}
        return {
            **counted,
            "schedulers": [copy.deepcopy(s.scheduler.state_dict()) for s in trainer.lr_scheduler_configs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        trainer = self.trainer
        self.steps, trainer.current_epoch, trainer.global_step = (state[k] for k in ("steps", "epoch", "global_step"))
        for scheduled, saved in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
            scheduled.scheduler.load_state_dict(copy.deepcopy(saved))
        self.logged.clear()
        trainer.logged_metrics.clear()

    # The parts of a step.

    def _optimise(self, batch: Any, at: int) -> None:
        module, trainer = self.module, self.trainer
        wrapped = trainer.strategy.wrapped[0] if trainer.optimizers else None

        def closure() -> Tensor:
            result = self._training_step(batch, at)
            loss = _loss_of(result, self.steps)
            if self.objective is None:  # the loss before the update, where an optimizer asks more than once
                self.objective, self.result = loss, result
            if wrapped is not None:
                module.on_before_zero_grad(trainer.optimizers[0])
                module.optimizer_zero_grad(trainer.current_epoch, at, trainer.optimizers[0])
            if not loss.requires_grad:
                raise Detached
            trainer.strategy.backward(loss)
            return loss

        if wrapped is None:
            closure()
            return
        module.optimizer_step(trainer.current_epoch, at, wrapped, closure)
        if self.objective is None:
            raise OverfitError(
                "optimizer_step never called the closure, which makes the forward and the backward pass",
                where=f"{type(module).__name__}.optimizer_step, step {self.steps + 1}",
                allowed="optimizer.step(closure=optimizer_closure), or optimizer_closure() where no step is made",
            )

    def _training_step(self, batch: Any, at: int) -> Any:
        arguments = (batch, at)[: max(1, count_positional(self.module.training_step, 2))]
        return self.module.training_step(*arguments)

    def _of_manual(self, result: Any) -> Any:
        """What a manual step returned as its loss; else what it went backward on."""
        found = result.get("loss") if isinstance(result, Mapping) else result
        if found is not None:
            return found
        if self.trainer.strategy.differentiated:
            return torch.stack([loss.float().sum() for loss in self.trainer.strategy.differentiated]).sum()
        raise OverfitError(
            "training_step returned nothing and called no self.manual_backward()",
            where=f"{type(self.module).__name__}.training_step, step {self.steps + 1}",
            allowed="a loss that is returned, or losses that self.manual_backward() gets",
        )

    def _transferred(self, batch: Any, at: int) -> Any:
        for hook in self.transfer:
            batch = hook(batch, at)
        return batch

    def _end_epoch(self) -> None:
        module, trainer = self.module, self.trainer
        module.on_train_epoch_end()
        self._schedule("epoch", trainer.current_epoch)
        for metric in self.metrics.values():
            metric.reset()
        trainer.current_epoch += 1

    def _schedule(self, interval: str, index: int) -> None:
        if not self.module.automatic_optimization:
            return
        for scheduled in self.trainer.lr_scheduler_configs:
            if scheduled.interval == interval and (index + 1) % scheduled.frequency == 0:
                self._step_scheduler(scheduled)

    def _step_scheduler(self, scheduled: Scheduled) -> None:
        if not scheduled.reduce_on_plateau:
            self.module.lr_scheduler_step(scheduled.scheduler, None)
        elif scheduled.monitor in self.logged:  # a metric of the validation, which does not run here, is not
            self.module.lr_scheduler_step(scheduled.scheduler, torch.as_tensor(self.logged[scheduled.monitor]))

    def _terms(self) -> dict[str, Any]:
        beside = self.result if isinstance(self.result, Mapping) else {}
        returned = {
            str(name): value.detach() if isinstance(value, Tensor) else value
            for name, value in beside.items()
            if name not in RESULTS
        }
        return {**returned, **self.logged, "objective": self.objective}


def _loss_of(result: Any, steps: int) -> Tensor:
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if loss is None:
        raise _skipped(
            "training_step returned None" if result is None else "training_step returned a mapping without loss", steps
        )
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        allowed = "a scalar tensor, or a mapping with one under loss"
        raise OverfitError(f"training_step returned {found}", where="training_step", allowed=allowed)
    return loss.reshape(()) if loss.dim() else loss


def _skipped(what: str, steps: int) -> OverfitError:
    return OverfitError(
        f"{what}: Lightning skips such a batch, and this one is all there is to learn",
        where=f"training_step, step {steps + 1}",
        allowed="a loss for the batch of the test at every step",
        hint="return the loss, or set self.automatic_optimization = False and step in training_step",
    )


def _as_outputs(result: Any) -> Any:
    """What ``on_train_batch_end`` gets: a mapping with the loss, without its graph."""
    given = {} if result is None else result if isinstance(result, Mapping) else {"loss": result}
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in given.items()}
