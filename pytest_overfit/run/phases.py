"""What a run is busy with, told to whoever follows it: warm-up, training, probes, one trial after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

WARM_UP, TRAINING, PROBES, TRIAL = "warm-up", "training", "probes", "trial"

Tell = Callable[[str, str, "float | None"], None]  # name, detail, the most seconds left where that is known


class Follower(Protocol):
    """Whoever wants to know."""

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        """A phase begins, or has more to say."""


def tell_all(followers: Sequence[Follower]) -> Tell:
    """One call that reaches every follower.

    Example:
        >>> tell_all(observers)("training", "", 60.0)                                # doctest: +SKIP
    """

    def tell(name: str, detail: str, seconds_left: float | None) -> None:
        for follower in followers:
            follower.on_phase(name, detail, seconds_left)

    return tell


tell_nobody: Tell = tell_all(())
