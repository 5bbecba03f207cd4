"""Checkpoints that a factory loads into the model it builds, and what of them found its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from pytest_overfit.run.record import Load
from pytest_overfit.untrusted.objects import is_a, items_of


@contextlib.contextmanager
def loads_heard() -> Iterator[list[Load]]:
    """Hears every ``load_state_dict`` within the block whose keys did not all fit; those that follow may mend it."""
    found: list[Load] = []
    original = nn.Module.load_state_dict

    def load_state_dict(self: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = original(self, state_dict, *args, **kwargs)
        if state_dict:
            found.append(_load(self, dict(items_of(state_dict)), result.missing_keys, result.unexpected_keys))
        return result

    nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]
    try:
        yield found
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]
        filled = [load for load in found if not load.missing]
        found[:] = [load for load in found if load.missing and load.into not in {each.into for each in filled}]


def _load(module: nn.Module, given: dict[str, Any], missing: list[str], unexpected: list[str]) -> Load:
    shapes = {name: tuple(t.shape) for name, t in module.state_dict(keep_vars=True).items() if is_a(t, Tensor)}
    renamed = [
        (name, key)
        for name in missing
        for key in unexpected
        if (key.endswith(f".{name}") or name.endswith(f".{key}"))
        and is_a(given[key], Tensor)
        and tuple(given[key].shape) == shapes.get(name)
    ]
    return Load(type(module).__name__, len(given), tuple(missing), tuple(unexpected), tuple(renamed))
