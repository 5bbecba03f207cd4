"""What a LightningModule reads from its Trainer, where there is none."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.integrations.lightning.module_parts import Scheduled
from pytest_overfit.run.update import wants_closure

EPOCHS = 10  # of a run
READ_OF_LOOPS = ("max_epochs", "min_epochs", "max_steps", "min_steps", "current_epoch", "global_step", "is_last_batch",
                 "batch_idx")  # fmt: skip
READ_FROM_OWN = ("gradient_clip_val", "gradient_clip_algorithm", "log_every_n_steps", "precision")


class TrainerAttributeError(OverfitError, AttributeError):
    """A module reads what the stand-in does not have; ``hasattr`` and ``getattr`` with a default see it as missing."""


@contextlib.contextmanager
def missing_told(trainer: Trainer) -> Iterator[None]:
    """Around a call of the module: tells what it misses in its Trainer where a property of its own hid that.

    A property that ends in an AttributeError is looked for once more by ``nn.Module.__getattr__``, which says that the
    module has no such attribute, and forgets why.

    Raises:
        TrainerAttributeError: the last thing that the stand-in did not have, in place of that error.
    """
    trainer.missed = None
    try:
        yield
    except TrainerAttributeError:
        raise
    except AttributeError as error:
        if trainer.missed is None or not _is_hidden(error):
            raise
        raise trainer.missed from error


def _is_hidden(error: AttributeError) -> bool:
    """Whether ``nn.Module`` raised it, of a name that the class has."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code is not nn.Module.__getattr__.__code__:
        return False
    found = trace.tb_frame.f_locals
    return any(found["name"] in vars(kind) for kind in type(found["self"]).__mro__)


def _missing(trainer: Trainer, name: str) -> TrainerAttributeError:
    module, (home, dot, last) = type(trainer.lightning_module).__name__, name.rpartition(".")
    trainer.missed = TrainerAttributeError(
        f"{module} reads self.trainer.{name}, and no Trainer trains it here",
        where=f"self.trainer.{name}",
        allowed="what a module needs to train: state, optimizers, current_epoch, global_step, max_epochs, max_steps, "
        "estimated_stepping_batches, num_training_batches, datamodule, logger, callback_metrics, ...",
        hint="attach a Trainer that has it before the run, module.trainer = Trainer(logger=False), or read it "
        f"as getattr(self.trainer{dot}{home}, {last!r}, default)",
    )
    return trainer.missed


