"""One bounded run of a subject, after which everything is as it was: alone or by several ranks, whatever it is of."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Questions
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.run.attributes import may_hold
from pytest_overfit.run.call_task import as_one_module
from pytest_overfit.run.constant import Constant
from pytest_overfit.run.context import Beside, Inspector, RunContext
from pytest_overfit.run.device import DeviceChoice, backend_of, choose_device_for, choose_threads
from pytest_overfit.run.given_calls import check_calls, told_whose
from pytest_overfit.run.isolation import isolated, seed_everything
from pytest_overfit.run.loop import Curves, Plan, fit
from pytest_overfit.run.make_record import Outcome, hung_record, make_record
from pytest_overfit.run.memory import LARGE_PEAK, expected_peak, memory_errors_told, told_bytes
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.phases import PROBES, TRAINING, WARM_UP, tell_all
from pytest_overfit.run.place import Place
from pytest_overfit.run.reachable import reachable
from pytest_overfit.run.recheck import verify
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.sample import Sample, draw, one_batch, refuse_no_samples
from pytest_overfit.run.snapshot import BARE, Snapshot
from pytest_overfit.run.subject import Adapter, Subject, as_given, is_factory, with_data
from pytest_overfit.run.task import NoLossError
from pytest_overfit.run.training import RunRequest, Training, planned_steps
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.run.update import Update
from pytest_overfit.run.watchdog import Hung, Watchdog
from pytest_overfit.settings.settings import OverfitSettings

ALONE = Place()


def _always(outcome: Outcome, curves: Curves) -> bool:
    return True


@dataclass(frozen=True)
class Callbacks:
    """Whom a run tells, and whom it asks.

    Args:
        observers: told of every step.
        inspector: looks into the run before, while and after it is trained.
        twins: runs its first steps otherwise.
        accept: asked when the limits have held, with the model's outcome and the curves; False lets the run go on.
        adapter: makes a subject that can be run out of what was given, and takes back what it did for that.
    """

    observers: Sequence[Observer] = ()
    inspector: Inspector | None = None
    twins: Beside | None = None
    accept: Callable[[Outcome, Curves], bool] = _always
    adapter: Adapter = as_given


def run(
    subject: Subject,
    settings: OverfitSettings,
    *,
    seed: int = 0,
    place: Place = ALONE,
    callbacks: Callbacks | None = None,
    questions: Questions | None = None,
) -> RunRecord:
    """Trains on one frozen batch and returns what happened.

    Modules, optimizers, schedulers, whatever the step and the loss hold, random generators and global switches come
    back as they were. Ctrl-C ends the run early: the record then says ``stop='interrupted'``; of code that does not
    come back within the limit it says ``stop='hung'``.

    Example:
        >>> record = run(Subject(net, batch, loss), ANY_MODEL, seed=1)               # doctest: +SKIP

    Args:
        place: of this process among those that share its machine, or its run.
        questions: keeps what could not be asked.

    Raises:
        OverfitError: what was given cannot be used, a limit is on a term that does not exist, or memory ran out.
    """
    watchdog = Watchdog(place.last)
    limit = settings.budget.max_seconds if place.ranks is None else None  # which look after each other
    if limit is not None:  # the first optimizer imports it, which takes seconds that are nobody's
        importlib.import_module("torch._dynamo")
    runner = _Runner(settings, seed, place, callbacks or Callbacks(), questions or Questions(), watchdog)
    try:
        with place.taken(settings), watchdog.limited(limit, what=WARM_UP):
            return runner.run(subject)
    except Hung as hung:
        steps = planned_steps(settings)
        return hung_record(hung.hang, hung.curves, name=subject.name, seed=seed, planned_steps=steps)


@dataclass(frozen=True)
class _Runner:
    """The course of one run, from what was given to its record."""

    settings: OverfitSettings
    seed: int
    place: Place
    callbacks: Callbacks
    questions: Questions
    watchdog: Watchdog

    def run(self, given: Subject) -> RunRecord:
        settings, snapshot = self.settings, Snapshot()
        check_calls(given)
        threads = None if settings.threads == "keep" else choose_threads(settings.threads, workers=self.place.shares)
        tell_all((*self.callbacks.observers, self.watchdog))(WARM_UP, "", None)
        with (
            isolated(seed=self.seed, threads=threads, deterministic=settings.deterministic),
            self.callbacks.adapter(given, settings) as adapted,
            contextlib.nullcontext() if self.callbacks.twins is None else self.callbacks.twins.beside(),
        ):
            try:
                subject = with_data(adapted)
                model = as_one_module(subject.model, subject.loss)
                _expect_generator(subject, settings, model)
                choice = self._device_of(model)
                with memory_errors_told(choice.device, where=subject.name or type(model).__name__):
                    snapshot.add(model)
                    snapshot.add_reachable(*subject.callables)
                    request = RunRequest(
                        subject, settings, self.seed, self._sample(subject), snapshot, self.watchdog, self.questions
                    )
                    return self._record(request, model, choice, anew=is_factory(given.model))
            except NoLossError as error:
                raise told_whose(error, given) from None
            finally:
                try:
                    self.watchdog.over()
                finally:
                    snapshot.restore(keep_trained=settings.keep_trained)

    def _device_of(self, model: nn.Module) -> DeviceChoice:
        settings = self.settings
        choice = choose_device_for(model, settings.device, require_gpu=settings.require_gpu, turn=self.place.turn)
        if (reset := getattr(backend_of(choice.device), "reset_peak_memory_stats", None)) is not None:
            reset(choice.device)
        return choice

    def _sample(self, subject: Subject) -> Sample:
        """The batches, the same on every rank."""
        sample, ranks = draw(subject.data), self.place.ranks
        refuse_no_samples(sample.train)
        if subject.val_data is not None:
            sample = replace(sample, val=one_batch(subject.val_data, where="val_data"))
        if sample.val is None and self.settings.criteria.train_val:
            raise OverfitError(
                "training to be compared with evaluation, and nothing to evaluate on",
                where="train_val",
                allowed="a validation batch: val_data=..., or data.val in a config",
                hint="val_data may be the batch itself: evaluation mode against training mode",
            )
        if ranks is None:
            return sample
        val = None if sample.val is None else ranks.agreed_batch(sample.val)
        return replace(sample, train=ranks.agreed_batch(sample.train), val=val)

    def _record(self, request: RunRequest, model: nn.Module, choice: DeviceChoice, *, anew: bool) -> RunRecord:
        ranks, subject, inspector = self.place.ranks, request.subject, self.callbacks.inspector
        trained, shards, supervision = model, None, None
        if ranks is not None and ranks.shards_models:  # which may not fit as a whole: probed where it is
            from pytest_overfit.run.ranks.sharding import sharded

            home = choose_device_for(model, "model").device
            supervision = Training(request, model, home).probe()
            shards, trained = sharded(ranks, subject, choice.device)
        training = Training(request, trained, choice.device, given=shards, ranks=ranks)
        self.watchdog.on_phase("probing the loss", "", None)
        training.known(training.probe() if supervision is None else supervision)
        self.watchdog.on_phase(WARM_UP, "", None)
        course = _Course(self, training)
        curves = course.train()
        with self.questions.asking("pictures of the predictions"):
            training.show(curves, self.callbacks.observers)
        generated = training.generated(curves)
        last = training.accepted if curves.stop == "passed" else None
        outcome = training.look(curves, once_more=curves.stop == "max_steps") if last is None else last
        course.verify(curves)
        said = (*self._notes(training, choice, anew=anew, steps=bool(curves.steps)), *subject.notes, *course.notes)
        twins = course.twins(curves)
        record = replace(make_record(training.parts, curves, outcome, said), generated=generated, twins=twins)
        if shards is not None and self.settings.keep_trained:
            from pytest_overfit.run.ranks.sharding import write_back

            write_back(trained, model)
        if inspector is not None and course.context is not None and curves.stop != "interrupted":
            inspector.after(course.context, record)
        return record

    def _notes(self, training: Training, choice: DeviceChoice, *, anew: bool, steps: bool) -> Iterator[str]:
        if choice.note:
            yield choice.note
        if training.clip.unclaimed:
            key = training.subject.key("clip_grad_norm")
            yield f"{key}: no group clips {shorten(training.clip.unclaimed)}"
        if steps:
            yield from training.subject.remarks()
        yield from training.request.sample.notes
        if len(self.settings.seeds) > 1 and not anew:
            yield "every seed starts from the same weights: pass a factory instead of a model to draw new ones"


class _Course:
    """The training of one run, and who looks at it."""

    def __init__(self, runner: _Runner, training: Training) -> None:
        self.runner, self.training = runner, training
        self.context: RunContext | None = None
        self.constant: Constant | None = None
        self.notes: tuple[str, ...] = ()

    def train(self) -> Curves:
        runner, training, inspector = self.runner, self.training, self.runner.callbacks.inspector
        if training.has_nothing_to_train:
            return Curves(stop="no_trainable_parameters")
        plan = replace(training.plan(), accept=self._accepted)
        if (peak := expected_peak(training.task.model, training.optimizers)) >= LARGE_PEAK:
            training.parts.expected = f"at least {told_bytes(peak)}, and activations"
            tell_all(runner.callbacks.observers)(WARM_UP, f"needs {training.parts.expected}", None)
        self.context = context = training.context(plan)
        context.tell = tell_all((*runner.callbacks.observers, runner.watchdog))
        if inspector is not None:
            inspector.before(context)
        update, watched, plan = self._updates(context, plan)
        self.constant = Constant(watched, training.task.batch, training.parts.fingerprint)
        seed_everything(runner.seed)
        runner.watchdog.renew()  # what stood before the first step, much of it ours, has had as many seconds
        runner.watchdog.on_phase(TRAINING, "", None)
        observers = runner.callbacks.observers
        curves = fit(training.task, self.constant, plan, watch=training.watch, observers=observers)
        training.parts.optimizers = context.optimizers = update.optimizers
        if runner.place.ranks is None and not runner.settings.keep_trained and context.step is None:
            _forget(context, training.subject)
        if inspector is not None and curves.stop != "interrupted":
            context.tell(PROBES, "", None)
            inspector.trained(context, curves)
        return curves

    def verify(self, curves: Curves) -> None:
        """Adds what is asked once the run has passed."""
        if self.context is not None and self.constant is not None:
            training = self.training
            about = training.about_supervision
            verify(self.context, curves, training.parts, self.constant, about, sharded=training.is_sharded)

    def twins(self, curves: Curves) -> tuple[TwinResult, ...]:
        """The same run, executed otherwise, where that is asked for."""
        twins = self._twins
        if twins is None or self.context is None or curves.stop == "interrupted":
            return ()
        return twins.compared(self.context, curves)

    @property
    def _twins(self) -> Beside | None:
        return self.runner.callbacks.twins

    def _accepted(self, curves: Curves) -> bool:
        self.training.accepted = self.training.look(curves)
        return self.runner.callbacks.accept(self.training.accepted, curves)

    def _updates(self, context: RunContext, plan: Plan) -> tuple[Update, Update, Plan]:
        """The update of this process, the same as it is watched, and how far it may go."""
        training, inspector, ranks = self.training, self.runner.callbacks.inspector, self.runner.place.ranks
        watch = inspector.watch if inspector is not None else _as_it_is
        if ranks is None:
            update, twins = context.update(training.task, training.watch), self._twins
            beside = update if twins is None else twins.watch(context, training.subject, update)
            return update, watch(beside), plan
        from pytest_overfit.run.ranks.engine import SharedUpdate, shared_plan, shared_task

        shared = shared_task(ranks, context, unused=bool(self.runner.settings.criteria.unused))
        self.notes = (shared.note,)
        update, twins = training.update(shared.task, training.watch, context.start, shared.given), self._twins
        together: Update = SharedUpdate(watch(update), shared)
        together = together if twins is None else twins.watch(context, training.subject, together, ranks=ranks.size)
        return update, together, shared_plan(ranks, plan)


def _expect_generator(subject: Subject, settings: OverfitSettings, model: nn.Module) -> None:
    if settings.criteria.generates and subject.generated is None:
        raise OverfitError(
            f"{type(model).__name__} cannot be asked to generate",
            where="generates",
            allowed="a transformers model with a language-model head and generate(), or its Trainer",
            hint="keep_trained=True leaves the trained model: generate, and compare, with code of your own",
        )


def _as_it_is(update: Any) -> Any:
    return update


def _forget(context: RunContext, subject: Subject) -> None:
    """Drops gradients and what optimizers remember of a training that is over: large, and read by nobody.

    An optimizer that the user's code holds stays as it is: a loss that reads it is asked again.
    """
    read = {id(thing) for thing in reachable(*_code_of(subject))}
    for optimizer in context.optimizers:
        if id(optimizer) not in read:
            optimizer.state.clear()
    for parameter in context.task.model.parameters():
        parameter.grad = None


def _code_of(subject: Subject) -> Iterator[Any]:
    """What of the user's may read an optimizer: all but the optimizer that was given; modules hold theirs inside."""
    yield from (each for each in subject.callables if not isinstance(each, torch.optim.Optimizer))
    for root in (each for each in (subject.model, subject.loss) if isinstance(each, nn.Module)):
        for module in root.modules():
            yield {name: value for name, value in vars(module).items() if name not in BARE or may_hold(value)}
            if not type(module).__module__.startswith("torch."):
                yield module.forward
