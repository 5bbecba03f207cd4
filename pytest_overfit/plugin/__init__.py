"""pytest glue: options, marker, fixtures and hooks. Everything they do lives elsewhere and is imported when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.plugin.options import INI, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from pytest_overfit.result import OverfitResult
    from pytest_overfit.trainer.config import OverfitConfig

MARKER = "overfit(config=..., max_steps=..., TERM=limit, ...): settings of the test's run"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("overfit", "memorise one sample (pytest-overfit)")
    for name, how in OPTIONS.items():
        group.addoption(name, **how)
    for name, how in INI.items():
        parser.addini(name, **how)


@pytest.hookimpl(trylast=True)  # after the conftests, which may add options of their own
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    names = [arg.partition("=")[0] for arg in args[: args.index("--") if "--" in args else None]]
    odd = [name for name in names if name.startswith("--overfit") and name not in OPTIONS]
    if odd:
        from pytest_overfit.plugin import collection as collect

        _, unknown = parser.parse_known_and_unknown_args(args)
        collect.refuse_options([text.partition("=")[0] for text in unknown if text.startswith("--overfit")])


def pytest_configure(config: pytest.Config) -> None:
    if "WORLD_SIZE" in _environment():
        from pytest_overfit.plugin import ranks

        ranks.prepare(config)
    odd = [name for name in ini_names(config) if name.startswith("overfit") and name not in INI]
    given = config.getoption("overfit_config") or config.getini("overfit_config")
    explained = config.getoption("overfit_explain")
    text = MARKER
    if config.getoption("markers"):
        from pytest_overfit.settings.keywords import marker_text

        text = marker_text()
    config.addinivalue_line("markers", text)
    if config.getoption("overfit_strict") or config.getini("overfit_strict"):
        from pytest_overfit.plugin import strict

        config.pluginmanager.register(strict.Strict(), "overfit_strict")
    if odd or given or explained or any(".yaml" in argument or ".yml" in argument for argument in config.args):
        from pytest_overfit.plugin import collection as collect

        try:
            collect.refuse_ini(config, odd)
            collect.prepare(config)
        except pytest.UsageError:
            if "WORLD_SIZE" in _environment():
                ranks.leave_the_word(config)
            raise
        from pytest_overfit.plugin import terminal

        config.pluginmanager.register(terminal.LastWord(), "overfit_last_word")
        if explained:
            config.pluginmanager.register(collect.Explanation(), "overfit_explanation")
    if config.getoption("overfit_log_dir") or config.getini("overfit_log_dir"):
        from pytest_overfit.plugin import collection as collect

        collect.refuse_log_folders(config)
    if is_recorded(config):
        from pytest_overfit.plugin import collection as collect
        from pytest_overfit.plugin import session as ledger

        ledger.prepare(config, collect.options_of(config))


def is_recorded(config: pytest.Config) -> bool:
    """Whether anybody wants records of the runs: an option, the ini file, the CI service, or an xdist controller.

    Of several ranks the first one writes them.
    """
    ranked: Any = config.pluginmanager.getplugin("overfit_ranks")
    if ranked is not None and not ranked.launch.is_first:
        return False
    asked = any(config.getoption(f"overfit_{name}") for name in ("report", "save", "compare", "compare_fail"))
    written = any(config.getini(f"overfit_{name}") for name in ("report", "compare", "compare_fail"))
    environment = _environment()
    served = bool(environment.get("GITHUB_STEP_SUMMARY")) or environment.get("GITHUB_ACTIONS") == "true"
    return asked or written or served


def ini_names(config: pytest.Config) -> list[str]:
    """Every name that the ini file, or ``-o``, gives a value. (pytest 9 deprecates ``inicfg``, and has no other.)"""
    kept = vars(config)
    overridden = [text.partition("=")[0] for text in config.getoption("override_ini") or ()]
    return list(dict.fromkeys([*(kept.get("_inicfg") or kept.get("inicfg") or ()), *overridden]))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix not in (".yaml", ".yml") or "pytest_overfit.plugin.collection" not in _loaded():
        return None
    from pytest_overfit.plugin import collection as collect

    return collect.collect_file(file_path, parent)


@pytest.hookimpl(trylast=True)  # after -k and its like: what is added here must not be deselected
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if "pytest_overfit.plugin.collection" in _loaded():
        from pytest_overfit.plugin import collection as collect

        collect.check_collected(session, items)


@pytest.hookimpl(tryfirst=True)  # before the workers of pytest-xdist tell what they have
def pytest_collection_finish(session: pytest.Session) -> None:
    if "pytest_overfit.plugin.collection" in _loaded():
        from pytest_overfit.plugin import collection as collect

        collect.put_in_order(session)


@pytest.hookimpl(trylast=True)  # after the test itself: one that has failed keeps its own error
def pytest_runtest_call(item: pytest.Item) -> None:
    if item.get_closest_marker("overfit") is not None or "pytest_overfit.plugin.fixtures" in _loaded():
        from pytest_overfit.plugin import outcomes as verdicts

        verdicts.refuse_unjudged(item, strict=item.config.pluginmanager.hasplugin("overfit_strict"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    outcome = yield
    if "pytest_overfit.plugin.fixtures" in _loaded():
        from pytest_overfit.plugin import terminal

        terminal.attach(item, call, outcome.get_result())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    spread = terminalreporter.config.getoption("dist", "no") != "no"  # the controller of pytest-xdist runs nothing
    if spread or "pytest_overfit.plugin.collection" in _loaded():
        from pytest_overfit.plugin import terminal

        terminal.write(terminalreporter)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if "pytest_overfit.plugin.collection" in _loaded():
        from pytest_overfit.plugin import distribution as distribute

        return distribute.make_scheduler(config, log)
    return None


def _environment() -> Mapping[str, str]:
    import os

    return os.environ


def _loaded() -> Mapping[str, object]:
    import sys

    return sys.modules


@pytest.fixture
def overfit_config(request: pytest.FixtureRequest) -> OverfitConfig:
    """The config of this test: its file's, its marker's, or the only one of the command line."""
    from pytest_overfit.plugin import fixtures

    return fixtures.config_of(request)


@pytest.fixture
def overfit_pair(
    request: pytest.FixtureRequest, overfit_config: OverfitConfig, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The one pair on disk: read in place, cut out of a source, or rendered, as ``overfit.pair`` says.

    Where ``data.train`` names a trainer's own class, what hands out its batches.
    """
    from pytest_overfit.plugin import fixtures

    return fixtures.pair(request, overfit_config, tmp_path_factory)


