"""What keeps a run, or an item of a config, from being judged: errors, skips from inside, and whose line it was."""

from __future__ import annotations

import sys
import traceback
import unittest
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Mistake

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


def from_users_code(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the first frame on that is neither ours nor in between; all of it where there is no such."""
    return _users_frame(trace) or trace


def line_of(error: BaseException) -> str | None:
    """File and line of the user's that raised; None where no frame is theirs."""
    frame = _users_frame(error.__traceback__)
    return None if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _users_frame(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        trace = trace.tb_next
    return trace
