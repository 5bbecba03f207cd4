"""Composition: defaults lists, groups, search path and interpolation, with Hydra and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.loading import load_config

from .helpers import load, problems_in, write

pytestmark = pytest.mark.usefixtures("composer")


@pytest.mark.parametrize("entry", ["base", "base.yaml"])
@pytest.mark.parametrize("self_entry", ["", "\n  - _self_"])
def test_defaults_list(tmp_path: Path, entry: str, self_entry: str) -> None:
    """A config builds on another, named with or without suffix, and wins over it, with or without `_self_`."""
    write(tmp_path, "img_size: 112\nmax_epochs: 5\n", "base.yaml")
    config = load(tmp_path, f"defaults:\n  - {entry}{self_entry}\nimg_size: 224\n")
    assert (config.img_size, config.max_epochs) == (224, 5)
    assert "defaults" not in config.resolved
    assert "hydra" not in config.resolved


def test_self_first(tmp_path: Path) -> None:
    """With `_self_` first, what is included wins."""
    write(tmp_path, "img_size: 112\n", "base.yaml")
    write(tmp_path, "defaults: [_self_, base]\nimg_size: 224\n")
    assert load_config(tmp_path / "a.yaml").img_size == 112


def test_groups(tmp_path: Path) -> None:
    """Nested config groups land where Hydra puts them."""
    write(tmp_path, "lr: 0.5\n_target_: torch.optim.SGD\n", "optim/optimizer/sgd.yaml")
    write(tmp_path, "weight: 3.0\n", "loss/camera/three.yaml")
    text = "defaults:\n  - optim/optimizer: sgd\n  - /loss/camera/three\n  - _self_\nexp_name: g\n"
    config = load(tmp_path, text)
    assert config.optimizer == {"_target_": "torch.optim.SGD", "lr": 0.5}
    assert config.loss == {"_target_": "pytest_overfit.two_view.reference.MultitaskLoss", "camera": {"weight": 3.0}}


def test_group_choice_by_override(tmp_path: Path) -> None:
    """An override chooses another option of a group."""
    write(tmp_path, "_target_: pkg.Small\n", "model/small.yaml")
    write(tmp_path, "_target_: pkg.Large\nwidth: 8\n", "model/large.yaml")
    text = "defaults: [{model: small}, _self_]\nexp_name: g\n"
    assert load(tmp_path, text, ["model=large", "model.width=9"]).model == {"_target_": "pkg.Large", "width": 9}
    write(tmp_path, "lr: 1\n", "optim/optimizer/sgd.yaml")
    write(tmp_path, "lr: 2\n", "optim/optimizer/adam.yaml")
    text = "defaults: [{optim/optimizer: sgd}]\nexp_name: g\n"
    assert load(tmp_path, text, ["optim/optimizer=adam"]).optimizer["lr"] == 2


def test_missing_include(tmp_path: Path) -> None:
    """An include that is not there is named together with the file that asks for it."""
    assert problems_in(tmp_path, "defaults: [default_dataset.yaml]\nexp_name: x\n") == [
        "a.yaml: defaults: found In 'a.yaml': Could not load 'default_dataset.yaml'.,"
        " allowed: configs next to the file, or in a folder of hydra.searchpath"
    ]


def test_syntax_error_in_an_include(tmp_path: Path) -> None:
    """A syntax error in an included file is shown with that file's name, line and column."""
    write(tmp_path, "x: 1\ny: ]\n", "base.yaml")
    assert [line.replace(f"{tmp_path}/", "") for line in problems_in(tmp_path, "defaults: [base]\nz: 1\n")] == [
        "a.yaml: defaults: found in base.yaml:2:4 a YAML syntax error: expected the node content, but found ']'"
    ]


def test_circular_includes(tmp_path: Path) -> None:
    """Configs that include each other are a problem, not a crash."""
    write(tmp_path, "defaults: [c]\nx: 1\n", "b.yaml")
    write(tmp_path, "defaults: [b]\nx: 1\n", "c.yaml")
    assert problems_in(tmp_path, "defaults: [b]\n") == [
        "a.yaml: defaults: found configs that include each other, allowed: a list without a cycle"
    ]


