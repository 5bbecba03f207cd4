"""`pytest-overfit init`: a first test for the models of a repository, or a config that extends the trainer's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pytest_overfit.commands.repository import Repository, yaml_files
from pytest_overfit.commands.same_names import first_test
from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.problems import Unusable
from pytest_overfit.settings.section import Section
from pytest_overfit.trainer.compose import compose_tree
from pytest_overfit.trainer.trainer_section import held_still

SMALL = '''"""Can a model memorise one batch?   pytest {path}"""

import torch
from torch import nn


def test_it_can_learn(overfit):
    model = nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Linear(256, 3))
    batch = torch.randn(6, 4), torch.arange(6) % 3
    overfit(model, batch, nn.CrossEntropyLoss())
'''
EXTENDED = """# Can the model of {base} memorise ONE sample?   pytest --overfit-config {path}
defaults:
  - {base}
  - _self_
{held}
overfit:
  criteria:
    objective: 0.01       # the loss has to fall below this
"""
LEAST_STEPS, STEPS_PER_EPOCH = 400, 10


def add_arguments(init: argparse.ArgumentParser) -> None:
    """The arguments of ``pytest-overfit init``."""
    init.add_argument(
        "root", nargs="?", type=Path, default=Path(), metavar="DIR", help="the repository (default: here)"
    )
    init.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: beside what was found)")
    init.set_defaults(run=_init)


def _init(options: argparse.Namespace, _: argparse.ArgumentParser) -> int:
    if not options.root.is_dir():
        raise OverfitError(f"there is no folder {options.root}", allowed="the root of a repository")
    written = planned(options.root.resolve(), options.output)
    path = options.root / written.path if written.path.parts and options.output is None else written.path
    if not path.parent.is_dir():
        raise _no_folder(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(written.text)
    except FileExistsError:
        raise OverfitError("there is such a file already", where=path, hint="--output FILE names another one") from None
    except OSError as error:
        raise OverfitError(f"cannot be written: {error.strerror}", where=path, hint="--output FILE") from None
    print("\n".join([*written.found, f"written: {path}", *written.missing, f"next: {written.command}"]))
    return 0


def _no_folder(path: Path) -> OverfitError:
    """A folder that is not there is mistyped more often than meant: none is made."""
    above = path.parent.parent
    meant = nearest(
        path.parent.name, [each.name for each in above.iterdir() if each.is_dir()] if above.is_dir() else []
    )
    hint = f"--output {(above / meant / path.name).as_posix()}" if meant else f"mkdir -p {path.parent.as_posix()}"
    found = f"cannot be written: there is no folder {path.parent.as_posix()}"
    return OverfitError(found, where=path, allowed="a file in a folder that is there", hint=hint)


@dataclass
class Written:
    """A file that is to be written, and what is to be said of it.

    Args:
        path: below the repository.
        found: what was read of it, a line each.
        missing: what has to be filled in, a line each.
        command: what runs it.
    """

    path: Path
    text: str
    command: str
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def planned(root: Path, output: Path | None = None) -> Written:
    """What ``init`` writes for a repository.

    Args:
        root: of the repository.
        output: the file, where the user names one.
    """
    if (config := trainer_config(root)) is not None:
        path = output or config.relative_to(root).with_name(f"overfit_{config.stem}.yaml")
        text = EXTENDED.format(base=config.stem, path=path.as_posix(), held=_held(config))
        found = [f"config of a trainer: {config.relative_to(root).as_posix()}"]
        return Written(path, text, f"pytest --overfit-config {path.as_posix()}", found)
    if not Repository(root).models:
        path = output or Path("test_overfit.py")
        found = [f"no model below {root}: the test has a small one in the place of yours"]
        return Written(path, SMALL.format(path=path.as_posix()), f"pytest {path.as_posix()}", found)
    test, (text, path, command) = first_test(root, output)
    return Written(path, text, command, test.found, test.missing)


def trainer_config(root: Path) -> Path | None:
    """The YAML file that says what a model, its data and its loss or optimizer are built of; the shortest path wins."""
    paths = sorted(yaml_files(root), key=lambda path: (len(path.parts), path.name))
    return next((path for path in paths if _is_trainers(path)), None)


def _held(config: Path) -> str:
    """What of a trainer's config has to be another for one sample that is the same at every step; empty: nothing."""
    try:
        top = Section(compose_tree(config, ()).values, "", [])
    except Unusable:
        return ""
    lines, data = [], top.section("data")
    for name in ("train", "val") if data.given("train") else ():
        split = data.section(name)
        values = held_still(split.section("common_config")) if split.given("_target_") else {}
        common = "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"
        lines += [f"  {name}:", f"    common_config: {common}"] if values else []
    lines = ["", "data:         # one sample, the same at every step", *lines] if lines else []
    epochs, amp = top.get("max_epochs"), top.section("optim").section("amp").get("enabled")
    if isinstance(epochs, int) and epochs * STEPS_PER_EPOCH < LEAST_STEPS:
        lines += ["", f"max_epochs: {LEAST_STEPS // STEPS_PER_EPOCH}    # of {STEPS_PER_EPOCH} steps each"]
    if amp is True:
        lines += ["", "optim:", "  amp: {enabled: false}   # in full precision first"]
    return "\n".join([*lines, ""])


def _is_trainers(path: Path) -> bool:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError):
        return False
    if not isinstance(read, dict) or "overfit" in read:
        return False
    built = [name for name in ("model", "loss", "optim", "data") if _has_target(read.get(name))]
    return "model" in built and len(built) >= 3


def _has_target(section: Any) -> bool:
    if not isinstance(section, Mapping):
        return False
    return "_target_" in section or any(map(_has_target, section.values()))
