"""pytest glue: options, marker, fixtures and hooks. Everything they do lives elsewhere and is imported when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from pytest_overfit.config.schema import OverfitConfig
    from pytest_overfit.pair.layout import PairFiles
    from pytest_overfit.result import OverfitResult

MARKER = (
    "overfit(config=...): run the test's overfit_* fixtures under this config file (path relative to the test file)"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("overfit", "memorise one sample (pytest-overfit)")
    group.addoption(
        "--overfit-config",
        action="append",
        metavar="FILE",
        help="config file of one bounded overfit run, each criterion a test; may be repeated",
    )
    group.addoption(
        "--overfit-set",
        action="append",
        metavar="KEY=VALUE",
        help="override a key of every config, such as seed_value=1 or overfit.budget.max_steps=200",
    )
    group.addoption("--overfit-device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N, mps or xpu")
    group.addoption("--overfit-require-gpu", action="store_true", help="fail where no GPU is found")
    group.addoption("--overfit-log-dir", metavar="DIR", help="folder of the TensorBoard files")
    parser.addini("overfit_config", "config files to run beside the tests, one per line", type="linelist")
    parser.addini("overfit_set", "overrides KEY=VALUE for every config, one per line", type="linelist")
    parser.addini("overfit_device", "default of --overfit-device")
    parser.addini("overfit_require_gpu", "default of --overfit-require-gpu", type="bool", default=False)
    parser.addini("overfit_log_dir", "default of --overfit-log-dir")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    given = config.getoption("overfit_config") or config.getini("overfit_config")
    if given or any(".yaml" in argument or ".yml" in argument for argument in config.args):
        from pytest_overfit import collect

        collect.prepare(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix not in (".yaml", ".yml") or "pytest_overfit.collect" not in _loaded():
        return None
    from pytest_overfit import collect

    return collect.collect_file(file_path, parent)


@pytest.hookimpl(trylast=True)  # after -k and its like: what is added here must not be deselected
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if "pytest_overfit.collect" in _loaded():
        from pytest_overfit import collect

        collect.check_collected(session, items)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    if "pytest_overfit.fixtures" in _loaded():
        from pytest_overfit import terminal

        terminal.attach(item, outcome.get_result())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "pytest_overfit.collect" in _loaded():
        from pytest_overfit import terminal

        terminal.write_summary(terminalreporter)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if "pytest_overfit.collect" in _loaded():
        from pytest_overfit import distribute

        return distribute.make_scheduler(config, log)
    return None


def _loaded() -> Mapping[str, object]:
    import sys

    return sys.modules


@pytest.fixture
def overfit_config(request: pytest.FixtureRequest) -> OverfitConfig:
    """The config of this test: its file's, its marker's, or the only one of the command line."""
    from pytest_overfit import fixtures

    return fixtures.config_of(request)


@pytest.fixture
def overfit_pair(
    request: pytest.FixtureRequest, overfit_config: OverfitConfig, tmp_path_factory: pytest.TempPathFactory
) -> PairFiles:
    """The one pair on disk: read in place, cut out of a source, or rendered, as ``overfit.pair`` says."""
    from pytest_overfit import fixtures

    return fixtures.pair(request, overfit_config, tmp_path_factory)


@pytest.fixture
def overfit_dataset(overfit_config: OverfitConfig, overfit_pair: PairFiles) -> Any:
    """The training ``torch.utils.data.Dataset`` of the pair."""
    from pytest_overfit import fixtures

    return fixtures.dataset(overfit_config, overfit_config.train, overfit_pair)


@pytest.fixture
def overfit_loader(overfit_config: OverfitConfig, overfit_pair: PairFiles, overfit_dataset: Any) -> Any:
    """The training ``DataLoader``: one batch of one pair."""
    from pytest_overfit import fixtures

    return fixtures.loader(overfit_config, overfit_pair, overfit_dataset)


@pytest.fixture
def overfit_batch(request: pytest.FixtureRequest, overfit_loader: Any) -> Mapping[str, Any]:
    """The one batch as the model gets it: normalised by the first camera and the mean distance, on the CPU."""
    from pytest_overfit import fixtures

    return fixtures.batch(request, overfit_loader)


@pytest.fixture
def overfit_val_batch(overfit_config: OverfitConfig, request: pytest.FixtureRequest) -> Mapping[str, Any] | None:
    """The validation batch, normalised; None where the config has no validation split."""
    from pytest_overfit import fixtures

    return fixtures.val_batch(request, overfit_config)


@pytest.fixture
def overfit_model(overfit_config: OverfitConfig) -> Any:
    """The model under test, ``model(images=...)``; override it in a conftest to put your own under the config."""
    from pytest_overfit.run.execute import build_model

    return build_model(overfit_config)


@pytest.fixture
def overfit_loss(overfit_config: OverfitConfig) -> Callable[..., Mapping[str, Any]]:
    """The loss, ``loss(predictions, batch)`` -> mapping with ``objective``."""
    from pytest_overfit.run.execute import build_loss

    return build_loss(overfit_config)


@pytest.fixture
def overfit_result(request: pytest.FixtureRequest, overfit_config: OverfitConfig) -> OverfitResult:
    """The verdict of one bounded run; all criteria of one config file share one run."""
    from pytest_overfit import fixtures

    return fixtures.result(request, overfit_config)
