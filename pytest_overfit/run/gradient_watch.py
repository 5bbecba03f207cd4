"""What is watched while a run goes: gradients per parameter and module group, and the first non-finite tensor.

Everything stays on the device until it is asked for; asking is a host-device sync.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_overfit.run.batch import DEEPEST
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.run.infinities import Infinities
from pytest_overfit.run.record import NonFinite, ParameterRecord
from pytest_overfit.untrusted.objects import contents, is_a, items_of, text_of

ABSENT = -1.0  # in place of the norm of a gradient that is not there


class GradientWatch:
    """Gradient norms: the largest of every parameter over the run, and one norm per module group and step.

    ``total`` adds over the ranks that hold the shards of every parameter; None where each holds all of it;
    ``infinite`` are globs over what may be so.
    A module group is a direct child of the model (``aggregator``, ``camera_head``, ...).
    """

    def __init__(
        self, model: nn.Module, total: Callable[[Tensor], Tensor] | None = None, *, infinite: Sequence[str] = ()
    ) -> None:
        self.total = total
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        homes = [name.split(".")[0] for name, _ in self.named]
        self.groups = tuple(dict.fromkeys(homes))
        self.columns = tuple(f"grad_norm/{group}" for group in self.groups)
        self._starts = [homes.index(group) for group in self.groups]  # parameters of one child follow each other
        self._largest: npt.NDArray[np.float32] = np.full(len(self.named), ABSENT, np.float32)
        self._members: dict[tuple[int, int], frozenset[int]] = {}
        self._absent: Tensor | None = None
        self.infinities = Infinities(infinite)
        self.infinite = non_finite_tensors(model)  # from the start: see ``first_non_finite_state``
        self.infinite |= {id(t): None for name, t in state_of(model) if self.infinities.excepts(name)}

    def observe(self, optimizer: torch.optim.Optimizer | None = None) -> Tensor:
        """The gradient norm of every parameter, (P,) on the device; -1 where there is no gradient.

        Call it between backward and clipping. With an optimizer, only the gradients that it is about to apply count.
        """
        wanted = None if optimizer is None else self._held_by(optimizer)
        grads = [
            None if p.grad is None or (wanted is not None and i not in wanted) else _numbers(p.grad)
            for i, (_, p) in enumerate(self.named)
        ]
        present = [grad for grad in grads if grad is not None]
        if not present:
            return self._none().expand(len(grads)).clone()
        half = any(grad.dtype == torch.float16 for grad in present)  # whose largest number is 65,504
        found = list(torch._foreach_norm(present, 2, torch.float32 if half else None))
        if len(present) < len(grads) or len({(n.dtype, n.device) for n in found}) > 1:
            none, norms = self._none(), iter(found)
            found = [none if grad is None else next(norms).to(none) for grad in grads]
        return self._whole(torch.stack(found).float())

    def take(self, norms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Takes observed norms (steps, P) into account and gives the norms of the module groups, (steps, G)."""
        if not norms.size:
            return np.zeros((len(norms), 0), np.float32)
        self._largest = np.maximum(self._largest, np.where(np.isnan(norms), np.inf, norms).max(0))
        return self._grouped(norms)

    def values(self) -> list[Tensor]:
        """A copy of every watched parameter, on its device: for ``moved`` after the update.

        Empty while a lazy module has no shapes yet.
        """
        if any(is_lazy(p) for _, p in self.named):
            return []
        return [_numbers(p).clone() for _, p in self.named]

    def moved(self, before: Sequence[Tensor]) -> Tensor | None:
        """The norm of the change of every parameter since ``values``, (P,) on the device; None where it has none."""
        now = [_numbers(p) for _, p in self.named]
        if not before or any(a.shape != b.shape or a.device != b.device for a, b in zip(now, before, strict=True)):
            return None
        norms = torch._foreach_norm(torch._foreach_sub(now, list(before)))
        return self._whole(torch.stack([norm.to(self._none()) for norm in norms]))

    def update_norms(self, moved: Tensor) -> dict[str, float]:
        """``update_norm/<group>`` of what ``moved`` gave. A host-device sync."""
        norms = self._grouped(moved[None].cpu().numpy())[0]
        return {f"update_norm/{group}": float(norm) for group, norm in zip(self.groups, norms, strict=True)}

    def first_non_finite(self, norms: npt.NDArray[np.float32]) -> str | None:
        """The name of the first parameter whose observed gradient norm is not finite."""
        bad = np.flatnonzero(~np.isfinite(norms))
        return self.named[bad[0]][0] if len(bad) else None

    def largest(self) -> dict[str, float | None]:
        """The largest gradient norm per parameter name; None where no gradient ever arrived."""
        values = self._largest.tolist()
        return {name: None if value < 0 else value for (name, _), value in zip(self.named, values, strict=True)}

    def _whole(self, norms: Tensor) -> Tensor:
        """The norms of whole tensors out of those of this rank's shards; what is absent stays absent."""
        if self.total is None:
            return norms
        return torch.where(norms == ABSENT, norms, self.total(norms.clamp(min=0).square()).sqrt())

    def _grouped(self, norms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        squares = np.square(np.where(norms == ABSENT, 0.0, norms).astype(np.float64))
        return np.sqrt(np.add.reduceat(squares, self._starts, axis=1)).astype(np.float32)

    def _held_by(self, optimizer: torch.optim.Optimizer) -> frozenset[int]:
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        key = (id(optimizer), count)  # a group may be added in the middle of a run
        if key not in self._members:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self._members[key] = frozenset(i for i, (_, p) in enumerate(self.named) if id(p) in held)
        return self._members[key]

    def _none(self) -> Tensor:
        if self._absent is None:
            device = self.named[0][1].device if self.named else torch.device("cpu")
            self._absent = torch.tensor(ABSENT, device=device)
        return self._absent


def parameter_records(
    model: nn.Module,
    initial: Callable[[Tensor], Tensor | None],
    optimizers: Sequence[torch.optim.Optimizer],
    largest: Mapping[str, float | None],
    frozen_by: Mapping[str, str],
) -> tuple[ParameterRecord, ...]:
    """One record per parameter: did it get a gradient, is it in an optimizer, did it move?

    ``initial`` gives a parameter's value before the run, None where it had none (a lazy module).
    """
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    records = []
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):  # of a lazy module that was never called: how many elements it has is not known
            used = id(parameter) in held
            records.append(
                ParameterRecord(name, 1, parameter.requires_grad, frozen_by.get(name), used, None, 0.0, True)
            )
            continue
        before, now = initial(parameter), _all_numbers(parameter)
        then = None if before is None else _all_numbers(before).to(now.device)
        change = torch.ones(1) if then is None or then.shape != now.shape else _change(now, then)
        records.append(
            ParameterRecord(
                name=name,
                numel=parameter.numel(),
                trainable=parameter.requires_grad,
                frozen_by=frozen_by.get(name),
                in_optimizer=id(parameter) in held,
                max_grad=largest.get(name),
                moved=float(change.max()) if change.numel() else 0.0,
                finite=bool(torch.isfinite(now).all()),
            )
        )
    return tuple(records)


