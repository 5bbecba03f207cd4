"""The test functions behind the items of a config file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.errors import OverfitError, together
from pytest_overfit.errors.asking import spoken
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.stopped import HINT
from pytest_overfit.plugin.faults import ends_session, is_skip_of_fixture, line_of, of_users_code, refused, refused_skip
from pytest_overfit.plugin.requester import Requester, given, limited_stage, requester_of, turn_of
from pytest_overfit.plugin.state import STAGES, FileState
from pytest_overfit.text.failure import alone, echo, headline, told
from pytest_overfit.text.table import runs_line

RUN = "run"
LONGEST = 100  # characters of a reason


def check_config(request: pytest.FixtureRequest) -> None:
    """Everything the config names is there and can be built: paths, device, model, loss, optimizer, freezing."""
    requester, allowed = requester_of(request), "device, model, loss and optimizer can be built"

    def judge() -> Finding:
        from pytest_overfit.integrations.adapt import module_of
        from pytest_overfit.trainer.build import dry_build
        from pytest_overfit.two_view.inspections import checked_model, refuse_missing, unfit_optimizer

        config, problems = requester.fixture("overfit_config"), list[OverfitError]()

        @contextlib.contextmanager
        def noting() -> Iterator[None]:
            try:
                yield
            except OverfitError as error:
                problems.append(error)

        for split, fixture in (("train", "overfit_pair"), ("val", "overfit_val_batch")):
            try:
                refuse_missing(config, split)
            except OverfitError:
                with noting():  # it says so too, unless a team has one that needs no such path
                    requester.fixture(fixture)
        model = loss = None
        with noting():
            model = checked_model(module_of(requester.fixture("overfit_model")))
        with noting():
            loss = given(requester, "overfit_loss")
        if model is not None and loss is not None:
            with noting():
                built = dry_build(config, model, loss, turn=turn_of(requester.session))
        else:
            problems += unfit_optimizer(config)
        if problems:
            raise together(problems)
        return Finding("config", True, built, allowed)

    _check(requester, "config", allowed, judge)


def check_pair(request: pytest.FixtureRequest) -> None:
    """The pair's files are readable and valid, and the two views agree under the given cameras."""
    _check_data(requester_of(request), "pair", "only valid files, and two views that agree")


def check_loader(request: pytest.FixtureRequest) -> None:
    """The loader hands out one batch with the keys, shapes and types that the model and the loss read."""
    _check_data(requester_of(request), "loader", "one batch with the keys and shapes expected")


def check_run(request: pytest.FixtureRequest) -> None:
    """The run comes to a verdict, whatever that is: the criteria say it."""
    __tracebackhide__ = True
    requester = requester_of(request)

    def judge() -> Finding:
        verdict = requester.fixture("overfit_result")
        runs = [(run.record, run.findings) for run in verdict.runs or (verdict,)]
        for hang in (record.hung for record, _ in runs):
            if hang is not None:
                raise OverfitError(f"HUNG: {hang.text()}", where=hang.where, allowed="a run that comes back", hint=HINT)
        return Finding(RUN, True, runs_line(runs), A_VERDICT)

    _check(requester, RUN, A_VERDICT, judge)


NEEDS: Mapping[str, Sequence[str]] = {"config": (), "pair": (), "loader": ("pair",), RUN: STAGES}
BLOCKING = ("loader", RUN)  # after one of them has failed no run is made, and no criterion judged
A_VERDICT = "a run that comes to a verdict"
NEXT: Mapping[str, str] = {
    "config": "change what is named there, or override its fixture in a conftest.py",
    "pair": "pytest-overfit pair check DIR shows every file of a pair",
    "loader": "look at what the loader opens, or override overfit_loader in a conftest.py",
    RUN: "look at that line; a traceback of it stands with this item",
}


def check_of(name: str) -> Callable[..., None]:
    """The test function of an item."""
    known = {"config": check_config, "pair": check_pair, "loader": check_loader, RUN: check_run}
    return known.get(name) or _criterion(name)


