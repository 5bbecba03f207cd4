"""`pytest-overfit init`: a first test for the models of a repository, or a config that extends the trainer's."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pytest_overfit.commands.repository import (
    DATA_MODULE,
    DATASET,
    LIGHTNING,
    PRETRAINED,
    Call,
    Class,
    Repository,
    yaml_files,
)
from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.problems import Unusable
from pytest_overfit.settings.section import Section
from pytest_overfit.trainer.compose import compose_tree
from pytest_overfit.trainer.trainer_section import held_still

MOST_MODELS = 3
WIDEST = 100  # a call
OPTIMIZERS = ("Adam", "AdamW", "SGD", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adamax", "Adadelta")
FUNCTIONAL_LOSSES = (
    *("cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "nll_loss"),
    *("binary_cross_entropy_with_logits", "binary_cross_entropy"),
)
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(written.text)
    except FileExistsError:
        raise OverfitError("there is such a file already", where=path, hint="--output FILE names another one") from None
    except OSError as error:
        raise OverfitError(f"cannot be written: {error.strerror}", where=path, hint="--output FILE") from None
    print("\n".join([*written.found, f"written: {path}", *written.missing, f"next: {written.command}"]))
    return 0


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
    repository = Repository(root)
    if not repository.models:
        path = output or Path("test_overfit.py")
        found = [f"no model below {root}: the test has a small one in the place of yours"]
        return Written(path, SMALL.format(path=path.as_posix()), f"pytest {path.as_posix()}", found)
    return _Test(repository, output).written()


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


class _Test:
    """A test file in the making."""

    def __init__(self, repository: Repository, output: Path | None) -> None:
        self.repository = repository
        self.models = repository.models[:MOST_MODELS]
        self.imports: set[str] = set()
        self.functions: dict[str, str] = {}
        self.found: list[str] = []
        self.seen: dict[str, str] = {}  # an argument -> a comment on where it is from
        self.used: list[Class] = []
        self.output = output

    def written(self) -> Written:
        tests = [self._test(model) for model in self.models]
        path, how = self._place()
        head = f'"""Can the model{"s" * (len(tests) > 1)} of this repository memorise one batch?   {how}"""'
        own = sorted({f"from {each.module} import {each.name}" for each in self.used})
        plain = sorted(self.imports, key=lambda line: (line.startswith("from"), line))
        imports = "\n\n".join(filter(None, [head, "\n".join(plain), "\n".join(own)]))
        text = "\n\n\n".join([imports, *self.functions.values(), *tests]) + "\n"
        missing = [
            f"fill in: {name}() of {path.as_posix()}"
            for name, text_ in self.functions.items()
            if "NotImplementedError" in text_
        ]
        return Written(path, text, how, self.found, missing)

    def _test(self, model: Class) -> str:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model.name).lower()
        built = self._built(model, f"{name}_model")
        if model.kind == LIGHTNING:
            given = [built, self._lightning_data(name)]
        else:
            given = [built, self._batch(name), *self._loss(model, name), *self._optimizer(model)]
        line = f"overfit({', '.join(given)})"
        if len(line) > WIDEST:
            line = "overfit(" + "".join(f"\n        {each},{self.seen.get(each, '')}" for each in given) + "\n    )"
        return f"def test_{name}_memorises_one_batch(overfit):\n    {line}"

    def _built(self, each: Class, name: str) -> str:
        """The call that builds a class: as the repository does it with plain values, else a function to fill in."""
        calls = self.repository.calls(each.name)
        at = f" as in {calls[0].at}" if calls and calls[0].literal else ""
        self.found.append(f"{each.name} ({each.file.as_posix()}){at}")
        if calls and calls[0].literal:
            self.used.append(each)
            return f"{each.name}({calls[0].arguments})"
        if not each.required:
            self.used.append(each)
            return f"{each.name}()"
        seen = f"; {calls[0].at} has {each.name}({calls[0].arguments})" if calls else ""
        return self._to_fill_in(name, f"return {each.name}({', '.join(each.required)}) of a small size{seen}")

    def _can_be_built(self, each: Class) -> bool:
        return not each.required or any(call.literal for call in self.repository.calls(each.name))

    def _to_fill_in(self, name: str, what: str, arguments: str = "") -> str:
        self.functions[name] = f"def {name}({arguments}):\n    raise NotImplementedError({what!r})"
        return name if arguments else f"{name}()"

    def _lightning_data(self, of: str) -> str:
        for data in self.repository.of_kind(DATA_MODULE):
            return self._built(data, "data")
        return self._batch(of)

    def _batch(self, of: str) -> str:
        name = self._named("batch", of)
        if name not in self.functions:
            ready = [each for each in self.repository.of_kind(DATASET) if self._can_be_built(each)]
            if ready:
                self.imports.add("from torch.utils.data import DataLoader")
                loader = f"DataLoader({self._built(ready[0], 'dataset')}, batch_size=2)"
                self.functions[name] = f"def {name}():\n    return next(iter({loader}))"
            else:
                self._to_fill_in(name, "return one batch, as the training loop gets it from its loader")
        return f"{name}()"

    def _named(self, what: str, of: str) -> str:
        """A function of a model, by its name where there are several."""
        return f"{of}_{what}" if len(self.models) > 1 else what

    def _loss(self, model: Class, of: str) -> list[str]:
        if model.kind == PRETRAINED:
            return []  # it returns its own
        losses = self.repository.called(_is_loss, model)
        if len(losses) == 1:
            own, call = self.repository.losses.get(losses[0]), self.repository.calls(losses[0])[0]
            if losses[0] in FUNCTIONAL_LOSSES:
                self.imports.add("from torch.nn import functional as F")
                return [f"F.{losses[0]}"]
            if own is not None and self._can_be_built(own):
                return [self._built(own, "loss")]
            if own is None and call.literal and call.name.startswith(("nn.", "torch.nn.")):
                self.imports.add("from torch import nn")
                return [self._seen(f"nn.{losses[0]}({call.arguments})", call)]
        seen = f"; the repository calls {', '.join(losses[:4])}" if losses else ""
        what = f"return the loss of one batch: a scalar, or a mapping with `objective` and its terms{seen}"
        return [self._to_fill_in(self._named("loss", of), what, "model, batch")]

    def _optimizer(self, model: Class) -> list[str]:
        for name in self.repository.called(OPTIMIZERS.__contains__, model):
            call = next((each for each in self.repository.calls(name) if each.literal_keywords), None)
            if call is not None:
                self.imports.add("import torch")
                text = f"optimizer=lambda parameters: torch.optim.{name}(parameters, {call.literal_keywords})"
                return [self._seen(text, call)]
        return []

    def _seen(self, text: str, call: Call) -> str:
        """An argument that stands elsewhere in the repository, for another model maybe: the line says where."""
        self.seen[text] = f"  # as in {call.at}"
        return text

    def _place(self) -> tuple[Path, str]:
        """Where the file goes so that its imports work, and the command that runs it."""
        root = self.repository.root
        roots = {self.repository.search_path(each).as_posix() for each in self.used if not _is_installed(each, root)}
        roots -= set(self.repository.python_path)
        tests = next((folder for folder in ("tests", "test") if (root / folder).is_dir()), "")
        path = self.output or Path(tests if not roots else "", "test_overfit.py")
        beside = "." if path.parent == Path() else path.parent.as_posix()
        wanted = sorted(roots - {beside})
        option = f'-o "pythonpath={" ".join(wanted)}" ' if wanted else ""
        return path, f"pytest {option}{path.as_posix()}"


def _is_loss(name: str) -> bool:
    return name.endswith("Loss") or name in FUNCTIONAL_LOSSES


def _is_installed(each: Class, root: Path) -> bool:
    """Whether Python finds the class's package from another folder, and finds the one of this repository."""
    top = each.module.partition(".")[0]
    code = f"import importlib.util; found = importlib.util.find_spec({top!r}); print(found.origin if found else '')"
    with tempfile.TemporaryDirectory() as elsewhere:
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, check=False)
    return root in Path(told.stdout.strip() or ".").resolve().parents
