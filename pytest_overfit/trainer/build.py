"""What a config names, built: model and weights, loss, optimizer, schedules; and everything once without training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.run.device import choose_device_for
from pytest_overfit.run.isolation import isolated
from pytest_overfit.run.optim import GradientClipper, freeze
from pytest_overfit.run.sample import Batch
from pytest_overfit.run.snapshot import preserved
from pytest_overfit.settings.problems import first_line
from pytest_overfit.settings.secret import hide
from pytest_overfit.trainer.arguments import RefusedKeysError, placed
from pytest_overfit.trainer.config import CheckpointConfig, OverfitConfig
from pytest_overfit.trainer.imports import imported
from pytest_overfit.trainer.instantiate import instantiate
from pytest_overfit.trainer.schedules import Schedule, build_schedule
from pytest_overfit.untrusted.files import open_regular

# Read by data classes and samplers; MASTER_ADDR and MASTER_PORT are not: the group meets on no port.
LAUNCH = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


@contextlib.contextmanager
def alone(wanted: bool = True) -> Iterator[None]:
    """A process group of this one process on a private store, and the variables of a launcher, for the block.

    Where a group is there already (torchrun), or none can be had, nothing is changed.
    """
    if not wanted or not dist.is_available() or dist.is_initialized():
        yield
        return
    before = {name: os.environ.get(name) for name in LAUNCH}
    os.environ.update({name: value for name, value in LAUNCH.items() if before[name] is None})
    try:
        with contextlib.suppress(RuntimeError):  # no network interface at all: whoever needs the group will say so
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


WEIGHTS = ("model", "state_dict")  # keys under which a trainer's checkpoint keeps the model's


def load_checkpoint(model: nn.Module, checkpoint: CheckpointConfig) -> tuple[str, ...]:
    """Loads the weights into a model in place, and returns what there is to say: keys that do not fit.

    A ``.safetensors`` file, or one of ``torch.save`` with the state dict itself or under ``model`` or ``state_dict``.

    Raises:
        ConfigError: it cannot be read, fits nowhere, or does not fit and ``strict`` is set.
    """
    path = checkpoint.path
    if path is None:
        return ()
    weights = _read(path, checkpoint.key)
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    if len(missing) == len(own):
        found = f"{path.name} has none of the {len(own)} tensors of {type(model).__name__}, only {shorten(unexpected)}"
        where = checkpoint.key
        hint = "is it a checkpoint of another model, or one with a prefix such as module. before every name?"
        raise ConfigError(found, where=where, allowed=f"weights of this model, such as {shorten(list(own))}", hint=hint)
    notes = [f"{len(missing)} of {len(own)} tensors of the model not in it: {shorten(missing)}"] if missing else []
    notes += [f"{len(unexpected)} of its {len(weights)} not in the model: {shorten(unexpected)}"] if unexpected else []
    if checkpoint.strict and notes:
        allowed = "every tensor of the model and no other, since checkpoint.strict is on"
        raise ConfigError(f"{path.name}: {'; '.join(notes)}", where=checkpoint.key, allowed=allowed)
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        found = f"{path.name} does not fit {type(model).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(found, where=checkpoint.key, allowed="tensors of the model's own shapes") from error
    return tuple(f"{path.name}: {note}" for note in notes)


def _read(path: Path, key: str) -> dict[str, Tensor]:
    try:
        with open_regular(path) as file:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                loaded: Any = load_file(path)
            else:
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OverfitError as error:
        raise ConfigError(f"{path}: {error.found}", where=key, allowed=error.allowed) from None
    except Exception as error:  # a third-party reader on an arbitrary file
        found = f"{path.name} cannot be read as tensors alone: {first_line(error)}"
        allowed = "a file of torch.save that weights_only=True reads, or a .safetensors file"
        hint = "save model.state_dict() on its own; overfit.checkpoint=none trains from scratch"
        raise ConfigError(found, where=key, allowed=allowed, hint=hint) from error
    held = loaded if isinstance(loaded, Mapping) else {}
    weights = next((held[name] for name in WEIGHTS if isinstance(held.get(name), Mapping)), loaded)
    if not isinstance(weights, Mapping):
        raise ConfigError(
            f"{path.name} holds a {type(weights).__name__}", where=key, allowed="a mapping of names to tensors"
        )
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}


Loss = Callable[[Any, Batch], Mapping[str, Any]]
# Of a config, by setting.
KEYS = {"freeze": "optim.frozen_module_names", "clip_grad_norm": "optim.gradient_clip", "lr": "optim.optimizer.lr"}
LR_SCHEDULE, WEIGHT_DECAY_SCHEDULE = "optim.options.lr[0].scheduler", "optim.options.weight_decay[0].scheduler"


def build_model(config: OverfitConfig, *, tell: Callable[[str], None] = lambda note: None) -> nn.Module:
    """Builds ``model`` of a config under the config's seed, leaving the global random state alone.

    Args:
        tell: gets what there is to say of the checkpoint that it starts from.
    """
    with isolated(seed=config.seed, threads=torch.get_num_threads(), deterministic=False):
        factory = ModelOfConfig(config)
        model = factory()
        for note in factory.notes:
            tell(note)
        return model


class ModelOfConfig:
    """A factory of the model of a config; ``notes`` says of the latest one what there is to say of its checkpoint."""

    def __init__(self, config: OverfitConfig) -> None:
        self.config = config
        self.notes: tuple[str, ...] = ()

    def __call__(self) -> nn.Module:
        config = self.config
        with at_home(config):
            model: nn.Module = instantiate(config.model, where="model", recursive=config.trainer is None)
            self.notes = load_checkpoint(model, config.checkpoint) if isinstance(model, nn.Module) else ()
        return model


def build_loss(config: OverfitConfig) -> Loss:
    """Builds ``loss`` of a config: a callable ``loss(predictions, batch)``."""
    with at_home(config):
        loss: Loss = instantiate(config.loss, where="loss", recursive=config.trainer is None)
    return loss


@contextlib.contextmanager
def at_home(config: OverfitConfig, *, group: bool = True) -> Iterator[None]:
    """The modules of the config's repository, and the process group that a trainer's code may insist on.

    What cannot be built is told without the values of the config that nobody is shown.
    """
    roots = config.import_roots or (config.path.parent,)
    with imported(*roots), alone(group and config.trainer is not None):
        try:
            yield
        except RefusedKeysError as error:
            raise placed(error, config) from None
        except ConfigError as error:
            if (found := hide(error.found, config.secrets)) == error.found:
                raise
            raise ConfigError(found, where=error.where, allowed=error.allowed, hint=error.hint) from None


def build_optimizer(node: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Builds ``optim.optimizer`` over the given parameters."""
    factory = instantiate(node, where="optim.optimizer", partial=True, plain=True)
    try:
        optimizer = factory(list(parameters))
    except (TypeError, ValueError) as error:
        found = f"{node.get('_target_')} refuses its settings: {error}"
        raise ConfigError(found, where="optim.optimizer", allowed="the keyword arguments of that optimizer") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        found = f"_target_ {node.get('_target_')!r} gave a {type(optimizer).__name__}"
        raise ConfigError(found, where="optim.optimizer", allowed="a torch.optim.Optimizer")
    return optimizer


