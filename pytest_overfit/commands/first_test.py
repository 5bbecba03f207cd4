"""The first test of a repository's models, written with what the repository builds, loads and trains them by."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from pytest_overfit.commands import roles
from pytest_overfit.commands.repository import (
    DATA_MODULE,
    DATASET,
    LIGHTNING,
    PRETRAINED,
    Class,
    Function,
    Repository,
    Used,
)
from pytest_overfit.commands.syntax import Call, Code, calls_in, common_folders, names_called

MOST_MODELS = 3
WHEN_IMPORTED = 'runs when it is imported: put that below `if __name__ == "__main__":`'
WIDEST = 100  # a call
OPTIMIZERS = ("Adam", "AdamW", "SGD", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adamax", "Adadelta")


class FirstTest:
    """A test file in the making.

    Args:
        output: where it goes, where the user says so.
        without: the models that are left out.
    """

    def __init__(self, repository: Repository, output: Path | None, without: Collection[Class] = ()) -> None:
        self.repository = repository
        self.models = [each for each in repository.models if each not in without][:MOST_MODELS]
        self.imports: set[str] = set()
        self.functions: dict[str, str] = {}
        self.found: list[str] = []
        self.missing: list[str] = []
        self.seen: dict[str, str] = {}  # an argument -> a comment on where it is from
        self.used: list[Class | Function] = []
        self.for_models: list[tuple[Class, Sequence[Class | Function]]] = []  # a model -> what its test uses
        self.output = output

    def written(self) -> tuple[str, Path, str]:
        """The text, where it goes, and the command that runs it."""
        tests = []
        for model in self.models:
            before = len(self.used)
            tests.append(self._test(model))
            self.for_models.append((model, self.used[before:]))
        path, how = self._place()
        head = f'"""Can the model{"s" * (len(tests) > 1)} of this repository memorise one batch?   {how}"""'
        names = sorted({(each.module, _imported_as(each)) for each in self.used})
        homes = {home: ", ".join(name for module, name in names if module == home) for home, _ in names}
        own = [f"from {home} import {listed}" for home, listed in homes.items()]
        plain = sorted(self.imports, key=lambda line: (line.startswith("from"), line))
        imports = "\n\n".join(filter(None, [head, "\n".join(plain), "\n".join(own)]))
        text = "\n\n\n".join([imports, *self.functions.values(), *tests]) + "\n"
        empty = [name for name, written in self.functions.items() if "NotImplementedError" in written]
        running = sorted({u.file for u in self.used if self.repository.runs(self.repository.root / u.file)})
        self.missing += [f"fill in: {name}() of {path.as_posix()}" for name in empty]
        self.missing += [f"{each.as_posix()} {WHEN_IMPORTED}" for each in running]
        return text, path, how

    def _test(self, model: Class) -> str:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model.called).lower()
        built = self._built(model, f"{name}_model")
        if model.kind == LIGHTNING:
            given = [built, self._lightning_data(name, model)]
        else:
            given = [built, self._batch(name, model), *self._trained_by(model, name)]
        before = ""
        if any("(model" in each for each in given[2:]):  # an optimizer is made of the model that is built
            before, given[0] = f"    model = {built}\n", "model"
        line = f"overfit({', '.join(given)})"
        if len(line) > WIDEST:
            line = "overfit(" + "".join(f"\n        {each},{self.seen.get(each, '')}" for each in given) + "\n    )"
        return f"def test_{name}_memorises_one_batch(overfit):\n{before}    {line}"

    def _built(self, each: Class, name: str) -> str:
        """The call that builds a class: as the repository does it with plain values, else a function to fill in."""
        calls = self.repository.calls_of(each)
        at = f" as in {calls[0].at}" if calls and calls[0].literal else ""
        self.found.append(f"{each.name} ({each.file.as_posix()}){at}")
        if calls and calls[0].literal:
            self.used.append(each)
            return f"{each.called}({calls[0].arguments})"
        if not each.required:
            self.used.append(each)
            return f"{each.called}()"
        for maker in self.repository.makers(each):
            if not maker.required:
                return roles.of_training(maker, self._call_of(maker, f"{maker.called}()"))
        seen = f"; {calls[0].at} has {each.name}({calls[0].arguments})" if calls else ""
        return self._to_fill_in(name, f"return {each.name}({', '.join(each.required)}) of a small size{seen}")

    def _call_of(self, function: Function, call: str) -> str:
        """A call of the repository's function, which is imported for it."""
        self.used.append(function)
        self.found.append(f"{function.name} ({function.at})")
        return call

    def _can_be_built(self, each: Class) -> bool:
        return not each.required or any(call.literal for call in self.repository.calls_of(each))

    def _to_fill_in(self, name: str, what: str, arguments: str = "") -> str:
        self.functions[name] = f"def {name}({arguments}):\n    raise NotImplementedError({what!r})"
        return name if arguments else f"{name}()"

    def _lightning_data(self, of: str, model: Class) -> str:
        for data in self._near(model, self.repository.of_kind(DATA_MODULE)):
            return self._built(data, "data")
        return self._batch(of, model)

    def _near(self, model: Class, candidates: Sequence[Used]) -> list[Used]:
        """Those of the nearest code around a model that has any."""
        return self.repository.nearest(model, lambda code: self.repository.used_in(code, candidates))

    def _batch(self, of: str, model: Class) -> str:
        name = self._named("batch", of)
        if name not in self.functions:
            loader = self._loader(model)
            if loader:
                self.functions[name] = f"def {name}():\n    return next(iter({loader}))"
            else:
                self._to_fill_in(name, "return one batch, as the training loop gets it from its loader")
        return f"{name}()"

    def _loader(self, model: Class) -> str:
        """What gives the batches of a model: the repository's own loader, or one of its data set; empty: nothing."""
        loaders = [each for each in self.repository.functions if roles.is_loader(each)]
        sets = self.repository.of_kind(DATASET)

        def found(code: Code) -> list[Class | Function]:
            makes = roles.foremost(self.repository.used_in(code, loaders))
            return [*makes, *self.repository.used_in(code, sets)]

        for each in self.repository.nearest(model, found):
            if isinstance(each, Class) and self._can_be_built(each):
                self.imports.add("from torch.utils.data import DataLoader")
                return f"DataLoader({self._built(each, 'dataset')}, batch_size=2{self._collate(model)})"
            if isinstance(each, Function) and (call := self._loader_call(each)):
                return roles.of_training(each, self._call_of(each, call))
        return ""

    def _loader_call(self, function: Function) -> str:
        if {name.rstrip("=") for name in function.required} <= {"batch_size"}:
            return f"{function.called}({'batch_size=2' if 'batch_size' in function.arguments else ''})"
        literal = next((each for each in self.repository.calls_of(function) if each.literal), None)
        return f"{function.called}({literal.arguments})" if literal else ""

    def _collate(self, model: Class) -> str:
        """What makes a batch of samples, where the loaders around a model have such a function."""

        def found(code: Code) -> list[Call]:
            return [
                call
                for call in calls_in(code, self.repository.root)
                if call.name.endswith("DataLoader") and call.collate
            ]

        for call in self.repository.nearest(model, found):
            named = [each for each in self.repository.functions if each.name == call.collate]
            for function in named:
                if self.repository.means(self.repository.root / call.file, function):
                    return f", collate_fn={self._call_of(function, function.called)}"
        return ""

    def _named(self, what: str, of: str) -> str:
        """A function of a model, by its name where there are several, and never by that of one of the repository."""
        name = f"{of}_{what}" if len(self.models) > 1 else what
        return f"this_{name}" if name in {each.called for each in self.repository.functions} else name

    def _trained_by(self, model: Class, of: str) -> list[str]:
        """The train step of the repository, else its loss; beside both the optimizer, where it is used."""
        functions = [*self.repository.functions, *self.repository.methods]
        steps = self._near(model, [each for each in functions if roles.is_step(each)])
        for step in steps[:1]:
            owner, _, method = step.called.rpartition(".")
            if owner and len(step.required) == 1:
                return [f"step={self._call_of(step, f'{owner}(model).{method}')}"]
            optimizer = self._optimizer(model) if set(step.required) & set(roles.OPTIMIZERS) else []
            if as_it_is := roles.as_step(step):
                return [f"step={self._call_of(step, as_it_is)}", *optimizer]
            criterion = self._criterion(model) if set(step.required) & set(roles.CRITERIA) else ""
            if call := roles.as_called(step, criterion):
                wrapped = self._wrapped(self._named("step", of), "model, batch, optimizer", step, call)
                return [f"step={wrapped}", *optimizer]
            given = f"{step.name}({', '.join(step.arguments)})"
            self.missing.append(
                f"not used: {given} of {step.at}: overfit(..., step=step), step(model, batch, optimizer)"
            )
        return [*self._loss(model, of), *self._optimizer(model)]

    def _wrapped(self, name: str, arguments: str, function: Function, call: str) -> str:
        self.functions[name] = f"def {name}({arguments}):\n    return {self._call_of(function, call)}"
        return name

    def _loss(self, model: Class, of: str) -> list[str]:
        if model.kind == PRETRAINED:
            return []  # it returns its own
        own = [each for each in self.repository.functions if roles.is_loss(each)]
        losses = roles.foremost(self._near(model, own))
        ready = [each for each in losses if roles.as_loss(each) or roles.as_called(each)]
        if len(ready) == 1:
            if as_it_is := roles.as_loss(ready[0]):
                return [self._call_of(ready[0], as_it_is)]
            return [self._wrapped(self._named("loss", of), "model, batch", ready[0], roles.as_called(ready[0]))]
        if criterion := self._criterion(model):
            return [criterion]
        names = [*(each.name for each in losses), *self._losses(model)]
        seen = f"; the repository calls {', '.join(names[:4])}" if names else ""
        what = f"return the loss of one batch: a scalar, or a mapping with `objective` and its terms{seen}"
        return [self._to_fill_in(self._named("loss", of), what, "model, batch")]

    def _losses(self, model: Class) -> list[str]:
        return self.repository.nearest(model, lambda code: names_called(code, roles.is_loss_name))

    def _criterion(self, model: Class) -> str:
        """The one loss that is called around a model, as it is built there; empty: none, or several."""
        losses = self._losses(model)
        if len(losses) != 1 or losses[0] in model.builds:  # where the model calls it, it gives its own loss
            return ""
        named = [each for each in self.repository.losses if each.name == losses[0]]
        own = next((each for each in named if self.repository.means(self.repository.root / model.file, each)), None)
        call = self.repository.calls(losses[0])[0]
        if losses[0] in roles.FUNCTIONAL_LOSSES:
            self.imports.add("from torch.nn import functional as F")
            return f"F.{losses[0]}"
        if own is not None and self._can_be_built(own):
            return self._built(own, "loss")
        if own is None and call.literal and call.name.startswith(("nn.", "torch.nn.")):
            self.imports.add("from torch import nn")
            return self._seen(f"nn.{losses[0]}({call.arguments})", call)
        return ""

    def _optimizer(self, model: Class) -> list[str]:
        own = [each for each in self.repository.functions if roles.is_optimizer(each)]
        for function in roles.foremost(self._near(model, own)):
            if text := self._own_optimizer(function):
                return [text]
        for name in self.repository.nearest(model, lambda code: names_called(code, OPTIMIZERS.__contains__)):
            calls = [each for each in self.repository.calls(name) if each.rest is not None]
            call = max(calls, key=lambda each: _nearness(each, model), default=None)
            if call is not None:
                self.imports.add("import torch")
                given = f"parameters, {call.rest}" if call.rest else "parameters"
                return [self._seen(f"optimizer=lambda parameters: torch.optim.{name}({given})", call)]
        return []

    def _own_optimizer(self, function: Function) -> str:
        """The repository's optimizer with what its call there gives beside the model; empty: that is not known."""
        first, *others = (*function.required, "")
        rests = [call.rest for call in self.repository.calls_of(function) if call.rest is not None]
        rest = f", {rests[0]}" if rests and rests[0] else ""
        if (others != [""] and not rest) or first not in roles.MODELS + roles.PARAMETERS:
            return ""
        if first in roles.PARAMETERS:
            if not rest and function.returned is not None:
                return f"optimizer={self._call_of(function, function.called)}"
            made = self._call_of(function, f"{function.called}(parameters{rest})")
            return f"optimizer=lambda parameters: {roles.of_training(function, made)}"
        return f"optimizer={roles.of_training(function, self._call_of(function, f'{function.called}(model{rest})'))}"

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


def _imported_as(each: Class | Function) -> str:
    name, called = (text.partition(".")[0] for text in (each.name, each.called))
    return name if name == called else f"{name} as {called}"


def _nearness(call: Call, model: Class) -> tuple[bool, int]:
    return call.file == model.file, common_folders(call.file, model.file)


def _is_installed(each: Class | Function, root: Path) -> bool:
    """Whether Python finds the class's package from another folder, and finds the one of this repository."""
    top = each.module.partition(".")[0]
    code = f"import importlib.util; found = importlib.util.find_spec({top!r}); print(found.origin if found else '')"
    with tempfile.TemporaryDirectory() as elsewhere:
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, check=False)
    return root in Path(told.stdout.strip() or ".").resolve().parents
