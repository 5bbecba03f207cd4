"""Targets: imported, called, and clear when they cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.imports import imported
from pytest_overfit.trainer.instantiate import instantiate


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


OWN = """
import torch

class Model(torch.nn.Module):
    def __init__(self, size=3):
        super().__init__()
        helper(size)

def helper(size):
    if size == 4:
        torch.nn.Linear(3, -2)
    if size == 5:
        torch.nn.Linear(3)
    raise ValueError("no weights")
"""


@pytest.mark.parametrize(
    ("size", "line", "kind"), [(3, 14, "ValueError"), (4, 11, "RuntimeError"), (5, 13, "TypeError")]
)
def test_what_a_constructor_raises_is_no_matter_of_arguments(tmp_path: Path, size: int, line: int, kind: str) -> None:
    """The line of the user's own is named, the innermost one; arguments only where the call itself refuses them."""
    (tmp_path / "own_model.py").write_text(OWN, encoding="utf-8")
    with imported(tmp_path), pytest.raises(ConfigError) as caught:
        instantiate({"_target_": "own_model.Model", "size": size}, where="model")
    assert str(caught.value).startswith(
        f"model, at {tmp_path / 'own_model.py'}:{line}: own_model.Model cannot be built: {kind}"
    )
    assert "argument" not in str(caught.value).partition("\n")[2]
    assert "next: look at that line" in str(caught.value)
    with imported(tmp_path), pytest.raises(ConfigError) as caught:
        instantiate({"_target_": "own_model.Model", "sice": size}, where="model")
    assert str(caught.value).startswith("model: own_model.Model cannot be built: it does not take sice")
    assert "next: the section gives it sice" in str(caught.value)


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
