"""What a run needs of memory beside its activations, and running out of it as one clear error."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, SGD, Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Unanswerable, is_out_of_memory
from pytest_overfit.run.device import backend_of, peak_mib

_ASKED = re.compile(r"(?:[Tt]ried to allocate|you tried to allocate) ([\d.]+) ?(bytes|[KMGT]iB)")
LARGE_PEAK = 2**30  # bytes that are worth a word before they are taken


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
        if not is_out_of_memory(error):
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


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What tensors take, each once; from their shapes alone."""
    known = {id(t): t for t in tensors if not is_lazy(t)}
    return sum(t.numel() * t.element_size() for t in known.values())


def expected_peak(model: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """The bytes that a run needs at least: parameters, their start, gradients, and what optimizers will remember.

    Example:
        >>> layer = nn.Linear(9, 10, bias=False)
        >>> expected_peak(layer, [torch.optim.Adam(layer.parameters())]) // (9 * 10 * 4)
        5

    Activations come beside it: nobody knows them before the first step. An optimizer of another kind than SGD and LBFGS
    is taken to keep two numbers of each parameter.
    """
    kept = bytes_of([*model.parameters(), *model.buffers()])
    trained = bytes_of(p for p in model.parameters() if p.requires_grad)
    return 2 * kept + trained + sum(_remembered(optimizer) for optimizer in optimizers)


def _remembered(optimizer: Optimizer) -> int:
    groups = [(group, bytes_of(p for p in group["params"] if p.requires_grad)) for group in optimizer.param_groups]
    if isinstance(optimizer, LBFGS):
        return sum(size * (2 * group["history_size"] + 3) for group, size in groups)
    if isinstance(optimizer, SGD):
        return sum(size for group, size in groups if group["momentum"])
    return sum(2 * size for _, size in groups)


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device, or on the host; None where nobody says."""
    if (told := getattr(backend_of(device), "mem_get_info", None)) is not None:
        return int(told(device)[0])
    try:
        found = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(found["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError, ValueError):
        return None


def fitting(wanted: int) -> None:
    """A question that takes so many bytes of the host fits there.

    Raises:
        Unanswerable: with what it takes and what is free.
    """
    free = free_bytes(torch.device("cpu"))
    if free is not None and wanted > free:
        raise Unanswerable(f"memory: it takes {told_bytes(wanted)}, and {told_bytes(free)} are free")


def told_bytes(amount: int) -> str:
    """An amount of memory in words: ``4.8 GiB``."""
    return _readable(str(amount), "bytes")


def _readable(number: str, unit: str) -> str:
    if unit != "bytes":
        return f"{number} {unit}"
    amount = float(number)
    for name in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {name}"
        amount /= 1024
    return f"{amount:.4g} TiB"
