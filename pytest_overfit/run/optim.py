"""What is trained, and how far a step goes: freezing by pattern, the optimizer, gradient clipping by module group."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.suggest import nearest, shorten
from pytest_overfit.run.record import FreezeMatch

if TYPE_CHECKING:
    from pytest_overfit.settings.criteria import Criteria
    from pytest_overfit.settings.settings import ClipGroup


@dataclass(frozen=True)
class Freezing:
    """The outcome of ``freeze``: which pattern froze which parameter, and the frozen modules (kept in eval mode)."""

    frozen_by: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[nn.Module, ...] = ()
    matches: tuple[FreezeMatch, ...] = ()

    def hold(self) -> None:
        """Frozen modules stay in evaluation mode, so that their batch statistics do not drift."""
        for module in self.modules:
            module.eval()


def freeze(model: nn.Module, patterns: Sequence[str], *, where: str = "freeze") -> Freezing:
    """Freezes every module or parameter whose dotted name matches a glob pattern.

    Example:
        >>> freeze(model, ["*aggregator*"]).matches
        (FreezeMatch(pattern='*aggregator*', tensors=48, numel=811392),)

    Args:
        where: the setting that the patterns are of, for the error.

    Raises:
        ConfigError: a pattern matches nothing; the nearest module names are listed.
    """
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    frozen_by: dict[str, str] = {}
    frozen_modules: list[nn.Module] = []
    matches = []
    for pattern in patterns:
        hit_modules = [name for name in modules if name and fnmatch.fnmatchcase(name, pattern)]
        names = {name for name in parameters if fnmatch.fnmatchcase(name, pattern)}
        names |= {name for name in parameters if any(name.startswith(f"{module}.") for module in hit_modules)}
        if not names and not hit_modules:
            known = [name for name in modules if name]
            guess = nearest(pattern.strip("*"), known)
            tops = [name for name in known if "." not in name]
            raise ConfigError(
                f"pattern {pattern!r} matches no module and no parameter of {type(model).__name__}",
                where=where,
                allowed=f"a glob over names such as {', '.join(tops or parameters)}",
                hint=f"did you mean '*{guess}*'?" if guess else None,
            )
        for name in names:
            parameters[name].requires_grad_(False)
            frozen_by.setdefault(name, pattern)
        frozen_modules += [modules[name] for name in hit_modules]
        matches.append(FreezeMatch(pattern, len(names), sum(parameters[name].numel() for name in names)))
    return Freezing(frozen_by, tuple(frozen_modules), tuple(matches))


def check_declarations(model: nn.Module, criteria: Criteria) -> None:
    """A declaration that declares nothing is a mistake.

    Raises:
        ConfigError: a pattern of ``unused`` or ``frozen`` matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for keyword, patterns in (("unused", criteria.unused), ("frozen", criteria.frozen)):
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                guess = nearest(pattern.strip("*."), [name for name, _ in model.named_modules() if name])
                raise ConfigError(
                    f"pattern {pattern!r} matches no parameter of {type(model).__name__}",
                    where=keyword,
                    allowed=f"a glob over parameter names such as {shorten(names)}",
                    hint=f"did you mean '{guess}.*'?" if guess else None,
                )


DEFAULT_LR = 1e-3


def collect_optimizers(
    given: Any, parameters: Sequence[nn.Parameter], *, lr: float | None = None
) -> tuple[Any, list[torch.optim.Optimizer]]:
    """What the user's step gets as its optimizer, and every optimizer in it.

    Args:
        given: an optimizer, a mapping or sequence of them, a factory called with the trainable parameters that returns
            any of these, or None: AdamW with a learning rate of ``lr``, else 1e-3, and no weight decay.

    Raises:
        OverfitError: it is, or the factory returns, something else.
    """
    built = given
    if given is None:
        built = torch.optim.AdamW(list(parameters), lr=lr or DEFAULT_LR, weight_decay=0.0)
    elif callable(given) and not isinstance(given, torch.optim.Optimizer):
        built = given(list(parameters))
    found = list(built.values()) if isinstance(built, Mapping) else built
    found = list(found) if isinstance(found, (list, tuple)) else [found]
    wrong = [thing for thing in found if not isinstance(thing, torch.optim.Optimizer)]
    if wrong or not found:
        raise OverfitError(
            f"a {type(wrong[0] if wrong else built).__name__} where an optimizer is wanted",
            where="optimizer" if built is given else "what the optimizer factory returned",
            allowed="a torch.optim.Optimizer, a mapping or list of them, or a factory called with the parameters",
        )
    return built, found