@pytest.fixture
def overfit_dataset(overfit_config: OverfitConfig, overfit_pair: Any) -> Any:
    """The training ``torch.utils.data.Dataset`` of the pair."""
    from pytest_overfit.plugin import fixtures

    return fixtures.dataset(overfit_config, overfit_config.train, overfit_pair)


@pytest.fixture
def overfit_loader(overfit_config: OverfitConfig, overfit_pair: Any, overfit_dataset: Any) -> Any:
    """The training ``DataLoader``: one batch of one pair."""
    from pytest_overfit.plugin import fixtures

    return fixtures.loader(overfit_config, overfit_pair, overfit_dataset)


@pytest.fixture
def overfit_batch(request: pytest.FixtureRequest) -> Any:
    """The one batch: of the config's loader, normalised, on the CPU; override it for a model without a config."""
    from pytest_overfit.plugin import fixtures

    return fixtures.batch_or_error(request)


@pytest.fixture
def overfit_val_batch(overfit_config: OverfitConfig, request: pytest.FixtureRequest) -> Mapping[str, Any] | None:
    """The validation batch, normalised; None where the config has no validation split."""
    from pytest_overfit.plugin import fixtures

    return fixtures.val_batch(request, overfit_config)


@pytest.fixture
def overfit_model(request: pytest.FixtureRequest) -> Any:
    """The model under test, or a factory; override it in a conftest to put your own under the config, or under none."""
    from pytest_overfit.plugin import fixtures

    return fixtures.model(request)


@pytest.fixture
def overfit_loss(request: pytest.FixtureRequest) -> Any:
    """The loss: ``loss(predictions, batch)`` under a config, ``loss(model, batch)`` without one."""
    from pytest_overfit.plugin import fixtures

    return fixtures.loss(request)


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
    from pytest_overfit.plugin import fixtures

    return fixtures.caller(request)


@pytest.fixture
def overfit_result(request: pytest.FixtureRequest) -> OverfitResult:
    """The verdict of one bounded run; all criteria of one config file share one run."""
    from pytest_overfit.plugin import fixtures

    return fixtures.result(request)
