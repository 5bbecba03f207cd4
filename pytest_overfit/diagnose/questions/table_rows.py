"""Which rows of which tables a step looks up, and which of them get no gradient though the loss has one for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.movement import HeldRow
from pytest_overfit.run.elements import numbers_of

LOOKUPS = ("embedding", "__getitem__", "index_select")
LARGEST = 20_000_000  # elements of a table whose gradient is looked at row by row


@dataclass
class _Lookup:
    """One lookup in a table: ids, and the size of the gradient that came back for each of them."""

    ids: Tensor
    padding: int | None
    wanted: Tensor | None = None


class TableRows:
    """Watches the lookups of one step."""

    def __init__(self) -> None:
        self.lookups: dict[int, list[_Lookup]] = {}
        self.held: list[tuple[Tensor, HeldRow]] = []

    def called(self, name: str, given: Sequence[Any], out: Any, parameters: dict[int, str]) -> None:
        """An operation has run: keeps a lookup of integer ids in a parameter of rows."""
        if name not in LOOKUPS or not isinstance(out, Tensor) or not out.requires_grad:
            return
        tables = [t for t in given if isinstance(t, Tensor) and id(t) in parameters and t.dim() == 2]
        ids = [t for t in given if isinstance(t, Tensor) and t.dtype in (torch.int64, torch.int32)]
        if len(tables) != 1 or len(ids) != 1 or out.shape != (*ids[0].shape, tables[0].shape[1]):
            return
        padding = next((n for n in given if isinstance(n, int) and not isinstance(n, bool) and n >= 0), None)
        lookup = _Lookup(ids[0].detach(), padding if name == "embedding" else None)
        self.lookups.setdefault(id(tables[0]), []).append(lookup)

        def came_back(gradient: Tensor) -> None:
            lookup.wanted = gradient.detach().abs().amax(-1)

        out.register_hook(came_back)  # type: ignore[no-untyped-call]

    def stepped(self, parameter: Tensor, name: str) -> None:
        """An optimizer is about to apply the gradient of a table."""
        lookups = [each for each in self.lookups.pop(id(parameter), ()) if each.wanted is not None]
        if not lookups or parameter.grad is None or parameter.numel() > LARGEST:
            return
        gradient = numbers_of(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad)
        if gradient is None or gradient.shape != parameter.shape:
            return
        empty = (gradient == 0).all(1)
        for each in lookups:
            assert each.wanted is not None
            asked = each.ids[(each.wanted > 0) & empty[each.ids]]
            for row in sorted(set(asked.tolist()))[:4]:
                places = each.ids == row
                if not _is_padding(each.ids, row):
                    alone = each.ids.dim() < 2 or each.ids.shape[-1] == 1
                    found = HeldRow(name, row, int(places.sum()), row == each.padding, alone)
                    self.held.append((parameter[row].detach().clone(), found))

    def rows(self, named: dict[str, Tensor]) -> tuple[HeldRow, ...]:
        """Those that are at the end what they were when the step was seen."""
        still = [
            row
            for value, row in self.held
            if row.parameter in named and torch.equal(named[row.parameter][row.row].detach(), value)
        ]
        return tuple(dict.fromkeys(still))


def _is_padding(ids: Tensor, row: int) -> bool:
    """Whether an id stands at the ends of sequences and nowhere within them."""
    if ids.dim() < 2 or ids.shape[-1] == 1:
        return False
    flat = (ids == row).reshape(-1, ids.shape[-1])
    content = (~flat).int()
    before, after = content.cumsum(1) > 0, content.flip(1).cumsum(1).flip(1) > 0
    return not bool((flat & before & after).any())