def expect_default(lr: float | None, key: str, *, own: bool, given: bool) -> None:
    """A learning rate is one of the default optimizer.

    Args:
        lr: that is set; key: how a config calls it.
        own: the step has optimizers of its own.
        given: there is one that somebody handed over.

    Raises:
        OverfitError: there is another one.
    """
    if lr is not None and (own or given):
        raise OverfitError(
            f"{lr:g} beside {'a step with optimizers of its own' if own else 'an optimizer that is given'}",
            where="lr",
            allowed="the learning rate of the default optimizer",
            hint=f"set {key}" if key != "lr" else "set it where that optimizer is built: torch.optim.Adam(..., lr=...)",
        )


def expect_scheduled(schedules: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Every schedule sets something. A config names one of the weight decay for any optimizer.

    Raises:
        OverfitError: with what can be scheduled.
    """
    there = {key: None for each in optimizers for group in each.param_groups for key in group if key != "params"}
    if there and (odd := [key for key in schedules if key not in (*there, "lr", "weight_decay")]):
        raise OverfitError(
            f"a schedule of {odd[0]!r}", where="schedule", allowed=f"what the optimizer has: {', '.join(there)}"
        )


def to_device(model: nn.Module, device: torch.device) -> tuple[dict[int, nn.Parameter], bool]:
    """Moves a model: what stands in the place of each parameter now, by the id of what stood there; whether one moved.

    It is the same one, but between backends of another kind of tensor: there torch makes new ones, and would lose ties.
    """
    homes = [p.device for p in model.parameters()]
    before = [(m._parameters, key, p) for m in model.modules() for key, p in m._parameters.items() if p is not None]
    model.to(device)
    new: dict[int, Any] = {}
    for held, key, old in before:
        now = new.setdefault(id(old), held[key])
        if held[key] is not now:
            held[key] = now
    return new, homes != [p.device for p in model.parameters()]


def follow_model(optimizer: torch.optim.Optimizer, new: Mapping[int, nn.Parameter]) -> None:
    """Gives an optimizer the parameters of a model that ``to_device`` has moved, and its state their device."""
    if any(id(now) != old for old, now in new.items()):
        for group in optimizer.param_groups:
            group["params"] = [new.get(id(p), p) for p in group["params"]]
        state = {new.get(id(p), p): value for p, value in optimizer.state.items()}
        optimizer.state.clear()
        optimizer.state.update(state)
    follow_device(optimizer)


def follow_device(optimizer: torch.optim.Optimizer) -> None:
    """Brings the state of an optimizer that had been stepping before to the device of its parameters."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key != "step":  # torch keeps its step counters on the CPU
                state[key] = value.to(parameter.device)


class GradientClipper:
    """Clips the gradient norm of each module group on its own, as ``optim.gradient_clip.configs`` asks.

    A group takes the parameters whose dotted name contains one of its module names, or matches it as a glob.

    Args:
        strict: the setting of which every group has to take something; "": one that takes nothing clips nothing.

    Raises:
        OverfitError: a group of a strict setting takes nothing.
    """

    def __init__(self, model: nn.Module, groups: Sequence[ClipGroup], *, strict: str = "") -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.groups: list[tuple[list[nn.Parameter], float, float]] = []
        claimed: set[str] = set()
        for group in groups:
            members = [(n, p) for n, p in named if any(_belongs(n, m) for m in group.module_names)]
            claimed |= {name for name, _ in members}
            if strict and named and not members:
                raise OverfitError(
                    f"no trainable parameter belongs to {', '.join(group.module_names)}",
                    where=strict,
                    allowed="globs over modules, or parts of their names",
                    hint=f"parameters are named {shorten([name for name, _ in named])}",
                )
            if members:
                self.groups.append(([p for _, p in members], group.max_norm, group.norm_type))
        self.unclaimed = tuple(name for name, _ in named if name not in claimed) if groups else ()

    def __call__(self) -> None:
        for parameters, max_norm, norm_type in self.groups:
            torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type)


def _belongs(name: str, module_name: str) -> bool:
    return module_name in name or fnmatch.fnmatchcase(name, module_name)


def set_hyperparameter(optimizer: torch.optim.Optimizer, key: str, value: float) -> None:
    """Writes one hyper-parameter into every parameter group.

    Raises:
        OverfitError: the value is no number.
    """
    if isinstance(value, Real):
        value = float(value)  # of NumPy's too
    elif not (isinstance(value, torch.Tensor) and value.numel() == 1):
        raise OverfitError(
            f"a {type(value).__name__}", where=f"the schedule of {key}", allowed="a number at every step"
        )
    for group in optimizer.param_groups:
        if key in group:
            group[key] = value
