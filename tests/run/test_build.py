"""Targets: imported, called, and clear when they cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pytest_overfit.errors import ConfigError
from pytest_overfit.run.build import instantiate
from pytest_overfit.run.imports import imported


def test_a_section_is_called_with_its_other_keys() -> None:
    """_args_ come first, nested targets are built before, other containers stay plain."""
    net = instantiate(
        {
            "_target_": "torch.nn.Sequential",
            "_args_": [
                {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2},
                {"_target_": "torch.nn.ReLU"},
            ],
        },
        where="model",
    )
    assert net(torch.ones(1, 3)).shape == (1, 2)


def test_recursion_can_be_switched_off() -> None:
    """A loss that reads its own sections gets them as they stand."""
    node = {"_target_": "builtins.dict", "_recursive_": False, "camera": {"_target_": "torch.nn.ReLU"}}
    assert instantiate(node, where="loss") == {"camera": {"_target_": "torch.nn.ReLU"}}


def test_partial_waits_for_more() -> None:
    """An optimizer's factory is called with the parameters later."""
    factory = instantiate({"_target_": "torch.optim.SGD", "lr": 0.5}, where="optim", partial=True)
    assert factory([torch.nn.Parameter(torch.ones(1))]).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"_target_": "no_such_package.Model"}, "there is no module 'no_such_package'"),
        ({"_target_": "torch.nn.Linaer"}, "did you mean Linear?"),
        ({"_target_": "math.pi"}, "it is a float"),
        ({"_target_": "torch.nn.Linear", "in_features": 3}, "torch.nn.Linear cannot be built: TypeError"),
        ({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": -2}, "cannot be built: RuntimeError"),
    ],
)
def test_a_target_that_cannot_be_built_names_its_section(node: dict[str, object], says: str) -> None:
    """One ConfigError with the section's key, whatever the target raised."""
    with pytest.raises(ConfigError, match=r"^model") as caught:
        instantiate(node, where="model")
    assert says in str(caught.value)


def test_a_module_that_breaks_on_import_says_what_is_missing(tmp_path: Path) -> None:
    """The missing package inside the user's module is named, not the module itself."""
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    with imported(tmp_path), pytest.raises(ConfigError, match="needs the module 'not_installed_anywhere'"):
        instantiate({"_target_": "needs_more.Model"}, where="model")


def test_modules_beside_the_config_are_importable_for_the_block_only(tmp_path: Path) -> None:
    """sys.path comes back as it was."""
    (tmp_path / "beside_config.py").write_text("def make():\n    return 42\n", encoding="utf-8")
    before = list(sys.path)
    with imported(tmp_path):
        assert instantiate({"_target_": "beside_config.make"}, where="model") == 42
    assert sys.path == before
