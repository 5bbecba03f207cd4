"""The package's public face."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

import pytest_overfit
from pytest_overfit.errors import ConfigError, OverfitError, PairError
from pytest_overfit.errors.suggest import nearest, shorten
from pytest_overfit.plugin.resolved_options import Options, arguments_with, resolve_options


def test_public_names_are_pinned() -> None:
    """Adding or removing a public name is a decision."""
    assert pytest_overfit.__all__ == [
        "Budget",
        "Cause",
        "ConfigError",
        "Criteria",
        "Evidence",
        "Finding",
        "Limit",
        "OverfitError",
        "OverfitResult",
        "PairError",
        "RunRecord",
        "load_config",
        "run_config",
        "run_overfit",
    ]


@pytest.mark.parametrize("name", pytest_overfit.__all__)
def test_every_public_name_resolves(name: str) -> None:
    """Lazy names lead somewhere."""
    assert getattr(pytest_overfit, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A lazy package still says what it lacks."""
    with pytest.raises(AttributeError, match="no attribute 'run_underfit'"):
        _ = pytest_overfit.run_underfit


def test_an_error_has_its_parts_in_order() -> None:
    """Where, found, allowed, next."""
    error = PairError("12 depths are NaN", where="a.exr", allowed="metres", hint="repair it")
    assert str(error) == "a.exr: 12 depths are NaN\n  allowed: metres\n  next: repair it"


@pytest.mark.parametrize("kind", [OverfitError, ConfigError, PairError])
def test_errors_survive_pickling(kind: type[OverfitError]) -> None:
    """DataLoader workers send them between processes."""
    copy = pickle.loads(pickle.dumps(kind("found", where="here", allowed="x", hint="y")))
    assert type(copy) is kind
    assert str(copy) == "here: found\n  allowed: x\n  next: y"


def test_nearest_and_shorten() -> None:
    """The two helpers of messages."""
    assert nearest("objectve", ["objective", "camera"]) == "objective"
    assert nearest("Adamw", ["Adam", "AdamW"]) == "AdamW"
    assert nearest("zzz", ["objective"]) is None
    assert shorten(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert shorten(["a"], most=2) == "a"


def test_the_command_line_and_the_ini_file_stay_apart(tmp_path: object) -> None:
    """A config file stands between them on the ladder; paths are relative to where each was written."""
    from pathlib import Path

    def of(**given: object) -> Callable[[str], Any]:
        return lambda name: given.get(name.removeprefix("overfit_"), [] if name.endswith(("_set", "_config")) else None)

    ini = of(set=["seed_value=1"], device="cuda", require_gpu=True, log_dir="boards", config=["a.yaml"], max_steps="7")
    line = of(set=["seed_value=2"], device="cpu", require_gpu=False, config=["b.yaml"], seeds=(0, 1))
    options = resolve_options(line, ini, invocation_dir=Path("/here"), ini_dir=Path("/ini"))
    assert options == Options(
        given=(Path("/here/b.yaml"),),
        configured=(Path("/ini/a.yaml"),),
        overrides=("overfit.device=cpu", "overfit.seeds=[0, 1]", "seed_value=2"),
        ini_overrides=(
            "overfit.budget.max_steps=7",
            "overfit.device=cuda",
            "overfit.require_gpu=true",
            "logging.log_dir='/ini/boards'",
            "seed_value=1",
        ),
        ini_log_dir=Path("/ini/boards"),
        storage=Path("/ini/.overfit"),
    )


def test_configs_replace_test_paths_only_when_none_are_given() -> None:
    """Configs of the command line run alone; those of the ini file join the test paths."""
    from pathlib import Path

    folder = Path("/here")
    line = Options(given=(folder / "a.yaml",))
    assert arguments_with(["tests"], line, explicit=False, folder=folder) == ["/here/a.yaml"]
    assert arguments_with(["tests"], line, explicit=True, folder=folder) == ["tests", "/here/a.yaml"]
    ini = Options(configured=(folder / "a.yaml",))
    assert arguments_with(["tests"], ini, explicit=False, folder=folder) == ["tests", "/here/a.yaml"]