def test_alias_bomb_in_an_include(tmp_path: Path) -> None:
    """Aliases that expand to billions of values are refused in an included file too."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    write(tmp_path, "\n".join(lines), "base.yaml")
    (line,) = problems_in(tmp_path, "defaults: [base]\n")
    assert line.startswith(
        f"a.yaml: defaults: found in {tmp_path}/base.yaml aliases that expand to 1".replace(f"{tmp_path}/", "")
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x: 1\nx: 2\n", "in base.yaml:2:1 duplicate key x, allowed: each key once"),
        ("- 1\n", "in base.yaml a list at the top level, allowed: a mapping of settings, such as `img_size: 224`"),
    ],
)  # fmt: skip
def test_odd_includes(tmp_path: Path, text: str, found: str) -> None:
    """What is wrong with an included file is said with its name."""
    write(tmp_path, text, "base.yaml")
    assert problems_in(tmp_path, "defaults: [base]\n") == [f"a.yaml: defaults: found {found}"]


def test_empty_include(tmp_path: Path) -> None:
    """An included file may be empty."""
    write(tmp_path, "# nothing yet\n", "base.yaml")
    assert load(tmp_path, "defaults: [base]\nimg_size: 112\n").img_size == 112


@pytest.mark.parametrize("defaults", ["defaults: 3", "defaults: {a: b}", "defaults: [[1]]", "defaults: [{a: 1}]"])
def test_odd_defaults(tmp_path: Path, defaults: str) -> None:
    """A defaults list of another shape is a problem of `defaults`."""
    (line,) = problems_in(tmp_path, f"{defaults}\nexp_name: x\n")
    assert line.startswith("a.yaml: defaults: found ")


def test_interpolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${...}` works across sections, relative, from the environment and inside text."""
    monkeypatch.setenv("OVERFIT_TEST_ROOT", "/data")
    config = load(
        tmp_path,
        """\
        exp_name: run_${img_size}
        img_size: 224
        optim:
          optimizer: {lr: 1e-4, weight_decay: "${.lr}"}
        model: {size: "${img_size}", nested: {up: "${..size}"}}
        data:
          train: {dataset: {dataset_configs: [{ROOT: "${oc.env:OVERFIT_TEST_ROOT}/x"}]}}
          val: {dataset: "${data.train.dataset}"}
        """,
    )
    assert config.exp_name == "run_224"
    assert config.optimizer["weight_decay"] == 1e-4
    assert config.model["nested"] == {"up": 224}
    assert config.val is not None
    assert (config.train.root, config.val.root) == (Path("/data/x"), Path("/data/x"))


def test_unset_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable that is not set is named together with the key, and gives no second problem."""
    monkeypatch.delenv("OVERFIT_NOT_SET", raising=False)
    text = "overfit: {pair: {source: cut, source_root: '${oc.env:OVERFIT_NOT_SET}'}}\n"
    assert problems_in(tmp_path, text) == [
        "a.yaml: overfit.pair.source_root: found ${oc.env:OVERFIT_NOT_SET}, but the environment variable"
        " OVERFIT_NOT_SET is not set, allowed: OVERFIT_NOT_SET set, or a default: ${oc.env:OVERFIT_NOT_SET,default}"
    ]


def test_number_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables are text; where a number or a switch is wanted, they are read as one."""
    monkeypatch.setenv("OVERFIT_LR", "1e-3")
    monkeypatch.setenv("OVERFIT_GPU", "on")
    text = "optim: {optimizer: {lr: '${oc.env:OVERFIT_LR}'}}\noverfit: {require_gpu: '${oc.env:OVERFIT_GPU}'}\n"
    config = load(tmp_path, text)
    assert config.optimizer["lr"] == 1e-3
    assert config.resolved["optim"]["optimizer"]["lr"] == 1e-3
    assert config.overfit.require_gpu is True


def test_unresolved_values_are_reported_together(tmp_path: Path) -> None:
    """Every value that cannot be resolved is a problem of its own, beside the problems of other keys."""
    text = "model: {width: '${no.such}', depth: '???'}\nmax_epochs: 0\na: ${b}\nb: ${a}\n"
    lines = problems_in(tmp_path, text)
    assert lines[:2] == [
        "a.yaml: model.width: found ${no.such}, but there is no key no.such, allowed: the name of a key of this config",
        "a.yaml: model.depth: found ???, a value that has to be given, allowed: a value here or as an override",
    ]
    assert lines[2].startswith("a.yaml: a: found ${b}, which cannot be resolved: ")
    assert lines[-1] == "a.yaml: max_epochs: found 0, allowed: a whole number of at least 1"
    assert len(lines) == 5


def test_endless_interpolation(tmp_path: Path) -> None:
    """A mapping that contains itself by interpolation is a problem, not a crash."""
    (line,) = problems_in(tmp_path, "a:\n  b: ${a}\n")
    assert "a.b" in line


@pytest.mark.parametrize("number", ["1e-4", "1e-3", "1e5", "1E5", "3", ".5", "1.e-2"])
def test_numbers_are_numbers(tmp_path: Path, number: str) -> None:
    """`1e-4` is a number from a file, an included file and an override (YAML 1.1 alone would read text)."""
    text = f"optim: {{optimizer: {{lr: {number}}}}}\nmodel: {{x: {number}}}\n"
    write(tmp_path, text, "base.yaml")
    in_file, included = load(tmp_path, text), load(tmp_path, "defaults: [base]\n")
    overridden = load(tmp_path, "exp_name: x\n", [f"optim.optimizer.lr={number}", f"model.x={number}"])
    for config in (in_file, included, overridden):
        assert (config.optimizer["lr"], config.model["x"]) == (float(number), float(number))


def test_a_default_that_cannot_be_read_is_a_problem_of_its_key(tmp_path: Path) -> None:
    """Not an error of ours."""
    with pytest.raises(ConfigError, match=r"exp_name: found .*whose default cannot be read"):
        load(tmp_path, 'exp_name: \'${oc.select:missing,"a","b"}\'\n')
