"""What ``configure_optimizers`` returns, in each of its documented forms, as optimizers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
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

    Example:
        >>> configured({"optimizer": sgd, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}, automatic=True)
        ([SGD (...)], [Scheduled(scheduler=..., interval='step', ...)])

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
        raise OverfitError(
            f"{len(optimizers)} optimizers under automatic optimisation",
            where=WHERE,
            allowed="one optimizer, or self.automatic_optimization = False",
            hint="several optimizers are stepped in training_step: first, second = self.optimizers()",
        )
    scheduled = [_scheduled(given, monitor) for given in schedulers]
    for each in scheduled:
        if automatic and each.reduce_on_plateau and each.monitor is None:
            raise OverfitError(
                "ReduceLROnPlateau without a monitor",
                where=WHERE,
                allowed='{"scheduler": scheduler, "monitor": "train_loss"}',
            )
        if not any(getattr(each.scheduler, "optimizer", optimizers[0]) is optimizer for optimizer in optimizers):
            raise OverfitError(
                f"{type(each.scheduler).__name__} schedules an optimizer that is not returned beside it",
                where=WHERE,
                allowed="schedulers of the optimizers that are returned",
            )
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
