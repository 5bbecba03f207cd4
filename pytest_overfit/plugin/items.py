"""The test functions behind the items of a config file."""

from __future__ import annotations

import sys
import traceback
import unittest
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Mistake, spoken
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.hang import HINT
from pytest_overfit.plugin.processes import limited_stage
from pytest_overfit.text.failure import cause_lines
from pytest_overfit.text.table import runs_line
from pytest_overfit.two_view.inspections import not_none

RUN = "run"
FINDING = pytest.StashKey[Finding]()
BEGUN = pytest.StashKey[bool]()  # the run of a config file has begun to train
LONGEST = 100  # characters of a reason
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


FAULTS = pytest.StashKey[Faults]()


def check_config(request: pytest.FixtureRequest) -> None:
    """Everything the config names is there and can be built: paths, device, model, loss, optimizer, freezing."""

    def build() -> str:
        from pytest_overfit.integrations.adapt import module_of
        from pytest_overfit.plugin.processes import turn_of
        from pytest_overfit.trainer.build import dry_build
        from pytest_overfit.two_view.inspections import checked_model, refuse_missing

        config = request.getfixturevalue("overfit_config")
        for split, fixture in (("train", "overfit_pair"), ("val", "overfit_val_batch")):
            try:
                refuse_missing(config, split)
            except OverfitError:
                request.getfixturevalue(fixture)  # which says so too, unless a team has one that needs no such path
        model, loss = module_of(request.getfixturevalue("overfit_model")), given(request, "overfit_loss")
        return dry_build(config, checked_model(model), loss, turn=turn_of(request.config))

    _stage(request, "config", build, "device, model, loss and optimizer can be built")


def check_pair(request: pytest.FixtureRequest) -> None:
    """The pair's files are readable and valid, and the two views agree under the given cameras."""

    def inspect() -> str:
        from pytest_overfit.two_view.inspections import inspect_pair

        config, files = request.getfixturevalue("overfit_config"), given(request, "overfit_pair")
        with limited_stage(request, config, "pair"):
            return inspect_pair(config, files)

    _stage(request, "pair", inspect, "valid files, two views that agree")


def check_loader(request: pytest.FixtureRequest) -> None:
    """The loader hands out one batch with the keys, shapes and types that the model and the loss read."""

    def inspect() -> str:
        from pytest_overfit.two_view.inspections import inspect_loader

        config, loader = request.getfixturevalue("overfit_config"), given(request, "overfit_loader")
        with limited_stage(request, config, "loader"):
            return inspect_loader(config, loader)

    _stage(request, "loader", inspect, "one batch with the keys and shapes expected")


def check_run(request: pytest.FixtureRequest) -> None:
    """The run comes to a verdict, whatever that is: the criteria say it."""
    __tracebackhide__ = True

    def judge() -> Finding:
        verdict = request.getfixturevalue("overfit_result")
        runs = [(run.record, run.findings) for run in verdict.runs or (verdict,)]
        for hang in (record.hung for record, _ in runs):
            if hang is not None:
                raise OverfitError(f"HUNG: {hang.text()}", where=hang.where, allowed="a run that comes back", hint=HINT)
        return Finding(RUN, True, runs_line(runs), A_VERDICT)

    _report(request, _attempt(request, RUN, A_VERDICT, judge))


STAGES: Mapping[str, Callable[..., None]] = {"config": check_config, "pair": check_pair, "loader": check_loader}
NEEDS: Mapping[str, Sequence[str]] = {"config": (), "pair": (), "loader": ("pair",), RUN: tuple(STAGES)}
BLOCKING = ("loader", RUN)  # after one of them has failed no run is made, and no criterion judged
A_VERDICT = "a run that comes to a verdict"
NEXT: Mapping[str, str] = {
    "config": "change what is named there, or override its fixture in a conftest.py",
    "pair": "pytest-overfit pair check DIR shows every file of a pair",
    "loader": "look at what the loader opens, or override overfit_loader in a conftest.py",
    RUN: "look at that line; a traceback of it stands with this item",
}


