"""The live parts of one run: what is trained on what, how it is asked, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Questions, users_code
from pytest_overfit.run.as_loss import as_loss
from pytest_overfit.run.batch import fingerprint, freeze_batch
from pytest_overfit.run.call_task import CallTask, count_positional
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.evaluated import evaluation_of
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.influence import without
from pytest_overfit.run.isolation import restored_process
from pytest_overfit.run.loop import Curves, Plan, evaluating
from pytest_overfit.run.loss_call import LossCall
from pytest_overfit.run.make_record import Outcome, Parts, read_every
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.optim import (
    GradientClipper,
    check_declarations,
    collect_optimizers,
    expect_default,
    expect_scheduled,
    follow_model,
    freeze,
    to_device,
)
from pytest_overfit.run.record import Generated
from pytest_overfit.run.sample import Sample
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.supervision_probe import mapped, nudged, probe_batch
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.run.task import Precision
from pytest_overfit.run.update import OwnUpdate, PlainUpdate, Update, optimizers_heard, own_step
from pytest_overfit.run.watchdog import Watchdog
from pytest_overfit.settings.settings import ClipGroup, OverfitSettings
from pytest_overfit.untrusted.objects import defines

if TYPE_CHECKING:
    from pytest_overfit.run.ranks.group import Ranks

DEFAULT_STEPS = 1000


def planned_steps(settings: OverfitSettings) -> int:
    """The most steps of a run."""
    return settings.budget.max_steps or DEFAULT_STEPS


@dataclass(frozen=True)
class RunRequest:
    """One run as it was asked for.

    Args:
        subject: what is trained, its model built.
        sample: its batches, on the host.
        snapshot: puts back whatever the run changes.
        watchdog: limits the run.
    """

    subject: Subject
    settings: OverfitSettings
    seed: int
    sample: Sample
    snapshot: Snapshot
    watchdog: Watchdog
    questions: Questions


class Training:
    """The live parts of one run.

    Args:
        model: what is trained as one module; it is brought to the device. ``given`` as the user gave it.
        ranks: all processes of the launch, where there are several.
    """

    def __init__(
        self,
        request: RunRequest,
        model: nn.Module,
        device: torch.device,
        *,
        given: Any = None,
        ranks: Ranks | None = None,
    ) -> None:
        subject, settings, sample = request.subject, request.settings, request.sample
        self.request, self.subject, self.settings, self.ranks = request, subject, settings, ranks
        self.snapshot, self.questions = request.snapshot, request.questions
        self.about_supervision = self.questions.apart()
        self.placed, self.has_moved = to_device(model, device)
        self.task = _task(subject, settings, model, subject.model if given is None else given, sample, device)
        self._materialise()
        self.frozen = freeze(model, settings.freeze, where=subject.key("freeze"))
        check_declarations(model, settings.criteria)
        strict = subject.key("clip_grad_norm") if settings.clip_grad_norm else ""
        self.clip = GradientClipper(model, _clip_groups(subject, settings), strict=strict)
        self.has_nothing_to_train = False
        self.handed, self.optimizers = self._optimizers()
        expect_scheduled(subject.schedules, self.optimizers)
        self.watch = GradientWatch(model, getattr(ranks, "total_of_shards", None), infinite=settings.criteria.infinite)
        self.parts = Parts(
            name=subject.name or type(model).__name__,
            seed=request.seed,
            planned_steps=planned_steps(settings),
            task=self.task,
            watch=self.watch,
            initial=self._initial(model),
            fingerprint=fingerprint(self.task.batch),
            differences=sample.differences,
            draws=sample.draws,
            randomness=sample.randomness,
            frozen=self.frozen,
            gradient_every=settings.probes.gradient_every,
        )
        self.accepted: Outcome | None = None

    @property
    def is_sharded(self) -> bool:
        return self.ranks is not None and self.ranks.shards_models

    def plan(self) -> Plan:
        """How far the run may go, and what it has to reach."""
        settings, subject, watchdog = self.settings, self.subject, self.request.watchdog
        return Plan(
            max_steps=self.parts.planned_steps,
            max_seconds=settings.budget.max_seconds,
            hold_steps=settings.budget.hold_steps,
            alive=watchdog.alive,
            limits=settings.criteria.limits(),
            val_every=subject.val_every,
            gradient_every=settings.probes.gradient_every,
            read_every=read_every(self.task.device),
            schedules=subject.schedules,
            strict_terms=True,
            measure=subject.application.numbers,
            infinite=settings.criteria.infinite,
        )

    def context(self, plan: Plan) -> RunContext:
        """The run laid open."""
        subject, start = self.subject, self.snapshot
        if self.frozen.matches or self.has_moved or any(start.value(p) is None for p in self.task.model.parameters()):
            start = self._state_now()
        return RunContext(
            task=self.task,
            plan=plan,
            seed=self.request.seed,
            start=start,
            update=lambda task, watch, given=None: self.update(task, watch, start, given),
            optimizers=self.optimizers,
            initial=self.parts.initial,
            clip=self.clip,
            frozen=self.frozen,
            step=self._step(self.task.given),
            handed=self.handed,
            request=self.request,
            drawn=subject.data if callable(subject.data) and not defines(subject.data, "__iter__") else None,
            callables=subject.callables,
            loads=subject.loads,
            watchdog=self.request.watchdog,
        )

    def update(self, task: CallTask, watch: GradientWatch, start: Snapshot, given: Any = None) -> Update:
        """One training step of a task.

        Args:
            start: takes what is found on the way, as the snapshot of the run does.
            given: what a step of the user's gets as its model; None: as it was given.
        """
        step = self._step(self.task.given if given is None else given)
        if step is None:
            return PlainUpdate(task, self.optimizers, watch, clip=self.clip, frozen=self.frozen)

        def found(optimizer: Optimizer) -> None:
            for snapshot in (self.snapshot, start):
                snapshot.add(optimizer)

        return OwnUpdate(task, step, self.optimizers, watch, found, frozen=self.frozen)

    def probe(self) -> Supervision | None:
        """What the loss answers to, where the settings ask for it. Everything is put back before it returns."""
        asks = self.subject.application.probe is not None or bool(self.settings.criteria.supervised)
        if not asks or not self.settings.probes.sensitivity:
            return None
        return nudged(self.task.model, self.parts.initial, self._probe)

    def _probe(self) -> Supervision:
        inner = self._state_now()

        def heard(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            self.snapshot.add(optimizer)
            inner.add(optimizer)

        with optimizers_heard(heard):
            # A step makes the verdict, whatever loss stands beside it.
            call = LossCall(self.task, inner, seed=self.request.seed, step=self._step(self.task.given))
            return mapped(self.subject.application.probe or probe_batch, call, self.about_supervision)

    def known(self, supervision: Supervision | None) -> None:
        """Keeps what the loss answers to."""
        if supervision is not None:
            self.parts.supervision = without(supervision, self.subject.discarded)

    def generated(self, curves: Curves) -> Generated | None:
        """What the trained model generates, where that is asked for; else, of a decoder, what it predicts."""
        wanted, generated = self.settings.criteria.generates, self.subject.generated
        if curves.stop == "interrupted" or generated is None:
            return None
        with restored_process(), evaluating(self.task.model):
            said = generated(self.task.batch, True) if wanted else None
            ahead = self.questions.ask("what it predicts", lambda: generated(self.task.batch, False), otherwise=None)
        return ahead if said is None else said if ahead is None else replace(said, ahead=ahead.ahead)

    def look(self, curves: Curves, *, once_more: bool = False) -> Outcome:
        """The model as it is now, in evaluation mode: against training, and against the ground truth."""
        task, outcome = self.task, Outcome()
        if task.predictor is not None:
            with evaluating(task.model):
                predictions = task.predict(task.batch)
                frames = self.subject.application.compare(predictions, task.batch)
            mapping = isinstance(predictions, Mapping)
            keys = tuple(map(str, predictions)) if mapping else (type(predictions).__name__,)
            outcome = Outcome(None, frames, keys)
        if task.val_batch is not None and curves.steps:
            again = self._asked_now if once_more and self.ranks is None else None
            outcome = replace(outcome, evaluation=evaluation_of(task, curves, again, self.questions))
        return outcome

    def show(self, curves: Curves, observers: Sequence[Observer]) -> None:
        """Gives the observers what the model predicts now, in evaluation mode: pictures, and its numbers where no
        validation has told them.
        """
        task, application = self.task, self.subject.application
        seeing = [o for o in observers if self.subject.shows_pictures or o.wants_pictures]
        collective = self.is_sharded  # where all ranks look, or none does
        if task.predictor is None or not (collective or seeing or (observers and task.val_batch is None)):
            return
        with evaluating(task.model), users_code():
            predictions = task.predict(task.batch)
        numbers = application.numbers(predictions) if task.val_batch is None else {}
        for observer in observers if numbers else ():
            observer.on_numbers(len(curves.steps), numbers)
        if seeing and (pictures := application.pictures(predictions, task.batch)):
            for observer in seeing:
                observer.on_pictures(pictures)

    def _step(self, given: Any) -> Callable[[Any], Any] | None:
        """The user's step as a call with a batch, mixed precision around it; None where ours is used."""
        if self.subject.step is None:
            return None
        step, precision, device = own_step(self.subject.step, given, self.handed), self.task.precision, self.task.device
        if not precision.enabled:
            return step

        def within(batch: Any) -> Any:
            with precision.autocast(device):
                return step(batch)

        return within

    def _asked_now(self) -> dict[str, float]:
        return LossCall(self.task, self._state_now(), seed=self.request.seed).terms(self.task.batch)

    def _state_now(self) -> Snapshot:
        """The state of all that is trained: on its device, frozen as asked, lazy modules materialised."""
        now = Snapshot()
        for thing in (self.task.model, *self.optimizers):
            now.add(thing)
        now.add_reachable(*self.subject.callables)
        return now

    def _materialise(self) -> None:
        """Lazy modules get their shapes from one forward pass, so that an optimizer can be built."""
        lazy = any(is_lazy(p) for p in self.task.model.parameters())
        if lazy and self.task.loss is not None:
            with torch.no_grad():
                self.task.forward(self.task.batch)
            self.task.heard.clear()

    def _optimizers(self) -> tuple[Any, list[Optimizer]]:
        subject = self.subject
        own = subject.step is not None and count_positional(subject.step, 3) < 3
        expect_default(self.settings.lr, subject.key("lr"), own=own, given=subject.optimizer is not None)
        if subject.optimizer is None and own:
            return None, []
        trainable = [p for p in self.task.model.parameters() if p.requires_grad]
        self.has_nothing_to_train = not trainable and subject.optimizer is None and subject.step is None
        if not trainable and subject.optimizer is None:
            return None, []
        try:
            handed, found = collect_optimizers(subject.optimizer, trainable, lr=self.settings.lr)
        except (ValueError, OverfitError):
            if trainable or subject.step is not None:
                raise
            self.has_nothing_to_train = True  # and no optimizer takes that
            return None, []
        for optimizer in found:
            self.snapshot.add(optimizer)
            follow_model(optimizer, self.placed)
        return handed, found

    def _initial(self, model: nn.Module) -> Callable[[Tensor], Tensor | None]:
        """Parameters as they are before training: the snapshot's, or a copy where they have just got their shape."""
        values = {id(now): self.snapshot.value_of(old) for old, now in self.placed.items()}
        late = {id(p): p.detach().clone() for p in model.parameters() if not is_lazy(p) and values.get(id(p)) is None}
        return lambda parameter: late.get(id(parameter), values.get(id(parameter)))