def named_outputs(predictions: Any, prefix: str = "", within: frozenset[int] = frozenset()) -> list[tuple[str, Tensor]]:
    """The floating-point tensors of a prediction nest with dotted names (``pose_enc_list.3``).

    Sparse, nested and quantised ones, and those on the meta device, are left out, as is what holds itself.

    Args:
        within: the ids of the containers around it.
    """
    if is_a(predictions, Tensor):
        real = is_dense(predictions) and predictions.is_floating_point()
        return [(prefix or "output", predictions)] if real else []
    if is_a(predictions, Mapping):
        items: Sequence[tuple[Any, Any]] = items_of(predictions)
    elif is_a(predictions, list, tuple):
        items = list(enumerate(contents(predictions)))
    else:
        return []
    if id(predictions) in within or len(within) > DEEPEST:
        return []
    inside, found = within | {id(predictions)}, []
    for key, value in items:
        name = text_of(key)
        found += named_outputs(value, f"{prefix}.{name}" if prefix else name, inside)
    return found


def locate_non_finite(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Repeats a forward pass and names the first module whose output is not finite, in the order of execution.

    A mask is minus infinity as it was made, and has no gradient. Returns None when the repeated pass is finite, as
    after a loss or gradient that alone went wrong.
    """
    first: list[str] = []
    handles = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not first and any(_has_gone_wrong(t) for _, t in named_outputs(output)):
                first.append(f"{name or 'model'} ({type(module).__name__})")

        return hook

    try:
        for name, module in model.named_modules():
            handles.append(nn.Module.register_forward_hook(module, watch(name)))
        with torch.enable_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return first[0] if first else None


def _has_gone_wrong(output: Tensor) -> bool:
    fine = torch.isfinite(output) if output.requires_grad else torch.isfinite(output) | output.isneginf()
    return not bool(fine.all())


def state_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a model by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def non_finite_tensors(model: nn.Module) -> dict[int, Tensor | None]:
    """The values of all parameters and buffers that are not finite now, by id: bounds, masks of minus infinity.

    What is so from the start and stays bit for bit what it was has not gone wrong.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not is_lazy(t)]
    found = [(tensor, _numbers(tensor)) for tensor in tensors]
    if _norms_are_finite([numbers for _, numbers in found if _can_be_infinite(numbers)]):
        return {}
    return {id(tensor): numbers.clone() for tensor, numbers in found if not _is_finite(numbers)}