def criterion(name: str) -> Callable[..., None]:
    """The test function of one criterion of the run."""

    def check(request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        why: list[str] = []

        def judge() -> Finding:
            verdict = request.getfixturevalue("overfit_result")
            why.extend(cause_lines(verdict.causes, most=1))
            return told_here(request.node, verdict.finding(name))

        judged = _attempt(request, name, A_VERDICT, judge)
        _report(request, judged, why)

    return check


def given(request: pytest.FixtureRequest, fixture: str) -> Any:
    """What a fixture gives under a config.

    Raises:
        OverfitError: nothing.
    """
    return not_none(request.getfixturevalue(fixture), fixture)


def faults_of(node: Any) -> Faults:
    """The faults of the config file of an item."""
    return node.parent.stash.setdefault(FAULTS, Faults())  # type: ignore[no-any-return]


def _stage(request: pytest.FixtureRequest, name: str, inspect: Callable[[], str], allowed: str) -> None:
    __tracebackhide__ = True
    _report(request, _attempt(request, name, allowed, lambda: Finding(name, True, inspect(), allowed)))


def _attempt(request: pytest.FixtureRequest, name: str, allowed: str, judge: Callable[[], Finding]) -> Finding:
    """A finding. The first item that meets an error tells it; what cannot be judged because of it is skipped."""
    __tracebackhide__ = True
    node, faults = _node(request), faults_of(_node(request))
    if name not in STAGES:
        for need in BLOCKING:
            if faults.items.get(need, name) != name:  # say a batch of zeros: what a run makes of it is an echo
                _skip(request, name, faults.items[need], allowed)
    try:
        finding = judge()
    except BaseException as raised:
        if ends_session(raised) or is_skip_of_fixture(raised):
            raise
        error = refused_skip(raised, name) or raised
        if (teller := faults.behind(name, error, _needs(node, name))) is not None:
            _skip(request, name, teller, allowed)
        finding = _without_secrets(node.config, _finding_of(error, name, allowed))
        faults.keep(name, error, _reason(finding))
        if isinstance(error, OverfitError) or not isinstance(error, (Exception, pytest.fail.Exception)):
            _report(request, finding)  # no hook around an item expects a SystemExit or a GeneratorExit
        node.stash[FINDING] = finding
        raise error.with_traceback(from_users_code(error.__traceback__))  # noqa: B904 - this very error, cut short
    faults.held(name)
    return finding


def told_here(node: Any, finding: Finding) -> Finding:
    """Missed where the item that tells the fault behind it is not in this session, say for -k: something is red."""
    siblings = (item.name for item in node.session.items if item.parent is node.parent)
    return finding if finding.echo_of is None or finding.echo_of in siblings else replace(finding, judged=True)


def ends_session(error: BaseException) -> bool:
    """Whether it is no fault of user code: Ctrl-C, ``pytest.exit``, a signal of the watchdog, a mistake of ours."""
    from pytest_overfit.run.watchdog import Stopped

    return isinstance(error, (KeyboardInterrupt, pytest.exit.Exception, Stopped, Mistake))


def is_skip_of_fixture(error: BaseException) -> bool:
    """Whether a fixture of the user's skips whoever asks for it, say for want of a device."""
    if not isinstance(error, SKIPS):
        return False
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    calls = [place for place, name in enumerate(frames) if name == "call_fixture_func"]
    asked = [name for name in names[calls[-1] + 1 :] if not name.startswith("_pytest")] if calls else []
    return bool(asked) and asked[0].partition(".")[0] != "pytest_overfit"


def refused_skip(error: BaseException, what: str) -> OverfitError | None:
    """A run that its own model, loss or data skips is judged by nobody: an error; None: it is no skip."""
    if not isinstance(error, SKIPS):
        return None
    return OverfitError(
        f"the {what} was skipped from inside: {error}",
        where=_line_of(error),
        allowed="a model, a loss and data that do not end the test",
        hint="skip where it is collected or set up: with a marker, or in a fixture",
    )


def _skip(request: pytest.FixtureRequest, name: str, teller: str, allowed: str) -> None:
    __tracebackhide__ = True
    faults = faults_of(_node(request))
    faults.items[name] = teller
    why = f"not judged: ::{teller} failed ({faults.reasons[teller]})"
    _report(request, Finding(name, False, why, allowed, judged=False))


def _needs(node: Any, name: str) -> Sequence[str]:
    """The items without which this one is not judged. What ends a run that trains is the run's own."""
    if name == RUN and node.parent.stash.get(BEGUN, False):
        return ()
    return NEEDS.get(name, (RUN, *NEEDS[RUN]))


def _finding_of(error: BaseException, name: str, allowed: str) -> Finding:
    if isinstance(error, OverfitError):
        hint = error.hint or NEXT.get(name)
        return Finding(name, False, error.found, error.allowed or allowed, where=error.where, hint=hint)
    if isinstance(error, pytest.FixtureLookupError):
        asking = error.fixturestack[-1].func.__code__ if error.fixturestack else None
        place = f"{asking.co_filename}:{asking.co_firstlineno}, {asking.co_name}" if asking else None
        hint = "define it in a conftest.py, or mend its name; pytest --fixtures lists those that there are"
        return Finding(name, False, f"fixture {error.argname!r} not found", "fixtures that exist", place, hint)
    where = _line_of(error)
    hint = NEXT[RUN] if where else "look at what the config and the fixtures of conftest.py give; a traceback is above"
    return Finding(name, False, spoken(error), allowed, where=where, hint=hint)


def _line_of(error: BaseException) -> str | None:
    """File and line of the user's that raised; None where no frame is theirs."""
    frame = _users_frame(error.__traceback__)
    return None if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _reason(finding: Finding) -> str:
    """What is wrong, and where, on one line."""
    text = " ".join(f"{finding.observed}{f', {finding.where}' if finding.where else ''}".split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _without_secrets(config: pytest.Config, finding: Finding) -> Finding:
    from pytest_overfit.plugin.collection import without_secrets

    def told(text: str | None) -> str | None:
        return None if text is None else without_secrets(config, text)

    return replace(
        finding,
        observed=without_secrets(config, finding.observed),
        allowed=without_secrets(config, finding.allowed),
        where=told(finding.where),
        hint=told(finding.hint),
    )


def from_users_code(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the first frame on that is neither ours nor in between; all of it where there is no such."""
    return _users_frame(trace) or trace


def _users_frame(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        trace = trace.tb_next
    return trace


def _report(request: pytest.FixtureRequest, finding: Finding, why: Sequence[str] = ()) -> None:
    __tracebackhide__ = True
    _node(request).stash[FINDING] = finding
    if not finding.judged:
        raise pytest.skip.Exception(finding.observed) from None
    if not finding.passed:
        raise pytest.fail.Exception("\n".join([finding.text(), *why]), pytrace=False) from None


def _node(request: pytest.FixtureRequest) -> Any:
    return request.node