def _task(
    subject: Subject, settings: OverfitSettings, model: nn.Module, given: Any, sample: Sample, device: torch.device
) -> CallTask:
    batch = freeze_batch(sample.train, device)
    val = None if sample.val is None else freeze_batch(sample.val, device)
    own = subject.step is not None and subject.loss is None
    if own and val is not None:
        raise OverfitError(
            "a validation batch beside a step without a loss",
            where="val_data",
            allowed="a loss beside the step: loss(model, batch) is what is evaluated",
        )
    loss = None if own else subject.loss if subject.predict is not None else as_loss(subject.loss)
    amp = settings.amp or subject.amp
    precision = Precision(amp.enabled, getattr(torch, amp.dtype)) if amp else Precision()
    listened = given if subject.listened is None else subject.listened(batch)
    return CallTask(model, listened, loss, batch, device, precision, val, subject.predict)


def _clip_groups(subject: Subject, settings: OverfitSettings) -> Sequence[ClipGroup]:
    if settings.clip_grad_norm and subject.step is not None:
        raise OverfitError(
            "gradients to be clipped beside a train step of its own",
            where="clip_grad_norm",
            allowed="clip_grad_norm beside a loss, whose step is ours",
            hint=f"set {key}"
            if (key := subject.key("clip_grad_norm")) != "clip_grad_norm"
            else "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm) in the step, before optimizer.step()",
        )
    return settings.clip_grad_norm or subject.clip
