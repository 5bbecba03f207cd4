"""Where a module loads what it holds already: ``state_dict()`` hands out its own tensors, and not copies of them."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.elements import is_dense
from pytest_overfit.untrusted.objects import is_a, items_of


@contextlib.contextmanager
def own_loads_counted(found: Counter[str], questions: Questions) -> Iterator[None]:
    """Counts, by their line, the calls of ``load_state_dict`` in the block that load a module's own tensors into it."""
    original = nn.Module.load_state_dict

    def load_state_dict(self: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        with questions.asking("whether a module loads its own tensors"):
            if state_dict and _are_its_own(self, dict(items_of(state_dict))):
                found[users_line(sys._getframe(1))] += 1
        return original(self, state_dict, *args, **kwargs)

    nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def _are_its_own(module: nn.Module, given: Mapping[str, Any]) -> bool:
    held = {name: p for name, p in module.named_parameters() if is_dense(p) and p.numel()}
    return bool(held) and all(
        is_a(given.get(name), Tensor) and is_dense(given[name]) and given[name].data_ptr() == p.data_ptr()
        for name, p in held.items()
    )
