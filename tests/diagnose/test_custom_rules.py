"""Rules of the user's own: in a call, as a fixture, from an installed package; a broken one is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit import Cause, Evidence, OverfitError, run_overfit
from pytest_overfit.diagnose import custom_rules


def no_bias(evidence: Evidence) -> Iterator[Cause]:
    """A house rule: every model has a bias."""
    if not any(p.name.endswith("bias") for p in evidence.record.parameters):
        yield Cause("house.no-bias", "the model", "no parameter is a bias", "add one", "shown", certain=True)


def learn(rules: object = ()) -> object:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 32, bias=False), nn.Tanh(), nn.Linear(32, 1, bias=False))
    batch = torch.randn(4, 3), torch.randn(4, 1)
    return run_overfit(
        net, batch, F.mse_loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01), max_steps=600, rules=rules
    )


def test_a_rule_of_a_call_fails_a_run_that_passes() -> None:
    """A certain cause is a defect, whoever names it."""
    assert learn().passed  # type: ignore[attr-defined]
    result = learn([no_bias])
    assert [cause.id for cause in result.causes] == ["house.no-bias"]  # type: ignore[attr-defined]
    assert not result.finding("defects").passed  # type: ignore[attr-defined]


def test_a_rule_of_an_installed_package_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point group is pytest_overfit.causes."""

    class Point:
        def load(self) -> object:
            return no_bias

    custom_rules.installed_family.cache_clear()
    monkeypatch.setattr(
        custom_rules, "entry_points", lambda group: [Point()] if group == "pytest_overfit.causes" else []
    )
    try:
        assert [cause.id for cause in learn().causes] == ["house.no-bias"]  # type: ignore[attr-defined]
    finally:
        custom_rules.installed_family.cache_clear()


def test_a_rule_that_raises_is_named() -> None:
    """One clear error, not a traceback of ours."""

    def broken(evidence: Evidence) -> Iterator[Cause]:
        raise ZeroDivisionError("oh")

    with pytest.raises(OverfitError, match=r"the rule .*broken raised ZeroDivisionError: oh"):
        learn([broken])


def test_a_rule_that_gives_something_else_is_named() -> None:
    """A text is no cause."""
    with pytest.raises(OverfitError, match=r"gave a str"):
        learn([lambda evidence: ["text"]])
    with pytest.raises(OverfitError, match=r"a int where a rule is wanted"):
        learn([3])


def test_the_fixture_gives_rules_to_every_test(pytester: pytest.Pytester) -> None:
    """conftest.py: overfit_causes."""
    pytester.makeconftest(
        """
        import pytest
        from pytest_overfit import Cause

        def always(evidence):
            yield Cause("house.always", "here", "it is always so", "nothing", "observed", certain=True)

        @pytest.fixture
        def overfit_causes():
            return [always]
        """
    )
    pytester.makepyfile(
        """
        import torch
        from torch import nn
        from torch.nn import functional as F

        def test_it(overfit):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
            batch = torch.randn(4, 3), torch.randn(4, 1)
            overfit(net, batch, F.mse_loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: house.always: it is always so*", "*why: house.always (observed)*"])
