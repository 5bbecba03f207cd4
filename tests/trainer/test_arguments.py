"""Keys that a class does not take: where each was written, and the line that mends it, which is tried."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.arguments import expect_taken
from pytest_overfit.trainer.build import at_home, build_loss, build_optimizer
from pytest_overfit.trainer.loading import load_config, load_configs
from pytest_overfit.two_view.inspections import unfit_optimizer

from .helpers import load, problems_in, write

pytestmark = pytest.mark.usefixtures("composer")

OWN = """
class Loss:
    def __init__(self, weight=1.0):
        self.weight = weight
"""
BASE = """\
loss:
  _target_: pytest_overfit.two_view.reference.MultitaskLoss
  camera: {weight: 5.0}
  depth: {weight: 1.0}
"""
TOP = """\
defaults: [base, _self_]
loss:
  _target_: own.Loss
  wieght: 2.0
"""


def refusal(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build_loss(load_config(path, overrides))
    return caught.value


def test_keys_of_a_default_are_taken_out_by_the_line_that_is_told(tmp_path: Path) -> None:
    """File and line of each, that the defaults gave them, and overrides that are tried."""
    (tmp_path / "own.py").write_text(OWN)
    write(tmp_path, BASE, "base.yaml")
    path = write(tmp_path, TOP.replace("wieght", "weight"))
    error = refusal(path)
    assert error.found == "own.Loss cannot be built: it does not take camera, depth"
    assert error.where == ("loss.camera (base.yaml:3), loss.depth (base.yaml:4), merged in by the defaults of a.yaml")
    assert error.hint == "--overfit-set '~loss.camera' --overfit-set '~loss.depth'"
    removed = [text for text in shlex.split(error.hint) if text != "--overfit-set"]
    assert build_loss(load_config(path, removed)).weight == 2.0  # type: ignore[attr-defined]


def test_a_misspelt_key_of_the_file_is_written_as_it_was_meant(tmp_path: Path) -> None:
    """Beside keys that are nobody's: each with its own line."""
    (tmp_path / "own.py").write_text(OWN)
    path = write(tmp_path, "loss:\n  _target_: own.Loss\n  wieght: 2.0\n  camera: {weight: 5.0}\n")
    hint = str(refusal(path).hint)
    assert hint == f"{path}:3: weight: 2.0; take camera out of {path}:4"
    path.write_text(path.read_text().replace("wieght: 2.0\n  camera: {weight: 5.0}", "weight: 2.0"))
    assert build_loss(load_config(path)).weight == 2.0  # type: ignore[attr-defined]


def test_a_misspelt_key_of_an_item_of_a_list_is_written_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    path = write(tmp_path, "loss:\n  terms:\n    - _target_: own.Loss\n      wieght: 2.0\n")
    config = load_config(path)
    with pytest.raises(ConfigError) as caught, at_home(config):
        expect_taken(own_loss, "own.Loss", {"wieght": 2.0}, where="loss.terms[0]")
    assert caught.value.hint == f"{path}:4: weight: 2.0"


def own_loss(weight: float = 1.0) -> None:
    """What is built."""


@pytest.mark.parametrize(("given", "meant"), [("lrr", "lr"), ("dampenng", "dampening")])
def test_a_misspelt_override_is_told_as_it_was_meant(tmp_path: Path, given: str, meant: str) -> None:
    """Of an argument that the section gives already too."""
    text = "optim: {optimizer: {_target_: torch.optim.SGD, lr: 0.1, momentum: 0.1}}\n"
    (error,) = unfit_optimizer(load(tmp_path, text, [f"optim.optimizer.{given}=0.5"]))
    assert error.hint == f"--overfit-set optim.optimizer.{meant}=0.5"
    config = load(tmp_path, text, [error.hint.removeprefix("--overfit-set ")])
    (group,) = build_optimizer(config.optimizer, torch.nn.Linear(1, 1).parameters()).param_groups
    assert group[meant] == 0.5


def test_what_other_projects_call_a_key_is_one_error_with_its_line(tmp_path: Path) -> None:
    """Also where the schedule refers to the right name, which is there once the key is called so."""
    lines = "optim:\n  optimizer:\n    _target_: torch.optim.AdamW\n    learning_rate: 2e-3\n"
    schedule = "  options: {lr: [{scheduler: {_target_: pytest_overfit.trainer.schedules.Cosine,"
    schedule += " start_value: '${optim.optimizer.lr}', end_value: 0.0}}]}\n"
    path = write(tmp_path, lines + schedule)
    with pytest.raises(ConfigError) as caught:
        load_configs([(path, [])], beside=unfit_optimizer)
    told = str(caught.value)
    assert told.count("found") == 1
    assert "it does not take learning_rate" in told
    assert f"{path}:4: lr: 2e-3" in told
    path.write_text(path.read_text().replace("learning_rate: 2e-3", "lr: 2e-3"))
    assert load_config(path).optimizer["lr"] == 2e-3


@pytest.mark.parametrize("annotation", ["float", "'float'", "int"])
def test_a_word_where_a_number_is_wanted_is_one_error_of_that_key(tmp_path: Path, annotation: str) -> None:
    """Of a class that says so; without that it may mean it."""
    own = f"class Loss:\n    def __init__(self, weight: {annotation} = 1):\n        self.weight = weight\n"
    (tmp_path / "own.py").write_text(own)
    text = "loss: {_target_: own.Loss, weight: auto}\n"
    error = refusal(write(tmp_path, text))
    assert (error.found, error.where) == ("'auto'", "loss.weight")
    assert str(error.allowed).startswith("a whole number, which" if annotation == "int" else "a number, which own.Loss")
    (tmp_path / "own.py").write_text(own.replace(f": {annotation}", ""))
    assert load(tmp_path, text).loss["weight"] == "auto"


def test_what_takes_any_keyword_is_asked_nothing(tmp_path: Path) -> None:
    """And what has no signature."""
    (tmp_path / "own.py").write_text("def loss(**settings):\n    return lambda predictions, batch: settings\n")
    loss = build_loss(load(tmp_path, "loss: {_target_: own.loss, camera: {weight: 5.0}}\n"))
    assert loss({}, {}) == {"camera": {"weight": 5.0}}


def test_a_key_is_taken_out(tmp_path: Path) -> None:
    """Without Hydra too; what another section names by an interpolation stays there."""
    text = "model: {_target_: own.A, width: 3, head: {width: 4}}\nloss: ${model}\n"
    assert load(tmp_path, text, ["~loss.head"]).resolved["model"]["head"] == {"width": 4}
    found = load(tmp_path, text, ["~model.head.width", "~model.width"])
    assert found.resolved["model"] == {"_target_": "own.A", "head": {}}
    (problem,) = problems_in(tmp_path, text, ["~model.heads.width"])
    assert "model.heads.width: found override '~model.heads.width' of a key that is not there" in problem


def test_a_key_that_two_sections_share_is_one_problem(tmp_path: Path) -> None:
    """With the line of the command where it stands there."""
    text = 'data: {train: {common_config: {fix_img_num: 2}}, val: {common_config: "${data.train.common_config}"}}\n'
    path = write(tmp_path, text)
    given = "data.train.common_config.fix_img_nun=2"
    with pytest.raises(ConfigError) as caught:
        load_config(path, [given])
    assert str(caught.value).splitlines() == [
        f"{path}: data.train.common_config.fix_img_nun: found an unknown key (did you mean fix_img_num?)",
        "    change: --overfit-set data.train.common_config.fix_img_num=2",
    ]
