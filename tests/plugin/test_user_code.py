"""What a user's model, loss or fixture does wrong under a config is one failure, of the item that met it."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import CRITERIA, ITEMS, RUN, failed_items, outcomes, reports_of

SHORT = "--overfit-max-steps=20"


def test_an_error_in_the_loss_is_a_failure_of_the_run(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line of the user's that raised; no criterion is judged, and none has failed."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    tiny()
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def overfit_loss():
            return lambda predictions, batch: predictions["no_such_key"]
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT, "--junitxml=out.xml")
    passed = dict.fromkeys(("config", "pair", "loader"), "passed")
    assert outcomes(result) == {**dict.fromkeys(ITEMS, "skipped"), **passed, RUN: "failed"}
    result.stdout.fnmatch_lines(
        [
            "E * KeyError: 'no_such_key'",
            "skipped  supervised, constant_batch, finite and 8 more: not judged: ::run failed*",
            "tiny.yaml::run: KeyError: 'no_such_key', allowed a run that comes to a verdict",
            "  where: *conftest.py:5",
            "  next: look at that line; a traceback of it stands with this item",
        ]
    )
    assert sum(line.startswith("::error ") for line in result.outlines) == 1


def test_a_run_that_hung_has_failed(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The item of the run says where; no criterion fails beside it."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from types import SimpleNamespace as Record

        @pytest.fixture
        def overfit_result():
            hang = Record(text=lambda: "did not come back within 2 s", where="loss at a.py:7")
            return Record(record=Record(hung=hang), runs=(), findings=(), causes=(), finding=lambda name: None)
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", "-k", "run or camera")
    assert outcomes(result) == {RUN: "failed", "camera": "skipped"}
    result.stdout.fnmatch_lines(["tiny.yaml::run: HUNG: did not come back within 2 s, *", "  where: loss at a.py:7"])


FROM_INSIDE = """
    import asyncio, unittest
    import pytest
    from tests.support.tiny import Memoriser

    class Ends(Memoriser):
        def forward(self, images):
            {line}

    @pytest.fixture
    def overfit_model():
        return Ends()
"""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pytest.skip('nope')", "run: the run was skipped from inside: nope"),
        ("pytest.xfail('nope')", "run: the run was skipped from inside: nope"),
        ("raise unittest.SkipTest('nope')", "run: the run was skipped from inside: nope"),
        ("raise SystemExit(0)", "run: SystemExit: 0"),
        ("raise GeneratorExit", "run: GeneratorExit"),
        ("raise asyncio.CancelledError", "run: CancelledError"),
        ("pytest.fail('nope')", "nope"),
    ],
)
def test_whatever_a_model_raises_is_one_failure(
    pytester: pytest.Pytester, tiny: TinyConfig, line: str, told: str
) -> None:
    """Also what pytest, or Python, takes for the end of a test or of a process."""
    tiny()
    pytester.makeconftest(FROM_INSIDE.format(line=line))
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_items(result) == [RUN]
    assert {name for name, outcome in outcomes(result).items() if outcome == "skipped"} == set(CRITERIA)
    assert told in reports_of(result)[RUN].longreprtext
    assert "pytest_overfit/" not in str(result.outlines[-5:])


def test_a_model_that_skips_the_run_of_a_call_has_failed(pytester: pytest.Pytester) -> None:
    """As under a config; a fixture that skips is the usual way out."""
    pytester.makepyfile(
        """
        import pytest, torch

        class Skips(torch.nn.Linear):
            def forward(self, x): pytest.skip("nope")

        @pytest.fixture
        def overfit_model(): pytest.skip("no weights")

        def test_inside(overfit):
            overfit(Skips(2, 1), (torch.zeros(1, 2), torch.zeros(1, 1)), torch.nn.functional.mse_loss)

        def test_fixture(overfit): overfit(data=torch.zeros(1))
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*the run was skipped from inside: nope*"])


def test_a_fixture_may_skip_a_config(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """For want of weights, say; a strict session asks for more."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(): pytest.skip('no weights')")
    found = outcomes(pytester.runpytest_inprocess("tiny.yaml"))
    assert set(found.values()) == {"passed", "skipped"}
    assert found["config"] == found[RUN] == "skipped"


def test_a_model_without_parameters_fails_one_item(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The optimizer that cannot be built is told before the run."""
    tiny()
    pytester.makeconftest(
        """
        import pytest, torch

        class Empty(torch.nn.Module):
            def forward(self, images): return {}

        @pytest.fixture
        def overfit_model(): return Empty()
        """
    )
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert failed_items(result) == ["config"]
    assert outcomes(result)[RUN] == "skipped"


@pytest.mark.parametrize(
    ("fixture", "item"),
    [
        ("overfit_loss", "config"), ("overfit_pair", "pair"), ("overfit_dataset", "loader"),
        ("overfit_loader", "loader"), ("overfit_batch", RUN),
    ],
)  # fmt: skip
def test_a_fixture_that_forgets_to_return_is_named(
    pytester: pytest.Pytester, tiny: TinyConfig, fixture: str, item: str
) -> None:
    """None is no loss, and not the config's either; what is allowed is told."""
    tiny()
    pytester.makeconftest(f"import pytest\n\n@pytest.fixture\ndef {fixture}(): print('made')")
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_items(result) == [item]
    result.stdout.fnmatch_lines(
        [
            f"*::{item}: the fixture gives None, allowed *",
            f"*where: {fixture}",
            f"*next: return it*`def {fixture}(...)`*",
        ]
    )


def test_a_model_that_forgets_to_return_is_named(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Not the line of ours that met the None."""
    tiny()
    pytester.makeconftest(FROM_INSIDE.format(line="return None"))
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert failed_items(result) == [RUN]
    result.stdout.fnmatch_lines(
        ["*::run: the model returned None, allowed a mapping of predictions", "*forward of Ends"]
    )


def test_a_fixture_that_is_not_there_is_named(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """With the fixture that asks for it."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(no_such_fixture): return 1")
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert failed_items(result) == ["config"]
    result.stdout.fnmatch_lines(
        ["*::config: fixture 'no_such_fixture' not found, allowed *", "*where: *conftest.py:3, overfit_model"]
    )


def test_a_traceback_shows_no_secret(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the screen nor in JUnit, in an exception, what it was raised from, or what the model printed."""
    monkeypatch.setenv("HUB_TOKEN", "hf_q8Zr-5521")
    pytester.makepyfile(
        leaky="""
        from tests.support.tiny import Memoriser

        class Leaky(Memoriser):
            def __init__(self, token):
                super().__init__()
                self.token = token

            def forward(self, images):
                print("with", self.token)
                try:
                    raise KeyError(self.token)
                except KeyError as error:
                    raise RuntimeError(f"bad token {self.token}") from error
        """
    )
    tiny(
        replace=(("{_target_: tests.support.tiny.Memoriser}", "{_target_: leaky.Leaky, token: '${oc.env:HUB_TOKEN}'}"),)
    )
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("tiny.yaml", "--junitxml=junit.xml", "-l")
    result.stdout.fnmatch_lines(["*RuntimeError: bad token [*][*][*]", "*FAILED*::run - RuntimeError: bad token [*]*"])
    assert failed_items(result) == [RUN]
    shown = result.stdout.str() + result.stderr.str() + (pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert "hf_q8Zr" not in shown
