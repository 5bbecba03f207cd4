"""What a model's own methods and flags say that it should be: tied, frozen. Asked last: it calls what it asks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.movement import Declared, Freezer, LostTie
from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.snapshot import preserved
from pytest_overfit.untrusted.objects import attributes, defines, is_a

CONFIGS = ("config", "cfg", "args", "hparams", "_config")
TIED = re.compile(r"(^|_)(tied?|tying|share[d]?_.*embed)", re.IGNORECASE)
FREEZES = re.compile(r"^_*freeze(?!r)", re.IGNORECASE)
FLAG = re.compile(r"(^|_)(freeze|frozen)(_|$)", re.IGNORECASE)
SLIP = re.compile(r"^_?requ?ires?_?grads?$", re.IGNORECASE)  # as an attribute of a module, or another one of a tensor
UNSAID = {"", "freeze", "frozen", "i", "at", "the", "num", "n"}  # of the words of a flag; i: is
LIBRARIES = ("torch", "lightning", "pytorch_lightning")


def compare_with_declared(context: RunContext, *, frozen: bool) -> Declared:
    """Ties that are lost, and methods that would freeze what is not frozen.

    Args:
        frozen: somebody declares that parameters stay as they are; else a method is asked where a flag says so alone.
    """
    model, frozen = context.task.model, frozen or bool(context.frozen.matches)
    freezers, ties = _freezers(context, asked=frozen), tuple(_lost_ties(model))
    return Declared(ties=ties, freezers=tuple(freezers), loads=context.loads, backwards=tuple(_backwards(model)))


def _backwards(model: nn.Module) -> Iterator[str]:
    """Modules with a method ``backward`` that is handed a gradient: autograd calls that of a function alone."""
    for name, module in model.named_modules():
        method = next((vars(kind)["backward"] for kind in type(module).__mro__ if "backward" in vars(kind)), None)
        if inspect.isfunction(method) and _is_users(type(module)):
            taken = list(inspect.signature(method).parameters)
            if any("grad" in parameter.lower() for parameter in taken[1:]):
                yield f"{name} ({type(module).__name__})" if name else type(module).__name__


def _lost_ties(model: nn.Module) -> Iterator[LostTie]:
    """By the model's own ``tie_weights``; where there is none, by a flag of its config."""
    for name, module in model.named_modules():
        if defines(module, "tie_weights"):
            yield from _untied_by_method(model, module, f"{type(module).__name__}.tie_weights()")
        elif (flag := _flag(module, TIED)) and not any(defines(m, "tie_weights") for m in model.modules()):
            yield from _untied_table(module, f"{name}." if name else "", flag)


def _untied_by_method(root: nn.Module, module: nn.Module, said_by: str) -> Iterator[LostTie]:
    before = dict(root.named_parameters(remove_duplicate=False))
    owners = [(each, dict(each._parameters)) for each in root.modules()]
    try:
        with users_code():
            module.tie_weights()  # type: ignore[operator]
        after = dict(root.named_parameters(remove_duplicate=False))
    except Refused:  # it wants arguments, or does not fit this model: it says nothing
        return
    finally:
        for each, parameters in owners:
            each._parameters.clear()
            each._parameters.update(parameters)
    for name, tied in after.items():
        was = before.get(name)
        if was is not None and tied is not was:
            other = next((n for n, p in before.items() if p is tied), None)
            if other is not None and was.shape == tied.shape and (gap := _apart(was, tied)) > 0:
                yield LostTie(name, other, said_by, gap)


def _untied_table(module: nn.Module, prefix: str, flag: str) -> Iterator[LostTie]:
    """The one table and the one linear layer that have the same shape."""
    layers = [(n, m) for n, m in module.named_modules() if is_a(m, nn.Embedding, nn.Linear)]
    weighted = [(n, m, m.weight) for n, m in layers if is_a(m.weight, Tensor)]
    pairs = [
        (f"{prefix}{layer}.weight", f"{prefix}{table}.weight", a, b)
        for layer, linear, a in weighted
        for table, embedding, b in weighted
        if is_a(linear, nn.Linear) and is_a(embedding, nn.Embedding) and a.shape == b.shape
    ]
    if len(pairs) == 1 and (gap := _apart(*pairs[0][2:])) > 0:
        yield LostTie(*pairs[0][:2], flag, gap)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.detach() - b.detach().to(a.device)).abs().max()) if is_real(a) and a.numel() else 0.0


def _flag(module: nn.Module, wanted: re.Pattern[str], *, on: bool = True) -> str:
    """The first of ``_flags``, or nothing."""
    return next(_flags(module, wanted, on=on), "")


