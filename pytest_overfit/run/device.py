"""Which device a run takes, and how many CPU threads."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.cores import available_cores

NO_GPU = (
    "run on a GPU machine, install a torch build with GPU support, or drop the requirement; "
    "--overfit-strict is content with a device that is named, such as --overfit-device=cpu"
)


@dataclass(frozen=True)
class DeviceChoice:
    """The device of a run; ``note`` says aloud when the choice is not what a GPU gate would expect."""

    device: torch.device
    note: str | None = None


def choose_device(requested: str = "auto", *, require_gpu: bool = False, turn: int = 0) -> DeviceChoice:
    """Resolves ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu`` or the name of a backend to one that exists.

    Example:
        >>> choose_device("auto").device
        device(type='cpu')

    Args:
        turn: of this process among those of its machine; ``auto`` and ``cuda`` (``xpu``) then mean the device whose
            turn it is, out of those that are visible. A device with a number is taken as it stands.

    Raises:
        OverfitError: the device is not there, or ``require_gpu`` is set and the choice is the CPU.
    """
    counts = accelerators()
    if requested == "auto":
        kind = next((kind for kind, count in counts.items() if count), "cpu")
        choice = DeviceChoice(_in_turn(torch.device(kind), counts, turn), None if kind != "cpu" else _missing_gpu())
    else:
        choice = DeviceChoice(_in_turn(_explicit(requested, counts, require_gpu), counts, turn))
    if require_gpu and choice.device.type == "cpu":
        raise OverfitError(
            f"a GPU is required and the run would use the CPU: {_missing_gpu()}",
            where="--overfit-require-gpu / --overfit-strict / overfit.require_gpu",
            allowed="a CUDA, XPU or MPS device, or another accelerator of torch",
            hint=NO_GPU,
        )
    return choice


def choose_device_for(model: nn.Module, requested: str, *, require_gpu: bool = False, turn: int = 0) -> DeviceChoice:
    """As ``choose_device``; ``model`` means the device that the model is on already.

    Raises:
        OverfitError: as ``choose_device``.
    """
    if requested != "model":
        return choose_device(requested, require_gpu=require_gpu, turn=turn)
    first = next((tensor for tensor in (*model.parameters(), *model.buffers())), None)
    device = torch.device("cpu") if first is None else first.device
    if require_gpu and device.type == "cpu":
        return choose_device("auto", require_gpu=True, turn=turn)
    return DeviceChoice(device)


def as_current(device: torch.device) -> AbstractContextManager[Any]:
    """Within the block ``.cuda()``, and whatever else names no number, means this GPU."""
    taken = getattr(backend_of(device), "device", None)
    return nullcontext() if taken is None else taken(device)


def accelerators() -> dict[str, int]:
    """How many devices torch counts of each kind: of the backend that is registered, then of those it comes with."""
    backend = getattr(torch, "accelerator", None)  # torch >= 2.6
    registered = None if backend is None else backend.current_accelerator()
    kinds = [] if registered is None else [registered.type]
    return {kind: _count(kind) for kind in dict.fromkeys([*kinds, "cuda", "xpu", "mps"])}


def backend_of(device: torch.device | str) -> Any:
    """The module of torch that speaks for a device; None for the CPU, and for one that has none."""
    kind = torch.device(device).type
    try:
        return None if kind == "cpu" else torch.get_device_module(kind)
    except RuntimeError:
        return None


def choose_threads(requested: int | str, *, workers: int = 1) -> int:
    """CPU threads for one run: the number asked for, or the cores that are idle now, shared by ``workers`` processes.

    Competing threads cost far more than missing ones (two threads on a busy machine ran ten times slower than one),
    so ``auto`` subtracts the machine's load.
    """
    if isinstance(requested, int):
        return requested
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = 0.0
    return max(1, int((available_cores() - load + 0.5) / max(1, workers)))


def describe_device(device: torch.device) -> str:
    """The device with its product name: ``cuda:0 (NVIDIA H100)``, ``cpu``."""
    named = getattr(backend_of(device), "get_device_name", None)
    return str(device) if named is None else f"{device} ({named(device)})"


def peak_mib(device: torch.device) -> float | None:
    """Peak memory in MiB: of the device's allocator where it counts, else of the whole process; None where unknown."""
    if (allocated := getattr(backend_of(device), "max_memory_allocated", None)) is not None:
        return float(allocated(device)) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _count(kind: str) -> int:
    # is_available() can be True with no device behind it, so devices are counted.
    try:
        return int(torch.get_device_module(kind).device_count())
    except (RuntimeError, AssertionError, AttributeError):
        return 0


def _explicit(requested: str, counts: dict[str, int], require_gpu: bool) -> torch.device:
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise OverfitError(
            f"device {requested!r} is not a device",
            where="overfit.device",
            allowed="auto, cpu, cuda, cuda:N, mps, xpu, or a backend that is registered with torch",
        ) from None
    if device.type == "cpu":
        return device
    count = counts[device.type] if device.type in counts else _count(device.type)
    if (device.index or 0) >= count:
        there = [f"{kind}:0..{n - 1}" for kind, n in counts.items() if n]
        taken = "--overfit-device=auto takes what there is"  # where a GPU is required, or the session strict, too
        if not there:
            taken = NO_GPU if require_gpu else "--overfit-device=cpu trains on the CPU, under --overfit-strict too"
        raise OverfitError(
            f"device {requested!r} is not there: torch {torch.__version__} counts {count} {device.type} device(s)",
            where="overfit.device",
            allowed=", ".join(there if require_gpu else ["auto", "cpu", *there]) or "a device that this machine has",
            hint=taken,
        )
    return device


def _in_turn(device: torch.device, counts: dict[str, int], turn: int) -> torch.device:
    """The device of a process among several; the first, alone or first, needs no number."""
    count = counts.get(device.type, 0)
    if device.index is not None or not turn or count < 2:
        return device
    return torch.device(device.type, turn % count)


def _missing_gpu() -> str:
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return f"no GPU used (torch {torch.__version__} is a CPU build)"
    available = torch.cuda.is_available()
    return f"no GPU used (torch.cuda.is_available() is {available}, device_count() is {_count('cuda')})"