class Trainer:
    """The documented attributes of a Trainer that a module may read while it trains.

    A run of ``max_steps`` steps counts as ``EPOCHS`` epochs. What is not here comes from the Trainer that the user
    had attached to the module, if there is one.

    Args:
        library: ``pytorch_lightning`` or ``lightning.pytorch``.
        own: the Trainer that was attached to the module before, or None.
        datamodule: as the module may reach for it.
    """

    def __init__(self, module: Any, library: str, *, max_steps: int, own: Any, datamodule: Any = None) -> None:
        self.own = own
        self.missed: TrainerAttributeError | None = None
        self.lightning_module = self.model = module
        self.datamodule = datamodule
        self.max_steps, self.max_epochs = max_steps, min(EPOCHS, max_steps)
        self.min_steps = self.min_epochs = None
        self.num_training_batches = max(1, max_steps // self.max_epochs)
        self.estimated_stepping_batches = max_steps
        self.num_val_batches: list[int] = []
        self.num_sanity_val_batches, self.num_test_batches, self.num_predict_batches = [], [], []  # type: ignore[var-annotated]
        self.train_dataloader = self.val_dataloaders = self.test_dataloaders = self.predict_dataloaders = None
        self.limit_train_batches = self.limit_val_batches = self.val_check_interval = 1.0
        self.check_val_every_n_epoch, self.val_check_batch = 1, None
        self.overfit_batches = self.reload_dataloaders_every_n_epochs = 0
        self.batch_idx = 0
        self.accumulate_grad_batches = 1
        self.current_epoch = self.global_step = 0
        self.world_size = self.num_nodes = self.num_devices = 1
        self.global_rank = self.local_rank = self.node_rank = 0
        self.device_ids = [0]
        self.is_global_zero = self.training = True
        self.validating = self.testing = self.predicting = self.evaluating = self.sanity_checking = False
        self.fast_dev_run = self.barebones = self.should_stop = self.enable_validation = False
        self.is_last_batch = self.interrupted = self.received_sigterm = False
        states = importlib.import_module(f"{library}.trainer.states")
        self.state = states.TrainerState(
            states.TrainerStatus.RUNNING, states.TrainerFn.FITTING, states.RunningStage.TRAINING
        )
        self.fit_loop = FitLoop(self)
        self.callbacks: list[Any] = []
        self.checkpoint_callbacks: list[Any] = []
        self.early_stopping_callbacks: list[Any] = []
        self.checkpoint_callback = self.early_stopping_callback = self.progress_bar_callback = None
        self.ckpt_path = self.scaler = self.distributed_sampler_kwargs = None
        self.logger = importlib.import_module(f"{library}.loggers.logger").DummyLogger()
        self.loggers = [self.logger]
        self.logged_metrics: dict[str, Any] = {}
        self.callback_metrics = self.progress_bar_metrics = self.logged_metrics
        self.gradient_clip_val = self.gradient_clip_algorithm = None
        self.log_every_n_steps, self.precision = 1, "32-true"
        for name in READ_FROM_OWN if own is not None else ():
            setattr(self, name, getattr(own, name, getattr(self, name)))
        self.optimizers: list[Optimizer] = []
        self.lr_scheduler_configs: list[Scheduled] = []
        self.strategy = Strategy(self)
        self.precision_plugin = self.strategy.precision_plugin

    def take(self, optimizers: Sequence[Optimizer], scheduled: Sequence[Scheduled], library: str) -> None:
        """The optimizers and schedules of the run, each optimizer also as the module gets it."""
        self.optimizers, self.lr_scheduler_configs = list(optimizers), list(scheduled)
        wrapper = importlib.import_module(f"{library}.core.optimizer").LightningOptimizer
        self.strategy.wrapped = [wrapper(optimizer) for optimizer in optimizers]
        for wrapped in self.strategy.wrapped:
            wrapped._strategy = self.strategy

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run leaves no files."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run prints no lines of its own."""

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__.get("own")
        if name.startswith("__"):
            raise AttributeError(name)
        if own is None:
            raise _missing(self, name)
        return getattr(own, name)


class FitLoop:
    """Where a run is, by the names of Lightning's loops: this one goes over epochs, ``epoch_loop`` over batches."""

    def __init__(self, trainer: Trainer, name: str = "fit_loop") -> None:
        self._trainer, self._name = trainer, name

    @property
    def epoch_loop(self) -> FitLoop:
        return FitLoop(self._trainer, "fit_loop.epoch_loop")

    @property
    def total_batch_idx(self) -> int:
        trainer = self._trainer
        return int(trainer.current_epoch * trainer.num_training_batches + trainer.batch_idx)

    def __getattr__(self, name: str) -> Any:
        if name == "trainer":
            return self._trainer
        if name in READ_OF_LOOPS:
            return getattr(self._trainer, name)
        if name.startswith("__"):
            raise AttributeError(name)
        raise _missing(self._trainer, f"{self._name}.{name}")


class Strategy:
    """How a module goes backward and steps: on this one device, in this process."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.wrapped: list[Any] = []
        self.precision_plugin = Precision()
        self.differentiated: list[Tensor] = []  # what the module went backward on in this step

    @property
    def lightning_module(self) -> Any:
        return self.trainer.lightning_module

    @property
    def model(self) -> Any:
        return self.trainer.lightning_module

    @property
    def root_device(self) -> torch.device:
        return self.lightning_module.device  # type: ignore[no-any-return]

    @property
    def _lightning_optimizers(self) -> list[Any]:
        return self.wrapped  # where LightningModule.optimizers() looks

    def backward(self, loss: Tensor, optimizer: Any = None, *args: Any, **kwargs: Any) -> None:
        """One backward pass with the hooks around it."""
        module = self.lightning_module
        self.differentiated.append(loss.detach())
        module.on_before_backward(loss)
        module.backward(loss, *args, **kwargs)
        module.on_after_backward()

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], **kwargs: Any) -> Any:
        """The closure, the hook and the clipping, then the step.

        An optimizer that may call its closure more than once gets it; one of torch's steps after it, as in a loop that
        is written out.
        """
        module, trainer = self.lightning_module, self.trainer

        def closed() -> Any:
            result = closure()
            module.on_before_optimizer_step(optimizer)
            if module.automatic_optimization:
                value, kind = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
                module.configure_gradient_clipping(optimizer, gradient_clip_val=value, gradient_clip_algorithm=kind)
            return result

        if wants_closure(optimizer) or not type(optimizer).__module__.startswith("torch."):
            result = optimizer.step(closed, **kwargs)
        else:
            result = closed()
            optimizer.step(**kwargs)
        trainer.global_step += 1
        return result

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    def all_gather(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    def broadcast(self, thing: Any, src: int = 0) -> Any:
        return thing

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: there is one process."""

    @contextlib.contextmanager
    def block_backward_sync(self) -> Any:
        yield

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "trainer" not in self.__dict__:
            raise AttributeError(name)
        raise _missing(self.trainer, f"strategy.{name}")


class Precision:
    """Clips gradients as ``LightningModule.clip_gradients`` asks for."""

    def clip_gradients(self, optimizer: Any, clip_val: float = 0.0, gradient_clip_algorithm: Any = "norm") -> None:
        if clip_val <= 0:
            return
        held = [p for group in optimizer.param_groups for p in group["params"]]
        if str(getattr(gradient_clip_algorithm, "value", gradient_clip_algorithm)) == "value":
            nn.utils.clip_grad_value_(held, clip_val)
        else:
            nn.utils.clip_grad_norm_(held, clip_val)
