"""FSDP2 through a copy of the user's model: the copy is sharded and trained, the model stays as it is."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.run.call_task import as_one_module, listened_to
from pytest_overfit.run.gradient_watch import all_parts
from pytest_overfit.run.ranks.group import Ranks
from pytest_overfit.run.subject import Subject


def sharded(ranks: Ranks, subject: Subject, device: torch.device) -> tuple[Any, nn.Module]:
    """Sharded copies of what the user gave as the model, and all of them as one module.

    Raises:
        OverfitError: the optimizer was built of the user's own parameters, or the loss has some.
    """
    refuse_instances(subject.optimizer)
    copies = sharded_given(subject.model, subject.loss, ranks, device)
    return copies, as_one_module(copies)


def sharded_copy(model: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """A copy of a model with every parameter sharded over the ranks (FSDP2); the model itself stays as it is.

    The modules that ``overfit.distributed.modules`` names are sharded each on its own, else the blocks of the model
    (the elements of its ``ModuleList``s), and the rest with the root.

    Raises:
        OverfitError: this torch has no FSDP2, or the model cannot be copied.
        ConfigError: a pattern matches no module.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise OverfitError(
            f"torch {torch.__version__} has no torch.distributed.fsdp.fully_shard",
            where="overfit.distributed.strategy",
            allowed="torch 2.6 or later beside fsdp, or ddp",
        ) from None
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise OverfitError(
            f"{type(model).__name__} cannot be copied: {error}",
            where="model",
            allowed="a model that copy.deepcopy takes",
        ) from error
    mesh = init_device_mesh(device.type, (ranks.size,))
    spread(copied, ranks)
    for module in blocks_of(copied, ranks.settings.modules):
        fully_shard(module, mesh=mesh)
    # The root too: a forward pass without a backward one would leave whole parameters behind for the optimizer to find.
    fully_shard(copied, mesh=mesh, reshard_after_forward=True)
    return copied


def spread(model: nn.Module, ranks: Ranks) -> None:
    """The first rank's parameters and buffers on every rank: a model that nobody seeded differs from rank to rank."""
    for tensor in (*model.parameters(), *model.buffers()):
        held = tensor.detach()
        dist.broadcast(held, src=0, group=ranks.control if held.device.type == "cpu" else None)


def write_back(trained: nn.Module, model: nn.Module) -> None:
    """Gives a model the values of its sharded copy. A collective."""
    with torch.no_grad():
        pairs: list[tuple[Tensor, Tensor]] = [*zip(trained.parameters(), model.parameters(), strict=True)]
        for held, there in (*pairs, *zip(trained.buffers(), model.buffers(), strict=True)):
            there.copy_(all_parts(held.detach()))


def mapped(given: Any, change: Callable[[nn.Module], nn.Module]) -> Any:
    """A module, or a mapping or sequence of them, with every module changed."""
    if isinstance(given, nn.Module):
        return change(given)
    if isinstance(given, Mapping):
        return {name: change(module) for name, module in given.items()}
    return [change(module) for module in given]


def sharded_given(given: Any, loss: Any, ranks: Ranks, device: torch.device) -> Any:
    """What the user gave as the model, every module of it a sharded copy.

    Raises:
        OverfitError: the loss has parameters, which no copy of the model takes along.
    """
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise OverfitError(
            "a loss with parameters", where="loss", allowed="a loss without beside strategy fsdp, or ddp"
        )
    listened_to(given)
    return mapped(given, lambda model: sharded_copy(model, ranks, device))


def refuse_instances(optimizer: Any) -> None:
    """An optimizer that holds the parameters of the model cannot train those of a sharded copy.

    Raises:
        OverfitError: it is no factory.
    """
    if optimizer is not None and not (callable(optimizer) and not isinstance(optimizer, Optimizer)):
        raise OverfitError(
            f"an optimizer that was built already ({type(optimizer).__name__})",
            where="optimizer",
            allowed="a factory called with the sharded parameters beside overfit.distributed.strategy: fsdp",
            hint=factory_line(optimizer),
        )


def factory_line(optimizer: Any) -> str:
    """The line to write for an optimizer that is to be built of other parameters.

    Example:
        >>> factory_line(torch.optim.SGD([torch.zeros(1)], lr=0.1))
        'optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)'
    """
    kind, rate = type(optimizer), getattr(optimizer, "defaults", {}).get("lr")
    home = "torch.optim." if kind.__module__.startswith("torch.optim") else ""
    return f"optimizer=lambda parameters: {home}{kind.__name__}(parameters{'' if rate is None else f', lr={rate:g}'})"


def blocks_of(model: nn.Module, patterns: Sequence[str]) -> Iterator[nn.Module]:
    """The modules that are sharded on their own, inner ones first."""
    named = list(model.named_modules())[1:]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name, _ in named):
            raise ConfigError(
                f"pattern {pattern!r} matches no module of {type(model).__name__}",
                where="overfit.distributed.modules",
                allowed="a glob over module names such as " + ", ".join(name for name, _ in named[:6]),
            )
    if patterns:
        wanted = [m for name, m in named if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    else:
        wanted = [block for _, m in named if isinstance(m, nn.ModuleList) for block in m if block is not None]
    learning = [m for m in wanted if any(True for _ in m.parameters())]
    once = {id(m): m for m in learning if not isinstance(m, (nn.ModuleList, nn.ModuleDict))}
    yield from reversed(once.values())
