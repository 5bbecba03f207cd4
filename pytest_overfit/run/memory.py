"""Running out of memory as one clear error."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.device import peak_mib

_ASKED = re.compile(r"(?:[Tt]ried to allocate|you tried to allocate) ([\d.]+) ?(bytes|[KMGT]iB)")
_CPU = re.compile(r"can't allocate memory|not enough memory", re.IGNORECASE)


@contextlib.contextmanager
def memory_errors_told(device: torch.device, where: str) -> Iterator[None]:
    """Turns an out-of-memory error of the block into an ``OverfitError`` that says how much was asked.

    Raises:
        OverfitError: in place of torch's own error. Every other error passes.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not _CPU.search(text):
            raise
        asked = _ASKED.search(text)
        amount = f", {_readable(asked[1], asked[2])} more were asked for" if asked else ""
        peak = peak_mib(device)
        raise OverfitError(
            f"out of memory on {device}{amount}" + (f" (peak {peak:.0f} MiB)" if peak is not None else ""),
            where=where,
            allowed="a model and a batch that fit",
            hint='fewer or smaller samples, amp="bfloat16", or another device',
        ) from None


def _readable(number: str, unit: str) -> str:
    if unit != "bytes":
        return f"{number} {unit}"
    amount = float(number)
    for name in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {name}"
        amount /= 1024
    return f"{amount:.4g} TiB"