def dry_build(config: OverfitConfig, model: nn.Module, loss: Loss, *, turn: int = 0) -> str:
    """Builds everything a config names without training: one line that says what was built.

    Args:
        turn: of this process among those of its machine; see ``choose_device``.

    Raises:
        OverfitError: the device is not there, a pattern freezes nothing, an optimizer or schedule cannot be built.
    """
    settings = config.overfit
    device = choose_device_for(model, settings.device, require_gpu=settings.require_gpu, turn=turn).device
    with preserved(model), at_home(config):
        freeze(model, config.frozen_module_names, where=KEYS["freeze"])
        freeze(model, settings.freeze, where="overfit.freeze")
        _expect_clip_groups(config, GradientClipper(model, config.gradient_clip))
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = build_optimizer(config.optimizer, trainable or model.parameters())
        for node, where in ((config.lr_schedule, LR_SCHEDULE), (config.weight_decay_schedule, WEIGHT_DECAY_SCHEDULE)):
            schedule_of(node, where)
    count = sum(p.numel() for p in trainable)
    return f"{type(model).__name__} ({count:,} trainable), {type(loss).__name__}, {type(optimizer).__name__}, {device}"


def _expect_clip_groups(config: OverfitConfig, clip: GradientClipper) -> None:
    """A trainer's own clipper refuses to start where a trainable parameter is in no group.

    Raises:
        ConfigError: with the parameters.
    """
    if config.trainer is not None and config.trainer.own_clipper and clip.unclaimed:
        found = f"no group clips {len(clip.unclaimed)} trainable parameter tensors: {shorten(clip.unclaimed)}"
        allowed = "a group for every trainable parameter: the trainer's own clipper stops without one"
        hint = "add their module to the module_name of a group, or freeze them"
        raise ConfigError(found, where="optim.gradient_clip.configs", allowed=allowed, hint=hint)


def schedule_of(node: Mapping[str, Any] | None, where: str) -> Schedule | None:
    return None if node is None else build_schedule(node, where=where)