def _flags(module: nn.Module, wanted: re.Pattern[str], *, on: bool = True) -> Iterator[str]:
    """Switches of a module, or of its config, that are on, or off: ``config.tie_embeddings=True``."""
    own: dict[str, Any] = {k: v for k, v in attributes(module).items() if not is_a(v, nn.Module)}
    configs = [(f"{name}.", own[name]) for name in CONFIGS if name in own]
    homes = [
        ("", own),
        *((name, held if is_a(held, dict) else getattr(held, "__dict__", {})) for name, held in configs),
    ]
    for home, values in homes:
        for key, value in values.items():
            is_so = value is True or (type(value) is int and value > 0) if on else value is False
            if is_so and isinstance(key, str) and wanted.search(key):
                yield f"{home}{key}={value}"


def _freezers(context: RunContext, *, asked: bool) -> Iterator[Freezer]:
    """Methods without arguments that would freeze parameters which have moved."""
    model = context.task.model
    names = {id(p): name for name, p in model.named_parameters()}
    dense = [p for p in model.parameters() if is_real(p)]
    moved = {id(p) for p in dense if (s := context.initial(p)) is not None and _has_moved(p, s)}
    yield from _misspelt(model, moved)
    for place, module in model.named_modules():
        yield from _flagged_children(place, module, names, moved)
        flags = list(_flags(module, FLAG))
        if not (flags or asked):
            continue
        for name in dict.fromkeys(n for kind in type(module).__mro__ if _is_users(kind) for n in vars(kind)):
            if not FREEZES.search(name) or not _takes_nothing(getattr(type(module), name, None)):
                continue
            frozen = [names[i] for i in _frozen_by(model, module, name) if i in moved]
            flag = next((flag for flag in flags if _is_about(flag, (name, *frozen))), "")
            if frozen and (flag or asked):
                yield Freezer(f"{place}.{name}()" if place else f"{name}()", tuple(frozen), flag)


def _is_about(flag: str, names: Iterable[str]) -> bool:
    """Whether a flag names what is frozen: ``is_encoder_frozen`` ``freeze_encoder()``; a number only how many of it."""
    key, _, value = flag.rpartition(".")[2].partition("=")
    asked = {word.rstrip("s") for word in key.lower().split("_")} - UNSAID
    return asked <= {word.rstrip("s") for name in names for word in re.split(r"[._]", name.lower())} and bool(
        asked or value == "True"
    )


def _misspelt(model: nn.Module, moved: set[int]) -> Iterator[Freezer]:
    """``module.requires_grad = False``, or a slip in that name on a parameter: attributes that nobody reads."""
    parts: list[Any] = [*model.modules(), *model.parameters()]
    slips = [(next((k for k, v in vars(p).items() if v is False and SLIP.match(k)), ""), p) for p in parts]
    ids = {id(p) for slip, part in slips if slip for p in (part.parameters() if is_a(part, nn.Module) else [part])}
    found = tuple(name for name, p in model.named_parameters() if id(p) in ids & moved and p.requires_grad)
    if found:
        slip = next(slip for slip, _ in slips if slip)
        yield Freezer("", found, f"{slip}=False, an attribute that torch does not read there")


def _flagged_children(place: str, module: nn.Module, names: dict[int, str], moved: set[int]) -> Iterator[Freezer]:
    """``freeze_encoder=True`` beside a child ``encoder`` that learns."""
    for child, below in module.named_children():
        flag = _flag(module, re.compile(rf"^freeze_{re.escape(child)}$"))
        learning = [names[id(p)] for p in below.parameters() if p.requires_grad and id(p) in moved]
        if flag and learning:
            yield Freezer(f"{place}.{child}" if place else child, tuple(learning), flag)


def _has_moved(parameter: Tensor, start: Tensor) -> bool:
    same = start.shape == parameter.shape and torch.equal(start.to(parameter.device), parameter.detach())
    return not same


def _is_users(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in (*LIBRARIES, "builtins")


def _takes_nothing(method: Any) -> bool:
    try:
        parameters = list(inspect.signature(method).parameters.values())[1:]
    except (TypeError, ValueError):
        return False
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _frozen_by(model: nn.Module, module: nn.Module, name: str) -> list[int]:
    """The ids of parameters that a method takes the gradient from; whatever it changes comes back as it was."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    try:
        with preserved(model), users_code():
            getattr(module, name)()
            return [id(p) for p in wanted if not p.requires_grad]
    except Refused:
        return []
