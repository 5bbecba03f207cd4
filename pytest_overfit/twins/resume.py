"""Saved after some steps, loaded where everything is as it was built, and trained on: the uninterrupted curve."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.call_task import count_positional
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import numbers_of
from pytest_overfit.run.gradient_watch import state_of
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.reachable import counters, named, reachable
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.run.update import into_training
from pytest_overfit.twins.course import EXACT, Course, go_on
from pytest_overfit.twins.elsewhere import Elsewhere
from pytest_overfit.twins.side import Side
from pytest_overfit.untrusted.objects import attributes, contents

State = Mapping[str, str]  # what training goes on from, by name -> a digest of its value
BESIDE = "the state of "  # an object of the user's beside the model and its optimizers
MOST_NAMED = 5  # of what a checkpoint did not bring back
COUNTER = "the counter "
GENERATORS = "the random generators of Python, NumPy and torch"


class Checkpoint:
    """A checkpoint of a run in a folder: by the user's own ``save`` and ``load``, else of all state dicts."""

    def __init__(self, context: RunContext, subject: Subject, folder: Path) -> None:
        self.context, self.subject, self.path = context, subject, folder / "checkpoint"
        self.own = subject.twins.save is not None

    def save(self) -> State:
        """Writes it, and returns what it has to bring back."""
        told = state_now(self.context, self.subject)
        if self.subject.twins.save is not None:
            self._call(self.subject.twins.save)
        else:
            hooked = [self._as_lightning(module) for module in self._hooked()]
            with users_code():
                for module, checkpoint in zip(self._hooked(), hooked, strict=True):
                    module.on_save_checkpoint(checkpoint)
            parts = [_state_dict(part) for part in self._parts()]
            try:
                torch.save({"parts": parts, "hooked": hooked, "random": _generators()}, self.path)
            except (OSError, RuntimeError) as error:
                raise Unanswerable(f"the checkpoint cannot be written: {error}") from error
        return told

    def load(self) -> None:
        """Reads it into what is there."""
        if self.subject.twins.load is not None:
            self._call(self.subject.twins.load)
            return
        saved = torch.load(self.path, weights_only=False)  # written by this very run
        parts = list(self._parts())
        if len(parts) != len(saved["parts"]):
            raise Unanswerable("the step makes its optimizer itself: pass save and load, which know where it is")
        for part, state in zip(parts, saved["parts"], strict=True):
            if isinstance(part, torch.Generator):
                part.set_state(state)
            elif isinstance(part, np.random.Generator):
                part.bit_generator.state = state
            elif isinstance(part, random.Random):
                part.setstate(state)
            else:
                with users_code():
                    part.load_state_dict(state)
        with users_code():
            for module, checkpoint in zip(self._hooked(), saved["hooked"], strict=True):
                module.on_load_checkpoint(checkpoint)
        random.setstate(saved["random"][0])
        np.random.set_state(saved["random"][1])  # noqa: NPY002
        torch.set_rng_state(saved["random"][2])

    def _hooked(self) -> list[Any]:
        """Modules that put more into a checkpoint themselves, as LightningModules do."""
        hooks = ("on_save_checkpoint", "on_load_checkpoint")
        return [m for m in self.context.task.model.modules() if all(callable(getattr(m, hook, None)) for hook in hooks)]

    def _as_lightning(self, module: Any) -> dict[str, Any]:
        """A checkpoint as Lightning's Trainer hands it to the hooks of a module."""
        made = {"state_dict": module.state_dict(), "epoch": 0, "global_step": 0, "callbacks": {}, "lr_schedulers": []}
        made["optimizer_states"] = [optimizer.state_dict() for optimizer in self.context.optimizers]
        if hparams := getattr(module, "hparams", None):
            made[getattr(module, "CHECKPOINT_HYPER_PARAMS_KEY", "hyper_parameters")] = dict(hparams)
        return made

    def _call(self, function: Callable[..., Any]) -> None:
        given = (self.path, self.context.task.given, self.context.handed)
        with users_code():
            function(*given[: count_positional(function, 3)])

    def _parts(self) -> Iterator[Any]:
        """What has a state dict: the model, its optimizers, and what the user's callables hold."""
        known = [self.context.task.model, *self.context.optimizers]
        inside = {id(module) for module in self.context.task.model.modules()}
        yield from known
        seen = {id(part) for part in known} | inside
        for thing in reachable(*self.context.callables):
            if id(thing) not in seen:
                seen.add(id(thing))
                yield thing


def _state_dict(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    if isinstance(part, random.Random):
        return part.getstate()
    with users_code():
        return part.state_dict()


def _generators() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def state_now(context: RunContext, subject: Subject) -> State:
    """Everything that training goes on from, by a name that says what it is."""
    found: dict[str, str] = {}
    for name, tensor in state_of(context.task.model):
        found[name] = _digest(tensor)
    for name, module in context.task.model.named_modules():  # what is no buffer, and yet goes on from step to step
        for key, value in attributes(module).items():
            if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool):
                found[f"{name}.{key}, an attribute".lstrip(".")] = _digest(value)
    names = {id(p): name for name, p in context.task.model.named_parameters()}
    for optimizer in context.optimizers:
        found |= _of_optimizer(optimizer, names)
    inside = {id(module) for module in context.task.model.modules()}
    known = {*inside, *map(id, context.optimizers), *names}
    for name, thing in named(*context.callables):
        if id(thing) in known or isinstance(thing, torch.utils.data.DataLoader):
            continue
        kind = type(thing).__name__
        label = f"{BESIDE}{name} ({kind})" if name else f"{BESIDE}{kind}"
        if isinstance(thing, nn.Module):
            found |= {f"{label}: {key}": _digest(tensor) for key, tensor in state_of(thing)}
        elif isinstance(thing, Optimizer):
            found |= _of_optimizer(thing, names)
        elif isinstance(thing, (torch.Generator, np.random.Generator, random.Random)):
            found[label.replace(BESIDE, "the generator ")] = _digest(_state_dict(thing))
        elif type(thing) in (dict, list) and any(isinstance(v, Tensor) for v in contents(thing)):
            found[f"{label} of {len(thing)}"] = _digest(thing)  # one that grows from step to step is a log
        elif hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
            state = _state_dict(thing)
            if type(thing).__module__.startswith("pytest_overfit."):  # the step of an adapter: in words of the library
                found |= {f"{BESIDE}the {key}": _digest(v) for key, v in state.items() if not isinstance(v, int)}
            else:
                found[label] = _digest(state)
    for write, value in counters(*context.callables):
        name = getattr(write, "args", ("", ""))[1]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            kind = COUNTER if isinstance(value, int) else "the number "
            named_so = str(name) if name and name != "cell_contents" else "of the step"
            found.setdefault(f"{kind}{named_so}", repr(value))
    found[GENERATORS] = _digest(_generators())
    return found