def first_non_finite_state(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    start: Mapping[int, Tensor | None] | None = None,
) -> NonFinite | None:
    """The first parameter, buffer or optimizer-state tensor that is not finite. A host-device sync.

    Args:
        start: what ``non_finite_tensors`` gave before the first step: what still is as it was then does not count, nor
            what has None there.
    """
    meant = start or {}
    state_tensors = [v for optimizer in optimizers for state in optimizer.state.values() for v in state.values()]
    held = [*model.parameters(), *model.buffers(), *(v for v in state_tensors if isinstance(v, Tensor))]
    numbers = [_numbers(tensor) for tensor in held if id(tensor) not in meant]
    changed = any(not _is_meant(tensor, meant) for tensor in held if id(tensor) in meant)
    if not changed and _norms_are_finite([n for n in numbers if _can_be_infinite(n)]):
        return None
    names = {id(p): name for name, p in model.named_parameters()}
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            found = _numbers(tensor)
            if not _is_finite(found) and not _is_meant(tensor, meant):
                return NonFinite(step, f"{kind} {name}", name.rpartition(".")[0] or None)
    for parameter, state in (item for optimizer in optimizers for item in optimizer.state.items()):
        for key, value in state.items():
            if isinstance(value, Tensor) and not _is_finite(_numbers(value)):
                name = names.get(id(parameter), "?")
                return NonFinite(step, f"optimizer state {key} of {name}", name.rpartition(".")[0] or None)
    return None


def _is_meant(tensor: Tensor, meant: Mapping[int, Tensor | None]) -> bool:
    """Whether a tensor is declared, or infinite as it was from the start."""
    value = meant.get(id(tensor))
    return id(tensor) in meant and (value is None or _is_same(_numbers(tensor), value))


def _norms_are_finite(tensors: Sequence[Tensor]) -> bool:
    """One cheap look at many tensors: a norm is finite only if every element is (overflow aside)."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:  # an optimizer may keep its step counters on the CPU
        by_device.setdefault(tensor.device, []).append(tensor)
    return all(
        bool(torch.isfinite(torch.stack([norm.float() for norm in torch._foreach_norm(group)])).all())
        for group in by_device.values()
    )


def _can_be_infinite(numbers: Tensor) -> bool:
    return (numbers.is_floating_point() or numbers.is_complex()) and bool(numbers.numel())


def _is_finite(numbers: Tensor) -> bool:
    return not _can_be_infinite(numbers) or bool(torch.isfinite(numbers).all())


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, so that one NaN is like another."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    first, second = (each.contiguous().reshape(-1).view(torch.uint8) for each in (a, b))
    return bool(torch.equal(first, second))


def _numbers(tensor: Tensor) -> Tensor:
    """The numbers of a parameter, a gradient or a state that this rank holds, dense; none where it shows none."""
    if type(tensor) in (Tensor, nn.Parameter) and is_dense(tensor):
        return tensor.detach() if tensor.requires_grad else tensor
    numbers = numbers_of(tensor)
    return torch.zeros(0) if numbers is None else numbers


def _all_numbers(tensor: Tensor) -> Tensor:
    return _numbers(all_parts(tensor.detach()))


def _change(now: Tensor, before: Tensor) -> Tensor:
    """How far every element has moved; one that is infinite as it was has not."""
    return torch.where(now == before, 0.0, (now - before).abs())


def own_part(tensor: Tensor) -> Tensor:
    """The shard of a parameter that this rank holds; any other tensor as it is."""
    held = getattr(tensor, "_local_tensor", None)
    return tensor if held is None else held


def all_parts(tensor: Tensor) -> Tensor:
    """A sharded parameter with the shards of all ranks, which is a collective; any other tensor as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()