def _criterion(name: str) -> Callable[..., None]:
    """The test function of one criterion of the run."""

    def check(request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        requester, causes = requester_of(request), []

        def judge() -> Finding:
            verdict = requester.fixture("overfit_result")
            causes.extend(verdict.causes)
            return _told_here(_file(requester), verdict.finding(name))

        _check(requester, name, A_VERDICT, judge, causes)

    return check


def _check_data(requester: Requester, name: str, allowed: str) -> None:
    __tracebackhide__ = True

    def judge() -> Finding:
        from pytest_overfit.two_view.inspections import inspect_loader, inspect_pair

        config, value = requester.fixture("overfit_config"), given(requester, f"overfit_{name}")
        inspect = {"pair": inspect_pair, "loader": inspect_loader}[name]
        with limited_stage(requester, config, name):
            return Finding(name, True, inspect(config, value), allowed)

    _check(requester, name, allowed, judge)


def _check(
    requester: Requester, name: str, allowed: str, judge: Callable[[], Finding], causes: Sequence[Cause] = ()
) -> None:
    """Passes, fails or skips. The first item that meets an error tells it; what cannot be judged for it is skipped."""
    __tracebackhide__ = True
    file = _file(requester)
    faults = file.faults
    if name not in STAGES:
        for need in BLOCKING:
            if faults.items.get(need, name) != name:  # say a batch of zeros: what a run makes of it is an echo
                _skip(requester, name, faults.items[need], allowed)
    try:
        finding = judge()
    except BaseException as raised:
        if ends_session(raised) or is_skip_of_fixture(raised):
            raise
        error = refused_skip(raised, name) or raised
        if (teller := faults.behind(name, error, _needs(file, name))) is not None:
            _skip(requester, name, teller, allowed)
        finding = _hidden(_finding_of(error, name, allowed), requester.session.hide)
        for part in (*getattr(error, "parts", ()), error):
            faults.keep(name, part, _reason(finding))
        if isinstance(error, OverfitError) or not isinstance(error, (Exception, pytest.fail.Exception)):
            _report(requester, finding)  # no hook around an item expects a SystemExit or a GeneratorExit
        requester.state.finding = finding
        raise of_users_code(error)  # noqa: B904 - this very error, cut short
    faults.held(name)
    _report(requester, finding, causes)


def _report(requester: Requester, finding: Finding, causes: Sequence[Cause] = ()) -> None:
    requester.state.finding = finding
    if not finding.judged:
        raise pytest.skip.Exception(finding.observed) from None
    if not finding.passed:
        raise pytest.fail.Exception(_failure(requester, finding, causes), pytrace=False) from None


def _failure(requester: Requester, finding: Finding, causes: Sequence[Cause]) -> str:
    """What was missed and why in one line; the first item that fails says where, and what to change."""
    file = _file(requester)
    if not finding.hint_stands:
        file.told = file.told or finding.name
        requester.state.folded = file.told != finding.name
    if not causes or finding.hint_stands:
        return alone(finding)
    if requester.state.folded:
        return echo(finding, causes[0], file.told)
    head = headline([finding], causes)
    return "\n".join([head, *told(head, causes, most=1), finding.text()])


def _skip(requester: Requester, name: str, teller: str, allowed: str) -> None:
    __tracebackhide__ = True
    faults = _file(requester).faults
    faults.items[name] = teller
    why = f"not judged: ::{teller} failed ({faults.reasons[teller]})"
    _report(requester, Finding(name, False, why, allowed, judged=False))


def _file(requester: Requester) -> FileState:
    assert requester.file is not None
    return requester.file


def _told_here(file: FileState, finding: Finding) -> Finding:
    """Missed where the item that tells the fault behind it is not in this session, say for -k: something is red."""
    here = finding.echo_of is None or finding.echo_of in file.selected
    return finding if here else replace(finding, judged=True)


def _needs(file: FileState, name: str) -> Sequence[str]:
    """The items without which this one is not judged. What ends a run that trains is the run's own."""
    if name == RUN and file.training:
        return ()
    return NEEDS.get(name, (RUN, *NEEDS[RUN]))


def _finding_of(error: BaseException, name: str, allowed: str) -> Finding:
    if isinstance(error, OverfitError):
        hint, file = error.hint or NEXT.get(name), Path(error.where or "").name
        found = f"{error.found}: {file}" if error.found == "no such file" else error.found
        return Finding(name, False, found, error.allowed or allowed, where=error.where, hint=hint)
    if isinstance(error, pytest.FixtureLookupError):
        asking = error.fixturestack[-1].func.__code__ if error.fixturestack else None
        place = f"{asking.co_filename}:{asking.co_firstlineno}, {asking.co_name}" if asking else None
        hint = "define it in a conftest.py, or mend its name; pytest --fixtures lists those that there are"
        return Finding(name, False, f"fixture {error.argname!r} not found", "fixtures that exist", place, hint)
    where = line_of(error)
    hint = NEXT[RUN] if where else "look at what the config and the fixtures of conftest.py give; a traceback is above"
    call = refused(error)
    told = spoken(error) if call is None else f"{call.what}: {spoken(error)}"
    return Finding(name, False, told, allowed, where=where, hint=(call and call.change) or hint)


def _reason(finding: Finding) -> str:
    """What is wrong, and where, on one line."""
    text = " ".join(f"{finding.observed}{f', {finding.where}' if finding.where else ''}".split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _hidden(finding: Finding, hide: Callable[[str], str]) -> Finding:
    """A finding without what nobody is shown."""
    where, hint = (None if text is None else hide(text) for text in (finding.where, finding.hint))
    return replace(finding, observed=hide(finding.observed), allowed=hide(finding.allowed), where=where, hint=hint)
