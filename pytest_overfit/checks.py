"""The test functions behind the items of a config file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pytest_overfit.config.schema import OverfitConfig
from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding

FINDING = pytest.StashKey[Finding]()


def check_config(request: pytest.FixtureRequest, overfit_config: OverfitConfig) -> None:
    """Everything the config names can be built: device, model, loss, optimizer, freezing."""
    from pytest_overfit.fixtures import checked_model
    from pytest_overfit.run.execute import dry_build

    def build() -> str:
        model = checked_model(request.getfixturevalue("overfit_model"))
        return dry_build(overfit_config, model, request.getfixturevalue("overfit_loss"))

    _stage(request, "config", build, "device, model, loss and optimizer can be built")


def check_pair(request: pytest.FixtureRequest, overfit_config: OverfitConfig) -> None:
    """The pair's files are readable and valid, and the two views agree under the given cameras."""
    from pytest_overfit.fixtures import inspect_pair

    def inspect() -> str:
        return inspect_pair(overfit_config, request.getfixturevalue("overfit_pair"))

    _stage(request, "pair", inspect, "valid files, two views that agree")


def check_loader(request: pytest.FixtureRequest, overfit_config: OverfitConfig) -> None:
    """The loader hands out one batch with the keys, shapes and types that the model and the loss read."""
    from pytest_overfit.fixtures import inspect_loader

    def inspect() -> str:
        return inspect_loader(overfit_config, request.getfixturevalue("overfit_loader"))

    _stage(request, "loader", inspect, "one batch with the keys and shapes expected")


STAGES: Mapping[str, Callable[..., None]] = {"config": check_config, "pair": check_pair, "loader": check_loader}


def criterion(name: str) -> Callable[..., None]:
    """The test function of one criterion of the run."""

    def check(request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        try:
            result = request.getfixturevalue("overfit_result")
        except OverfitError as error:
            _fail(request, Finding(name, False, "not judged, the run did not start", "a run", hint=str(error)))
        finding = result.finding(name)
        _report(request, finding)

    return check


def _stage(request: pytest.FixtureRequest, name: str, inspect: Callable[[], str], allowed: str) -> None:
    __tracebackhide__ = True
    try:
        observed = inspect()
    except OverfitError as error:
        finding = Finding(name, False, error.found, error.allowed or allowed, where=error.where, hint=error.hint)
    else:
        finding = Finding(name, True, observed, allowed)
    _report(request, finding)


def _report(request: pytest.FixtureRequest, finding: Finding) -> None:
    __tracebackhide__ = True
    if not finding.passed:
        _fail(request, finding)
    _node(request).stash[FINDING] = finding


def _fail(request: pytest.FixtureRequest, finding: Finding) -> Any:
    __tracebackhide__ = True
    _node(request).stash[FINDING] = finding
    pytest.fail(finding.text(), pytrace=False)


def _node(request: pytest.FixtureRequest) -> pytest.Item:
    node: pytest.Item = request.node
    return node
