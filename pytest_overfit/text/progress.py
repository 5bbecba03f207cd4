"""What a run is busy with as one line of text: the phase, its numbers, and the time left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_overfit.judge.finding import number
from pytest_overfit.run.names import resolve_term
from pytest_overfit.text.terminal_width import columns
from pytest_overfit.text.translations import translated, words


def progress_line(
    name: str,
    step: int,
    planned: int,
    row: Mapping[str, float],
    *,
    steps_per_second: float | None = None,
    elapsed: float | None = None,
    seconds_left: float | None = None,
    width: int | None = None,
) -> str:
    """Training in one line of numbers; on a narrow terminal the rate goes first, then the name, the words, the terms.

    Example:
        >>> row = {"objective": 0.31, "loss_camera": 0.02, "loss_reg_depth": 0.05}
        >>> progress_line("quick", 120, 400, row, steps_per_second=22.4, elapsed=5.4, seconds_left=12.5)
        'quick  120/400  objective 0.31  camera 0.02  depth 0.05  22.4/s  0:05<0:12'
    """
    terms = [
        (criterion, number(row[term]))
        for criterion in ("objective", "camera", "depth")
        if (term := resolve_term(criterion, row)) is not None
    ]
    worded, bare = [" ".join(term) for term in terms], [value for _, value in terms]
    rate = "" if steps_per_second is None else f"{steps_per_second:.1f}/s"
    clock = "" if elapsed is None else clocked(elapsed)
    clock += "" if seconds_left is None else f"<{clocked(seconds_left)}"
    step_of = f"{step}/{planned}"
    shorter = [(name, step_of, *worded, rate, clock), (name, step_of, *worded, clock), (step_of, *worded, clock),
               (step_of, *bare, clock), (step_of, *bare[:1], clock), (step_of, clock)]  # fmt: skip
    return _first_that_fits(["  ".join(filter(None, parts)) for parts in shorter], width)


def _first_that_fits(lines: Sequence[str], width: int | None) -> str:
    return next((line for line in lines if width is None or columns(line) <= width), lines[-1])


def clocked(seconds: float) -> str:
    """A time as a clock shows it.

    Example:
        >>> clocked(3.2), clocked(75), clocked(7265)
        ('0:03', '1:15', '2:01:05')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def phase_line(
    name: str,
    phase: str,
    detail: str = "",
    seconds_left: float | None = None,
    *,
    width: int | None = None,
    lang: str = "en",
) -> str:
    """A phase in one line; on a narrow terminal the name goes first, then the words of the time left, then the detail.

    Example:
        >>> phase_line("quick", "trial 3/9", "lr 0.0001, step 40/400", 75.2)
        'quick  trial 3/9: lr 0.0001, step 40/400, at most 1 min 15 s left'
        >>> phase_line("quick", "trial 3/9", "lr 0.0001, step 40/400", 75.2, width=40)
        'trial 3/9: lr 0.0001, step 40/400  <1:15'
        >>> phase_line("quick", "trial 3/9", "no clipping, step 40/400", 75.2, lang="zh")
        'quick  试验 3/9: 不裁剪，第 40/400 步，剩余至多 1 分 15 秒'
    """
    kind, _, nth = phase.partition(" ")
    phase = f"{words(lang).get(f'phase {kind}', kind)} {nth}".rstrip()
    shown = f"{phase}: {translated(detail, lang)}" if detail else phase
    left, clock = ("", "") if seconds_left is None else (
        translated(f", at most {duration(seconds_left)} left", lang), f"  <{clocked(seconds_left)}"
    )  # fmt: skip
    lines = [f"{name}  {shown}{left}", f"{shown}{left}", f"{shown}{clock}", f"{phase}{clock}"]
    return _first_that_fits(lines, width)


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
