"""pytest glue: options, marker, fixtures and hooks. Everything they do lives elsewhere and is imported when needed."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.plugin.interruption import shorten_interruptions
from pytest_overfit.plugin.options import INI, OPTIONS
from pytest_overfit.plugin.rewriting import import_as_written

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pytest_overfit.result import OverfitResult
    from pytest_overfit.trainer.config import OverfitConfig

MARKER = "overfit(config=..., max_steps=..., TERM=limit, ...): settings of the test's run"
ASKING = ("config", "explain", "strict", "set", "device", "require_gpu", "log_dir", "report", "save", "compare",
          "compare_fail")  # fmt: skip


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    import_as_written(pluginmanager)
    for name, how in OPTIONS.items():
        parser.getgroup("overfit", "memorise one sample (pytest-overfit)").addoption(name, **how)
    for name, how in INI.items():
        parser.addini(name, **how)


@pytest.hookimpl(trylast=True)  # after the conftests, which may add options of their own
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    names = [arg.partition("=")[0] for arg in args[: args.index("--") if "--" in args else None]]
    if any(name.startswith("--overfit") and name not in OPTIONS for name in names):
        from pytest_overfit.plugin.configure import refuse_options

        refuse_options(*parser.parse_known_and_unknown_args(args))


def pytest_configure(config: pytest.Config) -> None:
    shorten_interruptions(config)
    if config.getoption("markers"):
        from pytest_overfit.settings.keywords import marker_text
    config.addinivalue_line("markers", marker_text() if config.getoption("markers") else MARKER)
    keys = [name for name in ini_names(config) if name.startswith("overfit")]
    asked = any(config.getoption(f"overfit_{name}") for name in ASKING)
    served = "WORLD_SIZE" in os.environ or any(map(os.environ.get, ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS")))
    if keys or asked or served or any(".yaml" in argument or ".yml" in argument for argument in config.args):
        from pytest_overfit.plugin.configure import configure

        configure(config, [name for name in keys if name not in INI])


def ini_names(config: pytest.Config) -> list[str]:
    """Every name that the ini file, or ``-o``, gives a value. (pytest 9 deprecates ``inicfg``, and has no other.)"""
    kept = vars(config)
    overridden = [text.partition("=")[0] for text in config.getoption("override_ini") or ()]
    return list(dict.fromkeys([*(kept.get("_inicfg") or kept.get("inicfg") or ()), *overridden]))


def is_used() -> bool:
    """Whether this process has a config, or any test of it has asked for a fixture of ours."""
    return "pytest_overfit.plugin.requester" in sys.modules


@pytest.hookimpl(trylast=True)  # after the test itself: one that has failed keeps its own error
def pytest_runtest_call(item: pytest.Item) -> None:
    if is_used() or item.get_closest_marker("overfit") is not None:
        from pytest_overfit.plugin.unchecked import fail_unchecked

        fail_unchecked(item, strict=item.config.pluginmanager.hasplugin("overfit_strict"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    outcome = yield
    if is_used():
        from pytest_overfit.plugin.item_reports import attach

        attach(item, call, outcome.get_result())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if is_used() or terminalreporter.config.getoption("dist", "no") != "no":  # whose controller runs nothing
        from pytest_overfit.plugin.terminal import write

        write(terminalreporter)


@pytest.fixture
def overfit_config(request: pytest.FixtureRequest) -> OverfitConfig:
    """The config of this test: its file's, its marker's, or the only one of the command line."""
    from pytest_overfit.plugin.requester import config_of, requester_of

    return config_of(requester_of(request))


@pytest.fixture
def overfit_pair(
    request: pytest.FixtureRequest, overfit_config: OverfitConfig, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The one pair on disk: read in place, cut out of a source, or rendered, as ``overfit.pair`` says.

    Where ``data.train`` names a trainer's own class, what hands out its batches.
    """
    from pytest_overfit.plugin import fixtures, requester

    folder = partial(tmp_path_factory.mktemp, "overfit_pair")
    return fixtures.pair(requester.requester_of(request), overfit_config, folder)


@pytest.fixture
def overfit_dataset(overfit_config: OverfitConfig, overfit_pair: Any) -> Any:
    """The training ``torch.utils.data.Dataset`` of the pair."""
    from pytest_overfit.two_view.from_config import dataset_of

    return dataset_of(overfit_config, overfit_config.train, overfit_pair)


@pytest.fixture
def overfit_loader(overfit_config: OverfitConfig, overfit_pair: Any, overfit_dataset: Any) -> Any:
    """The training ``DataLoader``: one batch of one pair."""
    from pytest_overfit.two_view.from_config import loader_of

    return loader_of(overfit_config, overfit_pair, overfit_dataset)


@pytest.fixture
def overfit_batch(request: pytest.FixtureRequest) -> Any:
    """The one batch: of the config's loader, normalised, on the CPU; override it for a model without a config."""
    from pytest_overfit.plugin import fixtures, requester

    return fixtures.batch(requester.requester_of(request))


@pytest.fixture
def overfit_val_batch(request: pytest.FixtureRequest) -> Any:
    """The validation batch, normalised; None where the config has no validation split, and without a config."""
    from pytest_overfit.plugin import fixtures, requester

    return fixtures.val_batch(requester.requester_of(request))


@pytest.fixture
def overfit_model(request: pytest.FixtureRequest) -> Any:
    """The model under test, or a factory; override it in a conftest to put your own under the config, or under none."""
    from pytest_overfit.plugin import fixtures, requester

    return fixtures.model(requester.requester_of(request))


@pytest.fixture
def overfit_loss(request: pytest.FixtureRequest) -> Any:
    """The loss: ``loss(predictions, batch)`` under a config, ``loss(model, batch)`` without one."""
    from pytest_overfit.plugin import fixtures, requester

    return fixtures.loss(requester.requester_of(request))


@pytest.fixture
def overfit_optimizer() -> Any:
    """An optimizer, several, or a factory called with the parameters; None: the config's, or AdamW."""
    return None


@pytest.fixture
def overfit_step() -> Any:
    """Your own train step, ``step(model, batch, optimizer)``, which returns what a loss returns; None: ours."""
    return None


@pytest.fixture
def overfit_causes() -> Any:
    """Rules of your own, functions from ``pytest_overfit.Evidence`` to causes, asked beside ours; none."""
    return ()


@pytest.fixture
def overfit(request: pytest.FixtureRequest) -> Callable[..., OverfitResult]:
    """``overfit(model, batch, loss)``: trains on the one batch, fails with every missed criterion, gives the result.

    What is not passed comes from the fixtures ``overfit_model``, ``overfit_batch``, ``overfit_loss``,
    ``overfit_optimizer`` and ``overfit_step``. Keywords are those of the marker.
    """
    from pytest_overfit.plugin import overfit_fixture, requester

    return requester.hand_over(request, overfit_fixture.OverfitCall(requester.requester_of(request)))


@pytest.fixture
def overfit_result(request: pytest.FixtureRequest) -> OverfitResult:
    """The verdict of one bounded run; all criteria of one config file share one run."""
    from pytest_overfit.plugin import overfit_fixture, requester

    return requester.hand_over(request, overfit_fixture.overfit_result(requester.requester_of(request)))
