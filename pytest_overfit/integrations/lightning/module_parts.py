"""What a LightningModule brings: what ``configure_optimizers`` returns, in each of its forms, and its one batch."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pytest_overfit.errors import OverfitError

FORMS = (
    "an optimizer, a list of them, (optimizers, schedulers), a dict with optimizer and lr_scheduler, a list of such "
    "dicts, or None"
)
WHERE = "configure_optimizers"


@dataclass
class Scheduled:
    """One schedule, and when it steps; attributes are named as in Lightning's ``LRSchedulerConfig``."""

    scheduler: Any
    name: str | None = None
    interval: str = "epoch"
    frequency: int = 1
    reduce_on_plateau: bool = False
    monitor: str | None = None
    strict: bool = True


def configured(returned: Any, *, automatic: bool) -> tuple[list[Optimizer], list[Scheduled]]:
    """Optimizers and schedules out of what a module's ``configure_optimizers`` returned.

    Args:
        automatic: the module leaves stepping to the loop, which then takes one optimizer.

    Raises:
        OverfitError: it is none of the forms, or not one that this way of optimising can use.
    """
    optimizers, schedulers, monitor = _taken_apart(returned)
    for thing in optimizers:
        if not isinstance(thing, Optimizer):
            raise OverfitError(f"a {type(thing).__name__} where an optimizer is wanted", where=WHERE, allowed=FORMS)
    if automatic and len(optimizers) > 1:
        found = f"{len(optimizers)} optimizers under automatic optimisation"
        allowed = "one optimizer, or self.automatic_optimization = False"
        hint = "several optimizers are stepped in training_step: first, second = self.optimizers()"
        raise OverfitError(found, where=WHERE, allowed=allowed, hint=hint)
    scheduled = [_scheduled(given, monitor) for given in schedulers]
    for each in scheduled:
        if automatic and each.reduce_on_plateau and each.monitor is None:
            found = "ReduceLROnPlateau without a monitor"
            raise OverfitError(found, where=WHERE, allowed='{"scheduler": scheduler, "monitor": "train_loss"}')
        if not any(getattr(each.scheduler, "optimizer", optimizers[0]) is optimizer for optimizer in optimizers):
            found = f"{type(each.scheduler).__name__} schedules an optimizer that is not returned beside it"
            raise OverfitError(found, where=WHERE, allowed="schedulers of the optimizers that are returned")
    return optimizers, scheduled


def _taken_apart(returned: Any) -> tuple[list[Any], list[Any], str | None]:
    if returned is None:
        return [], [], None
    if isinstance(returned, Mapping):
        return *_of_mapping(returned), returned.get("monitor")
    if not isinstance(returned, (list, tuple)):
        return [returned], [], None
    if len(returned) == 2 and isinstance(returned[0], list):
        schedulers = returned[1] if isinstance(returned[1], list) else [returned[1]]
        return list(returned[0]), schedulers, None
    if returned and all(isinstance(each, Mapping) for each in returned):
        pairs = [_of_mapping(each, each.get("monitor")) for each in returned]
        return [o for found, _ in pairs for o in found], [s for _, found in pairs for s in found], None
    return list(returned), [], None


def _of_mapping(given: Mapping[str, Any], monitor: str | None = None) -> tuple[list[Any], list[Any]]:
    if "optimizer" not in given:
        raise OverfitError(
            f"a mapping of {', '.join(map(str, given)) or 'nothing'}", where=WHERE, allowed="a mapping with optimizer"
        )
    if "lr_scheduler" not in given:
        return [given["optimizer"]], []
    scheduler = given["lr_scheduler"]
    if monitor is not None and not isinstance(scheduler, Mapping):
        scheduler = {"scheduler": scheduler, "monitor": monitor}
    return [given["optimizer"]], [scheduler]


def _scheduled(given: Any, monitor: str | None) -> Scheduled:
    values = dict(given) if isinstance(given, Mapping) else {"scheduler": given}
    if "scheduler" not in values:
        raise OverfitError(
            f"a schedule of {', '.join(map(str, values)) or 'nothing'}", where=WHERE, allowed="a mapping with scheduler"
        )
    known = {name: values[name] for name in Scheduled.__dataclass_fields__ if name in values}
    plateau = isinstance(values["scheduler"], ReduceLROnPlateau)
    made = Scheduled(**{"reduce_on_plateau": plateau, "monitor": monitor, **known})
    if made.interval not in ("step", "epoch"):
        raise OverfitError(f"interval {made.interval!r}", where=WHERE, allowed="step or epoch")
    return made


Transfer = Callable[[Any, int], Any]


def is_datamodule(data: Any) -> bool:
    """Whether this is a LightningDataModule, told by its classes alone."""
    return any(kind.__name__ == "LightningDataModule" for kind in type(data).__mro__)


def overrides(module: Any, name: str) -> bool:
    """Whether a method is the user's: not inherited from Lightning's own classes."""
    home = next((kind for kind in type(module).__mro__ if name in vars(kind)), object)
    return home.__module__.partition(".")[0] not in ("pytorch_lightning", "lightning", "builtins")


def first_of(source: Any) -> Any:
    """The first batch of ``source.train_dataloader()``; of several loaders one batch each, in their nest.

    Raises:
        OverfitError: there is none.
    """
    loaders = source.train_dataloader()
    if loaders is None:
        found = f"{type(source).__name__}.train_dataloader() returned nothing"
        raise OverfitError(found, where="data", allowed="a DataLoader, or a list or mapping of them")
    return _first(loaders)


def _first(loaders: Any) -> Any:
    if isinstance(loaders, Mapping):
        return {name: _first(loader) for name, loader in loaders.items()}
    if type(loaders) in (list, tuple):
        return type(loaders)(_first(loader) for loader in loaders)
    for batch in loaders:
        return batch
    raise OverfitError("the training loader gives no batch", where="data", allowed="a loader of at least one batch")


def transfers(module: Any, datamodule: Any) -> list[Transfer]:
    """The hooks before and after the transfer of a batch; a DataModule's own comes before the module's."""
    found = []
    for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
        homes = [thing for thing in (datamodule, module) if thing is not None and overrides(thing, name)]
        found += [getattr(home, name) for home in homes[:1]]
    return found


def discarded(training_step: Callable[..., Any]) -> tuple[str, ...]:
    """The places of a batch that a training step unpacks into names that begin with an underscore.

    Example:
        >>> class AutoEncoder(LightningModule):                             # doctest: +SKIP
        ...     def training_step(self, batch, batch_idx):
        ...         x, _ = batch
        >>> discarded(AutoEncoder().training_step)                          # doctest: +SKIP
        ('1',)

    An autoencoder does not look at the labels of its data, and says so.
    """
    try:
        batch = next(iter(inspect.signature(training_step).parameters), "")
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(training_step))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return ()
    if not isinstance(function, ast.FunctionDef):
        return ()
    return tuple(
        str(index)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == batch
        for target in node.targets
        if isinstance(target, (ast.Tuple, ast.List))
        for index, element in enumerate(target.elts)
        if isinstance(element, ast.Name) and element.id.startswith("_")
    )
