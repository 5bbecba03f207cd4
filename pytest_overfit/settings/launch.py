"""What a launcher such as torchrun says of this process; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_overfit.errors import ConfigError

_MOST_DIGITS = 19
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """One process among those that a launcher has started for one run.

    Args:
        rank: among all processes, from 0.
        size: how many there are.
        local_rank, local_size: the same among those of this machine.
    """

    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that judges and reports."""
        return self.rank == 0


def launched(environ: Mapping[str, str]) -> Launch | None:
    """What the launcher's variables say; None without a launcher.

    Example:
        >>> launched({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"})
        Launch(rank=1, size=2, local_rank=1, local_size=2)
        >>> launched({"RANK": "1"}) is None
        True

    Raises:
        ConfigError: a variable is no number, or the rank is none of the world.
    """
    if any(name not in environ for name in NAMES):
        return None
    rank, size, local_rank = (_number(environ, name) for name in NAMES[:3])
    if rank >= size:
        raise ConfigError(f"RANK {rank} of WORLD_SIZE {size}", where="environment", allowed="RANK below WORLD_SIZE")
    local_size = _number(environ, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environ else size
    return Launch(rank, size, local_rank, local_size)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name]
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        found = f"found {text!r:.120}"
        hint = "start the ranks with torchrun, or unset it"
        raise ConfigError(found, where=f"environment variable {name}", allowed="a whole number", hint=hint)
    return int(text)