def _of_optimizer(optimizer: Optimizer, names: Mapping[int, str]) -> dict[str, str]:
    kind, found = type(optimizer).__name__, {}
    for index, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                found[f"{key} of {kind}, group {index}"] = _digest(value)
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{key} of {kind} for {names.get(id(parameter), 'a parameter')}"] = _digest(value)
    return found


def _digest(value: Any) -> str:
    hashed = hashlib.sha256()

    def take(each: Any) -> None:
        if isinstance(each, Tensor) and not each.dim() and each.dtype in (torch.float32, torch.float64, torch.int64):
            each = each.item()
        if isinstance(each, Tensor):
            numbers = numbers_of(each)
            held = b"" if numbers is None else numbers.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
            hashed.update(f"{tuple(each.shape)}{each.dtype}".encode() + (held or repr(each).encode()))
        elif isinstance(each, np.ndarray):
            hashed.update(each.tobytes())
        elif isinstance(each, dict):
            for key, held in each.items():
                hashed.update(str(key).encode())
                take(held)
        elif isinstance(each, (list, tuple)):
            for held in each:
                take(held)
        elif isinstance(each, (int, float, str, bool, type(None), np.generic)):  # a count may come back as a tensor
            hashed.update(repr(float(each) if isinstance(each, (int, float)) else each).encode())

    take(value)
    return hashed.hexdigest()


def resumed(context: RunContext, subject: Subject, job: Mapping[str, Any]) -> dict[str, Any]:
    """What the other process does: everything as it was built, the checkpoint loaded, and the rest of the steps.

    Without steps that are done it is the run again, from its start.
    """
    seed_everything(context.seed)
    into_training(context.task.model)
    if job["done"]:
        Checkpoint(context, subject, Path(job["folder"])).load()
    state = state_now(context, subject)
    course = go_on(context, job["steps"] - job["done"], done=job["done"])
    course.losses = list(course.curve)
    return {"course": course, "state": state}


def resume(side: Side, there: Sequence[Elsewhere], folder: Path, done: int) -> TwinResult:
    """Saves after some steps, loads in a process where nothing has been trained, and goes on."""
    if not side.at_save:
        raise Unanswerable(f"the run ended before step {done}, after which it was to be saved")
    steps, own = min(side.steps, len(side.reference.losses)), side.subject.twins.save is not None
    if steps <= done:
        raise Unanswerable(f"the run ended at step {steps}, and was saved after step {done}")
    job = {"folder": str(folder), "steps": steps, "done": done}
    told = there[0].do(job)
    course: Course = told["course"]
    how = "save and load" if own else "state dicts"
    exchanged = f"saved after step {done}, loaded by {how} in a process that stands where training began"
    exact = EXACT if torch.get_num_threads() == 1 else side.tolerance

    @functools.cache
    def again() -> Course:
        repeated: Course = there[1].do({**job, "done": 0})["course"]
        return repeated

    loaded: State = told["state"]
    lost = [name for name, digest in side.at_save.items() if loaded.get(name) != digest]
    result = side.compared("resume", side.reference, course, exchanged, exact, again=again)
    if result.outcome == "disagreed" and not lost:  # numbers that come back as another type of theirs are rounded so
        result = side.compared("resume", side.reference, course, exchanged, again=again)
    beside = [name for name in lost if name in loaded and _counts(name, own=own)]
    if result.outcome == "agreed" and beside:
        return replace(result, outcome="disagreed", what=beside[0], step=done, missing=tuple(_grouped(beside)))
    if result.outcome == "disagreed":
        shown = [name for name in lost if side.reference.drawn or name != GENERATORS]
        return replace(result, missing=tuple(_grouped(shown)) or ("something that no state dict has",))
    return result


def _counts(name: str, *, own: bool) -> bool:
    """Whether what is missing is a fault though the losses agree: state of its own, that nothing here reads."""
    return name.startswith(BESIDE) or (own and name.startswith(COUNTER))


def _grouped(names: list[str]) -> Iterator[str]:
    """Names of one kind together: ``exp_avg of Adam for 0.weight (and 3 more)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        for mark in (" for ", ": "):
            if mark in name:
                groups.setdefault(name.partition(mark)[0] + mark, []).append(name.partition(mark)[2])
                break
        else:
            groups.setdefault(name, [])
    for count, (head, tails) in enumerate(groups.items()):
        if count == MOST_NAMED:
            yield f"and {len(groups) - count} more"
            return
        more = f" (and {len(tails) - 1} more)" if len(tails) > 1 else ""
        yield f"{head}{tails[0]}{more}" if tails else head
