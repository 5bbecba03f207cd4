"""What is watched while a run goes: gradients per parameter and module group, and the first non-finite tensor.

Everything stays on the device until it is asked for; asking is a host-device sync.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.run.record import NonFinite, ParameterRecord


class GradientWatch:
    """Gradient norms of every parameter: the largest one over the run, and one norm per module group and step.

    A module group is a direct child of the model (``aggregator``, ``camera_head``, ...).
    """

    def __init__(self, model: nn.Module) -> None:
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        homes = [name.split(".")[0] for name, _ in self.named]
        self.groups = tuple(dict.fromkeys(homes))
        self._counts = [homes.count(group) for group in self.groups]  # parameters of one child follow each other
        self._largest: Tensor | None = None
        self._seen = [False] * len(self.named)

    def observe(self) -> Tensor:
        """Takes the current gradients into account; returns the (G,) group norms, on the device.

        Call it between backward and clipping.
        """
        if not self.named:
            return torch.zeros(0)
        grads = {i: _dense(p.grad) for i, (_, p) in enumerate(self.named) if p.grad is not None}
        found = dict(zip(grads, torch._foreach_norm(list(grads.values())) if grads else (), strict=True))
        none = torch.zeros((), device=self.named[0][1].device)
        norms = torch.stack([found.get(i, none).float() for i in range(len(self.named))])
        for i in grads:
            self._seen[i] = True
        self._largest = norms if self._largest is None else torch.maximum(self._largest, norms)
        return torch.stack([part.square().sum() for part in torch.split(norms, self._counts)]).sqrt()

    def largest(self) -> dict[str, float | None]:
        """The largest gradient norm per parameter name; None where no gradient ever arrived."""
        if self._largest is None:
            return {name: None for name, _ in self.named}
        values = self._largest.tolist()
        return {
            name: value if seen else None for (name, _), value, seen in zip(self.named, values, self._seen, strict=True)
        }


def parameter_records(
    model: nn.Module,
    initial: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    largest: Mapping[str, float | None],
    frozen_by: Mapping[str, str],
) -> tuple[ParameterRecord, ...]:
    """One record per parameter: did it get a gradient, is it in the optimizer, did it move?"""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]} if optimizer else set()
    records = []
    for name, parameter in model.named_parameters():
        change = (parameter.detach() - initial[name].to(parameter.device)).abs()
        records.append(
            ParameterRecord(
                name=name,
                numel=parameter.numel(),
                trainable=parameter.requires_grad,
                frozen_by=frozen_by.get(name),
                in_optimizer=id(parameter) in held,
                max_grad=largest.get(name),
                moved=float(change.max()) if change.numel() else 0.0,
                finite=bool(torch.isfinite(parameter.detach()).all()),
            )
        )
    return tuple(records)


def named_outputs(predictions: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """The floating-point tensors of a prediction nest with dotted names (``pose_enc_list.3``)."""
    if isinstance(predictions, Tensor):
        return [(prefix or "output", predictions)] if predictions.is_floating_point() else []
    if isinstance(predictions, Mapping):
        items: Sequence[tuple[Any, Any]] = list(predictions.items())
    elif isinstance(predictions, (list, tuple)):
        items = list(enumerate(predictions))
    else:
        return []
    return [found for key, value in items for found in named_outputs(value, f"{prefix}.{key}" if prefix else str(key))]


def locate_non_finite(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Repeats a forward pass and names the first module whose output is not finite, in the order of execution.

    Returns None when the repeated pass is finite, as after a loss or gradient that alone went wrong.
    """
    first: list[str] = []
    handles = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not first and any(not torch.isfinite(t).all() for _, t in named_outputs(output)):
                first.append(f"{name or 'model'} ({type(module).__name__})")

        return hook

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_hook(watch(name)))
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return first[0] if first else None


def first_non_finite_state(model: nn.Module, optimizer: torch.optim.Optimizer | None, step: int) -> NonFinite | None:
    """The first parameter, buffer or optimizer-state tensor that is not finite. A host-device sync."""
    state_tensors = [value for state in (optimizer.state.values() if optimizer else ()) for value in state.values()]
    tensors = [
        tensor.detach()
        for tensor in [*model.parameters(), *model.buffers(), *state_tensors]
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel()
    ]
    if not tensors or _norms_are_finite(tensors):
        return None
    names = {id(p): name for name, p in model.named_parameters()}
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                return NonFinite(step, f"{kind} {name}", name.rpartition(".")[0] or None)
    for parameter, state in optimizer.state.items() if optimizer else ():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
                name = names.get(id(parameter), "?")
                return NonFinite(step, f"optimizer state {key} of {name}", name.rpartition(".")[0] or None)
    return None


def _norms_are_finite(tensors: Sequence[Tensor]) -> bool:
    """One cheap look at many tensors: a norm is finite only if every element is (overflow aside)."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:  # an optimizer may keep its step counters on the CPU
        by_device.setdefault(tensor.device, []).append(tensor)
    return all(
        bool(torch.isfinite(torch.stack([norm.float() for norm in torch._foreach_norm(group)])).all())
        for group in by_device.values()
    )


def _dense(grad: Tensor) -> Tensor:
    return grad.coalesce().values() if grad.is_sparse else grad
