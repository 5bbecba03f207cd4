"""What keeps a run, or an item of a config, from being judged: errors, skips from inside, and whose line it was."""

from __future__ import annotations

import sys
import traceback
import unittest
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Mistake

if TYPE_CHECKING:
    from pytest_overfit.diagnose.refused_call import RefusedCall

SKIPS = (pytest.skip.Exception, pytest.xfail.Exception, unittest.SkipTest)
BETWEEN = frozenset({"pytest_overfit", "_pytest", "pluggy", "torch", "hydra"}) | sys.stdlib_module_names


@dataclass
class Faults:
    """What keeps the items of one config file from being judged, and which item tells it.

    Example:
        >>> faults = Faults()
        >>> faults.keep("pair", OverfitError("no such file"), "no such file")
        >>> faults.behind("loader", OverfitError("no such file"), needs=())
        'pair'
    """

    told: dict[tuple[type[BaseException], str], str] = field(default_factory=dict)  # error -> item
    items: dict[str, str] = field(default_factory=dict)  # item without a verdict -> item that tells why
    reasons: dict[str, str] = field(default_factory=dict)  # item -> what it tells

    def keep(self, name: str, error: BaseException, reason: str) -> None:
        """This item tells this error."""
        self.told[type(error), str(error)] = self.items[name] = name
        self.reasons[name] = reason

    def behind(self, name: str, error: BaseException, needs: Sequence[str]) -> str | None:
        """The item that has told what ended this one: the same error, or what this one needs; None: nobody yet."""
        teller = self.told.get((type(error), str(error)), name)
        if teller == name:
            teller = next((self.items[need] for need in needs if need in self.items), name)
        return None if teller == name else teller

    def held(self, name: str) -> None:
        """This item was judged: what it told before, say before a rerun, stands no longer."""
        self.items.pop(name, None)
        self.reasons.pop(name, None)
        self.told = {error: teller for error, teller in self.told.items() if teller != name}


def ends_session(error: BaseException) -> bool:
    """Whether it is no fault of user code: Ctrl-C, ``pytest.exit``, a signal of the watchdog, a mistake of ours."""
    from pytest_overfit.run.watchdog import Stopped

    return isinstance(error, (KeyboardInterrupt, pytest.exit.Exception, Stopped, Mistake))


def is_skip_of_fixture(error: BaseException) -> bool:
    """Whether a fixture of the user's skips whoever asks for it, say for want of a device."""
    if not isinstance(error, SKIPS):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    calls = [place for place, frame in enumerate(frames) if frame.f_code.co_name == "call_fixture_func"]
    names = [frame.f_globals.get("__name__", "") for frame in frames[calls[-1] + 1 :]] if calls else []
    asked = [name for name in names if not name.startswith("_pytest")]
    return bool(asked) and asked[0].partition(".")[0] != "pytest_overfit"


def refused_skip(error: BaseException, what: str) -> OverfitError | None:
    """A run that its own model, loss or data skips is judged by nobody: an error; None: it is no skip."""
    if not isinstance(error, SKIPS):
        return None
    return OverfitError(
        f"the {what} was skipped from inside: {error}",
        where=line_of(error),
        allowed="a model, a loss and data that do not end the test",
        hint="skip where it is collected or set up: with a marker, or in a fixture",
    )


def of_users_code(error: BaseException) -> BaseException:
    """The error with the frames from the first to the last that are neither ours nor in between, and what torch got."""
    return error.with_traceback(_users_part(error.__traceback__, refused=noted(error)))


def noted(error: BaseException) -> bool:
    """Whether torch raised this; what it got, where, and what to change are notes of the error then."""
    call = refused(error)
    if call is not None and not getattr(error, "__notes__", ()):
        change = [f"  change: {call.change}"] if call.change else []
        # What Python 3.10 does not show.
        from pytest_overfit.text.failure import SHAPES  # here: a session without our tests needs none of it

        error.__notes__ = [f"{SHAPES}{call.what}", f"  where: {call.where}", *change]  # type: ignore[attr-defined]
    return call is not None


def refused(error: BaseException) -> RefusedCall | None:
    """The call of torch that raised, where one did; torch is imported by then."""
    if "torch" not in sys.modules:
        return None
    from pytest_overfit.diagnose.refused_call import refused_call

    return refused_call(error)


def _users_part(trace: TracebackType | None, *, refused: bool) -> TracebackType | None:
    """From the first frame on that is neither ours nor in between, without those of torch behind the last such.

    Where there is no such, all of it; nothing where torch has refused what was passed on for the user.
    """
    first = _users_frame(trace)
    if first is None:
        return None if refused else trace
    frames = [first]
    while (after := frames[-1].tb_next) is not None:
        frames.append(after)
    while frames and _room(frames[-1]) == "torch":
        frames.pop()
    part: TracebackType | None = None
    for each in reversed(frames):
        part = TracebackType(part, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return part


def _room(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def line_of(error: BaseException) -> str | None:
    """File and line of the user's that raised; None where no frame is theirs."""
    frame = _users_frame(error.__traceback__)
    return None if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _users_frame(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and _room(trace) in BETWEEN:
        trace = trace.tb_next
    return trace
