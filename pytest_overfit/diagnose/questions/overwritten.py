"""Values that one call writes to places where it writes others too: one of them stays, and all get its gradient.

Which one stays is undefined (``torch.Tensor.index_put_``, ``scatter_``), and backward takes the gradient of a place for
every value that was written to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.operation import Overwritten
from pytest_overfit.diagnose.questions.tensors import is_real

MOST = 1_000_000  # values


def overwritten(name: str, args: Any, kwargs: Any, out: Any) -> Overwritten | None:
    """What is lost of the values that a call writes by their indices; None where nothing is, or it adds them up.

    Example:
        >>> kept, values = torch.zeros(3), torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> out = kept.scatter(0, torch.tensor([0, 0, 2]), values)
        >>> overwritten("scatter", (kept, 0, torch.tensor([0, 0, 2]), values), {}, out)
        Overwritten(lost=1, count=3)
    """
    given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
    values = given[-1] if given else None
    if values is None or not values.requires_grad or not is_real(values) or not 1 < values.numel() <= MOST:
        return None
    if "reduce" in kwargs or kwargs.get("accumulate") or any(each is True for each in args[3:]):
        return None
    written, values = (given[0] if name == "__setitem__" or name.endswith("_") else out).detach(), values.detach()
    there = _read(name, args, written)
    if there is None or there.shape != values.shape:
        return None
    values = values.to(there.dtype)
    lost = (there != values) & ~(values.isnan() & there.isnan())
    rows = lost.reshape(len(lost), -1).any(1) if lost.dim() else lost.reshape(1)
    return Overwritten(int(rows.sum()), len(rows)) if bool(rows.any()) else None


def _read(name: str, args: Any, written: Tensor) -> Tensor | None:
    """What stands now where the values went."""
    if name.startswith("scatter"):
        dim, index = args[1:3] if len(args) > 3 and isinstance(args[1], int) else (None, None)
        return None if not isinstance(index, Tensor) or dim is None else written.gather(dim, index)
    if name.startswith("index_copy"):
        return written.index_select(args[1], args[2]) if len(args) > 3 else None
    places = args[1] if isinstance(args[1], tuple) else (args[1],) if name == "__setitem__" else tuple(args[1])
    whole = [each for each in places if isinstance(each, Tensor) and each.dtype not in (torch.bool, torch.uint8)]
    return written[places] if whole else None
