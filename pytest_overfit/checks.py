"""The test functions behind the items of a config file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding
from pytest_overfit.places import limited_stage
from pytest_overfit.report.causes import cause_lines

FINDING = pytest.StashKey[Finding]()
SHOWN = pytest.StashKey[dict[tuple[type[BaseException], str], str]]()
BETWEEN = frozenset({"pytest_overfit", "_pytest", "pluggy", "torch", "hydra"}) | sys.stdlib_module_names


def check_config(request: pytest.FixtureRequest) -> None:
    """Everything the config names can be built: device, model, loss, optimizer, freezing."""

    def build() -> str:
        from pytest_overfit.inspections import checked_model
        from pytest_overfit.places import turn_of
        from pytest_overfit.run.parts import dry_build

        config, model, loss = (request.getfixturevalue(f"overfit_{name}") for name in ("config", "model", "loss"))
        return dry_build(config, checked_model(model), loss, turn=turn_of(request.config))

    _stage(request, "config", build, "device, model, loss and optimizer can be built")


def check_pair(request: pytest.FixtureRequest) -> None:
    """The pair's files are readable and valid, and the two views agree under the given cameras."""

    def inspect() -> str:
        from pytest_overfit.inspections import inspect_pair

        config, files = (request.getfixturevalue(f"overfit_{name}") for name in ("config", "pair"))
        with limited_stage(request, config, "pair"):
            return inspect_pair(config, files)

    _stage(request, "pair", inspect, "valid files, two views that agree")


def check_loader(request: pytest.FixtureRequest) -> None:
    """The loader hands out one batch with the keys, shapes and types that the model and the loss read."""

    def inspect() -> str:
        from pytest_overfit.inspections import inspect_loader

        config, loader = (request.getfixturevalue(f"overfit_{name}") for name in ("config", "loader"))
        with limited_stage(request, config, "loader"):
            return inspect_loader(config, loader)

    _stage(request, "loader", inspect, "one batch with the keys and shapes expected")


STAGES: Mapping[str, Callable[..., None]] = {"config": check_config, "pair": check_pair, "loader": check_loader}


def criterion(name: str) -> Callable[..., None]:
    """The test function of one criterion of the run."""

    def check(request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        why: list[str] = []

        def judge() -> Finding:
            verdict = request.getfixturevalue("overfit_result")
            why.extend(cause_lines(verdict.causes, most=1))
            return verdict.finding(name)  # type: ignore[no-any-return]

        judged = _attempt(request, name, "a finished run", judge)
        _report(request, judged, why)

    return check


def _stage(request: pytest.FixtureRequest, name: str, inspect: Callable[[], str], allowed: str) -> None:
    __tracebackhide__ = True
    _report(request, _attempt(request, name, allowed, lambda: Finding(name, True, inspect(), allowed)))


def _attempt(request: pytest.FixtureRequest, name: str, allowed: str, judge: Callable[[], Finding]) -> Finding:
    """A finding, also of an error. The first item that meets an error tells it; the others of its file point there."""
    __tracebackhide__ = True
    try:
        return judge()
    except (Exception, pytest.fail.Exception) as error:
        shown_by = _node(request).parent.stash.setdefault(SHOWN, {}).setdefault((type(error), str(error)), name)
        finding = _without_secrets(_node(request).config, _finding_of(error, name, shown_by, allowed))
        if shown_by != name or isinstance(error, OverfitError):
            return finding
        _node(request).stash[FINDING] = finding
        raise error.with_traceback(from_users_code(error.__traceback__))  # noqa: B904 - this very error, cut short


def _finding_of(error: BaseException, name: str, shown_by: str, allowed: str) -> Finding:
    if shown_by != name:
        return Finding(name, False, f"not judged, see ::{shown_by}", allowed)
    if isinstance(error, OverfitError):
        return Finding(name, False, error.found, error.allowed or allowed, where=error.where, hint=error.hint)
    first_line = (str(error).splitlines() or [""])[0]
    return Finding(name, False, f"{type(error).__name__}: {first_line}", allowed)


def _without_secrets(config: pytest.Config, finding: Finding) -> Finding:
    from pytest_overfit.collect import without_secrets

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
    frame = trace
    while frame is not None and frame.tb_frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        frame = frame.tb_next
    return frame or trace


def _report(request: pytest.FixtureRequest, finding: Finding, why: Sequence[str] = ()) -> None:
    _node(request).stash[FINDING] = finding
    if not finding.passed:
        pytest.fail("\n".join([finding.text(), *why]), pytrace=False)


def _node(request: pytest.FixtureRequest) -> Any:
    return request.node
