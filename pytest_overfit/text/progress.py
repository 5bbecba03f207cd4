"""What a run is busy with as one line of text: the phase, its numbers, and the time left."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_overfit.judge.finding import number
from pytest_overfit.run.names import resolve_term


def progress_line(
    name: str,
    step: int,
    planned: int,
    row: Mapping[str, float],
    *,
    steps_per_second: float | None = None,
    seconds_left: float | None = None,
) -> str:
    """Training in one line; what may be cut off on a narrow terminal stands last.

    Example:
        >>> row = {"objective": 0.31, "loss_camera": 0.02, "loss_reg_depth": 0.05}
        >>> progress_line("quick", 120, 400, row, steps_per_second=22.4, seconds_left=12.5)
        'quick  training: step 120/400, at most 13 s left  objective 0.31  camera 0.02  depth 0.05  22.4 steps/s'
    """
    parts = [phase_line(name, "training", f"step {step}/{planned}", seconds_left)]
    for criterion in ("objective", "camera", "depth"):
        if (term := resolve_term(criterion, row)) is not None:
            parts.append(f"{criterion} {number(row[term])}")
    if steps_per_second is not None:
        parts.append(f"{steps_per_second:.1f} steps/s")
    return "  ".join(parts)


def phase_line(name: str, phase: str, detail: str = "", seconds_left: float | None = None) -> str:
    """A phase in one line.

    Example:
        >>> phase_line("quick", "trial 3/9", "lr 0.0001, step 40/400", 75.2)
        'quick  trial 3/9: lr 0.0001, step 40/400, at most 1 min 15 s left'
        >>> phase_line("quick", "warm-up")
        'quick  warm-up'
    """
    shown = f"{phase}: {detail}" if detail else phase
    left = "" if seconds_left is None else f", at most {duration(seconds_left)} left"
    return f"{name}  {shown}{left}"


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(3.2), duration(75), duration(7260)
        ('3 s', '1 min 15 s', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_line(seconds: Mapping[str, float]) -> str:
    """Where the time of a run went, in the order of its phases; empty where nothing was timed.

    Example:
        >>> time_line({"warm-up": 0.31, "training": 21.3, "probes": 1.24})
        'time: warm-up 0.3 s, training 21.3 s, probes 1.2 s'
    """
    return f"time: {', '.join(f'{name} {spent:.1f} s' for name, spent in seconds.items())}" if seconds else ""
