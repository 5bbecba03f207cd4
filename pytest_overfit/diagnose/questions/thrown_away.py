"""Results that nobody takes: ``x.masked_fill(mask, 0)`` as a statement of its own, where ``x`` goes on as it was."""

from __future__ import annotations

import dis
from collections.abc import Container
from functools import lru_cache
from itertools import chain, pairwise
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn

from pytest_overfit.diagnose.questions.step_calls import BETWEEN
from pytest_overfit.run.elements import is_dense

KEEPING = ("batch_norm", "instance_norm")  # called for what they write into what they are given, and for no result
CALLING = ("torch.nn.modules.module", "torch.overrides")  # pass on what they call
LEAST = 1e-3  # of the size of what is given: what a rounding, or another type, changes less by


@lru_cache(maxsize=256)
def _statements(code: CodeType) -> Container[int]:
    """The places of the calls whose result is dropped at once, up to the next instruction."""
    pairs = pairwise(dis.get_instructions(code))
    calls = [(a, b) for a, b in pairs if a.opname.startswith("CALL") and b.opname == "POP_TOP"]
    return frozenset(place for a, b in calls for place in range(a.offset, b.offset))


def is_statement(frame: FrameType | None, name: str) -> bool:
    """Whether a call of the user's is a statement: nothing takes its result.

    Args:
        frame: the innermost of the call.
        name: of the function that is called.
    """
    while frame is not None and (home := frame.f_globals.get("__name__", "")).startswith("torch"):
        if home not in CALLING and frame.f_code.co_name != name:
            return False  # called by torch's own code
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__", "").startswith(BETWEEN):
        return False
    return frame.f_lasti in _statements(frame.f_code)


def changed_in_vain(name: str, args: Any, kwargs: Any, out: Any) -> float:
    """How far a result lies from the tensor that it was made of, relative to its size; 0 where that is another kind."""
    given = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
    if name in KEEPING or (name.endswith("_") and not name.endswith("__")) or kwargs.get("out") is not None:
        return 0.0
    if not isinstance(out, Tensor) or out is given or not (is_dense(given) and is_dense(out)):
        return 0.0
    if given.shape != out.shape or given.is_complex() or out.is_complex() or not given.numel():
        return 0.0
    before, after = given.detach().double(), out.detach().double()
    size, gap = float(before.square().mean().sqrt()), float((before - after).square().mean().sqrt())
    moved = gap / size if size else gap
    return moved if moved > LEAST else 0.0


def keeps_nothing(module: nn.Module) -> bool:
    """Whether a module is its result alone: no weights, no state, and nobody who listens to it."""
    return not module._forward_hooks and next(chain(module.parameters(), module.buffers()), None) is None
