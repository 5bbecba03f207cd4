# mypy: disable-error-code="no-any-return, no-untyped-call"
"""The same cases under other libraries that test training, each called as its documentation recommends.

They look for a part of what is in the gallery, and not all take every setup: what one cannot be asked is told apart.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import importlib.util
import inspect
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from benchmarks.gallery.case import Bug
from benchmarks.gallery.families import FAMILIES
from benchmarks.zoo.bare import DEFAULT_LIMIT, bare_step, build_optimizer, is_criterion, modules_of, objective_of
from benchmarks.zoo.case import Setup


class NoCallError(Exception):
    """The library has no call for such a setup."""


class Objective(nn.Module):
    """A model that returns its own loss of a batch: what every library takes."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        named = dict(setup.model) if isinstance(setup.model, Mapping) else None
        self.inner = setup.model if named is None else nn.ModuleDict(named)
        self.loss = setup.loss

    def forward(self, batch: Any) -> Tensor:
        if is_criterion(self.loss):
            return self.loss(self.inner(batch[0]), batch[1])
        return objective_of(self.loss(self.inner, batch))


def limit_of(setup: Setup) -> tuple[float | None, float | None]:
    """The limit of the objective: an absolute value, or a share of the first."""
    stated = setup.settings.get("objective", DEFAULT_LIMIT)
    if not isinstance(stated, Mapping):
        return float(stated), None
    return (None, float(stated["below"])) if stated.get("relative") else (float(stated["below"]), None)


def optimizer_factory(setup: Setup) -> Callable[[Any], Any]:
    """The optimizer of a setup as a function of the parameters; groups are lost."""
    given = build_optimizer(setup)
    if isinstance(given, Mapping):
        raise NoCallError("several optimizers")
    if setup.optimizer is not None and callable(setup.optimizer):
        return setup.optimizer
    known = inspect.signature(type(given)).parameters
    options = {name: value for name, value in given.defaults.items() if name in known}
    return lambda parameters: type(given)(parameters, **options)


def first_batch(setup: Setup) -> Any:
    """The batch, or the first draw."""
    return setup.data() if callable(setup.data) else setup.data


def pytest_torch(setup: Setup) -> bool:
    """``assert_overfits_one_batch``, or ``run_training`` of the user's own step."""
    library = importlib.import_module("pytest_torch")
    absolute, share = limit_of(setup)
    steps = int(setup.settings["max_steps"])
    batch = first_batch(setup)
    if setup.step is None:
        goal = {"target_loss": absolute} if share is None else {"max_final_ratio": share}
        library.assert_overfits_one_batch(
            Objective(setup), (batch,), lambda loss: loss, steps=steps, optimizer=optimizer_factory(setup), **goal
        )
        return False
    models = setup.model if isinstance(setup.model, nn.Module) else nn.ModuleDict(dict(setup.model))
    optimizer = build_optimizer(setup)
    one_step = bare_step(replace(setup, optimizer=optimizer))
    made = library.TrainingSetup(models, optimizer)
    run = library.run_training(lambda: made, [batch], lambda _setup, _batch: one_step(), steps=steps)
    run.assert_healthy()
    final = run.losses[-1]
    return not final < (absolute if absolute is not None else (share or 0) * run.losses[0])


def torchtest2(setup: Setup, warnings_count: bool = False) -> bool:
    """``check_model`` with the budget and the limit of the family; a limit that is missed is a warning there."""
    library = importlib.import_module("torchtest2")
    if setup.step is not None:
        raise NoCallError("an own train step")
    optimizer = build_optimizer(setup)
    if isinstance(optimizer, Mapping):
        raise NoCallError("several optimizers")
    absolute, share = limit_of(setup)
    options: dict[str, Any] = {"optimizer": optimizer, "overfit_steps": int(setup.settings["max_steps"])}
    options |= {"overfit_target": absolute} if share is None else {"overfit_ratio": share}
    batch = first_batch(setup)
    if is_criterion(setup.loss):
        report = library.check_model(setup.model, batch[0], batch[1], loss_fn=setup.loss, **options)
    elif isinstance(batch, dict) and set(batch) == {"x", "y"}:
        report = library.check_model(
            setup.model,
            batch["x"],
            batch["y"],
            forward_fn=lambda model, x, y: objective_of(setup.loss(model, {"x": x, "y": y})),
            loss_fn=lambda loss, _: loss,
            **options,
        )
    else:  # targets and masks are among the inputs here, and not all of them have to matter
        options |= {"batch_dim": None, "skip": ("input_dependency",)}
        report = library.check_model(Objective(setup), (batch,), loss_fn=lambda loss: loss, **options)
    return not report.ok or (warnings_count and bool(report.warnings))


def torcheck(setup: Setup) -> bool:
    """Its checks of change, NaN and infinity while the setup trains for its whole budget."""
    registry = importlib.import_module("torcheck").Registry()
    optimizer = build_optimizer(setup)
    for each in optimizer.values() if isinstance(optimizer, Mapping) else [optimizer]:
        registry.register(each)
    declared = [*setup.settings.get("unused", ()), *setup.settings.get("frozen", ())]
    for index, model in enumerate(modules_of(setup.model)):
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad or any(fnmatch.fnmatch(name, each) for each in declared):
                continue
            checks = {"changing": True, "check_nan": True, "check_inf": True}
            registry.add_tensor(parameter, tensor_name=name, module_name=f"model{index}", **checks)
    step = bare_step(replace(setup, optimizer=optimizer))
    for _ in range(int(setup.settings["max_steps"])):
        step()
    return False


PEERS: Mapping[str, Callable[[Setup], bool]] = {
    "pytest-torch": pytest_torch,
    "torchtest2": torchtest2,
    "torchtest2, warnings count": lambda setup: torchtest2(setup, warnings_count=True),
    "torcheck": torcheck,
}


def alarm(peer: Callable[[Setup], bool], setup: Setup) -> bool | None:
    """Whether a library objects, by what it returns or raises; None where it cannot be asked."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return peer(setup)
    except NoCallError:
        return None
    except Exception:  # an assertion that fails, or what the model raises
        return True


def compare(bugs: Sequence[Bug], families: Sequence[str]) -> None:
    """One line per library: what it objects to, in the bugs and in the healthy families, with seed 0."""
    print("\npeers (seed 0)")
    for name, peer in PEERS.items():
        if importlib.util.find_spec(name.partition(",")[0].replace("-", "_")) is None:
            print(f"  {name:26} not installed")
            continue
        cells = []
        for kind in ("breaking", "silent"):
            answers = [alarm(peer, bug.build(0)) for bug in bugs if bug.kind == kind]
            asked = [answer for answer in answers if answer is not None]
            cells.append(f"{kind} {sum(asked)}/{len(asked)} (cannot be asked {len(answers) - len(asked)})")
        healthy = {family: alarm(peer, FAMILIES[family](0)) for family in families}
        false = [family for family, answer in healthy.items() if answer]
        asked_of = sum(answer is not None for answer in healthy.values())
        print(f"  {name:26} {', '.join(cells)}; false alarms {len(false)}/{asked_of}: {', '.join(false)}")
